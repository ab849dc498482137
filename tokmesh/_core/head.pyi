from tokmesh._core.principal import ApiKey, Grant
from tokmesh._core.router import Router

class Rejected(Exception):
    status: int
    code: str
    counter: int
    def __init__(self, status: int, code: str, counter: int) -> None: ...

def check_request_line(line: bytes) -> tuple[str, str, bool]: ...

class Head:
    method: str
    path: str
    query: str
    http10: bool
    keep_alive: bool
    chunked: bool
    expects_continue: bool
    body_size: int
    request_id: str | None
    credential: bytes | None
    credential_conflict: bool
    headers: dict[str, str]
    method_index: int
    route_number: int
    template_index: int
    params: tuple[str, ...]
    allow: str | None
    bad_path: bool
    is_validate: bool
    grant: Grant | None
    admitted: ApiKey | None
    def __init__(
        self, method: str, target: str, http10: bool, fields: list[tuple[bytes, bytes]], keep_alive: bool
    ) -> None: ...
    def resolve(self, router: Router, method_index: int, validate_number: int) -> None: ...

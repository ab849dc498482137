from pathlib import Path
from typing import Any

from tokmesh._core.principal import ApiKey

class Request:
    body: bytes
    request_id: str
    api_key: ApiKey | None
    peer_ip: str
    is_local: bool
    trace: Any
    @property
    def body_file(self) -> Path | None: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def params(self) -> tuple[str, ...]: ...
    def header(self, name: str) -> str | None: ...
    def query_args(self) -> dict[str, str]: ...

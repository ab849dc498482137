from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network

ROLES: dict[str, int]

class Role(IntEnum):
    ROLE_METRICS = 1
    ROLE_VALIDATOR = 2
    ROLE_ISSUER = 4
    ROLE_ADMIN = 8

class Refusal(IntEnum):
    GRANTED = 0
    GRANT_STALE = 1
    KEY_DISABLED = 2
    KEY_EXPIRED = 3
    KEY_RATE_LIMITED = 4

class ApiKey:
    key_id: str
    role_name: str
    role: int
    active: bool
    expires_at_ms: int
    generation: int
    networks: tuple[IPv4Network | IPv6Network, ...] | None
    rate_per_second: float
    def __init__(
        self,
        key_id: str,
        role: str,
        *,
        active: bool = True,
        expires_at_ms: int = 0,
        networks: tuple[IPv4Network | IPv6Network, ...] | None = None,
        rate_per_second: float = 0.0,
    ) -> None: ...
    def set_active(self, active: bool) -> None: ...

class Grant:
    api_key: ApiKey
    generation: int
    verified_until_ms: int
    def __init__(self, api_key: ApiKey, verified_until_ms: int) -> None: ...
    def refusal(self, now_ms: int) -> int: ...

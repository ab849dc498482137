from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from logging import Logger
from typing import Any, Protocol

from tokmesh._core.clock import Clock
from tokmesh._core.counters import CounterBlock
from tokmesh._core.head import Head
from tokmesh._core.meter import Meter
from tokmesh._core.principal import Grant
from tokmesh._core.request import Request
from tokmesh._core.router import Router, _Routed
from tokmesh._core.sampling import Sampler
from tokmesh._core.validate import Validator

NEVER_NS: int
TURNED_AWAY_MAX: int

class _Authenticator(Protocol):
    def cached(self, credential: bytes) -> Grant | None: ...
    def authenticate(self, credential: bytes) -> Awaitable[Grant]: ...

class _Trace(Protocol):
    @property
    def trace_id(self) -> str: ...
    def arrived(self, started_ns: int) -> None: ...
    def begin_operation(self) -> None: ...
    def refused(self, code: str) -> None: ...
    def answered(self, status: int) -> None: ...

class _Tracer(Protocol):
    def begin(
        self, method: str, template: str, http10: bool, headers: Mapping[str, str], transport: Any, started_ns: int
    ) -> _Trace: ...

class Limits:
    max_body_bytes: int
    max_head_bytes: int
    max_headers: int
    head_timeout_ms: int
    min_body_bytes_per_s: int
    max_pipelined: int
    max_write_buffer_bytes: int
    max_connections: int
    keepalive_timeout_ms: int
    max_buffered_bytes: int
    def __init__(
        self,
        *,
        max_body_bytes: int = ...,
        max_head_bytes: int = ...,
        max_headers: int = ...,
        head_timeout_ms: int = ...,
        min_body_bytes_per_s: int = ...,
        max_pipelined: int = ...,
        max_write_buffer_bytes: int = ...,
        max_connections: int = ...,
        keepalive_timeout_ms: int = ...,
        max_buffered_bytes: int = ...,
    ) -> None: ...

class Server:
    limits: Limits
    clock: Clock
    counters: CounterBlock
    meter: Meter
    router: Router
    logger: Logger
    loop: AbstractEventLoop
    sampler: Sampler
    draining: bool
    buffered_bytes: int
    slow_ns: int
    fresh_until_ns: int
    fence_reason: str
    handling: Request | None
    on_denied: Callable[[Request, str, str], None] | None
    gate: Callable[[str], None] | None
    def __init__(
        self,
        loop: AbstractEventLoop,
        routes: Iterable[_Routed],
        validator: Validator,
        clock: Clock,
        authenticator: _Authenticator,
        counters: CounterBlock,
        limits: Limits,
        logger: Logger,
        *,
        allow_list: tuple[IPv4Network | IPv6Network, ...] | None = None,
        validate_route: str = "/tokens/validate",
        sampler: Sampler | None = None,
        tracer: _Tracer | None = None,
    ) -> None: ...
    @property
    def connections(self) -> int: ...
    def begin_drain(self) -> None: ...
    async def drained(self, timeout_s: float) -> bool: ...
    async def verify(self, head: Head, peer_address: IPv4Address | IPv6Address | None) -> None: ...

def parse_peer(text: str) -> IPv4Address | IPv6Address: ...

"""What the connections of one worker share: routes, limits, rights, counters, the drain.

The server decides whether a caller may make a request, by its head alone, and whether there is room for its body; connections move
bytes. A decision is made anew for every request: what
may be remembered is that a credential was verified (Grant) and that a peer's address has passed a key's rule (Head).
"""

import os
from ipaddress import ip_address

from tokmesh._core.meter import METHODS
from tokmesh.errors import ApiError

from libc.stdint cimport int64_t

from tokmesh._core.clock cimport Clock
from tokmesh._core.counters cimport (
    AUTH_ADDRESS,
    AUTH_DISABLED,
    AUTH_EXPIRED,
    AUTH_MISSING,
    AUTH_OK,
    AUTH_RATE_LIMITED,
    AUTH_ROLE,
    CONNECTION_CLOSED,
    CONNECTION_OPENED,
    CounterBlock,
)
from tokmesh._core.head cimport Head
from tokmesh._core.meter cimport Meter
from tokmesh._core.principal cimport (
    GRANTED,
    GRANT_STALE,
    KEY_DISABLED,
    KEY_EXPIRED,
    KEY_RATE_LIMITED,
    ROLE_ADMIN,
    ROLE_ISSUER,
    ROLE_METRICS,
    ROLE_VALIDATOR,
    Grant,
)
from tokmesh._core.phases cimport tm_monotonic_ns
from tokmesh._core.request cimport Request
from tokmesh._core.response cimport Responder
from tokmesh._core.router cimport Router
from tokmesh._core.sampling cimport Sampler, parent_kind
from tokmesh._core.validate cimport Validator

TURNED_AWAY_MAX = 128    # connections beyond max_connections, each for some seconds
NEVER_NS = (1 << 63) - 1    # slow_ns and fresh_until_ns without a limit
_TICK_S = 0.5    # resolution of the `Date` field and of the connection time-outs

_KEY_ROUTES = "/admin/v1/keys"

# A role admits those above it (docs/api.md, "Keys and roles").
_ROLE_MASKS = {
    "none": 0,
    "metrics": ROLE_METRICS | ROLE_ADMIN,
    "validator": ROLE_VALIDATOR | ROLE_ISSUER | ROLE_ADMIN,
    "issuer": ROLE_ISSUER | ROLE_ADMIN,
    "admin": ROLE_ADMIN,
}


cdef class Limits:
    """Bounds of a connection, and of all together; sizes in bytes, times in ms."""

    def __init__(
        self, *, Py_ssize_t max_body_bytes=1 << 20, Py_ssize_t max_head_bytes=16384, Py_ssize_t max_headers=64,
        int64_t head_timeout_ms=10_000, int64_t min_body_bytes_per_s=1024, int max_pipelined=32,
        Py_ssize_t max_write_buffer_bytes=1 << 20, Py_ssize_t max_connections=10_000, int64_t keepalive_timeout_ms=75_000,
        Py_ssize_t max_buffered_bytes=64 << 20,
    ):
        self.max_body_bytes = max_body_bytes
        self.max_head_bytes = max_head_bytes
        self.max_headers = max_headers
        self.head_timeout_ms = head_timeout_ms
        self.min_body_bytes_per_s = min_body_bytes_per_s
        self.max_pipelined = max_pipelined
        self.max_write_buffer_bytes = max_write_buffer_bytes
        self.max_connections = max_connections
        self.keepalive_timeout_ms = keepalive_timeout_ms
        self.max_buffered_bytes = max_buffered_bytes


cdef class Server:
    """Shared state of a worker's connections.

    routes: objects with method, template, role and handler. authenticator: `cached(credential)` and `authenticate(credential)`.
    allow_list: networks every keyed caller must come from; None: any. validate_route: the template answered on the hot path.
    sampler, tracer: which requests are traced, and by whom (telemetry.tracing.tracer.Tracer); None: none is.
    """

    def __init__(self, loop, routes, Validator validator not None, Clock clock not None, authenticator,
                 CounterBlock counters not None, Limits limits not None, logger, *, allow_list=None,
                 str validate_route="/tokens/validate", Sampler sampler=None, tracer=None):
        self.loop = loop
        self.limits = limits
        self.clock = clock
        self.counters = counters
        self.logger = logger
        self.sampler = Sampler() if sampler is None else sampler
        self.tracer = tracer
        self.authenticator = authenticator
        self.networks = allow_list
        self.validator = validator
        self.router = Router(routes)
        self.meter = Meter(self.router.routes, self.router.templates)
        self.responder = Responder(int.from_bytes(os.urandom(8), "little"))
        self.responder.set_date(clock.now_ms())
        self._role_masks = tuple(_ROLE_MASKS[route.role] for route in self.router.routes)
        self._spools = tuple(getattr(route, "spool", None) for route in self.router.routes)
        self._validate_number = self.router.match("POST", validate_route)[0]
        self._tells_state = tuple(
            route.role in ("validator", "issuer") or route.template.startswith(_KEY_ROUTES) for route in self.router.routes
        )
        self.slow_ns = self.fresh_until_ns = NEVER_NS
        self.fence_reason = "stale"
        self._open = set()
        self._turned_away = set()
        self._timer = loop.call_later(_TICK_S, self._tick)

    # Connections

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._open)

    cdef void opened(self, object connection) except *:
        self._open.add(connection)
        self.counters.add(CONNECTION_OPENED, 1)

    cdef bint turns_away(self, object connection) except -1:
        """Whether a connection beyond the limit may stay until it has been told so."""
        if len(self._turned_away) >= TURNED_AWAY_MAX:
            return False
        self._turned_away.add(connection)
        return True

    cdef void closed(self, object connection) except *:
        self._turned_away.discard(connection)
        if connection in self._open:
            self._open.discard(connection)
            self.counters.add(CONNECTION_CLOSED, 1)
        if not self._open and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(_TICK_S, self._tick)
        self.responder.set_date(self.clock.now_ms())
        now_ns = self.clock.monotonic_ns()
        for connection in [*self._open, *self._turned_away]:
            connection.check_time(now_ns)

    # Stopping

    def begin_drain(self) -> None:
        """From now on every answer closes its connection; idle connections close at once."""
        self.draining = True
        for connection in list(self._open):
            connection.drain()

    async def drained(self, timeout_s: float) -> bool:
        """Waits until no connection is open; after `timeout_s` aborts those left and answers False."""
        if self._open:
            self._drained = self.loop.create_future()
            expiry = self.loop.call_later(timeout_s, _release, self._drained)
            await self._drained
            expiry.cancel()
        self._timer.cancel()
        left = list(self._open)
        for connection in [*left, *self._turned_away]:
            connection.abort()
        return not left

    # Rights

    cdef void resolve(self, Head head) except *:
        head.resolve(self.router, METHODS.index(head.method) if head.method in METHODS else 2, self._validate_number)
        if head.route_number >= 0:
            head.spool = self._spools[head.route_number]
        if self.sampler.enabled:
            head.parent = parent_kind(head.headers.get("traceparent"))

    cdef int authorize(self, Head head, int64_t now_ms, object peer_address) except -1:
        """1: may proceed. 0: the credential must be verified first. Raises ApiError when it may not.

        On a route without a role a credential is optional: one that is no good is as if there were none.
        """
        cdef int mask = self._role_masks[head.route_number]
        if head.credential_conflict:
            raise ApiError("TM-ARG-1003", {"reason": "two_credentials"})
        if mask != 0:
            self.require_fresh(head)  # a node that may lack a key must not say that it is no good
            return self._admit(head, now_ms, peer_address, mask)
        if head.credential is None:
            return 1
        try:
            return self._admit(head, now_ms, peer_address, mask)
        except ApiError:
            head.grant = None
            return 1

    cdef int require_fresh(self, Head head) except -1:
        """Raises TM-CLST-5030 when the route tells of sessions or keys and this node may not know of all that was acknowledged."""
        if tm_monotonic_ns() > self.fresh_until_ns and self._tells_state[head.route_number]:
            raise ApiError("TM-CLST-5030", {"reason": self.fence_reason}, retry_after_s=1)
        return 0

    cdef bint has_room(self, Py_ssize_t body_bytes, Py_ssize_t charged_bytes) except -1:
        """Whether a body may be held beside all that is, of which `charged_bytes` are the asking connection's own."""
        return self.buffered_bytes - charged_bytes + body_bytes <= self.limits.max_buffered_bytes

    cdef int _admit(self, Head head, int64_t now_ms, object peer_address, int mask) except -1:
        cdef int refusal
        if head.grant is None:
            if head.credential is None:
                self.counters.add(AUTH_MISSING, 1)
                raise ApiError("TM-AUTH-4010")
            head.grant = self.authenticator.cached(head.credential)
            if head.grant is None:
                return 0
        refusal = head.grant.state(now_ms)
        if refusal == GRANT_STALE:
            head.grant = self.authenticator.cached(head.credential)
            if head.grant is None:
                return 0
            refusal = head.grant.state(now_ms)
        if refusal != GRANTED:
            self._refuse(refusal)
        if not self._address_admitted(head.grant, peer_address):
            self.counters.add(AUTH_ADDRESS, 1)
            raise ApiError("TM-AUTH-4031")
        if mask and not mask & head.grant.api_key.role:
            self.counters.add(AUTH_ROLE, 1)
            raise ApiError("TM-AUTH-4030")
        # Last: what is refused for another reason takes nothing of the rate that those have who may use the key.
        if not head.grant.api_key.take(now_ms):
            self._refuse(KEY_RATE_LIMITED)
        head.admitted = head.grant.api_key
        self.counters.add(AUTH_OK, 1)
        return 1

    cdef int _refuse(self, int refusal) except -1:
        if refusal == KEY_DISABLED or refusal == KEY_EXPIRED:
            self.counters.add(AUTH_DISABLED if refusal == KEY_DISABLED else AUTH_EXPIRED, 1)
            raise ApiError("TM-AUTH-4012")
        if refusal == GRANT_STALE:   # changed again while it was being verified
            raise ApiError("TM-SYS-5030")
        self.counters.add(AUTH_RATE_LIMITED, 1)
        raise ApiError("TM-SYS-4290", retry_after_s=1)

    cdef bint _address_admitted(self, Grant grant, object peer_address) except -1:
        if self.networks is None and grant.api_key.networks is None:
            return True
        for networks in (self.networks, grant.api_key.networks):
            if networks is not None and not any(peer_address in network for network in networks):
                return False
        return True

    cdef object sign_in(self, Head head):
        """The page that asks for a key in place of the envelope: of a route that has one, for a caller that shows HTML."""
        if head.route_number < 0 or "text/html" not in head.headers.get("accept", ""):
            return None
        return getattr(self.router.routes[head.route_number], "sign_in", None)

    async def verify(self, Head head not None, peer_address) -> None:
        """Verifies the head's credential (Argon2 when it is not cached), then authorizes. Raises ApiError."""
        optional = self._role_masks[head.route_number] == 0
        try:
            head.grant = await self.authenticator.authenticate(head.credential)
            if not self.authorize(head, self.clock.read_ms(), peer_address):
                raise ApiError("TM-SYS-5030")
        except ApiError:
            if not optional:
                raise
            head.grant = None

    # Telling

    cdef object begin_trace(self, Head head, object transport, int64_t started_ns):
        """The spans of a request that the sampler has chosen."""
        return self.tracer.begin(head.method, self.meter.templates[head.template_index], head.http10, head.headers, transport,
                                 started_ns)

    cdef void answered(self, Request request, int status, int64_t now_ns) except *:
        """The answer to a request is put out: counts it, ends its spans, and tells of it if it was slow."""
        cdef int64_t elapsed_ns = now_ns - request.started_ns
        self.meter.observe(request.head.method_index, request.head.template_index, status, elapsed_ns)
        if elapsed_ns >= self.slow_ns:
            self.tell_slow(request, status, elapsed_ns)
        if request.trace is not None:
            self.meter.note_exemplar(request.head.method_index, request.head.template_index, status, elapsed_ns,
                                     request.trace.trace_id, self.clock.at_ms(now_ns))
            request.trace.answered(status)

    cdef void tell_slow(self, Request request, int status, int64_t elapsed_ns) except *:
        """Logs a request that took as long as `slow_ns` or longer, and where the time went."""
        cdef Head head = request.head
        cdef int64_t write_ns = 0, lookup_ns = elapsed_ns - request.phases.log_wait_ns
        if request.phases.mark_ns != 0:
            write_ns = max(0, request.started_ns + elapsed_ns - request.phases.mark_ns)
        lookup_ns -= write_ns
        if not request.waited:    # else its time began when its body was here
            lookup_ns -= request.phases.parse_ns + request.phases.auth_ns
        api_key = request.api_key if head.grant is None else head.grant.api_key
        facts = {
            "request_id": request.request_id, "method": METHODS[head.method_index],
            "route": self.meter.templates[head.template_index], "status": status,
            "key_id": "" if api_key is None else api_key.key_id, "duration_ms": _ms(elapsed_ns),
            "queue_ms": _ms(request.phases.queue_ns), "parse_ms": _ms(request.phases.parse_ns),
            "auth_ms": _ms(request.phases.auth_ns), "lookup_ms": _ms(max(0, lookup_ns)),
            "log_wait_ms": _ms(request.phases.log_wait_ns), "write_ms": _ms(write_ns),
        }
        self.logger.warning("slow request", extra=facts)

    cdef void tell_denied(self, Request request, str code) except *:
        """Tells of a refused attempt at administration."""
        cdef int number = request.head.route_number
        if self.on_denied is None or number < 0 or self._role_masks[number] != ROLE_ADMIN:
            return
        if request.head.grant is not None:
            request.api_key = request.head.grant.api_key
        self.on_denied(request, self.router.routes[number].template, code)


def _ms(int64_t elapsed_ns) -> float:
    return round(elapsed_ns / 1e6, 3)


def _release(waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)


def parse_peer(text: str):
    """The peer's address as an ipaddress object; an IPv4 address mapped into IPv6 as IPv4."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address

"""From a sampled request to its spans: one for the request and, once its key is accepted, one for what it asked for.

The wire path decides who is sampled (`_core/sampling`) and then calls, in this order and on the loop's thread: `begin`, perhaps
`arrived`, `begin_operation`, perhaps `refused`, `answered`. What a span says follows OpenTelemetry's semantic conventions for
HTTP servers; the route is always the template.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from tokmesh._core.clock import monotonic_ns
from tokmesh._core.sampling import Sampler, has_parent
from tokmesh.telemetry.tracing.span import SERVER, Attributes, Span, TraceContext
from tokmesh.telemetry.tracing.trace_state import parse_trace_state

# The internal step of a route; the routes not named here have none.
OPERATIONS: Final = {
    ("POST", "/sessions"): "session create",
    ("POST", "/tokens/validate"): "token validate",
    ("POST", "/tokens/validate/batch"): "token validate batch",
}
UNMATCHED: Final = "unmatched"
_TWO_TO_64: Final = 1 << 64


class Settings(Protocol):
    """The part of `telemetry.tracing` that decides who is sampled."""

    @property
    def sampling_ratio(self) -> float: ...
    @property
    def max_traces_per_second(self) -> int: ...


class Transport(Protocol):
    """A connection's transport, as asyncio has it."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Tracer:
    """Begins traces. random: fresh random bytes; offer: takes ended spans; wall_ns, monotonic_ns: clocks."""

    def __init__(
        self,
        sampler: Sampler,
        random: Callable[[int], bytes],
        offer: Callable[[Span], None],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._sampler = sampler
        self._random = random
        self._offer = offer
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._threshold = 0

    def configure(self, settings: Settings) -> None:
        """Samples by these settings from now on."""
        self._threshold = round(settings.sampling_ratio * _TWO_TO_64)
        self._sampler.configure(settings.sampling_ratio, settings.max_traces_per_second)

    def begin(
        self, method: str, template: str, http10: bool, headers: Mapping[str, str], transport: Transport | None, started_ns: int
    ) -> "RequestTrace":
        """The trace of a request that is sampled. template: "unmatched" when there is no route; started_ns: monotonic."""
        traceparent = headers.get("traceparent")
        if traceparent is not None and has_parent(traceparent):
            trace_id, parent_id = bytes.fromhex(traceparent[3:35]), bytes.fromhex(traceparent[36:52])
            trace_state = parse_trace_state(headers.get("tracestate"))
        else:
            trace_id, parent_id, trace_state = self._new_trace_id(), b"", ""
        offset_ns = self._wall_ns() - self._monotonic_ns()
        context = TraceContext(trace_id, parent_id, trace_state, offset_ns, self._random, self._offer)
        name = method if template == UNMATCHED else f"{method} {template}"
        span = Span(context, name, SERVER, None, started_ns, _attributes(method, template, http10, transport))
        return RequestTrace(span, OPERATIONS.get((method, template)), self._monotonic_ns)

    def _new_trace_id(self) -> bytes:
        """Random, its lower half below the ratio's threshold: others that sample by trace id come to the same decision."""
        drawn = int.from_bytes(self._random(8), "big") * self._threshold >> 64
        return self._random(8) + (drawn or 1).to_bytes(8, "big")


class RequestTrace:
    """The spans of one request. current: that of what is being done for it now; log lines and commits belong to it."""

    __slots__ = ("_monotonic_ns", "_operation", "current", "server_span")

    def __init__(self, server_span: Span, operation: str | None, monotonic_ns: Callable[[], int]) -> None:
        self.server_span = server_span
        self.current = server_span
        self._operation = operation
        self._monotonic_ns = monotonic_ns

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, as an exemplar shows it."""
        return self.server_span.ids[0]

    def arrived(self, started_ns: int) -> None:
        """All of the request is here only now: the time it took to come is the caller's, not the server's."""
        self.server_span.started_ns = started_ns

    def begin_operation(self) -> None:
        """The key is accepted; the handler begins."""
        if self._operation is not None:
            self.current = self.server_span.child(self._operation, self._monotonic_ns())

    def refused(self, code: str) -> None:
        """The answer is an error, of this code."""
        self.server_span.error = self.current.error = code

    def answered(self, status: int) -> None:
        """The answer is on its way; the spans end."""
        span, ended_ns = self.server_span, self._monotonic_ns()
        if self.current is not span:
            self.current.end(ended_ns)
        span.fixed = (*span.fixed, ("http.response.status_code", status))
        span.end(ended_ns)


def _attributes(method: str, template: str, http10: bool, transport: Transport | None) -> Attributes:
    """What is known of a request at its beginning, without anything the client chose but a known method."""
    secure = transport is not None and transport.get_extra_info("sslcontext") is not None
    attributes: list[tuple[str, str | int]] = [
        ("http.request.method", method),
        ("url.scheme", "https" if secure else "http"),
        ("network.protocol.version", "1.0" if http10 else "1.1"),
    ]
    if template != UNMATCHED:
        attributes.append(("http.route", template))
    address = None if transport is None else transport.get_extra_info("sockname")
    if isinstance(address, tuple):  # the Unix socket has a path
        attributes += [("server.address", address[0]), ("server.port", address[1])]
    return tuple(attributes)

"""A span: one timed step of a traced request. Only sampled requests have any.

A span holds no more than this file lists: names and attributes come from closed sets and numbers of our own, never from
a path, a query, a body or a credential. Wall times are a monotonic clock's readings plus one offset a trace, so that a
stepped wall clock bends no span.
"""

from collections.abc import Callable
from typing import Final

# What a span may say of itself. Values that repeat from span to span are `fixed`, and encoded once for all of them.
Attributes = tuple[tuple[str, str | int], ...]

INTERNAL: Final = 1  # SpanKind of OTLP
SERVER: Final = 2
CLIENT: Final = 3


class TraceContext:
    """What the spans of one request share. parent_id: the caller's span, b"" without one; trace_state: as it came."""

    __slots__ = ("offer", "offset_ns", "parent_id", "random", "trace_id", "trace_state")

    def __init__(
        self,
        trace_id: bytes,
        parent_id: bytes,
        trace_state: str,
        offset_ns: int,
        random: Callable[[int], bytes],
        offer: Callable[["Span"], None],
    ) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.trace_state = trace_state
        self.offset_ns = offset_ns
        self.random = random
        self.offer = offer


class Span:
    """started_ns, ended_ns: of the monotonic clock. error: what failed, "" for a span that did not."""

    __slots__ = (
        "context", "ended_ns", "error", "fixed", "is_remote_child", "kind", "measured", "name", "parent_id", "span_id",
        "started_ns",
    )  # fmt: skip

    def __init__(
        self, context: TraceContext, name: str, kind: int, parent: "Span | None", started_ns: int, fixed: Attributes
    ) -> None:
        self.context = context
        self.name = name
        self.kind = kind
        self.span_id = context.random(8)
        self.parent_id = context.parent_id if parent is None else parent.span_id
        self.is_remote_child = parent is None and bool(context.parent_id)
        self.started_ns = started_ns
        self.ended_ns = 0
        self.fixed = fixed
        self.measured: Attributes = ()
        self.error = ""

    def child(self, name: str, started_ns: int) -> "Span":
        """An internal step of this one."""
        return Span(self.context, name, INTERNAL, self, started_ns, ())

    def end(self, ended_ns: int) -> None:
        """Hands the span over, once."""
        self.ended_ns = ended_ns
        self.context.offer(self)

    def propagated(self) -> dict[str, str]:
        """The headers of a message that is sent within it, after W3C Trace Context."""
        trace_id, span_id = self.ids
        headers = {"traceparent": f"00-{trace_id}-{span_id}-01"}
        if self.context.trace_state:
            headers["tracestate"] = self.context.trace_state
        return headers

    @property
    def ids(self) -> tuple[str, str]:
        """Trace id and span id in hexadecimal, as logs and exemplars show them."""
        return self.context.trace_id.hex(), self.span_id.hex()

"""Questions to other nodes as spans: from the sending until the answer, and whose they are in their headers.

For what a traced request asks; what nobody traces costs a call, and with tracing off not even that. Headers follow W3C Trace
Context. The node asked, the session and the subject are no attributes.
"""

from collections.abc import Callable
from typing import Final

from tokmesh._core.clock import monotonic_ns
from tokmesh.telemetry.tracing.span import CLIENT, Attributes, Span

SPAN_NAME: Final = "node ask"
ANSWERED: Final = frozenset(("answered", "refused"))


class TracedQuestion:
    """headers: of its message."""

    __slots__ = ("_monotonic_ns", "_span", "headers")

    def __init__(self, span: Span, headers: dict[str, str], monotonic_ns: Callable[[], int]) -> None:
        self._span = span
        self._monotonic_ns = monotonic_ns
        self.headers = headers

    def ended(self, outcome: str) -> None:
        """What it came to, once."""
        span = self._span
        span.measured = (("tokmesh.ask.outcome", outcome),)
        if outcome not in ANSWERED:
            span.error = "TM-CLST-5030"
        span.end(self._monotonic_ns())


class TracedAsking:
    """current: the span of what is being done, None when it is not traced."""

    def __init__(self, current: Callable[[], Span | None], *, monotonic_ns: Callable[[], int] = monotonic_ns) -> None:
        self.current = current
        self._monotonic_ns = monotonic_ns

    def begin(self, operation: str, parent: Span | None) -> TracedQuestion | None:
        """To be called before it is sent."""
        if parent is None:
            return None
        fixed: Attributes = (
            ("messaging.system", "nats"),
            ("messaging.operation.name", "request"),
            ("messaging.operation.type", "send"),
            ("tokmesh.ask.operation", operation),
        )
        span = Span(parent.context, SPAN_NAME, CLIENT, parent, self._monotonic_ns(), fixed)
        return TracedQuestion(span, span.propagated(), self._monotonic_ns)

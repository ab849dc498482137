"""Publications to the cluster's stream as spans: from the sending until the outcome is known, and whose they are in their headers.

For records that a traced request proposes; what nobody traces costs a call, and with tracing off not even that. Headers follow W3C
Trace Context, so that whoever reads the stream can tell which request a record came from. A subject is no attribute: it tells of
one session.
"""

from collections.abc import Callable
from typing import Final, Protocol

from tokmesh._core.clock import monotonic_ns
from tokmesh.errors import ApiError
from tokmesh.telemetry.tracing.span import CLIENT, Attributes, Span

SPAN_NAME: Final = "stream publish"


class Traceable(Protocol):
    """A publication. Told exactly one of `stored` (its place in the stream) and `failed`; attempts: how often it was sent."""

    headers: dict[str, str]
    stored: Callable[[int], None]
    failed: Callable[[ApiError], None]
    attempts: int


class TracedPublishing:
    """stream: its name. current: the span of who proposes, None when it is not traced."""

    def __init__(
        self, stream: str, current: Callable[[], Span | None], *, monotonic_ns: Callable[[], int] = monotonic_ns
    ) -> None:
        self._current = current
        self._monotonic_ns = monotonic_ns
        self._attributes: Attributes = (
            ("messaging.system", "nats"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", stream),
        )

    def begin(self, publication: Traceable) -> None:
        """To be called before it is sent for the first time."""
        parent = self._current()
        if parent is None:
            return
        span = Span(parent.context, SPAN_NAME, CLIENT, parent, self._monotonic_ns(), self._attributes)
        publication.headers.update(span.propagated())
        stored, failed = publication.stored, publication.failed

        def is_stored(sequence: int) -> None:
            span.measured = (("tokmesh.stream.sequence", sequence), ("tokmesh.publish.attempts", publication.attempts))
            span.end(self._monotonic_ns())
            stored(sequence)

        def has_failed(error: ApiError) -> None:
            span.measured = (("tokmesh.publish.attempts", publication.attempts),)
            span.error = error.code
            span.end(self._monotonic_ns())
            failed(error)

        publication.stored, publication.failed = is_stored, has_failed

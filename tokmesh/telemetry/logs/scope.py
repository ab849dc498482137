"""What a line belongs to: the request that is being handled when it is logged, however deep inside.

The serving loop handles one request at a time between two waits, and the wire path notes which. So there is nothing to carry
through the calls: a line logged on the loop's thread belongs to that request, a line of another thread to none. A line that
names its request itself keeps what it says.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokmesh._core.request import Request
    from tokmesh.telemetry.tracing.span import Span

Fields = Mapping[str, str]


class ScopeFilter(logging.Filter):
    """Adds the fields of the request under way to records of the thread that handles requests. It keeps no record back."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: Callable[[], Fields] = dict
        self._thread_id = 0

    def follow(self, fields: Callable[[], Fields]) -> None:
        """From now on asks `fields` for each record of the calling thread: {} or `request_id` and others of a request."""
        self._thread_id = threading.get_ident()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        if record.thread == self._thread_id:
            for name, value in self._fields().items():
                record.__dict__.setdefault(name, value)
        return True


def scope_of(request: "Request | None", span: "Span | None") -> dict[str, str]:
    """The fields of a log line that belongs to a request, and to a span if that is traced."""
    if request is None:
        return {}
    if span is None:
        return {"request_id": request.request_id}
    trace_id, span_id = span.ids
    return {"request_id": request.request_id, "trace_id": trace_id, "span_id": span_id}

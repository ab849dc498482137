"""What metrics tell of tracing. Written by the loop and the exporter's thread, each its own words; read by any scrape."""

from typing import Final

# Why a span was lost: the queue was full; the receiver took the request but not this span; the receiver refused the
# request; the process ended first; it could not be encoded, which would be a bug of ours.
DROP_REASONS: Final = ("queue_full", "rejected", "refused", "shutdown", "encoding")
# Why a request to the receiver failed: no connection, or one that broke; no answer in time; 429 or 503 and the like, to be
# tried again later; any other status; an answer of 2xx that is not OTLP's.
FAILURE_REASONS: Final = ("connection", "timeout", "busy", "status", "answer")


class TracingFigures:
    """Counts since the start; all zero while tracing is off."""

    def __init__(self) -> None:
        self.exported = 0
        self.queued = 0
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self.failures = dict.fromkeys(FAILURE_REASONS, 0)

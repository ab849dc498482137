"""How late the serving loop is: a timer that should fire every SAMPLE_SECONDS records by how much it missed.

A callback that holds the loop for a tenth of a second or more is seen by the next sample; shorter ones are seen as
often as a sample falls into them. The loop's own timers count in milliseconds, so that a lag below one millisecond is
noise.
"""

import asyncio
import time
from typing import Final

from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock

SAMPLE_SECONDS: Final = 0.1


class LoopLag:
    """The sampler: `start` and `stop` on the loop's thread; read from any: `histogram` (nanoseconds, one row), `due_ns`
    (monotonic time of the next sample, 0 while there is none), `last_late` (when the last sample that was late by
    SAMPLE_SECONDS or more had been due, and how late it was, in nanoseconds).
    """

    def __init__(self) -> None:
        self.histogram = HistogramBlock(1, LATENCY_BOUNDS_NS)
        self._timer: asyncio.TimerHandle | None = None
        self.due_ns = 0
        self.last_late = (0, 0)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Samples until `stop`; a second start changes nothing."""
        if self._timer is None:
            self._schedule(loop)

    def stop(self) -> None:
        """Ends sampling; the histogram stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.due_ns = 0

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self.due_ns = time.monotonic_ns() + int(SAMPLE_SECONDS * 1e9)
        self._timer = loop.call_later(SAMPLE_SECONDS, self._sample, loop)

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        lag_ns = max(0, time.monotonic_ns() - self.due_ns)
        self.histogram.record(0, lag_ns)
        if lag_ns >= SAMPLE_SECONDS * 1e9:
            self.last_late = (self.due_ns, lag_ns)
        self._schedule(loop)

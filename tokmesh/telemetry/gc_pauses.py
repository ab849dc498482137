"""How long Python's garbage collector stops the process, and what it finds.

The interpreter calls back at the start and the end of each collection, in whatever thread set it off, one at a time. The
callback does a clock reading and a few additions; collections are rare.
"""

import gc
import time
from typing import Any, Final

from tokmesh._core.counters import CounterBlock
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock

GENERATIONS: Final = 3


class GcPauses:
    """histogram: pauses in nanoseconds, a row a generation; collected, uncollectable: objects, by generation."""

    def __init__(self) -> None:
        self.histogram = HistogramBlock(GENERATIONS, LATENCY_BOUNDS_NS)
        self.collected = CounterBlock(GENERATIONS)
        self.uncollectable = CounterBlock(GENERATIONS)
        self._started_ns = 0

    def start(self) -> None:
        """Measures every collection until `stop`."""
        if self._on_collection not in gc.callbacks:
            gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        """Ends measuring; the figures stay."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._started_ns = time.perf_counter_ns()
        elif self._started_ns:  # an end without a start is that of the collection in which we were added
            generation = info["generation"]
            self.histogram.record(generation, time.perf_counter_ns() - self._started_ns)
            self.collected.increment(generation, info["collected"])
            self.uncollectable.increment(generation, info["uncollectable"])
            self._started_ns = 0

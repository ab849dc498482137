"""Tells what holds the serving loop: when it has not run for longer than a threshold, the stack it is stuck in is logged.

A thread looks at the sampler of the loop's lag. Invariants: a stall is counted and logged once, with the stack, while it
lasts, and once more when it ends, with its whole duration; a process that was stopped and continued (SIGSTOP, a paused
machine) was not stalled. A C function that keeps the interpreter lock keeps this thread too: its stall is logged when it
lets go.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from tokmesh.telemetry.loop_lag import LoopLag

STACK_FRAMES_MAX: Final = 32
# How often the thread looks: often enough that a stall is told soon after the threshold, seldom enough to cost nothing.
LOOK_SECONDS_MIN: Final = 0.05
LOOK_SECONDS_MAX: Final = 0.25
STOP_SECONDS_MAX: Final = 2.0

logger = logging.getLogger("tokmesh.watchdog")


class Watchdog:
    """lag: the sampler of the loop to watch, started before this. `stalls`: how many there were, read from any thread.

    monotonic_ns, cpu_time: the clocks, of the machine and of this process's CPU time in seconds.
    """

    def __init__(
        self,
        lag: LoopLag,
        threshold_seconds: float,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        cpu_time: Callable[[], float] = time.process_time,
    ) -> None:
        self.stalls = 0
        self._lag = lag
        self._threshold_ns = int(threshold_seconds * 1e9)
        self._look_seconds = min(LOOK_SECONDS_MAX, max(LOOK_SECONDS_MIN, threshold_seconds / 4))
        self._monotonic_ns = monotonic_ns
        self._cpu_time = cpu_time
        self._looked = (monotonic_ns(), cpu_time())
        self._stalled_sample: int | None = None  # when the sample was due that did not come
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched = 0

    def start(self) -> None:
        """Watches the calling thread, which runs the loop, until `stop`."""
        assert self._thread is None, "started before"
        self._watched = threading.get_ident()
        self._looked = (self._monotonic_ns(), self._cpu_time())
        self._thread = threading.Thread(target=self._run, name="tokmesh-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends watching; nothing happens to one that was not started."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS_MIN if self._stalled_sample is not None else self._look_seconds):
            self.look()

    def look(self) -> None:
        """Compares the loop's next sample with the time, and tells of a stall that has begun or ended."""
        now_ns, cpu_seconds = self._monotonic_ns(), self._cpu_time()
        (before_ns, cpu_before), self._looked = self._looked, (now_ns, cpu_seconds)
        due_ns = self._lag.due_ns
        if self._stalled_sample is not None:
            if due_ns != self._stalled_sample:
                sample, lag_ns = self._lag.last_late
                self._tell_end(lag_ns if sample == self._stalled_sample else now_ns - self._stalled_sample)
            return
        away_seconds = (now_ns - before_ns) / 1e9 - self._look_seconds
        if away_seconds * 1e9 >= self._threshold_ns / 2 and cpu_seconds - cpu_before < away_seconds / 2:
            return  # nobody ran, we neither: the loop gets another look's time to catch up
        if due_ns and now_ns - due_ns >= self._threshold_ns:
            self._stalled_sample = due_ns
            self._tell_begin(now_ns - due_ns)

    def _tell_begin(self, late_ns: int) -> None:
        self.stalls += 1
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame, STACK_FRAMES_MAX)).rstrip() if frame is not None else None
        # Not logger.warning(stack_info=True): that would be the stack of this thread.
        record = logger.makeRecord(
            logger.name, logging.WARNING, __file__, 0, "the event loop is held", (), None,
            extra={"held_seconds": round(late_ns / 1e9, 3)}, sinfo=stack,
        )  # fmt: skip
        if logger.isEnabledFor(logging.WARNING):
            logger.handle(record)

    def _tell_end(self, lag_ns: int) -> None:
        self._stalled_sample = None
        logger.warning("the event loop goes on", extra={"held_seconds": round(lag_ns / 1e9, 3)})

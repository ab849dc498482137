"""Gives memory back to the system when a flood of connections is over.

The heap's blocks of a flood are freed with its connections, but their pages stay the process's, since a few small things that live
on lie between them: 2000 connections that had sent 15 KB each left 38 MB resident for good. Trimming takes some milliseconds, so it
follows a flood only, outside of the loop's thread, and no more than once in TRIM_INTERVAL_S.
"""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

LOOK_INTERVAL_S: Final = 1.0
TRIM_INTERVAL_S: Final = 30.0
CLOSED_MIN: Final = 500  # connections fewer than at the height: what makes it a flood that is over


def trim_heap() -> None:
    """malloc_trim(3), where the C library has it."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class HeapKeeper:
    """Looks every second, from `start` to `stop`. connections: how many are open."""

    def __init__(self, connections: Callable[[], int], trim: Callable[[], None] = trim_heap) -> None:
        self._connections = connections
        self._trim = trim
        self._height = 0  # most connections seen since the last trim
        self._rests_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins; once."""
        self._timer = loop.call_later(LOOK_INTERVAL_S, self._step, loop)

    def stop(self) -> None:
        """Ends; a trim under way ends by itself."""
        if self._timer is not None:
            self._timer.cancel()

    def due(self, now_s: float) -> bool:
        """Whether a flood is over and the last trim long enough ago; now_s: of a clock that does not go back."""
        count = self._connections()
        self._height = max(self._height, count)
        if self._height - count < CLOSED_MIN or now_s < self._rests_until_s:
            return False
        self._height = count
        self._rests_until_s = now_s + TRIM_INTERVAL_S
        return True

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_INTERVAL_S, self._step, loop)
        if self.due(loop.time()):
            loop.run_in_executor(None, self._trim)

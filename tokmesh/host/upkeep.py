"""Periodic work on the loop: expiry, and durable notes of who was touched.

Each step is bounded by a budget, so that no step keeps requests waiting; while a backlog remains, steps follow each
other quickly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tokmesh.errors import ApiError

SWEEP_INTERVAL_S: Final = 0.1
SWEEP_INTERVAL_BACKLOG_S: Final = 0.005
SWEEP_BUDGET: Final = 2000
FLUSH_INTERVAL_S: Final = 1.0

_logger = logging.getLogger("tokmesh.server")


class Upkeep:
    """Runs from `start` to `stop`.

    sweep: (budget) → entries still due. flush_touched: writes down what was touched; raises ApiError when the log takes
    no writes, which the readiness of the log already tells, so the next interval just tries again.
    """

    def __init__(self, sweep: Callable[[int], int], flush_touched: Callable[[], Awaitable[object]]) -> None:
        self._sweep = sweep
        self._flush_touched = flush_touched
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flusher: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins; once."""
        assert self._loop is None
        self._loop = loop
        self._flusher = loop.create_task(self._flush_always(), name="tokmesh-flush")
        self._step()

    async def stop(self) -> None:
        """Ends the work, after one last flush."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.wait([self._flusher])
            await self._flush()

    def _step(self) -> None:
        assert self._loop is not None
        backlog = 0
        try:
            backlog = self._sweep(SWEEP_BUDGET)
        finally:  # the next step is due even if this one met a bug, which the loop logs
            delay = SWEEP_INTERVAL_BACKLOG_S if backlog > 0 else SWEEP_INTERVAL_S
            self._timer = self._loop.call_later(delay, self._step)

    async def _flush_always(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self._flush_touched()
        except ApiError as error:
            _logger.debug("touches wait for the log", extra={"code": error.code})
        except Exception:  # a bug of ours; the next flush may fare better
            _logger.exception("touches could not be flushed")

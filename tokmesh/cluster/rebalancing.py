"""Gets the shards that this node is to hold, and leaves those that it is not: one load or one leaving at a time, while it lives.

holding.py decides, loading.py does; what was left is forgotten piece by piece, and nothing is loaded before that is done.

That members which are away are not to be waited for is told to all nodes beside the stream, in a message without contents; each
judges for itself who is away. It is of that moment, so that nobody who comes later is to hear of it, and no promise rests on it:
a node that did not hear it waits as long as it would have.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh.cluster.ending import end
from tokmesh.cluster.holding import Holding
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import Link
from tokmesh.cluster.loading import LoadFailed, Loading
from tokmesh.errors import ApiError

TICK_S: Final = 0.1
RETRY_S: Final = 1.0
FORGET_ENTRIES: Final = 2_000  # at a time: less than a millisecond

logger = logging.getLogger("tokmesh.cluster")


class Forgets(Protocol):
    """The table."""

    @property
    def forgetting(self) -> int: ...
    def forget(self, budget: int) -> int: ...


class Rebalancing:
    """Of one node, which hears from `listen` on and moves from `start` to `stop`. subject: of what is told to all nodes; may_move:
    whether this node is in a state to get or leave anything."""

    def __init__(
        self,
        link: Link,
        subject: str,
        holding: Holding,
        loading: Loading,
        table: Forgets,
        clock: Clock,
        may_move: Callable[[], bool],
    ) -> None:
        self._link = link
        self._subject = subject
        self._holding = holding
        self._loading = loading
        self._table = table
        self._clock = clock
        self._may_move = may_move
        self._task: asyncio.Task[None] | None = None
        self.loads_failed_total = 0

    async def listen(self) -> None:
        """Hears who is told not to wait."""
        await self._link.subscribe(self._subject, self._heard)

    def start(self) -> None:
        """Begins."""
        self._task = begin(self._run, "tokmesh-rebalancing")

    async def stop(self) -> None:
        """Ends it; what is being loaded is not held."""
        await end(self._task)

    async def wait_no_longer(self) -> list[str]:
        """No node in reach waits any longer for members that are away. Returns those that this one misses. Raises LinkDown."""
        await self._link.publish(self._subject, b"")
        return self._write_off()

    async def _heard(self, _: Msg) -> None:
        self._write_off()

    def _write_off(self) -> list[str]:
        away = self._holding.rebalance(self._clock.monotonic_ns())
        logger.info("members that are away are not waited for", extra={"away": away})
        return away

    async def _run(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(TICK_S)
            try:
                await self._move()
            except (LoadFailed, ApiError) as error:
                self.loads_failed_total += 1
                logger.warning("shards were not moved; tried again", extra={"reason": str(error)})
                await asyncio.sleep(RETRY_S)

    async def _move(self) -> None:
        self._holding.announce()
        while self._table.forgetting:
            self._table.forget(FORGET_ENTRIES)
            await asyncio.sleep(0.001)
        if self._loading.is_unfinished:
            await self._loading.give_up()
            return
        if not self._may_move():
            return
        dropped = self._holding.leave(self._clock.monotonic_ns())
        if dropped:
            await self._loading.drop(dropped)
            self._holding.left()
            logger.info("shards were left to others", extra={"shards": dropped.bit_count()})
            return
        missing = 0 if self._holding.is_leaving else self._holding.missing(self._clock.monotonic_ns())
        if missing:
            await self._loading.load(missing)
            self._holding.announce()

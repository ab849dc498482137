"""Beats: sent several times a second and whenever this node has applied more, heard from the others, and given to the quorum.

A whole beat goes out every BEAT_NS; a notice at once when there is progress, then at most every NOTICE_S, so that a majority knows
of a write within a hop, and a burst of writes costs few messages. What cannot be sent is not sent later: the next beat says more.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh._core.histogram import HistogramBlock
from tokmesh.cluster.beat import BeatError, decode_beat, encode_beat
from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.quorum import Figures, Quorum

BEAT_NS: Final = 250_000_000
NOTICE_S: Final = 0.002

logger = logging.getLogger("tokmesh.cluster")


class Beating:
    """Hears from `listen` on, beats from `start` to `stop`. figures: of this node, for its beats; judged: what the quorum knows may
    have changed."""

    def __init__(
        self,
        link: Link,
        subject: str,
        quorum: Quorum,
        clock: Clock,
        gossip_lag: HistogramBlock,
        figures: Callable[[], Figures],
        judged: Callable[[], None],
    ) -> None:
        self._link = link
        self._subject = subject
        self._quorum = quorum
        self._clock = clock
        self._gossip_lag = gossip_lag
        self._figures = figures
        self._judged = judged
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.undecodable = 0
        self.sent = 0
        self.own_ids_heard = 0  # beats with our node id that are not ours

    async def listen(self) -> None:
        """Hears the others, and says nothing yet: another process of our node id would give way to a beat."""
        await self._link.subscribe(self._subject, self._heard)

    def start(self) -> None:
        """Beats."""
        self._task = begin(self._beat_always, "tokmesh-beats")

    async def stop(self) -> None:
        """Ends it, with a beat that says so: the others need not find out by silence. This node answers nothing any more."""
        if self._task is None:
            return
        await end(self._task)
        beat = self._quorum.make_beat(self._clock.monotonic_ns(), notice=True, figures=self._figures())
        try:
            await self._link.publish(self._subject, encode_beat(beat._replace(leaving=True)))
        except LinkDown as error:
            logger.debug("the end was not told", extra={"reason": str(error)})

    def progress(self) -> None:
        """This node has applied more."""
        self._progress.set()

    async def _beat_always(self) -> None:
        due_ns = 0
        while True:  # ends by cancellation
            now_ns = self._clock.monotonic_ns()
            if now_ns < due_ns:
                try:
                    await asyncio.wait_for(self._progress.wait(), (due_ns - now_ns) / 1e9)
                except TimeoutError:
                    pass
            self._progress.clear()
            now_ns = self._clock.monotonic_ns()
            whole = now_ns >= due_ns
            if whole:
                due_ns = now_ns + BEAT_NS
            try:
                await self._beat(now_ns, whole)
            except LinkDown as error:
                logger.debug("a beat was not sent", extra={"reason": str(error)})
            self._judged()
            await asyncio.sleep(NOTICE_S)

    async def _beat(self, now_ns: int, whole: bool) -> None:
        beat = self._quorum.make_beat(now_ns, notice=not whole, figures=self._figures())
        await self._link.publish(self._subject, encode_beat(beat))
        self.sent += 1

    async def _heard(self, message: Msg) -> None:
        try:
            beat = decode_beat(message.data)
        except BeatError:
            self.undecodable += 1
            return
        if beat.node_id == self._quorum.node_id:
            self.own_ids_heard += 1
        for lag_ns in self._quorum.hear(beat, self._clock.monotonic_ns()):
            self._gossip_lag.record(0, max(0, lag_ns))
        self._judged()

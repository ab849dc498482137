"""Reads the stream in order, from where the node has come to, for as long as the node lives.

Usually through a consumer (consumer.py), and when that ends through a new one, from the last record taken. Where none can be had
(their making needs a leader of the whole JetStream, whose election takes seconds) records are fetched from any replica meanwhile,
so that a node does not fall behind for want of a leader. No leader vouches then that the stream is still the same: the replica has
to prove it (recent.py), and what is not proved is not taken.
Invariant: the sink is given records in rising order of their sequence, and none is left out but those the stream has dropped.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import orjson
from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh.cluster.consumer import Consumer, Sink
from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.recent import Recent
from tokmesh.cluster.stream import Stream, StreamLost
from tokmesh.following import Following

RETRY_S: Final = 0.1
FETCH_TIMEOUT_S: Final = 1.0
FETCH_RECORDS: Final = 500

logger = logging.getLogger("tokmesh.cluster")


class Follower:
    """See the module. Runs from `start` to `stop`, or until the stream is another than was followed: `lost` is told why."""

    def __init__(
        self, link: Link, stream: Stream, following: Following, sink: Sink, clock: Clock, lost: Callable[[str], None]
    ) -> None:
        self._link = link
        self._stream = stream
        self._following = following
        self._sink = sink
        self._clock = clock
        self._lost = lost
        self._recent = Recent()
        self._task: asyncio.Task[None] | None = None
        self.consumers_made = 0
        self.fetches = 0

    def start(self) -> None:
        """Begins behind the sink's position."""
        self._task = begin(self._run, "tokmesh-follower")

    async def stop(self) -> None:
        """Ends it."""
        await end(self._task)

    async def _run(self) -> None:
        while True:  # ends by cancellation
            try:
                # A consumer that begins beyond the end of a stream made anew would deliver nothing and say nothing.
                await self._stream.verify(self._following)
                await self._consume()
            except StreamLost as error:
                self._lost(str(error))
                return
            except (LinkDown, ApiRefused) as error:
                logger.info("no consumer at the stream", extra={"reason": str(error)})
                await self._fetch()
            await asyncio.sleep(RETRY_S)

    async def _consume(self) -> None:
        """Follows by one consumer until that ends. Raises LinkDown, ApiRefused when none can be had, StreamLost."""
        consumer = Consumer(self._link, self._stream.name, self._sink, self._clock, self._take)
        await consumer.open()
        self.consumers_made += 1
        try:
            await self._stream.verify(self._following)  # again: it may have been made anew in between
            await consumer.watch()
        finally:
            await asyncio.shield(asyncio.ensure_future(consumer.close()))

    def _take(self, batch: StreamedBatch) -> bool:
        follows = self._sink.take(batch)
        if self._sink.position == batch.position:
            self._recent.note(batch)
        return follows

    async def _fetch(self) -> None:
        """Takes what a replica has beyond the position, where it proves that it follows on that. Whatever goes wrong is tried again
        later."""
        if self._recent.newest > self._sink.position:
            self._recent = Recent()  # the node was set back: what it took is not what it has
        if not len(self._recent):
            return
        inbox, done, proof = self._link.new_inbox(), asyncio.Event(), self._recent.proof()
        before = "0"  # the record before, as the server numbers them

        async def take(message: Msg) -> None:
            nonlocal before
            headers = message.headers or {}
            number = headers.get("Nats-Sequence", "")
            is_next = headers.get("Nats-Last-Sequence") == before
            if done.is_set() or "Status" in headers or not number.isdecimal() or not is_next:
                done.set()  # at the end, behind what was lost, or at what cannot be read: nothing behind that is taken
                return
            sequence, before = int(number), number
            if proof.holds_for(sequence, message.data) and sequence > self._sink.position:
                batch = StreamedBatch(self._sink.position, self._clock)
                batch.append(sequence, message.data)
                self._take(batch)

        try:
            subscription = await self._link.subscribe(inbox, take)
            try:
                self.fetches += 1
                body = {"seq": self._recent.oldest, "batch": FETCH_RECORDS, "next_by_subj": ">"}
                await self._link.publish(f"$JS.API.DIRECT.GET.{self._stream.name}", orjson.dumps(body), reply=inbox)
                await asyncio.wait_for(done.wait(), FETCH_TIMEOUT_S)
                if proof.is_other:
                    logger.warning("a replica has other records than were taken from the stream: nothing is taken from it")
                if not self._sink.has_room:
                    await self._sink.wait_for_room()
            finally:
                await self._link.unsubscribe(subscription)
        except (LinkDown, TimeoutError):
            return

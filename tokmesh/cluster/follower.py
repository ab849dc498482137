"""Reads the stream in order, from where the node has come to, for as long as the node lives.

Usually through a push consumer that the server forgets with the connection. A gap in its numbering, its silence or its end make a
new one, from the last record taken. Where none can be had (their making needs a leader of the whole JetStream, whose election takes
seconds) records are fetched from any replica meanwhile, so that a node does not fall behind for want of a leader. No leader vouches
then that the stream is still the same: the replica has to prove it (recent.py), and what is not proved is not taken.
Invariant: the sink is given records in rising order of their sequence, and none is left out but those the stream has dropped.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import orjson
from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import Deliveries, StreamedBatch
from tokmesh.cluster.ending import end
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.recent import Recent
from tokmesh.cluster.stream import Stream, StreamLost
from tokmesh.following import Following

HEARTBEAT_NS: Final = 250_000_000
SILENCE_S: Final = 1.0
RETRY_S: Final = 0.1
CREATE_TIMEOUT_S: Final = 1.0
FETCH_TIMEOUT_S: Final = 1.0
FETCH_RECORDS: Final = 500
INACTIVE_NS: Final = 5_000_000_000

logger = logging.getLogger("tokmesh.cluster")


class Sink(Protocol):
    """Where records go."""

    @property
    def position(self) -> int:
        """Sequence of the last record taken."""

    def take(self, batch: StreamedBatch) -> None:
        """The next records there are."""

    @property
    def has_room(self) -> bool:
        """Whether more is to be given to it now."""

    async def wait_for_room(self) -> None:
        """Until it is."""


class Follower:
    """See the module. Runs from `start` to `stop`, or until the stream is another than was followed: `lost` is told why."""

    def __init__(
        self, link: Link, stream: Stream, following: Following, sink: Sink, clock: Clock, lost: Callable[[str], None]
    ) -> None:
        self._link = link
        self._source = stream
        self._stream = stream.name
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
        self._task = asyncio.get_running_loop().create_task(self._run(), name="tokmesh-follower")

    async def stop(self) -> None:
        """Ends it."""
        await end(self._task)

    async def _run(self) -> None:
        while True:  # ends by cancellation
            try:
                # A consumer that begins beyond the end of a stream made anew would deliver nothing and say nothing.
                await self._source.verify(self._following)
                await self._consume()
            except StreamLost as error:
                self._lost(str(error))
                return
            except (LinkDown, ApiRefused) as error:
                logger.info("no consumer at the stream", extra={"reason": str(error)})
                await self._fetch()
            except Exception:  # a peer's bytes, or a bug: who follows no more answers nothing, and would say nothing
                logger.exception("following the stream failed, and begins anew")
            await asyncio.sleep(RETRY_S)

    async def _consume(self) -> None:
        """Follows by one consumer until that ends. Raises LinkDown, ApiRefused when none can be had, StreamLost."""
        consumer = _Consumer(self._link, self._stream, self._sink, self._clock, self._take)
        await consumer.open()
        self.consumers_made += 1
        try:
            await self._source.verify(self._following)  # again: it may have been made anew in between
            await consumer.watch()
        finally:
            await asyncio.shield(asyncio.ensure_future(consumer.close()))

    def _take(self, batch: StreamedBatch) -> None:
        self._sink.take(batch)
        if self._sink.position == batch.position:
            self._recent.note(batch)

    async def _fetch(self) -> None:
        """Takes what a replica has beyond the position, where it proves that it follows on that. Whatever goes wrong is tried again
        later."""
        if self._recent.newest > self._sink.position:
            self._recent = Recent()  # the node was set back: what it took is not what it has
        if not len(self._recent):
            return
        inbox, done, proof = self._link.new_inbox(), asyncio.Event(), self._recent.proof()

        async def take(message: Msg) -> None:
            headers = message.headers or {}
            number = headers.get("Nats-Sequence", "")
            if done.is_set() or "Status" in headers or not number.isdecimal():
                done.set()  # at the end, or at what cannot be read: nothing behind that is taken
                return
            sequence = int(number)
            if proof.holds_for(sequence, message.data) and sequence > self._sink.position:
                batch = StreamedBatch(self._sink.position, self._clock)
                batch.append(sequence, message.data)
                self._take(batch)

        try:
            subscription = await self._link.subscribe(inbox, take)
            try:
                self.fetches += 1
                body = {"seq": self._recent.oldest, "batch": FETCH_RECORDS, "next_by_subj": ">"}
                await self._link.publish(f"$JS.API.DIRECT.GET.{self._stream}", orjson.dumps(body), reply=inbox)
                await asyncio.wait_for(done.wait(), FETCH_TIMEOUT_S)
                if proof.is_other:
                    logger.warning("a replica has other records than were taken from the stream: nothing is taken from it")
                if not self._sink.has_room:
                    await self._sink.wait_for_room()
            finally:
                await self._link.unsubscribe(subscription)
        except (LinkDown, TimeoutError):
            return


class _Consumer:
    """One ephemeral consumer and its subscription. What the sink has no room for is held, in order, and the server's flow control,
    which is not answered meanwhile, bounds how much that can be. take: gets the records that the sink lacks."""

    def __init__(self, link: Link, stream: str, sink: Sink, clock: Clock, take: Callable[[StreamedBatch], None]) -> None:
        self._link = link
        self._stream = stream
        self._sink = sink
        self._give = take
        self._name = f"tokmesh_{secrets.token_hex(8)}"
        self._inbox = link.new_inbox()
        self.deliveries = Deliveries(sink.position, clock)
        self._held: deque[StreamedBatch | str] = deque()  # batches, and subjects to answer behind them
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._heard_s = time.monotonic()
        self._ended = asyncio.Event()
        self._why = ""

    async def open(self) -> None:
        """Raises LinkDown, ApiRefused."""
        self._subscription = await self._link.subscribe_direct(self._inbox, self)
        config = {
            "name": self._name,
            "deliver_subject": self._inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.deliveries.position + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": HEARTBEAT_NS,
            "inactive_threshold": INACTIVE_NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        try:
            await self._link.ask(f"CONSUMER.CREATE.{self._stream}.{self._name}", body, CREATE_TIMEOUT_S)
        except BaseException:
            await self._link.unsubscribe_direct(self._subscription)
            raise
        self._heard_s = time.monotonic()
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="tokmesh-consumer")

    async def watch(self) -> None:
        """Returns when it has ended or fallen silent."""
        while not self._ended.is_set():
            try:
                await asyncio.wait_for(self._ended.wait(), SILENCE_S / 4)
            except TimeoutError:
                if self._worker is not None and self._worker.done():
                    self._end("what was held could not be taken")
                elif time.monotonic() - self._heard_s > SILENCE_S:
                    self._end("silent")
        logger.info("the consumer at the stream ended", extra={"reason": self._why})

    async def close(self) -> None:
        """Gives it back."""
        self._ended.set()
        await end(self._worker)
        await self._link.unsubscribe_direct(self._subscription)
        try:
            await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")
        except LinkDown:
            pass  # the server forgets it by itself

    def _end(self, why: str) -> None:
        self._why = why
        self._ended.set()

    # ── what the link tells, in order ──

    def delivered(self) -> None:
        """As Direct's."""
        batches = self.deliveries.take()
        if self._ended.is_set():
            return
        for batch in batches:
            self._heard_s = time.monotonic()
            if self._held or not self._sink.has_room:
                self._hold(batch)
            else:
                self._give(batch)
        if self.deliveries.fault is not None:
            self._end(self.deliveries.fault)

    def told(self, reply: str, headers: dict[str, str]) -> None:
        """As Direct's."""
        if self._ended.is_set():
            return
        self._heard_s = time.monotonic()
        status, last = headers.get("Status"), headers.get("Nats-Last-Consumer", "")
        if status != "100":
            self._end(f"status {status}")
        elif reply:
            self._hold(reply)
        elif last.isdigit() and int(last) >= self.deliveries.due:
            self._end(f"delivery {self.deliveries.due} never came")
        elif stalled := headers.get("Nats-Consumer-Stalled"):
            self._hold(stalled)

    def _hold(self, item: StreamedBatch | str) -> None:
        self._held.append(item)
        self._wake.set()

    async def _work(self) -> None:
        """Takes and answers what is held. What comes meanwhile is held behind it."""
        while True:  # ends by cancellation
            await self._wake.wait()
            self._wake.clear()
            while self._held:
                item = self._held[0]
                if isinstance(item, StreamedBatch):
                    if not self._sink.has_room:
                        await self._sink.wait_for_room()
                        self._heard_s = time.monotonic()
                    if not self._ended.is_set():
                        self._give(item)
                else:
                    await self._answer(item)
                self._held.popleft()

    async def _answer(self, subject: str) -> None:
        try:
            await self._link.publish(subject, b"")
        except LinkDown as error:
            logger.debug("flow control was not answered", extra={"reason": str(error)})

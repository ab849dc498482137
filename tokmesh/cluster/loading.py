"""How a node comes to hold shards: what the stream holds of them is read out of turn, while what comes in turn is applied already.

    1. The own log says that they are being loaded: from then on, at position p, records of theirs are applied as they come.
    2. The node states its start once more. That record stands behind p.
    3. A consumer gives the last record of each of their sessions, and of the node: in the order of the stream, whichever replica
       serves it; one that is behind the others gives what was the last there, and later what replaced it. Each goes through the
       own log, and is applied unless one of that session has come in its turn since (Following.awaits). When the node's own comes
       by, all that stood at or before p has, but for what was replaced meanwhile.
    4. That comes in its turn: the node states its start again, and waits until it has applied that, which stands behind it.
    5. The others tell who was active: the stream does not.
    6. The own log says that they are held.

Whatever goes wrong ends it, what has come is forgotten, and it is tried again. Invariant: a shard is never held that is not whole.
The pace is RECORDS_PER_S at most, so that a node that gets many sessions goes on answering for those that it has.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Outcome
from tokmesh.cluster.consumer import Consumer
from tokmesh.cluster.ending import end
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.statement import Statement
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.following import Following
from tokmesh.ids import shards_in
from tokmesh.log.interface import Proposal
from tokmesh.log.record import NodeStated, SessionHeld, SessionsRevoked, SessionStated, ShardLoaded, ShardsHeld
from tokmesh.log.stream_record import kind_of

RECORDS_PER_S: Final = 20_000
POLL_S: Final = 0.01
_SESSIONS: Final = (SessionStated.KIND, SessionHeld.KIND, SessionsRevoked.KIND)

logger = logging.getLogger("tokmesh.cluster")


class LoadFailed(Exception):
    """`str()` says why; it is to be tried again."""


class Loading:
    """Of one node. start_stated: the record that says that it has started; heard_activity: returns when the others have told who
    was active."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        following: Following,
        log: JetStreamLog,
        clock: Clock,
        start_stated: Callable[[], Statement],
        heard_activity: Callable[[], Awaitable[None]],
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._following = following
        self._log = log
        self._clock = clock
        self._start_stated = start_stated
        self._heard_activity = heard_activity
        self.records_total = 0  # read out of turn

    async def load(self, shards: int) -> None:
        """These (bits) are held when it returns. Raises LoadFailed; then none of them is."""
        following = self._following
        began_s = time.monotonic()
        try:
            await self._note(following.held, shards)
            count = await self._read(shards, following.position)
            await self._log.propose_alone(self._start_stated())
            await self._heard_activity()
            await self._note(following.held | shards, 0)
        except (LinkDown, ApiRefused, ApiError) as error:
            try:
                await self.give_up()
            except ApiError as refused:  # it stays unfinished
                logger.warning("what was loaded could not be given up", extra={"code": refused.code})
            raise LoadFailed(str(error)) from error
        if shards & ~following.held:
            raise LoadFailed("the own log did not take it")
        extra = {"shards": shards.bit_count(), "records": count, "seconds": round(time.monotonic() - began_s, 3)}
        logger.info("shards are held", extra=extra)

    @property
    def is_unfinished(self) -> bool:
        """While nothing loads: whether something is still to be given up, as the own log did not take that."""
        return self._following.loading != 0

    async def give_up(self) -> None:
        """What is being loaded is not held. Raises ApiError."""
        await self._note(self._following.held, 0)

    async def drop(self, shards: int) -> None:
        """These (bits) are held no more. Raises ApiError."""
        await self._note(self._following.held & ~shards, self._following.loading)

    async def begin(self) -> None:
        """Before the stream is followed. What the node was loading when it ended is forgotten; one that begins holds nothing."""
        following = self._following
        held = following.held if following.position else 0
        if (following.held, following.loading) != (held, 0):
            await self._note(held, 0)

    async def _note(self, held: int, loading: int) -> None:
        await self._log.note(ShardsHeld(self._clock.now_ms(), held, loading))

    async def _read(self, shards: int, position: int) -> int:
        """How many records came. position: everything up to it is to be read."""
        await self._log.propose_alone(self._start_stated())
        sink = _OutOfTurn(self._log, self._clock, position)
        names = [self._subjects.shard(shard) for shard in shards_in(shards)]
        wanted = {"deliver_policy": "last_per_subject", "filter_subjects": [*names, self._subjects.node(self._log.node_id)]}
        consumer = Consumer(self._link, self._subjects.stream, sink, self._clock, sink.take, wanted)
        await consumer.open()
        watching = asyncio.ensure_future(consumer.watch())
        try:
            whole = asyncio.ensure_future(sink.whole.wait())
            await asyncio.wait((watching, whole), return_when=asyncio.FIRST_COMPLETED)
            whole.cancel()
        finally:
            await end(watching)
            await asyncio.shield(asyncio.ensure_future(consumer.close()))
        self.records_total += sink.count
        if not sink.whole.is_set():
            raise LinkDown("the consumer ended before all had come")
        await sink.applied()
        return sink.count


class _OutOfTurn:
    """What the consumer gives, on its way into the own log. through: the position up to which it is wanted; `whole` when all is
    there."""

    def __init__(self, log: JetStreamLog, clock: Clock, through: int) -> None:
        self._log = log
        self._clock = clock
        self._through = through
        self._began_s = time.monotonic()
        self._last: Proposal | None = None
        self._error: BaseException | None = None
        self.position = 0
        self.count = 0
        self.whole = asyncio.Event()

    def take(self, batch: StreamedBatch) -> bool:
        """As Sink's."""
        for index in range(len(batch)):
            envelope, (position, _) = batch.envelope(index), batch.place(index)
            kind = kind_of(envelope)
            if position <= self._through:
                if kind in _SESSIONS:
                    self._last = self._log.note(ShardLoaded(self._clock.now_ms(), position, envelope))
                    self._last.add_done_callback(self._is_done)
                    self.count += 1
            elif kind == NodeStated.KIND:
                self.whole.set()
        self.position = batch.position
        return True

    @property
    def has_room(self) -> bool:
        """As Sink's."""
        return self._log.has_room and self.count <= (time.monotonic() - self._began_s) * RECORDS_PER_S

    async def wait_for_room(self) -> None:
        """As Sink's."""
        await self._log.wait_for_room()
        while not self.has_room and self._error is None:
            await asyncio.sleep(POLL_S)

    async def applied(self) -> None:
        """Returns when all that came is. Raises ApiError when the own log has not taken it, or the table has no room for it."""
        if self._last is not None:
            await asyncio.wait((self._last,))  # the log settles in order
        if self._error is not None:
            raise self._error

    def _is_done(self, future: "asyncio.Future[object]") -> None:
        error = future.exception()
        if error is None and future.result() == Outcome.FULL:
            error = ApiError("TM-SYS-5030", {"reason": "table_full"})
        self._error = self._error or error

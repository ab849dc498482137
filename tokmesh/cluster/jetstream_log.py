"""The log of many nodes: a record is published to the stream, comes back in the stream's order, and is applied by every node.

The same to its users as FileLog. What comes from the stream goes through the node's own log, which is its copy of the stream, to
`Store.apply`. Invariants: a proposal is settled only when all its records are applied here and by a majority of the nodes
(`spread`; quorum.py says why); the stream's order is the order of applying; what the own log could not take stops the
following until it can, and is asked for again.

A proposal that is with a majority waits a moment longer, at most GRACE_S, for every node that can be heard: so that a session is
good everywhere when its token is given out, unless a node is slow or away. Correctness needs no more than the majority.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Outcome
from tokmesh.cluster.ending import end
from tokmesh.cluster.pending import Part, Pending
from tokmesh.cluster.publishing import Publication, Publishing, unknown_outcome
from tokmesh.cluster.statement import Statement, Stating
from tokmesh.errors import ApiError
from tokmesh.following import MS_NS, Following
from tokmesh.log.file_log import FileLog
from tokmesh.log.interface import Proposal
from tokmesh.log.record import (
    AnyRecord,
    SessionHeld,
    SessionsRevoked,
    SessionStated,
    SessionsTouched,
    ShardLoaded,
    ShardsHeld,
    StreamBound,
    Streamed,
    decode,
)
from tokmesh.log.stream_record import Envelope, decode_envelope, encode_aside

DEADLINE_MS: Final = 1800  # writes are answered within 2 s, whatever the stream does
BACKLOG_RECORDS: Final = 16_384  # taken from the stream and not applied yet
ROOM_POLL_S: Final = 0.002
GRACE_S: Final = 0.05
PROPOSALS_MAX: Final = 65_536
_DONE: Final = int(Outcome.DONE)
_FULL: Final = int(Outcome.FULL)

logger = logging.getLogger("tokmesh.cluster")


class JetStreamLog:
    """See the module. node_id, incarnation: of this start; request_id: of the request whose handler runs, or ""; refusal: why no
    record is taken, or None; apply_all: the store's; advanced: the node has applied more of the stream, as `following` tells;
    doubt: looks whether the stream is still the one that is followed."""

    def __init__(
        self,
        own: FileLog[AnyRecord],
        following: Following,
        stating: Stating,
        publishing: Publishing,
        clock: Clock,
        node_id: str,
        incarnation: int,
        *,
        apply_all: Callable[[int, StreamedBatch, int, int], None],
        request_id: Callable[[], str],
        refusal: Callable[[], ApiError | None],
        advanced: Callable[[], None],
        doubt: Callable[[], Awaitable[bool]],
    ) -> None:
        self._own = own
        self._following = following
        self._stating = stating
        self._publishing = publishing
        self._clock = clock
        self.node_id = node_id
        self._incarnation = incarnation
        self._apply_all = apply_all
        self._request_id = request_id
        self._refusal = refusal
        self._advanced = advanced
        self._doubt = doubt
        self._doubted: set[asyncio.Task[None]] = set()
        self._mark = b"\x01" + incarnation.to_bytes(8, "little")
        self._number = 0
        self._parts: dict[int, Part] = {}
        self._stored: list[Part] = []  # heap by sequence: stored, and not applied by a majority
        self._stored_alone: list[Part] = []  # the same: stored, and not applied here
        self._majority = 0
        self._everyone = 0
        self._spreading: deque[tuple[float, Part]] = deque()  # with a majority, not with everyone: until when to wait for that
        self._spread_timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._advance_due = False
        self._apply: Callable[[int, AnyRecord], object] | None = None
        self.touched: Callable[[SessionsTouched], None] | None = None
        self.revoked: Callable[[int], None] | None = None  # a revocation of this node is with a majority: its sequence
        self.must_end: Callable[[bytes], None] = _nothing  # a session that the stream must say is over
        self.unproved_total = 0  # statements that are stored, and were not known to be with a majority in time
        self.failure: str | None = None  # why the own log does not take what the stream holds

    def start(self, loop: asyncio.AbstractEventLoop, apply: Callable[[int, AnyRecord], object]) -> None:
        """As FileLog's; the own log is recovered."""
        self._apply = apply
        self._own.start(loop, self._apply_own, self._apply_batch)
        self._taken = self._following.position

    async def stop(self) -> None:
        """When nothing is published any more: takes nothing more either, and what is not known to be with a majority has an unknown
        outcome, as whoever waits for a proposal cannot be cancelled. The own log stays."""
        self._refusal = partial(ApiError, "TM-SYS-5030", retry_after_s=1)
        await end(*self._doubted)
        while self._spreading:
            self._settle(self._spreading.popleft()[1])
        for part in list(self._parts.values()):
            self._has_failed(part, unknown_outcome())

    @property
    def group_records(self) -> int:
        """As FileLog's."""
        return self._own.group_records

    # ── proposals ──

    def propose(self, record: AnyRecord) -> Proposal:
        """As FileLog's. ApiError in the future besides: TM-CLST-5030, no quorum (details outcome "unknown": it may still be made);
        a conflict with what another node did: TM-SESS-4090, TM-SESS-4091, TM-TOKN-4090, TM-ADMIN-4091. A revocation of nobody is
        done when a majority has applied what is applied here."""
        if isinstance(record, SessionsTouched):
            if self.touched is not None:
                self.touched(record)
            return self._own.propose(record)
        future = Proposal(loop=asyncio.get_running_loop())
        refusal = self._refusal()
        if refusal is None and len(self._parts) >= PROPOSALS_MAX:
            refusal = ApiError("TM-SYS-5030", retry_after_s=1)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        statements = self._stating.of(record)
        pending = Pending(future, len(statements), summed=len(statements) > 1 and statements[0].conflict == "")
        if not statements:
            self._confirm(pending)
        for index, statement in enumerate(statements):
            self._publish(statement, pending, first=index == 0)
        return future

    def _confirm(self, pending: Pending) -> None:
        self._number += 1
        pending.parts = 1
        deadline_ns = self._clock.monotonic_ns() + DEADLINE_MS * MS_NS
        part = self._parts[self._number] = Part(self._number, pending, first=True, default=0, deadline_ns=deadline_ns)
        part.sequence = self._following.position
        self._keep(part, self._stored)

    def propose_alone(self, statement: Statement) -> Proposal:
        """A statement about the cluster: never refused for want of a quorum, as it is how one is made. Done when applied here."""
        future = Proposal(loop=asyncio.get_running_loop())
        self._publish(statement, Pending(future, 1, summed=False), first=True, majority=False)
        return future

    def _publish(self, statement: Statement, pending: Pending, *, first: bool, majority: bool = True) -> None:
        self._number += 1
        number, record = self._number, statement.record
        deadline_ns = self._clock.monotonic_ns() + DEADLINE_MS * MS_NS
        # What is taken for the outcome if the stream has replaced the record before it came back.
        changes = isinstance(record, SessionHeld) or (isinstance(record, SessionStated) and record.version > 1)
        default = _DONE if changes else 1
        part = self._parts[number] = Part(number, pending, first, default, deadline_ns)
        part.revokes = statement if isinstance(record, SessionsRevoked) else None
        envelope = Envelope(self.node_id, self._incarnation, number, self._request_id(), record.encode())
        self._publishing.put(
            Publication(
                number,
                statement.subject,
                envelope.encode(),
                statement.expected,
                statement.ttl_ms,
                statement.conflict,
                self._following.position,
                deadline_ns,
                f"{self.node_id}.{self._incarnation}.{number}",
                partial(self._is_stored, part, self._stored if majority else self._stored_alone),
                partial(self._has_failed, part),
            )
        )

    def _is_stored(self, part: Part, heap: list[Part], sequence: int) -> None:
        part.sequence = sequence
        if sequence <= self._following.position and not part.came_back:
            # Replaced in the stream before it came by here; or another stream has taken the place of ours, and counts from 1.
            task = asyncio.get_running_loop().create_task(self._look_before(part, heap))
            self._doubted.add(task)
            task.add_done_callback(self._doubted.discard)
            return
        self._keep(part, heap)

    async def _look_before(self, part: Part, heap: list[Part]) -> None:
        try:
            is_doubted = await self._doubt()
        except Exception:  # a peer's bytes, or a bug: a client waits
            logger.exception("whether the stream is still the same could not be told")
            is_doubted = True
        if is_doubted:
            self._has_failed(part, unknown_outcome())
        else:
            self._keep(part, heap)

    def _keep(self, part: Part, heap: list[Part]) -> None:
        heapq.heappush(heap, part)
        self._settle_through(heap, self._majority if heap is self._stored else self._following.position)

    def _has_failed(self, part: Part, error: ApiError) -> None:
        part.pending.error = part.pending.error or error
        self._settle(part)

    def _settle_through(self, heap: list[Part], sequence: int) -> None:
        until = min(sequence, self._following.position)
        while heap and heap[0].sequence <= until:
            part = heapq.heappop(heap)
            if heap is self._stored:
                self._await_everyone(part)
            else:
                self._settle(part)

    async def publish_first(self, statement: Statement) -> None:
        """The first record of a stream that nobody follows yet; whether it is shows when the stream is asked. Raises LinkDown."""
        message = encode_aside(self.node_id, self._incarnation, statement.record.encode())
        await self._publishing.publish_once(statement.subject, message, statement.expected)

    def spread(self, majority: int, everyone: int) -> None:
        """A majority of the nodes, this one among them, has applied everything up to `majority`; every node that can be heard up to
        `everyone`."""
        self._majority, self._everyone = majority, everyone
        self._settle_through(self._stored, majority)
        while self._spreading and self._spreading[0][1].sequence <= everyone:
            self._settle(self._spreading.popleft()[1])

    def _await_everyone(self, part: Part) -> None:
        if part.revokes is not None and part.sequence and self.revoked is not None:
            self.revoked(part.sequence)
        if part.sequence <= self._everyone:
            self._settle(part)
            return
        loop = asyncio.get_running_loop()
        self._spreading.append((loop.time() + GRACE_S, part))
        if self._spread_timer is None:
            self._spread_timer = loop.call_later(GRACE_S, self._end_grace)

    def _end_grace(self) -> None:
        loop = asyncio.get_running_loop()
        while self._spreading and self._spreading[0][0] <= loop.time():
            self._settle(self._spreading.popleft()[1])
        self._spread_timer = None
        if self._spreading:
            self._spread_timer = loop.call_at(self._spreading[0][0], self._end_grace)

    def expire(self) -> None:
        """What is stored, and still not known to be with a majority when its time is over, has an unknown outcome. To be called
        several times a second."""
        now_ns = self._clock.monotonic_ns()
        for heap in (self._stored, self._stored_alone):
            late = [part for part in heap if part.deadline_ns <= now_ns]
            for part in late:
                heap.remove(part)
                self._has_failed(part, unknown_outcome())
            self.unproved_total += len(late)
            if late:
                heapq.heapify(heap)

    def _settle(self, part: Part) -> None:
        if part.settled:
            return
        part.settled = True
        self._parts.pop(part.number, None)
        pending = part.pending
        pending.parts -= 1
        if pending.summed:
            pending.outcome += part.outcome
        elif part.first:
            pending.outcome = part.outcome
        if pending.parts == 0 and not pending.future.done():
            if pending.error is not None:
                pending.future.set_exception(pending.error)
            else:
                pending.future.set_result(pending.outcome)

    # ── what the stream brings ──

    @property
    def position(self) -> int:
        """Of the last record taken from the stream."""
        return self._taken

    def take(self, batch: StreamedBatch) -> bool:
        """As Sink's. After a failure all is let go, until the following begins anew (`resume`)."""
        if self.failure is None and batch.previous == self._taken:
            self._own.propose_all(batch).add_done_callback(self._is_own)
            self._taken = batch.position
            return True
        return self.failure is not None

    @property
    def has_room(self) -> bool:
        """As Sink's."""
        return self._own.waiting <= BACKLOG_RECORDS

    async def wait_for_room(self) -> None:
        """As Sink's."""
        while self._own.waiting > BACKLOG_RECORDS // 2 and self.failure is None:
            await asyncio.sleep(ROOM_POLL_S)

    def _is_own(self, future: "asyncio.Future[object]") -> None:
        error = future.exception()
        if error is not None and self.failure is None:
            self.failure = f"the node's own log takes nothing: {error}"
            logger.error("what the stream holds could not be written down; the node falls behind", extra={"reason": str(error)})

    def resume(self) -> bool:
        """Whether following can go on after a failure: the own log takes records again. It goes on behind what was applied."""
        if self.failure is None or self._own.state != "open" or self._own.waiting:
            return self.failure is None
        self.failure = None
        self._taken = self._following.position
        logger.info("the node's own log takes records again")
        return True

    def note(self, record: ShardsHeld | ShardLoaded) -> Proposal:
        """Notes in the own log what concerns nobody else."""
        return self._own.propose(record)

    def bind(self, record: StreamBound) -> Proposal:
        """Notes in the own log which stream is followed."""
        future = self._own.propose(record)
        self._taken = record.position
        return future

    def _apply_own(self, sequence: int, record: AnyRecord) -> object:
        assert self._apply is not None
        outcome = self._apply(sequence, record)
        if isinstance(record, Streamed):
            if record.envelope.startswith(self._mark):
                self._came_back(record, outcome)
            self._advance_soon()
        return outcome

    def _apply_batch(self, sequence: int, batch: StreamedBatch, start: int, end: int) -> None:
        """What this node proposed is applied one by one, as its outcome is told."""
        at = start
        while at < end:
            mine = batch.find(self._mark, at, end)
            if mine > at:
                self._apply_all(sequence + at - start, batch, at, mine)
            if mine < end:
                self._apply_own(sequence + mine - start, decode(batch.record(mine)))
            at = mine + 1
        self._advance_soon()

    def _advance_soon(self) -> None:
        if not self._advance_due:  # once for all that this turn applies
            self._advance_due = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        self._advance_due = False
        self._advanced()
        self._settle_through(self._stored_alone, self._following.position)

    def _came_back(self, record: Streamed, outcome: object) -> None:
        if not isinstance(outcome, int) or outcome < 0:
            return  # not applied: it did not follow and comes again, or it is nothing whole that begins like ours
        envelope = decode_envelope(record.envelope)
        if envelope.origin != self.node_id:
            return
        stated = decode(envelope.record) if outcome == _FULL else None
        if isinstance(stated, SessionStated) and stated.version == 1:  # others may have room for it, and its client is told no
            self.must_end(stated.session_id)
        part = self._parts.get(envelope.number)
        if part is None:
            return
        part.came_back = True
        part.outcome = outcome
        if part.revokes is not None:
            for session_id in self._stating.outliving(part.revokes):
                self.must_end(session_id)
        self._publishing.seen(envelope.number, record.position)


def _nothing(session_id: bytes) -> None:
    """Until somebody is to be told."""

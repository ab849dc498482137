"""Last-active times that a node has not heard because it was away: it asks the members for them before it answers anything.

What touch_exchange.py tells is told once. A node that was stopped, begins from the stream alone, or was cut off or suspended for so
long that it is not proved current, has not heard it, and would end sessions for their idle limit that live on all others. So it is
*behind*: its wheel ends none (`Table.idle_ends_from_ms`) and it answers nothing, until each member that is there has told what it
knows. All members know the same, up to what is told just now, which is heard meanwhile.

It is asked piece by piece, by a cursor that the member gives; that bounds what is under way. Bytes, little-endian without padding:

    question: format u8 · cursor u64, 0 at first · since u64: what was active earlier is not asked for (Unix ms)
    answer:   format u8 · cursor u64 of the next piece, 0 at the end · the piece (_core/activity.pyx), at most PIECE_BYTES_MAX

A member that is heard and does not answer is asked again: its answer may be lost, or the question, as while routes of NATS come up
again. It is passed over when it is silent, answers something else, or has told nothing for TELL_S: one of an older release has
nobody who hears the question.

What this node itself told at last, before its connection ended or it was not current any more, may not have arrived, and nobody
asks for it. So it tells again what was active since then, as touch_exchange.py does, before it asks the others.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Iterable
from typing import Final

from nats.aio.msg import Msg

from tokmesh._core.activity import ACTIVITY_PIECE_BYTES_MAX, collect_activity, take_activity
from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.cluster.ending import end
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.quorum import Quorum
from tokmesh.cluster.subjects import Subjects
from tokmesh.cluster.touch_exchange import TouchExchange
from tokmesh.following import MS_NS
from tokmesh.log.record import SessionsTouched

FORMAT: Final = 1
PIECE_BYTES_MAX: Final = ACTIVITY_PIECE_BYTES_MAX
PIECE_S: Final = 2.0  # for an answer
RETRY_S: Final = 0.2
TELL_S: Final = 30.0  # for a piece, however often it has to be asked for
SILENT_NS: Final = 2_000_000_000  # who was not heard for so long tells nothing
ALL_S: Final = 300.0  # for all that one member tells: more than any table takes
PAUSE_SHARE: Final = 4.0  # a member's pause lasts as many times as the making of the piece before it
HOLD_MS: Final = 5_000  # idle ends are put off by this at a time: longer than from one look to the next
CLOCKS_MS: Final = 60_000  # clocks of members may differ by as much
TOLD_MS: Final = 5_000  # from a touch until it was told, on a busy node

_QUESTION: Final = struct.Struct("<BQQ")
_ANSWER: Final = struct.Struct("<BQ")
_ITEM: Final = struct.Struct("<16sQ")

logger = logging.getLogger("tokmesh.cluster")


class ActivityError(ValueError):
    """Bytes that are no question or no answer of this format."""


class MissedTouches:
    """Of one node, which is behind as it begins. is_loading: whether it has sessions of which it has not heard yet who was active;
    caught_up: it is behind no more, and may answer from that moment on."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        table: Table,
        touches: TouchExchange,
        clock: Clock,
        quorum: Quorum,
        is_loading: Callable[[], bool],
        caught_up: Callable[[], None],
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._table = table
        self._touches = touches
        self._clock = clock
        self._quorum = quorum
        self._is_loading = is_loading
        self._caught_up = caught_up
        self._current_ms = 0  # when this node was last looked at and current, and not behind
        self._fell_behind_ms = 0
        self._looks_away = 0  # at which it was not current
        self._reconnects = 0  # of the link, as of the last time all was heard
        self._asking: asyncio.Task[None] | None = None
        self.is_behind = True
        table.idle_ends_from_ms = clock.now_ms() + HOLD_MS  # the replay goes no further than to the time of the start

    async def listen(self) -> None:
        """Answers who asks, also before this node belongs: what it knows is true."""
        await self._link.subscribe(self._subjects.activity(self._quorum.node_id), self._asked)

    async def stop(self) -> None:
        """Asks no more."""
        await end(self._asking)

    def look(self, is_current: bool) -> None:
        """Before the node answers or sweeps, whenever it may have changed whether it is proved current."""
        now_ms = self._clock.now_ms()
        if not is_current:
            if not self.is_behind:
                self.is_behind = True
                self._fell_behind_ms = now_ms
            self._looks_away += 1
            self._table.idle_ends_from_ms = now_ms + HOLD_MS
            return
        self._table.idle_ends_from_ms = now_ms + HOLD_MS if self.is_behind or self._is_loading() else 0
        if not self.is_behind:
            self._current_ms = now_ms
        is_due = self.is_behind or self._link.reconnects != self._reconnects  # what came between two connections is lost
        if is_due and self._link.connected and (self._asking is None or self._asking.done()):
            asked = self._quorum.present(self._clock.monotonic_ns())
            if len(asked) + 1 < self._quorum.majority:
                return  # those that are there beat soon
            self._asking = asyncio.get_running_loop().create_task(self.ask(asked), name="tokmesh-missed-touches")

    async def ask(self, node_ids: Iterable[str]) -> None:
        """Returns when each of these has told what it knows, or was passed over. For who has applied what they have."""
        asked = sorted(node_ids)
        before = (self._looks_away, self._link.reconnects)
        heard_ms = self._current_ms - self._quorum.max_staleness_ns // MS_NS  # by then a majority had heard all that it told
        is_told = await self._tell_again(heard_ms - TOLD_MS) if self._current_ms else True
        since_ms = max(0, heard_ms - CLOCKS_MS)
        counts = await asyncio.gather(*(self._ask(node_id, since_ms) for node_id in asked))
        if not is_told or self._was_away(before):
            return  # it was away again meanwhile, and asks again
        self._reconnects = self._link.reconnects
        if self.is_behind:
            self._touches.others_know(self._fell_behind_ms, self._clock.now_ms())
        self.is_behind = False
        self._table.idle_ends_from_ms = self._clock.now_ms() + HOLD_MS if self._is_loading() else 0
        self._caught_up()
        if asked:
            logger.info("heard who was active", extra={"nodes": asked, "sessions": sum(counts)})

    async def hear_all(self) -> None:
        """Returns when those that are there, with this node a majority, have told all that they know, or were passed over: of
        sessions that are being loaded this node has heard nothing. They are asked again when it was away meanwhile."""
        while True:  # until then, or the caller gives up
            asked = self._quorum.present(self._clock.monotonic_ns())
            before = (self._looks_away, self._link.reconnects)
            if len(asked) + 1 >= self._quorum.majority:
                await asyncio.gather(*(self._ask(node_id, 0) for node_id in asked))
                if not self._was_away(before):
                    return
            await asyncio.sleep(RETRY_S)

    def _was_away(self, before: tuple[int, int]) -> bool:
        """Since it had looked so often while it was not current, and there had been so many reconnects."""
        return not self._link.connected or before != (self._looks_away, self._link.reconnects)

    async def _tell_again(self, since_ms: int) -> bool:
        """What was active since then, to all who are there. Whether all of it was sent."""
        cursor = 0
        try:
            while True:  # the cursor rises
                piece, cursor, pause_s = self._collect(cursor, since_ms)
                touches = [(session_id, last_active_ms, None, None) for session_id, last_active_ms in _ITEM.iter_unpack(piece)]
                if touches:
                    record = SessionsTouched(self._clock.now_ms(), touches)
                    await self._link.publish(self._subjects.touches, record.encode())
                if cursor == 0:
                    return True
                await asyncio.sleep(pause_s)
        except LinkDown as error:
            logger.debug("touches were not told again", extra={"reason": str(error)})
            return False

    def _collect(self, cursor: int, since_ms: int) -> tuple[bytes, int, float]:
        """A piece of what this node knows, the cursor of the next one, and how long to pause before that."""
        started_s = time.monotonic()
        piece, following = collect_activity(self._table, cursor, since_ms)
        return piece, following, (time.monotonic() - started_s) * PAUSE_SHARE

    async def _ask(self, node_id: str, since_ms: int) -> int:
        count = cursor = 0
        reason = ""
        try:
            async with asyncio.timeout(ALL_S):
                while True:  # the cursor rises, and the time is bounded
                    answer = await self._answer(node_id, encode_question(cursor, since_ms))
                    cursor, piece = decode_answer(answer, cursor)
                    count += _take(self._table, piece)
                    if cursor == 0:
                        return count
        except ActivityError as error:
            self._touches.undecodable += 1
            reason = str(error)
        except LinkDown as error:
            reason = str(error)
        except TimeoutError:
            reason = f"it took more than {ALL_S:.0f} s"
        logger.warning("a node did not tell who was active", extra={"node_id": node_id, "reason": reason})
        return count

    async def _answer(self, node_id: str, question: bytes) -> bytes:
        """Raises LinkDown when there is none and the member is not heard, or its time is over."""
        subject, until_s = self._subjects.activity(node_id), time.monotonic() + TELL_S
        while True:  # until then
            try:
                return (await self._link.request(subject, question, PIECE_S)).data
            except LinkDown:
                peer = self._quorum.peers.get(node_id)
                is_heard = peer is not None and self._clock.monotonic_ns() - peer.heard_ns <= SILENT_NS
                if not is_heard or time.monotonic() >= until_s:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _asked(self, message: Msg) -> None:
        try:
            cursor, since_ms = decode_question(message.data)
        except ActivityError:
            self._touches.undecodable += 1
            return
        piece, following, pause_s = self._collect(cursor, since_ms)
        try:
            await self._link.publish(message.reply, encode_answer(following, piece))
        except LinkDown as error:
            logger.debug("who was active was not told", extra={"reason": str(error)})
        await asyncio.sleep(pause_s)  # the next question is taken up after this one


def encode_question(cursor: int, since_ms: int) -> bytes:
    """The question's bytes."""
    return _QUESTION.pack(FORMAT, cursor, since_ms)


def decode_question(data: bytes) -> tuple[int, int]:
    """Cursor and since. Raises ActivityError for anything that is no question."""
    if len(data) != _QUESTION.size or data[0] != FORMAT:
        raise ActivityError("a question of another format")
    _, cursor, since_ms = _QUESTION.unpack(data)
    if since_ms >= 2**63:
        raise ActivityError("a time that cannot be")
    return cursor, since_ms


def encode_answer(following: int, piece: bytes) -> bytes:
    """The answer's bytes; following: the cursor of the next piece."""
    return _ANSWER.pack(FORMAT, following) + piece


def decode_answer(data: bytes, cursor: int) -> tuple[int, bytes]:
    """The cursor of the next piece, and the piece, of the answer to the question with `cursor`. Raises ActivityError."""
    if not _ANSWER.size <= len(data) <= _ANSWER.size + PIECE_BYTES_MAX or data[0] != FORMAT:
        raise ActivityError("an answer of another format")
    _, following = _ANSWER.unpack_from(data)
    if 0 < following <= cursor:
        raise ActivityError("a cursor that does not rise")
    return following, data[_ANSWER.size :]


def _take(table: Table, piece: bytes) -> int:
    try:
        return take_activity(table, piece)
    except ValueError as error:
        raise ActivityError(str(error)) from None

"""Putting back into a stream what a stopped node has: after the stream was lost, from each node that still has its log.

What the stream has already, from another node, stays where it is newer: of a session the higher version, and a revocation against
anything; a key that is disabled stays so. Nodes may be reseeded in any order, and again; a revocation that only a lost node knew is
lost with it. Afterwards a node follows the new stream from its beginning, and joins anew at its next start: the members of before
are none any more.

A node that was away for long has for good what all others have forgotten as ended. So a node is refused unless it and those that
were put back before have all come to where the memory of each begins (recall.py). How far these had come is the time of the
stream's record of the cluster, and since when they remember, that of its place.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

import orjson

from tokmesh._core.clock import Clock
from tokmesh._core.table import Status, Table
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.publishing import WRONG_LAST_SEQUENCE
from tokmesh.cluster.recall import Recall
from tokmesh.cluster.statement import UNCONDITIONAL, Statement, Stating, lifetime
from tokmesh.cluster.stream import Stored, Stream, StreamFacts
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.following import Following
from tokmesh.ids import shard_of
from tokmesh.keyring import KeyRing
from tokmesh.log.record import (
    ClusterStated,
    KeyStated,
    PlaceStated,
    RecordError,
    SessionHeld,
    SessionsRevoked,
    SessionStated,
    StreamBound,
    decode_enveloped,
)
from tokmesh.log.stream_record import Envelope

WINDOW: Final = 256  # messages under way
TIMEOUT_S: Final = 5.0
ATTEMPTS_MAX: Final = 12
RETRY_S: Final = 1.0
SCAN_ENTRIES: Final = 4096
_BEHIND: Final = {
    "reason": "this node was away: it may have for good what the others have forgotten as ended",
    "cure": "empty its directory but for node_id and incarnation, and start it; docs/cluster-failures.md",
}
_AHEAD: Final = {
    "reason": "the stream was set back, or begun from a node that was away: this node has forgotten what has ended since",
    "cure": "remove the stream, and begin with this node; docs/cluster-failures.md",
}

logger = logging.getLogger("tokmesh.cluster")


class Figures(NamedTuple):
    """What became of what the node has. put: is in the stream by this run; newer: the stream had it already, as new or newer."""

    put: int = 0
    newer: int = 0


class Reseeding:
    """Of one stopped node, whose state is loaded. told: (done, of how many), now and then."""

    def __init__(
        self,
        link: Link,
        stream: Stream,
        subjects: Subjects,
        stating: Stating,
        table: Table,
        keyring: KeyRing,
        following: Following,
        clock: Clock,
        node_id: str,
        incarnation: int,
        recall: Recall,
        told: Callable[[int, int], None],
    ) -> None:
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self._stating = stating
        self._table = table
        self._keyring = keyring
        self._following = following
        self._clock = clock
        self._node_id = node_id
        self._incarnation = incarnation
        self._recall = recall
        self._told = told
        self._number = 0

    async def run(self, *, anyway: bool = False) -> tuple[Figures, StreamBound]:
        """Puts back what the stream lacks; what the node's log is to note afterwards. anyway: also where what has ended may come
        back by it. Raises ApiError TM-CLST-5050 where it may, when the stream is the node's own and whole, or another cluster's, or
        a record was not taken; LinkDown, ApiRefused, StreamRefused."""
        facts = await self._stream.ensure(may_make=True)
        self._refuse_a_whole_stream(facts)
        noted = await self._noted(facts)
        together = self._recall if noted is None else self._recall.beside(noted)
        is_behind = noted is not None and not together.is_whole and self._recall.known_ms < noted.known_ms
        if together.is_whole:
            await self._note(facts, together)
        elif not anyway:
            raise ApiError("TM-CLST-5050", _BEHIND if is_behind else _AHEAD)
        total = len(self._keyring) + int(self._table.stats()["sessions_active"]) + int(self._table.stats()["tombstones"])
        figures, done = Figures(), 0
        statements = self._sessions() if is_behind else chain(self._keys(), self._sessions())
        while batch := list(islice(statements, WINDOW)):
            outcomes = await asyncio.gather(*(self._put(statement) for statement in batch))
            put = sum(outcomes)
            figures = Figures(figures.put + put, figures.newer + len(batch) - put)
            done += len(batch)
            self._told(done, max(done, total))
        # Its time tells how far the node had come, should this stream be lost too.
        return figures, StreamBound(self._recall.known_ms, self._following.cluster_id, facts.created_ns, 0)

    def _refuse_a_whole_stream(self, facts: StreamFacts) -> None:
        following = self._following
        if facts.created_ns == following.created_ns and facts.last_sequence >= following.position:
            raise ApiError("TM-CLST-5050", {"reason": "the stream is the one this node follows, and has lost nothing"})

    async def _noted(self, facts: StreamFacts) -> Recall | None:
        """Of what the stream has; None: nothing was put back yet. The stream belongs to this node's cluster, or to none yet."""
        found = await self._stream.last(self._subjects.cluster)
        if found is None:
            return None
        stored = _record_of(found)
        if not isinstance(stored, ClusterStated) or stored.cluster_id != self._following.cluster_id:
            raise ApiError("TM-CLST-5050", {"reason": "the stream belongs to another cluster than this node"})
        if facts.created_ns == self._following.created_ns:  # it was set back to there
            return Recall(facts.last_ms, 0)
        if stored.members:  # nodes follow it
            now_ms = self._clock.now_ms()
            return Recall(now_ms, now_ms)
        found = await self._stream.last(self._subjects.place)
        place = None if found is None else _record_of(found)
        return Recall(stored.time_ms, place.time_ms if isinstance(place, PlaceStated) else stored.time_ms)

    async def _note(self, facts: StreamFacts, together: Recall) -> None:
        """Of this node, and those before it. The record of the cluster is the second: it says that both are there."""
        subjects, following = self._subjects, self._following
        if facts.created_ns == following.created_ns:
            return
        await self._put(Statement(subjects.place, PlaceStated(together.since_ms), UNCONDITIONAL, 0, ""))
        cluster = ClusterStated(together.known_ms, following.cluster_id, ())
        await self._put(Statement(subjects.cluster, cluster, UNCONDITIONAL, 0, ""))

    def _keys(self) -> Iterator[Statement]:
        now_ms = self._clock.now_ms()
        for stored in self._keyring.all():
            record = KeyStated(now_ms, stored.api_key.active, stored.created_record())
            yield Statement(self._subjects.key(stored.key_id16), record, 0, 0, "")

    def _sessions(self) -> Iterator[Statement]:
        now_ms = self._clock.now_ms()
        for record in self._following.records():
            if isinstance(record, SessionHeld) and self._is_over(record.session_id, now_ms):
                yield self._stating.revocation(record.session_id, now_ms)  # another may know only of its longer life
        for revoked in (True, False):  # so that what was revoked is not there for a moment
            cursor = 0
            while cursor >= 0:
                entries, cursor = self._table.scan(cursor, SCAN_ENTRIES, revoked)
                for entry in entries:
                    if revoked:
                        yield self._stating.revocation(self._table.session(entry).id, now_ms)
                    else:
                        yield self._stating.session(entry, now_ms)

    def _is_over(self, session_id: bytes, now_ms: int) -> bool:
        """Whether a session ended that this node held."""
        if not self._following.held >> shard_of(session_id) & 1:
            return False
        entry = self._table.find(session_id)
        return entry < 0 or self._table.status(entry, now_ms) != Status.LIVE

    async def _put(self, statement: Statement) -> bool:
        """Whether it is in the stream by this call; False: what is there is as new. Raises LinkDown, ApiRefused."""
        self._number += 1
        envelope = Envelope(self._node_id, self._incarnation, self._number, "", statement.record.encode()).encode()
        headers = lifetime(statement.ttl_ms)
        expected = statement.expected
        for attempt in range(ATTEMPTS_MAX):
            if expected != UNCONDITIONAL:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
            try:
                message = await self._link.request(statement.subject, envelope, TIMEOUT_S, headers)
            except LinkDown:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            answer = orjson.loads(message.data)
            if "error" not in answer:
                return True
            if answer["error"].get("err_code") != WRONG_LAST_SEQUENCE:
                raise ApiRefused(answer["error"])
            found = await self._stream.last(statement.subject)
            if found is not None and not _is_older(found, statement):
                return False
            expected = 0 if found is None else found.sequence
        raise ApiError("TM-CLST-5050", {"reason": "a record was refused again and again: is a node running?"})


def _record_of(found: Stored) -> object:
    try:
        return decode_enveloped(found.payload)
    except RecordError:
        return None


def _session_in(record: object) -> object:
    return record.stated if isinstance(record, SessionHeld) else record


def _is_older(found: Stored, statement: Statement) -> bool:
    """Whether what the stream has gives way. What cannot be read does not."""
    stored, mine = _session_in(_record_of(found)), _session_in(statement.record)
    if isinstance(mine, SessionStated) and isinstance(stored, SessionStated):
        return stored.version < mine.version
    if isinstance(mine, KeyStated) and isinstance(stored, KeyStated):
        return stored.active and not mine.active
    return isinstance(mine, SessionsRevoked)

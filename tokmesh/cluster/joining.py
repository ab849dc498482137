"""How a node comes to belong: the stream is found or made and is the one this node knows; the node says there that it has started,
catches up to that, and becomes a member. Until all this is done it answers nothing, and says which part it waits for.

Members change one at a time, by a record that holds all of them and replaces the one before only if nobody else did; and only when
that one is with a majority (quorum.py says why).
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tokmesh._core.clock import Clock
from tokmesh.cluster.apart import Began
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.missed_touches import MissedTouches
from tokmesh.cluster.quorum import PRESENT_NS, Quorum
from tokmesh.cluster.statement import UNCONDITIONAL, Statement
from tokmesh.cluster.stream import Stored, Stream, StreamLost, StreamRefused
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.following import Following
from tokmesh.ids import MEMBERS_MAX
from tokmesh.log.record import ClusterStated, NodeStated, RecordError, StreamBound, decode_enveloped
from tokmesh.log.stream_record import encode_aside

RETRY_S: Final = 0.5
STORE_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.02
LISTEN_S: Final = 0.8  # three beats of a process that has our id
CLUSTER_ID_BYTES: Final = 16
_UNREADABLE: Final = (
    "TM-CLST-5050: the stream's record of the members cannot be read, so that a node that knows none of them cannot join: a newer "
    "release or another hand wrote it; docs/cluster-failures.md tells the cure"
)

logger = logging.getLogger("tokmesh.cluster")

T = TypeVar("T")


class Joining:
    """One node's way. began: how it began anew by itself, if it did. `phase` says where it is, for people; "" when it belongs."""

    def __init__(
        self,
        link: Link,
        stream: Stream,
        subjects: Subjects,
        following: Following,
        log: JetStreamLog,
        quorum: Quorum,
        clock: Clock,
        began: Began | None,
    ) -> None:
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self._following = following
        self._log = log
        self._quorum = quorum
        self._clock = clock
        self._began = began
        self._has_joined = False
        self.phase = "replaying its own log"

    @property
    def is_removed(self) -> bool:
        """Whether this node belonged, and was taken out of the members. It joins again by another start."""
        return self._has_joined and self._quorum.node_id not in self._following.members

    async def find_stream(self) -> None:
        """Returns when the stream is there, and is this node's. Waits for NATS; raises ApiError TM-CLST-5050 when what this node
        has applied is not in it (made anew, or set back). A node that knows it knows its cluster too, whatever another hand has
        written there since."""
        self.phase = "looking for the stream"
        following, began = self._following, self._began
        if began is not None and not following.bound:  # it goes on with the stream it followed, and makes no other
            await self._log.bind(StreamBound(self._clock.now_ms(), began.cluster_id, began.created_ns, 0))
        facts = await self._patiently(lambda: self._stream.ensure(may_make=not following.bound))
        if following.bound:
            try:
                await self._patiently(lambda: self._stream.verify(following))
            except StreamLost as error:
                raise ApiError("TM-CLST-5050", {"reason": str(error), "cure": "docs/cluster-failures.md"}) from None
        else:
            cluster_id = await self._patiently(self._cluster_id)
            await self._log.bind(StreamBound(self._clock.now_ms(), cluster_id, facts.created_ns, 0))

    async def refuse_a_twin(self, own_ids_heard: Callable[[], int]) -> None:
        """Raises ApiError TM-CLST-4090 when another process has this node's id, and beats."""
        self.phase = "listening for a node of the same id"
        await asyncio.sleep(LISTEN_S)
        if own_ids_heard():
            raise ApiError("TM-CLST-4090", {"node_id": self._quorum.node_id})

    async def catch_up(self) -> None:
        """Returns when what the stream held at the start is applied, and that this node has started: the record up to which it
        waits must be one that stays, as the stream's last sequence may be of one that has expired, and never comes."""
        self.phase = "catching up"
        sequence = await self._patiently(lambda: self.state_start("start", STORE_TIMEOUT_S))
        while self._following.position < sequence:
            self.phase = f"catching up: {self._following.position} of {sequence}"
            await asyncio.sleep(POLL_S)

    async def state_start(self, occasion: str, timeout_s: float) -> int:
        """Says in the stream that this node has started, once for each occasion; where that stands. Raises LinkDown, ApiRefused."""
        statement, name = self.start_stated(), f"{self._quorum.node_id}.{self._quorum.incarnation}.{occasion}"
        payload = encode_aside(self._quorum.node_id, self._quorum.incarnation, statement.record.encode())
        return await self._link.store(statement.subject, payload, name, timeout_s)

    async def join(self) -> None:
        """Returns when this node is a member."""
        self.phase = "joining"
        while self._quorum.node_id not in self._following.members:
            await self._change(lambda members: {*members, self._quorum.node_id})
        self._has_joined = True

    def start_stated(self) -> Statement:
        """That this node has started."""
        record = NodeStated(self._clock.now_ms(), self._quorum.node_id, self._quorum.incarnation)
        return Statement(self._subjects.node(self._quorum.node_id), record, UNCONDITIONAL, 0, "")

    async def hear(self, missed: MissedTouches, is_current: Callable[[], bool]) -> None:
        """Returns when this node knows who was active while it was away. Members that are there beat within PRESENT_NS."""
        self.phase = "hearing who was active"
        until_ns = self._clock.monotonic_ns() + PRESENT_NS
        while len(self._quorum.present(now_ns := self._clock.monotonic_ns())) + 1 < len(self._quorum.members) and now_ns < until_ns:
            await asyncio.sleep(POLL_S)
        while missed.is_behind:
            missed.look(is_current())
            await asyncio.sleep(POLL_S)

    async def _change(self, change: Callable[[tuple[str, ...]], set[str]]) -> None:
        """Proposes other members once; whether it was so shows in `following`."""
        following = self._following
        try:
            found = await self._stream.last(self._subjects.cluster)
        except (LinkDown, ApiRefused):
            await asyncio.sleep(RETRY_S)
            return
        sequence = 0 if found is None else found.sequence  # it may have been written with an end
        if sequence > following.position:
            await asyncio.sleep(POLL_S)
            return
        members = change(following.members)
        if not following.members and not self._is_of_nobody(found):
            await self._wait(_UNREADABLE, RETRY_S)
            return
        if len(members) > MEMBERS_MAX:
            await self._wait(f"the cluster has {len(following.members)} members, and no more can be: take one out", RETRY_S)
            return
        if following.members and self._quorum.majority_applied < sequence:
            await self._wait("waits for a majority of the members to know of the last change of members", POLL_S)
            return
        record = ClusterStated(self._clock.now_ms(), following.cluster_id, sorted(members))
        try:
            await self._log.propose_alone(Statement(self._subjects.cluster, record, sequence, 0, "TM-ADMIN-4091"))
        except ApiError as error:
            logger.info("the members could not be changed; tried again", extra={"code": error.code})
            await asyncio.sleep(RETRY_S)

    def _is_of_nobody(self, found: Stored | None) -> bool:
        """Whether the stream's record says that the cluster has no members. A node may also know none because it could not read
        theirs: its own record in that place would take them all out."""
        record = None if found is None else _cluster_in(found)
        return record is not None and (record.cluster_id, record.members) == (self._following.cluster_id, ())

    async def _wait(self, why: str, seconds: float) -> None:
        phase = f"joining: {why}"
        if self.phase and self.phase != phase:  # a node that belongs goes on answering meanwhile
            self.phase = phase
            logger.info("%s", phase)
        await asyncio.sleep(seconds)

    async def change_members(self, change: Callable[[tuple[str, ...]], set[str]]) -> None:
        """Makes `change` of the members; returns when it is applied here. It is tried until it is so, or the caller gives up."""
        while set(self._following.members) != change(self._following.members):
            await self._change(change)

    async def _cluster_id(self) -> bytes:
        """Of the stream's cluster, made where there is none. For a node that knows nothing yet: it has only the stream's word."""
        found = await self._stream.last(self._subjects.cluster)
        if found is None:
            made = ClusterStated(self._clock.now_ms(), secrets.token_bytes(CLUSTER_ID_BYTES), ())
            await self._log.publish_first(Statement(self._subjects.cluster, made, 0, 0, ""))
            raise LinkDown("the cluster was just given its identity")
        record = _cluster_in(found)
        if record is None:
            raise StreamRefused(_UNREADABLE)
        return record.cluster_id

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives when it does: NATS may be down, without a leader, or refuse, for as long as somebody takes to see."""
        phase = self.phase
        while True:  # until it does, or the caller gives up
            try:
                found = await work()
            except (LinkDown, ApiRefused, StreamRefused) as error:
                reason = f"{phase}: {error}"
                if reason != self.phase:
                    logger.warning("%s", reason)
                self.phase = reason
                await asyncio.sleep(RETRY_S)
            else:
                self.phase = phase
                return found


def _cluster_in(found: Stored) -> ClusterStated | None:
    """What the stream's record of the members says; None: nothing of the kind."""
    try:
        record = decode_enveloped(found.payload)
    except RecordError:
        return None
    return record if isinstance(record, ClusterStated) else None

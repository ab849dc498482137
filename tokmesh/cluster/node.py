"""This node of the cluster: put together, brought to belong, kept current, ended.

Invariants: nothing is answered about sessions before the node belongs and is proved current, nor later than `fresh_until` tells the
wire path; no write is taken without a recent proof of being current.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from tokmesh._core.histogram import HistogramBlock
from tokmesh.cluster.apart import Apart
from tokmesh.cluster.beating import Beating
from tokmesh.cluster.changes import Changes
from tokmesh.cluster.comparing import Comparing
from tokmesh.cluster.elsewhere import Elsewhere
from tokmesh.cluster.ending import end
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.joining import Joining
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.missed_touches import MissedTouches
from tokmesh.cluster.part import Part
from tokmesh.cluster.publishing import Publishing
from tokmesh.cluster.pulse import Pulse
from tokmesh.cluster.quorum import Figures, Quorum
from tokmesh.cluster.revoking import Revoking
from tokmesh.cluster.spread import Spread
from tokmesh.cluster.statement import Stating
from tokmesh.cluster.status import member_statuses
from tokmesh.cluster.stream import Stream, StreamLost
from tokmesh.cluster.subjects import Subjects
from tokmesh.cluster.surroundings import ClusterSettings, HasState
from tokmesh.cluster.syncing import Syncing
from tokmesh.cluster.touch_exchange import TouchExchange
from tokmesh.cluster.view import ClusterView, Standing, Viewer
from tokmesh.errors import ApiError
from tokmesh.following import MS_NS
from tokmesh.log.interface import Reached
from tokmesh.log.record import AnyRecord

TICK_S: Final = 0.1
POLL_S: Final = 0.02
FAILOVER_NS: Final = 10_000_000_000  # the stream may need this long to have another leader; reads go on, and so does readiness

logger = logging.getLogger("tokmesh.cluster")


class ClusterNode:
    """incarnation: of this start; version: of the software; request_id: of the request whose handler runs, or "";
    set_fresh_until: tells the wire path until when (monotonic ns) it may answer, and why not later; gossip_lag, revoke_lag: one
    row, nanoseconds."""

    elsewhere: Elsewhere | None = None

    def __init__(
        self,
        settings: ClusterSettings,
        state: HasState,
        *,
        incarnation: int,
        version: str,
        tombstone_ttl_ms: int,
        life_ms_max: int,
        apart: Apart,
        request_id: Callable[[], str],
        set_fresh_until: Callable[[int, str], None],
        gossip_lag: HistogramBlock,
        revoke_lag: HistogramBlock,
    ) -> None:
        self._state = state
        self._clock = clock = state.clock
        self._set_fresh_until = set_fresh_until
        self._version = version
        self.subjects = Subjects(settings.name)
        self.following = state.store.following
        self.link = Link(settings.nats, f"tokmesh {state.node_id}")
        self.stream = Stream(self.link, self.subjects, settings.nats.replicas)
        self.quorum = Quorum(state.node_id, incarnation, max_staleness_ns=settings.max_staleness_ms * MS_NS)
        self.publishing = Publishing(self.link, self.stream, clock)
        stating = Stating(self.subjects, state.table, state.keyring, self.following, tombstone_ttl_ms, life_ms_max)
        self.log = JetStreamLog(
            state.log, self.following, stating, self.publishing, clock, state.node_id, incarnation,
            apply_all=state.store.apply_all, request_id=request_id, refusal=self._refusal, advanced=self._advanced,
            doubt=self._is_lost,
        )  # fmt: skip
        self._revoking = Revoking(self.log, stating, self.following, clock)
        self.spread = Spread(self.quorum, revoke_lag)
        self.log.revoked = lambda sequence: self.spread.committed(sequence, clock.monotonic_ns())
        self._beating = Beating(
            self.link, self.subjects.beats, self.quorum, clock, gossip_lag, self.figures, self._judge
        )
        self._touches = TouchExchange(self.link, self.subjects.touches, state.table)
        self.log.touched = self._touches.note
        self._missed = MissedTouches(
            self.link, self.subjects, state.table, self._touches, clock, self.quorum,
            is_loading=lambda: self.following.loading != 0, caught_up=self._judge,
        )  # fmt: skip
        self._follower = Follower(self.link, self.stream, self.following, self.log, clock, self._lose)
        self._joining = Joining(self.link, self.stream, self.subjects, self.following, self.log, self.quorum, clock, apart.began)
        self._syncing = Syncing(self.link, self.stream)
        self.part = Part(
            settings.replication_factor, state.table, self.link, self.subjects, self.following, self.log, self.quorum, clock,
            start_stated=self._joining.start_stated, heard_activity=self._missed.hear_all, may_move=self._may_state,
            announced=self._beating.progress,
        )  # fmt: skip
        self._comparing = Comparing(
            self.link, self.subjects, self.following, state.table, state.keyring, clock, state.node_id, incarnation,
            self.part.copies, rank=self._rank, apart=lambda: apart.reason is not None, outvoted=self._stand_apart,
        )  # fmt: skip
        self._viewer = Viewer(
            state.table, self.following, self.link, self.quorum, self.log, self.publishing, self.spread, self._beating,
            self._touches, self._follower, self._syncing, self._comparing, self.part, clock.monotonic_ns(),
        )  # fmt: skip
        self.pulse = Pulse(self.stream, self.publishing, clock, self._joining.state_start, self._judge)
        self._changes = Changes()
        self._is_counted = False
        self.lost: str | None = None  # why this node stands apart until it is started again: the stream is not what it knows
        self.apart = apart
        self._watching: asyncio.Task[None] | None = None

    async def start(self, loop: asyncio.AbstractEventLoop, apply: Callable[[int, AnyRecord], object]) -> None:
        """Returns when the node belongs and is current; the own log is recovered. Waits for NATS as long as it takes.

        Raises ApiError TM-CLST-5050 (the stream has lost what this node knows), TM-CLST-4090, link.VersionRefused."""
        self.log.start(loop, apply)
        self.following.placed = self._comparing.placed
        self._advanced()  # as far as the own log had come
        self._joining.phase = "connecting to NATS"
        await self.link.connect()
        await self._joining.find_stream()
        await self.part.begin()
        self._syncing.start()
        await self.publishing.start()
        await self.link.subscribe(self.subjects.touches, self._touches.heard)
        await self._missed.listen()
        if self.elsewhere is not None:
            await self.elsewhere.start()
        await self._beating.listen()
        await self._comparing.listen()
        await self.part.rebalancing.listen()
        await self._joining.refuse_a_twin(lambda: self._beating.own_ids_heard)
        self._beating.start()
        self._watching = begin(self._watch, "tokmesh-cluster")
        self._follower.start()
        await self._joining.catch_up()
        await self._joining.join()
        self._is_counted = True
        self._advanced()
        self._joining.phase = "waiting for a majority of the nodes"
        while not self.quorum.may_write(self._clock.monotonic_ns()):
            await asyncio.sleep(POLL_S)
        await self._joining.hear(self._missed, self._is_current)
        self._joining.phase = ""
        self._judge()
        self.pulse.start()
        self._comparing.start()
        self.part.start()
        logger.info("this node belongs to the cluster", extra={"members": list(self.following.members)})

    async def stop(self) -> None:
        """Ends what runs; the own log stays."""
        if self.elsewhere is not None:
            await self.elsewhere.drain()
        await end(self._watching)
        await self.part.stop()
        await self._missed.stop()
        await self._syncing.stop()
        await self.pulse.stop()
        await self._comparing.stop()
        await self._follower.stop()
        await self.publishing.stop()
        await self.log.stop()
        if self.elsewhere is not None:  # what others asked for has an outcome now
            await self.elsewhere.stop()
        await self._beating.stop()
        await self.link.close()

    def reason(self) -> str | None:
        """The readiness check "cluster"."""
        if self.lost is not None:
            return f"TM-CLST-5050: {self.lost}"
        if self.apart.reason is not None:
            return f"TM-CLST-5050: {self.apart.reason}; {self.apart.cure}"
        if self._joining.is_removed:
            return "removed: this node was taken out of the cluster; it joins again when it is restarted"
        if self._joining.phase:
            return f"{self._joining.phase}; NATS: {self.link.reason}" if self.link.reason else self._joining.phase
        if self.log.failure is not None:
            return self.log.failure
        if self.quorum.is_superseded:
            return "another process has taken over this node's id"
        if not self.quorum.may_write(self._clock.monotonic_ns()):
            return f"no majority of the nodes is in reach; NATS: {self.link.reason or 'connected'}"
        if self._missed.is_behind:
            return "hearing who was active"
        if self.pulse.stuck_ns > FAILOVER_NS:
            return f"the stream takes no records; NATS: {self.link.reason or 'connected'}"
        if not self.part.holding.announced:
            return f"holds nothing yet: {self.following.loading.bit_count()} shards are being loaded"
        return None

    @property
    def is_removed(self) -> bool:
        """Whether this node was taken out of the members since its start."""
        return self._joining.is_removed

    @property
    def quorum_lost(self) -> bool:
        """Whether writes are refused for want of a majority, of nodes or of the stream."""
        return self._out_for is not None or self.pulse.is_stuck or not self.quorum.may_write(self._clock.monotonic_ns())

    def look(self) -> None:
        """Whether this node is behind the others is found out; before its table ends what is due."""
        if not self._joining.phase:
            self._missed.look(self._is_current())

    def _is_current(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        fresh_until_ns = self.quorum.fresh_until_ns(now_ns)
        return fresh_until_ns is not None and fresh_until_ns > now_ns

    def figures(self) -> Figures:
        """What the beats of this node tell."""
        active, holding = self._state.table.stats()["sessions_active"], self.part.holding
        return Figures(int(active), len(self.publishing), self._version, holding.announced, self.part.primary_count)

    def view(self) -> ClusterView:
        """What this node knows of the cluster now. For the loop's thread; what it gives, for any."""
        apart = self.apart.reason is not None
        began_ms = 0 if self.apart.began is None else self.apart.began.time_ms
        standing = Standing(
            self.quorum_lost, not self.may_answer(), self.lost is not None, self._joining.is_removed, apart, began_ms
        )
        return self._viewer.take(standing, self.figures(), self.elsewhere, self._clock.monotonic_ns())

    def may_answer(self) -> bool:
        """Whether anything is said about sessions now."""
        now_ns = self._clock.monotonic_ns()
        return self._may_answer_until_ns(now_ns) > now_ns

    def everywhere(self) -> "asyncio.Future[Reached]":
        """Done when no node can answer without what is acknowledged by now; bounded by `max_staleness` and a second."""
        return self.spread.everywhere(self._clock.monotonic_ns())

    @property
    def differing(self) -> dict[str, int]:
        """Parts in which another member's table differs from this one's, by member; those without any are left out."""
        return self._comparing.differing

    async def rebalance(self) -> list[str]:
        """Members that are away, which are not waited for any longer, here and on all nodes in reach. Raises ApiError."""
        try:
            return await self.part.rebalancing.wait_no_longer()
        except LinkDown:
            raise self.no_quorum() from None

    async def remove(self, node_id: str) -> None:
        """Takes a node out of the members; idempotent. The node itself, if it lives, stops answering."""
        await self._joining.change_members(lambda members: {each for each in members if each != node_id})

    # ── parts ──

    def _may_state(self) -> bool:
        return not self._joining.phase and self._out_for is None and self.quorum.may_write(self._clock.monotonic_ns())

    def _refusal(self) -> ApiError | None:
        if self._joining.phase or self.quorum_lost or self.log.failure is not None:
            return self.no_quorum()
        return None

    def no_quorum(self) -> ApiError:
        """The refusal of what would change something, while nothing is taken."""
        return ApiError("TM-CLST-5030", {"reason": self._out_for or "no_quorum"}, retry_after_s=1)

    @property
    def _out_for(self) -> str | None:
        """Why this node will not answer, nor take anything, until it is started again."""
        if self.lost is not None:
            return "stream_lost"
        if self.apart.reason is not None:
            return "stands_apart"
        return "removed" if self._joining.is_removed else None

    def _lose(self, reason: str) -> None:
        """The stream is not the one that this node knows: nothing it says could be relied on."""
        if self.lost is None:
            self.lost = reason
            logger.error("this node stands apart: the stream has lost what was acknowledged", extra={"reason": reason})
        self._judge()

    def _stand_apart(self, reason: str) -> None:
        """This node's table is not what the stream makes of it, so that nothing it says could be relied on."""
        self.apart.begin(reason, self._clock.now_ms(), self.following.created_ns, self.following.cluster_id)
        extra = {"code": "TM-CLST-5050", "reason": reason, "cure": self.apart.cure}
        logger.error("this node stands apart: its table is wrong", extra=extra)
        self._judge()

    def _rank(self) -> int | None:
        """This node's among the active members; None while it is to put nothing into the stream."""
        if self._joining.phase or self.lost is not None or not self.quorum.may_write(self._clock.monotonic_ns()):
            return None
        members = member_statuses(self.quorum, Figures(), self._clock.monotonic_ns())
        active = [member.node_id for member in members if member.state == "active"]
        return active.index(self.quorum.node_id) if self.quorum.node_id in active else None

    async def _is_lost(self) -> bool:
        try:
            await self.stream.verify(self.following)
        except StreamLost as error:
            self._lose(str(error))
        except (LinkDown, ApiRefused):
            return True  # not known, so not told
        return self.lost is not None

    def _advanced(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if self.quorum.members != self.following.members:
            self.quorum.set_members(self.following.members, now_ns)
        self.quorum.advance(self.following.position, self._is_counted, now_ns)
        self._beating.progress()
        if self.following.tokenless and self._may_state():
            self._revoking.look()
        self.log.spread(self.quorum.majority_applied, self._everyone_applied(now_ns))

    def _judge(self) -> None:
        now_ns = self._clock.monotonic_ns()
        self.look()
        self._set_fresh_until(self._may_answer_until_ns(now_ns), self._out_for or "stale")
        self.log.spread(self.quorum.majority_applied, self._everyone_applied(now_ns))
        self.spread.look(now_ns)

    def _may_answer_until_ns(self, now_ns: int) -> int:
        fresh_until_ns = self.quorum.fresh_until_ns(now_ns)
        if fresh_until_ns is None or self._joining.phase or self._out_for is not None or self._missed.is_behind:
            return 0
        return fresh_until_ns

    def _everyone_applied(self, now_ns: int) -> int:
        """How far every node is that was heard just now, this one among them."""
        heard = (self.quorum.peers[node_id].applied for node_id in self.quorum.present(now_ns))
        return min((self.following.position, *heard))

    def _tell_changes(self) -> None:
        if self._joining.phase:
            return
        members = member_statuses(self.quorum, Figures(), self._clock.monotonic_ns())
        self._changes.note(members, quorum_lost=self.quorum_lost, fenced=not self.may_answer())

    async def _watch(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(TICK_S)
            self.log.expire()
            if self._may_state():
                self._revoking.look()
            if self.log.failure is not None and self.log.resume():
                await self._follower.stop()
                self._follower.start()
            self._judge()
            self._tell_changes()
            try:
                await self._touches.tell()
            except LinkDown as error:
                logger.debug("touches were not told", extra={"reason": str(error)})

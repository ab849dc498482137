"""What a node knows of its cluster at one moment, for people and metrics; nothing is decided by it.

To be taken on the loop's thread, where all of it changes; what was taken never changes and may go to any thread.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tokmesh.cluster.beating import Beating
from tokmesh.cluster.comparing import Comparing
from tokmesh.cluster.elsewhere import Elsewhere
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.link import Link
from tokmesh.cluster.part import Part
from tokmesh.cluster.placement import place
from tokmesh.cluster.publishing import Publishing
from tokmesh.cluster.quorum import Figures, Quorum
from tokmesh.cluster.spread import Spread
from tokmesh.cluster.status import MemberStatus, member_statuses
from tokmesh.cluster.syncing import Syncing
from tokmesh.cluster.touch_exchange import TouchExchange
from tokmesh.following import Following

ACTIVE: Final = "active"


class Standing(NamedTuple):
    """What the node judges of itself. is_diverged: the stream has lost what this node knows to be acknowledged; is_removed: it is
    no member any more; is_apart: its table is held to be wrong; began_anew_ms: when it last began anew by itself, Unix, or 0."""

    quorum_lost: bool
    is_fenced: bool
    is_diverged: bool
    is_removed: bool
    is_apart: bool
    began_anew_ms: int


class ClusterView(NamedTuple):
    """staleness_ns: since this node was proved current, or else since it began. shard_keys: live sessions by the primary of their
    shard. shards_held, _loading, _leaving: by this node; shards_unheld: about which nobody in reach can be asked.
    table_differences: parts by other members whose table differs from this one's; table_comparison_ns: since the last
    comparison, or else since it began. began_anew_ms: as Standing's. questions, questions_answered: by outcome, {} where every
    node holds all sessions. nats_state: as Link.state; nats_sync: as Syncing.state."""

    members: tuple[MemberStatus, ...]
    quorum_lost: bool
    is_fenced: bool
    is_diverged: bool
    is_removed: bool
    is_apart: bool
    began_anew_ms: int
    table_differences: Mapping[str, int]
    table_comparisons: int
    table_comparison_ns: int
    staleness_ns: int
    position: int
    majority_position: int
    shard_keys: Mapping[str, int]
    shards_held: int
    shards_loading: int
    shards_leaving: int
    shards_unheld: int
    shard_records_loaded: int
    shard_loads_failed: int
    revokes_pending: int
    revoke_oldest_ns: int
    publications: Mapping[str, int]
    publications_resent: int
    publications_pending: int
    writes_unproved: int
    consumers_made: int
    fetches: int
    quarantined: int
    beats_sent: int
    own_id_beats: int
    undecodable: Mapping[str, int]
    questions: Mapping[str, int]
    questions_answered: Mapping[str, int]
    nats_state: str
    nats_reason: str | None
    nats_reconnects: int
    nats_version: str
    nats_is_old: bool
    nats_sync: str


class Viewer:
    """Takes views. The parts are the node's; began_ns: monotonic, when it was made."""

    def __init__(
        self,
        table: Any,
        following: Following,
        link: Link,
        quorum: Quorum,
        log: JetStreamLog,
        publishing: Publishing,
        spread: Spread,
        beating: Beating,
        touches: TouchExchange,
        follower: Follower,
        syncing: Syncing,
        comparing: Comparing,
        part: Part,
        began_ns: int,
    ) -> None:
        self._table = table
        self._following = following
        self._link = link
        self._quorum = quorum
        self._log = log
        self._publishing = publishing
        self._spread = spread
        self._beating = beating
        self._touches = touches
        self._follower = follower
        self._syncing = syncing
        self._comparing = comparing
        self._part = part
        self._began_ns = began_ns
        self._placed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # active nodes, and the primaries that follow from them

    def take(self, standing: Standing, figures: Figures, elsewhere: Elsewhere | None, now_ns: int) -> ClusterView:
        """standing, figures: as the node judges and tells of itself. elsewhere: None where every node holds all sessions."""
        quorum, publishing, link, following = self._quorum, self._publishing, self._link, self._following
        members = tuple(member_statuses(quorum, figures, now_ns))
        as_of_ns = quorum.current_as_of_ns(now_ns)
        return ClusterView(
            members=members,
            quorum_lost=standing.quorum_lost,
            is_fenced=standing.is_fenced,
            is_diverged=standing.is_diverged,
            is_removed=standing.is_removed,
            is_apart=standing.is_apart,
            began_anew_ms=standing.began_anew_ms,
            table_differences=dict(self._comparing.differing),
            table_comparisons=self._comparing.compared_total,
            table_comparison_ns=self._comparing.age_ns(now_ns),
            staleness_ns=now_ns - (self._began_ns if as_of_ns is None else as_of_ns),
            position=following.position,
            majority_position=quorum.majority_applied,
            shard_keys=self._shard_keys([member for member in members if member.state == ACTIVE]),
            shards_held=following.held.bit_count(),
            shards_loading=following.loading.bit_count(),
            shards_leaving=(following.held & ~self._part.holding.announced).bit_count(),
            shards_unheld=self._part.holding.unheld(now_ns),
            shard_records_loaded=self._part.loading.records_total,
            shard_loads_failed=self._part.rebalancing.loads_failed_total,
            revokes_pending=self._spread.pending,
            revoke_oldest_ns=self._spread.oldest_ns(now_ns),
            publications=dict(publishing.outcomes),
            publications_resent=publishing.resent_total,
            publications_pending=len(publishing),
            writes_unproved=self._log.unproved_total,
            consumers_made=self._follower.consumers_made,
            fetches=self._follower.fetches,
            quarantined=following.quarantined_total,
            beats_sent=self._beating.sent,
            own_id_beats=self._beating.own_ids_heard,
            undecodable={
                "beat": self._beating.undecodable,
                "touch": self._touches.undecodable,
                "report": self._comparing.undecodable,
                "question": 0 if elsewhere is None else elsewhere.answering.undecodable,
            },
            questions={} if elsewhere is None else dict(elsewhere.asking.outcomes),
            questions_answered={} if elsewhere is None else dict(elsewhere.answering.outcomes),
            nats_state=link.state,
            nats_reason=link.reason,
            nats_reconnects=link.reconnects,
            nats_version=link.server_version,
            nats_is_old=link.is_old,
            nats_sync=self._syncing.state,
        )

    def _shard_keys(self, members: Sequence[MemberStatus]) -> dict[str, int]:
        if self._part.holding.is_partial:  # what others hold they tell
            return {member.node_id: member.figures.keys for member in members}
        active = tuple(member.node_id for member in members)
        if self._placed[0] != active:
            self._placed = active, tuple(holders[0] for holders in place(active, 1))
        keys = dict.fromkeys(active, 0)
        for primary, count in zip(self._placed[1], self._table.shard_counts(), strict=False):
            keys[primary] += count
        return keys

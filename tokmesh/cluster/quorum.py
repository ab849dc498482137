"""What this node may still say, judged from heartbeats alone: no clock of another host, no leader's word.

Times are monotonic nanoseconds of our own clock, handed in. n known members, of which m = n // 2 + 1 are a majority.

The rules

    counted       A node is counted when a message that it published to the stream after its start has come back to it. It then has
                  applied everything that was committed before it started.
    acknowledged  A write is acknowledged by a node that has applied it and heard that a majority of its members, all of them
                  counted, have (`majority_applied`).
    vouch         A counted peer's beat that echoes our beat of the time t was sent after t. Once we have applied as much as that
                  beat tells, the peer vouches for t. We vouch for ourselves at all times, but nothing else is proved before we
                  are counted ourselves.
    current       We are proved current as of the m-th largest vouch, and answer reads for `max_staleness` from then on.

Why no node that answers a read lacks a write that was acknowledged more than `max_staleness` ago

    Let a write of sequence S be acknowledged at a time no later than T, and node X be proved current as of T. Two majorities of
    one set of members have a node Y in common, which had applied S before T, as it had been heard to say so.
    If Y is X: X is counted, so whatever an incarnation of it had applied before its start was committed before its start, and
    lies behind it; in the present incarnation what is applied stays applied.
    If Y is another: it vouches with a beat sent after T. Either that is the incarnation which had applied S, and the beat says
    so; or a later one, which is counted: it had, when it sent the beat, applied a message published after its start, hence
    after S was committed. In both cases the beat tells at least S, and X has applied as much. (A beat of an earlier incarnation
    that arrives late would prove no less; it is refused because of what it says of the present.)

    That X must be counted itself, even if m others vouch for it, is for `reach`: a node that told S applied, lost that with its
    last moments and started again must not answer by vouches that others gave before they had applied S.

Changes of members are records of the stream: one member more or less each, proposed only when the one before is acknowledged. A
node calls `set_members` before the `advance` that goes past the record, so it judges by the list of the k-th change exactly while
it has applied that change and not the next. Let the write be acknowledged by the list of change j, and X judge by that of change k:
    k > j    the acknowledging node had applied S and not change j + 1, so S lies before it, and X has applied that.
    k = j    as above.
    k = j-1  as above: majorities of lists that differ by one member have a node in common.
    k < j-1  change k + 1 was acknowledged before j existed, hence before T; by the case above X would have applied it.

It holds as long as no two processes use one node id at the same time; the elder that hears the younger stops (`is_superseded`).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from tokmesh.cluster.beat import Beat, Echo
from tokmesh.cluster.peer import Peer
from tokmesh.cluster.reach import SLACK_NS, Reach, View, judge_reach
from tokmesh.cluster.trail import Trail
from tokmesh.following import MS_NS
from tokmesh.ids import ALL_SHARDS, MEMBERS_MAX

PRESENT_NS: Final = 600_000_000  # two beats and some
WRITE_WITHIN_NS: Final = 1_000_000_000  # writes need a proof of being current that is no older
SENT_MAX: Final = 65_536

_SENT_SLACK_NS: Final = 2_000_000_000


class Figures(NamedTuple):
    """What a node tells about its load and its software; see Beat for the bounds."""

    sessions: int = 0
    pending: int = 0
    version: str = ""
    held: int = ALL_SHARDS
    keys: int = 0


class Quorum:
    """The judgement of one node in one incarnation; every method is for one thread."""

    def __init__(self, node_id: str, incarnation: int, *, max_staleness_ns: int) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.max_staleness_ns = max_staleness_ns
        self.applied = 0
        self.is_counted = False
        self.is_superseded = False  # a younger process with our node id was heard
        self.majority_applied = 0  # the highest sequence that is acknowledged here; never falls
        self.progress = Trail()  # when we had applied how far
        self.peers: dict[str, Peer] = {}
        self._joined_ns: dict[str, int] = {}
        self._departed: dict[str, int] = {}  # removed, and perhaps not knowing it; how long each may answer by one proof
        self._is_new = True  # not settled since the start
        self._changed_sequence: int | None = None  # at or behind the latest change of members; None: not applied yet
        self._majority_progress = Trail()
        self._sent_ns: dict[int, int] = {}
        self._number = 0
        self._proved_ns: int | None = None  # the latest time as of which we were ever proved current: what is proved stays true

    # What happens

    def set_members(self, node_ids: Iterable[str], now_ns: int) -> None:
        """The known nodes, active or silent; once for every change, before the `advance` that goes past it.

        A removed one is forgotten at once. Raises ValueError beyond MEMBERS_MAX.
        """
        members = set(node_ids)
        if len(members) > MEMBERS_MAX:
            raise ValueError(f"{len(members)} members, at most {MEMBERS_MAX}")
        if members == self._joined_ns.keys():
            return
        self._settle(now_ns)
        self.current_as_of_ns(now_ns)  # what is proved by the list of before stays so
        gone = {node_id: self._staleness_ns(node_id) for node_id in self._joined_ns.keys() - members}
        for node_id in gone:
            self.peers.pop(node_id, None)
            for peer in self.peers.values():
                peer.forget(node_id)
        self._departed = {node_id: each for node_id, each in (self._departed | gone).items() if node_id not in members}
        self._joined_ns = {node_id: self._joined_ns.get(node_id, now_ns) for node_id in sorted(members)}
        self._changed_sequence = None
        self._note_majority(now_ns)

    def advance(self, applied: int, counted: bool, now_ns: int) -> None:
        """We have applied everything up to `applied`, which never falls; counted: see the module."""
        assert applied >= self.applied
        if applied > self.applied or not len(self.progress):
            self.progress.add(now_ns, applied)
            if self._changed_sequence is None:
                self._changed_sequence = applied
        self.applied = applied
        self.is_counted = counted
        self._note_majority(now_ns)

    def make_beat(self, now_ns: int, *, notice: bool, figures: Figures) -> Beat:
        """The next beat, to be sent after `now_ns`, which is remembered until no proof can need it."""
        self._number += 1
        self._sent_ns[self._number] = now_ns
        self._forget_sent(now_ns)
        echoes: tuple[Echo, ...] = ()
        if not notice:
            echoes = tuple(
                Echo(node_id, peer.beat.incarnation, peer.beat.number, max(0, now_ns - peer.heard_ns))
                for node_id, peer in sorted(self.peers.items())
            )
        staleness_ms = self.max_staleness_ns // MS_NS
        return Beat(
            self.node_id, self.incarnation, self._number, self.applied, self.is_counted, notice, echoes, *figures,
            max_staleness_ms=staleness_ms,
        )  # fmt: skip

    def hear(self, beat: Beat, now_ns: int) -> list[int]:
        """Takes in a beat that arrived; returns what it shows of how long beats travel (half a round trip), in ns.

        Our own, those of older incarnations, those not newer than the last of their sender, and those of strangers change nothing.
        """
        if beat.node_id == self.node_id:
            self.is_superseded = self.is_superseded or beat.incarnation > self.incarnation
            return []
        if beat.node_id not in self._joined_ns:
            return []
        peer = self.peers.get(beat.node_id)
        if peer is None or beat.incarnation > peer.beat.incarnation:
            peer = self.peers[beat.node_id] = Peer(beat, now_ns, self._joined_ns)
        elif beat.incarnation < peer.beat.incarnation or not peer.hear(beat, now_ns, self._joined_ns):
            return []
        lags_ns = self._take_echo(peer, beat, now_ns)
        self._note_majority(now_ns)
        return lags_ns

    # What follows

    @property
    def number(self) -> int:
        """Of our last beat."""
        return self._number

    @property
    def members(self) -> tuple[str, ...]:
        """The known nodes, in order."""
        return tuple(self._joined_ns)

    @property
    def majority(self) -> int:
        """How many members are a majority."""
        return len(self._joined_ns) // 2 + 1

    def current_as_of_ns(self, now_ns: int) -> int | None:
        """The latest time at which we are proved to have been current; None: never yet, or we are no member."""
        if not self.is_counted or self.is_superseded or self.node_id not in self._joined_ns:
            return None
        vouched_ns = self._vouched_ns(now_ns)
        if vouched_ns is not None and (self._proved_ns is None or vouched_ns > self._proved_ns):
            self._proved_ns = vouched_ns
        return self._proved_ns

    def fresh_until_ns(self, now_ns: int) -> int | None:
        """Reads may be answered before this time; None: not at all."""
        as_of_ns = self.current_as_of_ns(now_ns)
        return None if as_of_ns is None else as_of_ns + self.max_staleness_ns

    def may_write(self, now_ns: int) -> bool:
        """Whether writes may be tried: we were current within the last WRITE_WITHIN_NS."""
        as_of_ns = self.current_as_of_ns(now_ns)
        return as_of_ns is not None and now_ns - as_of_ns <= WRITE_WITHIN_NS

    def present(self, now_ns: int) -> list[str]:
        """The other members that were heard just now."""
        return [node_id for node_id, peer in self.peers.items() if now_ns - peer.heard_ns <= PRESENT_NS]

    def reach(self, sequence: int, now_ns: int) -> Reach:
        """Which members have applied `sequence`, are fenced off, or must be waited for; reach.py has the rules."""
        is_settled = self._settle(now_ns)
        view = View(
            self.node_id,
            self.applied,
            self._joined_ns,
            self.peers,
            frozenset(self._departed),
            is_settled,
            self._is_new,
            self.majority - 1,
            self._staleness_ns_max(),
        )
        return judge_reach(view, sequence, self._majority_progress.first_at(sequence), now_ns)

    # Helpers

    def _vouched_ns(self, now_ns: int) -> int | None:
        others_needed = self.majority - 1
        if others_needed == 0:
            return now_ns
        vouches_ns = [at_ns for peer in self.peers.values() if (at_ns := peer.vouched_ns(self.applied)) is not None]
        if len(vouches_ns) < others_needed:
            return None
        return min(now_ns, sorted(vouches_ns, reverse=True)[others_needed - 1])

    def _take_echo(self, peer: Peer, beat: Beat, now_ns: int) -> list[int]:
        for echo in beat.echoes:
            if echo.node_id == self.node_id and echo.incarnation == self.incarnation:
                peer.heard_of_us = max(peer.heard_of_us, echo.number)
                sent_ns = self._sent_ns.get(echo.number)
                round_trip_ns = None if sent_ns is None else peer.take_echo(echo, sent_ns, now_ns)
                return [] if round_trip_ns is None else [round_trip_ns // 2]
        return []

    def _note_majority(self, now_ns: int) -> None:
        # What we have not applied ourselves is not acknowledged by us: a later list of members may be judged by it.
        told = [peer.applied for peer in self.peers.values() if peer.beat.counted]
        if self.is_counted and self.node_id in self._joined_ns:
            told.append(self.applied)
        if len(told) >= self.majority:
            applied = min(self.applied, sorted(told, reverse=True)[self.majority - 1])
            if applied > self.majority_applied:
                self.majority_applied = applied
                self._majority_progress.add(now_ns, applied)

    def _settle(self, now_ns: int) -> bool:
        # Whether no change of members is recent, so that whoever answers goes by our list; then nobody is waited for as removed.
        if self._changed_sequence is None:
            return False
        since_ns = self._majority_progress.first_at(self._changed_sequence)
        is_settled = since_ns is not None and now_ns - since_ns >= self._staleness_ns_max() + SLACK_NS
        if is_settled:
            self._departed.clear()
            self._is_new = False
        return is_settled

    def _staleness_ns(self, node_id: str) -> int:
        # For how long that member may answer by one proof, as far as it has told.
        peer = self.peers.get(node_id)
        return self.max_staleness_ns if peer is None else peer.beat.max_staleness_ms * MS_NS

    def _staleness_ns_max(self) -> int:
        # Of all who may answer.
        return max((self.max_staleness_ns, *self._departed.values(), *map(self._staleness_ns, self.peers)))

    def _forget_sent(self, now_ns: int) -> None:
        horizon_ns = now_ns - self.max_staleness_ns - _SENT_SLACK_NS
        while True:
            number, sent_ns = next(iter(self._sent_ns.items()))
            if len(self._sent_ns) <= SENT_MAX and sent_ns >= horizon_ns:
                return
            del self._sent_ns[number]

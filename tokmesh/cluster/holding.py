"""Which shards this node holds, is to hold and may leave, and who holds the others: judged from the members' beats.

Where every node holds everything (`copies` None), nothing here is ever asked for. Else each shard is to be held by `copies` nodes,
which place() names from the members that are in use: those heard within AWAY_NS, so that a restart moves nothing. Views of who is
in use may differ; that no shard is left without an owner does not rest on them:

- A node announces in its beats what can be asked of it. Before it leaves a shard it stops announcing it, and answers nothing about
  it any more; it drops its sessions only when `copies` others (or all others in use, where those are fewer) announce the shard in a
  beat that was sent after they had heard of that: their beats echo one of ours that does not announce it. Whoever of these wants to
  leave later does not count this node among those that stay. So of any number of nodes that leave at once, the last `copies` stay.
- What others have not taken on within LEAVE_NS is announced again.
- Before it drops a shard, LEAVE_MIN_NS have passed: what it was asked before has been answered by then, also where writes to one
  session took turns.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from tokmesh._core.clock import Clock
from tokmesh.cluster.placement import place
from tokmesh.cluster.quorum import Quorum
from tokmesh.ids import ALL_SHARDS, MEMBERS_MAX, SHARDS

AWAY_NS: Final = 60_000_000_000
LEAVE_MIN_NS: Final = 6_000_000_000
LEAVE_NS: Final = 30_000_000_000


class Shards(Protocol):
    """What the node has (bits): following.Following."""

    @property
    def held(self) -> int: ...
    @property
    def loading(self) -> int: ...


class _Plan(NamedTuple):
    """What follows from which members are in use, and what those heard just now announce (bits). placed: who is to hold each shard,
    its primary first; others: the other nodes that announce it, the best first."""

    in_use: tuple[str, ...]
    announced: tuple[tuple[str, int], ...]
    placed: tuple[tuple[str, ...], ...]
    others: tuple[tuple[str, ...], ...]


class Holding:
    """Of one node. copies: of each shard; None: every node holds all. began_ns: the node's start; announcing: told of what this
    node can be asked about (bits), when that changes."""

    def __init__(
        self, quorum: Quorum, shards: Shards, copies: int | None, began_ns: int, announcing: Callable[[int], None]
    ) -> None:
        self._quorum = quorum
        self._shards = shards
        self._copies = copies
        self._began_ns = began_ns
        self._announcing = announcing
        self._announced = ALL_SHARDS
        if copies is not None:
            self._announce(0)
        self._leaving = 0
        self._leaving_since_ns = 0
        self._leaving_from_beat = 0
        self._plan: _Plan | None = None
        self._written_off: set[str] = set()
        self._primary_of: tuple[_Plan, int] | None = None  # what `_primary_for` follows from
        self._primary_for: list[int] = []

    def hold_parts(self) -> None:
        """This node holds a part so far. It is to hold as much as it was told to, which may be everything."""
        if self._copies is None:
            self._copies = MEMBERS_MAX
            self._announce(0)

    @property
    def is_partial(self) -> bool:
        """Whether nodes hold parts."""
        return self._copies is not None

    @property
    def announced(self) -> int:
        """Shards (bits) about whose sessions this node can be asked."""
        return self._announced

    @property
    def all_here(self) -> bool:
        """Whether that is all of them."""
        return self._announced == ALL_SHARDS

    def holds(self, shard: int) -> bool:
        """Whether this node can be asked about that shard."""
        return bool(self._announced >> shard & 1)

    def holders(self, shard: int, now_ns: int) -> Sequence[str]:
        """Other nodes that were heard just now and announce the shard, the best first."""
        return self._planned(now_ns).others[shard]

    def cover(self, now_ns: int) -> dict[str, int] | None:
        """By node the shards (bits) to ask it for, each shard once: this node for all that it can be asked about. None: a shard is
        announced by nobody who was heard just now."""
        found: dict[str, int] = {self._quorum.node_id: self._announced} if self._announced else {}
        for shard, others in enumerate(self._planned(now_ns).others):
            if not self.holds(shard):
                if not others:
                    return None
                found[others[0]] = found.get(others[0], 0) | 1 << shard
        return found

    def unheld(self, now_ns: int) -> int:
        """How many shards are announced by nobody, this node among them."""
        others = self._planned(now_ns).others if self.is_partial else ()
        return sum(not each and not self.holds(shard) for shard, each in enumerate(others))

    def primary_count(self, counts: Sequence[int], now_ns: int) -> int:
        """Of `counts` by shard the sum of those that this node is primary for: of those who announce a shard, the best."""
        plan = self._planned(now_ns)
        if self._primary_of != (plan, self._announced):
            own = self._quorum.node_id
            every = zip(plan.others, plan.placed, strict=True)
            firsts = [_ordered((own, *others), placed)[0] for others, placed in every]
            self._primary_for = [shard for shard, first in enumerate(firsts) if first == own and self.holds(shard)]
            self._primary_of = plan, self._announced
        return sum(counts[shard] for shard in self._primary_for)

    # ── what this node is to do ──

    @property
    def is_leaving(self) -> bool:
        """Whether others are waited for, so that shards can be dropped."""
        return self._leaving != 0

    def announce(self) -> None:
        """What is held is announced, but for what is being left."""
        self._announce(ALL_SHARDS if self._copies is None else self._shards.held & ~self._leaving)

    def missing(self, now_ns: int) -> int:
        """Shards (bits) that this node is to hold, and neither holds nor loads."""
        return self._wanted(now_ns) & ~(self._shards.held | self._shards.loading)

    def leave(self, now_ns: int) -> int:
        """Shards (bits) that this node is to drop now. To be called several times a second: it begins and ends their leaving."""
        if not self._leaving:
            self._leaving = self._surplus(now_ns)
            self._leaving_since_ns, self._leaving_from_beat = now_ns, self._quorum.number + 1
            self.announce()
            return 0
        since_ns = now_ns - self._leaving_since_ns
        done = self._leaving & self._taken_on(now_ns) if since_ns >= LEAVE_MIN_NS else 0
        if done:
            return done
        if since_ns >= LEAVE_NS:
            self._leaving = 0
            self.announce()
        return 0

    def left(self) -> None:
        """What `leave` told is dropped; what else was being left is announced again, and perhaps left later."""
        self._leaving = 0
        self.announce()

    def rebalance(self, now_ns: int) -> list[str]:
        """Members that are away now are not waited for: they are in use again when they are heard. Returns which, in order."""
        self._written_off = {each for each in self._quorum.members if each not in self._heard(now_ns)} - {self._quorum.node_id}
        return sorted(self._written_off)

    # ── parts ──

    def _announce(self, announced: int) -> None:
        if announced != self._announced:
            self._announced = announced
            self._announcing(announced)

    def _wanted(self, now_ns: int) -> int:
        own = self._quorum.node_id
        return sum(1 << shard for shard, holders in enumerate(self._planned(now_ns).placed) if own in holders)

    def _surplus(self, now_ns: int) -> int:
        surplus = self._shards.held & ~self._wanted(now_ns)
        if not surplus:
            return 0
        needed, others = self._needed(now_ns), self._planned(now_ns).others
        return surplus & sum(1 << shard for shard in range(SHARDS) if len(others[shard]) >= needed)

    def _taken_on(self, now_ns: int) -> int:
        """Shards (bits) that enough others announce who know that we do not."""
        peers = self._quorum.peers
        told = [bits for node_id, bits in self._heard(now_ns).items() if peers[node_id].heard_of_us >= self._leaving_from_beat]
        needed = self._needed(now_ns)
        return sum(1 << shard for shard in range(SHARDS) if sum(bits >> shard & 1 for bits in told) >= needed)

    def _needed(self, now_ns: int) -> int:
        assert self._copies is not None
        return max(1, min(self._copies, len(self._planned(now_ns).in_use) - 1))

    def _heard(self, now_ns: int) -> dict[str, int]:
        """What others announce (bits) that were heard just now, and have not said that they end."""
        beats = ((node_id, self._quorum.peers[node_id].beat) for node_id in self._quorum.present(now_ns))
        return {node_id: beat.held for node_id, beat in beats if not beat.leaving}

    def _planned(self, now_ns: int) -> _Plan:
        assert self._copies is not None
        heard = self._heard(now_ns)
        self._written_off -= heard.keys()
        in_use = tuple(each for each in self._quorum.members if self._is_in_use(each, now_ns))
        announced = tuple(sorted(heard.items()))
        plan = self._plan
        if plan is None or plan.in_use != in_use or plan.announced != announced:
            placed = plan.placed if plan is not None and plan.in_use == in_use else place(in_use, self._copies) or ((),) * SHARDS
            others = (
                _ordered((node_id for node_id, bits in announced if bits >> shard & 1), placed[shard]) for shard in range(SHARDS)
            )
            plan = self._plan = _Plan(in_use, announced, placed, tuple(others))
        return plan

    def _is_in_use(self, node_id: str, now_ns: int) -> bool:
        if node_id in self._written_off:
            return False
        peer = self._quorum.peers.get(node_id)
        return node_id == self._quorum.node_id or now_ns - (self._began_ns if peer is None else peer.heard_ns) <= AWAY_NS


class Placement:
    """Who can be asked about which shard at this moment: asking.Placement."""

    def __init__(self, holding: Holding, clock: Clock) -> None:
        self._holding = holding
        self._clock = clock

    @property
    def all_here(self) -> bool:
        """As Holding's."""
        return self._holding.all_here

    @property
    def held(self) -> int:
        """As Holding's `announced`."""
        return self._holding.announced

    def holds(self, shard: int) -> bool:
        """As Holding's."""
        return self._holding.holds(shard)

    def holders(self, shard: int) -> Sequence[str]:
        """As Holding's."""
        return self._holding.holders(shard, self._clock.monotonic_ns())

    def cover(self) -> dict[str, int] | None:
        """As Holding's."""
        return self._holding.cover(self._clock.monotonic_ns())


def _ordered(node_ids: Iterable[str], placed: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are to hold it first, in that order."""
    return tuple(sorted(node_ids, key=lambda each: (placed.index(each) if each in placed else len(placed), each)))

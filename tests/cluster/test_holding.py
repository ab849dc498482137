"""Who holds what: a shard never loses its last holder, however nodes come, go, lag behind and misjudge each other."""

import heapq
import random
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from tokmesh.cluster.beat import Beat, decode_beat, encode_beat
from tokmesh.cluster.holding import AWAY_NS, LEAVE_MIN_NS, LEAVE_NS, Holding
from tokmesh.cluster.quorum import Figures, Quorum
from tokmesh.ids import ALL_SHARDS, SHARDS

MS: Final = 1_000_000
S: Final = 1000 * MS
BEAT_NS: Final = 250 * MS
TICK_NS: Final = 100 * MS


class Has:
    """What a node has."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.loading = 0


class Node:
    def __init__(self, node_id: str, members: list[str], copies: int | None, held: int, began_ns: int) -> None:
        self.quorum = Quorum(node_id, 1, max_staleness_ns=2 * S)
        self.quorum.set_members(members, began_ns)
        self.has = Has(held)
        self.told: list[int] = []
        self.holding = Holding(self.quorum, self.has, copies, began_ns, self.told.append)
        self.loaded_ns = 0

    def beat(self, now_ns: int) -> Beat:
        return self.quorum.make_beat(now_ns, notice=False, figures=Figures(held=self.holding.announced))

    def move(self, now_ns: int, load_ns: int) -> None:
        """As rebalancing.py; a load takes `load_ns`."""
        self.holding.announce()
        if self.has.loading:
            if now_ns >= self.loaded_ns:
                self.has.held |= self.has.loading
                self.has.loading = 0
                self.holding.announce()
            return
        if len(self.quorum.present(now_ns)) + 1 < self.quorum.majority:
            return
        dropped = self.holding.leave(now_ns)
        if dropped:
            self.has.held &= ~dropped
            self.holding.left()
        elif not self.holding.is_leaving and (missing := self.holding.missing(now_ns)):
            self.has.loading, self.loaded_ns = missing, now_ns + load_ns


class World:
    """Nodes that beat to each other over a network that delays, loses and parts."""

    def __init__(self, seed: int, count: int, copies: int, held: int) -> None:
        self.random = random.Random(seed)
        self.ids = [f"tmnd-{number}" for number in range(count)]
        self.now_ns = 10 * S
        self.nodes = {each: Node(each, self.ids, copies, held, self.now_ns) for each in self.ids}
        self.loss = 0.0
        self.delay_ns = 2 * MS
        self.load_ns = 500 * MS
        self.silent: set[str] = set()  # neither hear nor are heard
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        for each in self.ids:
            self._at(self.now_ns + self.random.randrange(BEAT_NS), partial(self._beat, each))
            self._at(self.now_ns + self.random.randrange(TICK_NS), partial(self._move, each))

    def _at(self, at_ns: int, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at_ns, self._count, what))

    def _beat(self, sender: str) -> None:
        raw = encode_beat(self.nodes[sender].beat(self.now_ns))
        for each in self.ids:
            if each != sender and not {each, sender} & self.silent and self.random.random() >= self.loss:
                at_ns = self.now_ns + self.random.randrange(1, self.delay_ns)
                self._at(at_ns, partial(self._hear, each, raw))
        self._at(self.now_ns + BEAT_NS, partial(self._beat, sender))

    def _hear(self, node_id: str, raw: bytes) -> None:
        self.nodes[node_id].quorum.hear(decode_beat(raw), self.now_ns)

    def _move(self, node_id: str) -> None:
        self.nodes[node_id].move(self.now_ns, self.random.randrange(1, 2 * self.load_ns))
        self._at(self.now_ns + TICK_NS, partial(self._move, node_id))

    def run(self, duration_ns: int, holders_min: int) -> None:
        """In all that time each shard is held by so many."""
        until_ns = self.now_ns + duration_ns
        while self._events[0][0] <= until_ns:
            self.now_ns, _, what = heapq.heappop(self._events)
            what()
            assert min(self.holders()) >= holders_min, (self.now_ns, self.holders())
        self.now_ns = until_ns

    def holders(self) -> list[int]:
        """How many nodes have each shard."""
        held = [node.has.held for node in self.nodes.values()]
        return [sum(bits >> shard & 1 for bits in held) for shard in range(SHARDS)]


@pytest.mark.parametrize(("count", "copies"), [(3, 2), (4, 2), (5, 3), (3, 1)])
def test_nodes_that_hold_everything_leave_the_same_shards_to_the_same_nodes(count: int, copies: int) -> None:
    world = World(1, count, copies, ALL_SHARDS)
    world.run(30 * S, copies)
    assert set(world.holders()) == {copies}
    for node in world.nodes.values():
        assert node.holding.announced == node.has.held == node.told[-1] and not node.holding.is_leaving


@pytest.mark.parametrize(("count", "copies"), [(1, 2), (2, 2), (3, 2), (5, 1)])
def test_nodes_that_hold_nothing_get_their_shards(count: int, copies: int) -> None:
    world = World(2, count, copies, 0)
    world.run(10 * S, 0)
    assert set(world.holders()) == {min(copies, count)}
    for node in world.nodes.values():
        assert node.holding.unheld(world.now_ns) == 0
        cover = node.holding.cover(world.now_ns)
        assert cover is not None and sum(cover.values()) == ALL_SHARDS


def test_a_node_that_is_away_for_less_than_a_minute_moves_nothing() -> None:
    world = World(3, 4, 2, ALL_SHARDS)
    world.run(30 * S, 2)
    before = {each: node.has.held for each, node in world.nodes.items()}
    world.silent = {"tmnd-1"}
    world.run(AWAY_NS - 2 * S, 2)
    world.silent = set()
    world.run(30 * S, 2)
    assert {each: node.has.held for each, node in world.nodes.items()} == before


def test_what_a_node_that_stays_away_held_is_taken_on_by_the_others_and_given_back() -> None:
    world = World(4, 4, 2, ALL_SHARDS)
    world.run(30 * S, 2)
    gone = world.nodes["tmnd-1"].has.held
    world.silent = {"tmnd-1"}
    world.run(AWAY_NS + 60 * S, 2)
    others = [node.has.held for each, node in world.nodes.items() if each != "tmnd-1"]
    assert all(sum(bits >> shard & 1 for bits in others) == 2 for shard in range(SHARDS))
    assert world.nodes["tmnd-1"].has.held == gone, "whoever hears nobody leaves nothing to anybody"
    world.silent = set()
    world.run(60 * S, 2)
    assert set(world.holders()) == {2}


def test_members_that_are_away_are_not_waited_for_when_that_is_asked_for() -> None:
    world = World(5, 3, 1, ALL_SHARDS)
    world.run(30 * S, 1)
    world.silent = {"tmnd-2"}
    world.run(2 * S, 1)
    lost = world.nodes["tmnd-2"].has.held
    asked = [node for each, node in world.nodes.items() if each != "tmnd-2"]
    assert [node.holding.unheld(world.now_ns) for node in asked] == [lost.bit_count()] * 2
    assert asked[0].holding.cover(world.now_ns) is None
    for node in asked:
        node.holding.rebalance(world.now_ns)
    world.run(5 * S, 1)
    assert [node.holding.unheld(world.now_ns) for node in asked] == [0, 0]
    world.silent = set()
    world.run(60 * S, 1)
    assert set(world.holders()) == {1} and world.nodes["tmnd-2"].has.held, "it is in use again"


def test_what_others_do_not_take_on_is_announced_again() -> None:
    members = ["tmnd-0", "tmnd-1"]
    here, there = (Node(each, members, 1, ALL_SHARDS, 0) for each in members)
    there.holding.announce()
    here.holding.announce()
    here.quorum.hear(there.beat(S), S)
    assert here.holding.leave(S) == 0 and here.holding.is_leaving
    leaving = here.has.held & ~here.holding.announced
    assert 0 < leaving < ALL_SHARDS

    def later(now_ns: int) -> int:  # the other has announced since, and has not heard of us
        here.quorum.hear(there.beat(now_ns), now_ns)
        return here.holding.leave(now_ns)

    assert later(S + LEAVE_MIN_NS) == 0
    assert later(S + LEAVE_NS - 1) == 0 and here.holding.is_leaving
    assert later(S + LEAVE_NS) == 0 and not here.holding.is_leaving
    assert here.holding.announced == here.has.held == ALL_SHARDS

    assert later(2 * LEAVE_NS) == 0 and here.holding.is_leaving
    there.quorum.hear(here.beat(2 * LEAVE_NS), 2 * LEAVE_NS)
    assert later(2 * LEAVE_NS + LEAVE_MIN_NS - 1) == 0, "what it has proposed comes back first"
    assert later(2 * LEAVE_NS + LEAVE_MIN_NS) == leaving


def test_a_node_of_parts_that_is_told_to_hold_everything_gets_the_rest() -> None:
    node = Node("tmnd-0", ["tmnd-0"], None, 0b1011, 0)
    node.holding.hold_parts()
    node.holding.announce()
    assert node.holding.is_partial and node.holding.announced == 0b1011
    node.move(S, 1)
    node.move(S + 1, 1)
    node.move(S + 2, 1)
    assert node.holding.announced == ALL_SHARDS and node.holding.all_here


def test_a_node_of_parts_can_be_asked_about_nothing_before_it_announces_something() -> None:
    for copies in (1, 2):
        assert Node("tmnd-0", ["tmnd-0"], copies, ALL_SHARDS, 0).told == [0], "the table would say no otherwise"
    node = Node("tmnd-0", ["tmnd-0"], None, 0b1011, 0)
    node.holding.hold_parts()
    assert node.told == [0]


def test_a_node_that_holds_everything_never_asks_who_holds_what() -> None:
    node = Node("tmnd-0", ["tmnd-0", "tmnd-1"], None, ALL_SHARDS, 0)
    node.holding.announce()
    assert node.holding.all_here and not node.holding.is_partial and node.told == []
    assert all(node.holding.holds(shard) for shard in range(SHARDS)) and node.holding.unheld(S) == 0


def test_the_sum_of_what_nodes_are_primary_for_is_everything() -> None:
    world = World(6, 5, 2, ALL_SHARDS)
    world.run(30 * S, 2)
    counts = list(range(1, SHARDS + 1))
    told = []
    for node in world.nodes.values():
        own = [count if node.has.held >> shard & 1 else 0 for shard, count in enumerate(counts)]
        told.append(node.holding.primary_count(own, world.now_ns))
    assert sum(told) == sum(counts) and max(told) < 2 * sum(counts) / 5


@pytest.mark.parametrize("seed", range(10))
def test_no_shard_loses_its_last_holder_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.choice([2, 3, 4, 5])
    copies = chance.choice([1, 2, 3])
    world = World(seed, count, copies, ALL_SHARDS)
    for _ in range(12):
        world.loss = chance.choice([0.0, 0.0, 0.2, 0.6])
        world.delay_ns = chance.choice([2 * MS, 300 * MS, 12 * S])
        world.load_ns = chance.choice([1 * S, 10 * S, 100 * S])
        world.silent = set(chance.sample(world.ids, chance.randrange(count)))
        for node in world.nodes.values():
            if chance.random() < 0.2:
                node.holding.rebalance(world.now_ns)
        world.run(chance.choice([1, 5, 20, 90]) * S, 1)
    world.loss, world.delay_ns, world.load_ns, world.silent = 0.0, 2 * MS, 1 * S, set()
    world.run(200 * S, 1)
    assert set(world.holders()) == {min(copies, count)}, "and in the end each is where it belongs"


def test_a_node_that_knows_no_members_yet_finds_no_holder_of_anything() -> None:
    holding = Node("tmnd-a", [], 2, ALL_SHARDS, 0).holding
    assert [holding.holders(shard, S) for shard in range(SHARDS)] == [()] * SHARDS
    assert holding.cover(S) is None
    assert holding.unheld(S) == SHARDS

"""A shard that was loaded is as if it had always been held: whatever the history, whenever it is loaded, left, or begun anew.

The stream, the node that holds everything and the changes are those of test_table_histories. A node of parts follows that stream
and does what loading.py does, at random: it reads the last records of shards out of turn while others come in turn, leaves shards,
starts again from a snapshot and from its own log. At every place where both are exact, the sums of the shards it holds are equal.
"""

import random

import pytest

from tests.cluster.test_table_histories import Entry, Histories, Reader, Stream, run
from tests.unit.test_following import Node
from tokmesh.ids import ALL_SHARDS, SHARDS, shard_of
from tokmesh.log import record as r
from tokmesh.log.stream_record import Envelope

SESSION_KINDS = (r.SessionStated, r.SessionHeld, r.SessionsRevoked)


class Logged(Node):
    """A node that keeps what it applied, and can be made again of it."""

    def __init__(self) -> None:
        self.log: list[r.AnyRecord] = []
        super().__init__()

    def apply(self, record: r.AnyRecord) -> int | None:
        outcome = super().apply(record)
        self.log.append(record)
        return outcome


class PartReader(Reader):
    """A node of parts. held_at: by place, the shards it held there."""

    def __init__(self, stream: Stream, node: Node | None = None) -> None:
        super().__init__(stream, 0, node or Logged())
        self.held_at: dict[int, int] = {}
        self.unread: list[Entry] = []  # of the consumer
        self.through = 0
        self.base: tuple[Logged, int] | None = None  # of a snapshot: the node it makes, and how much of the log is in it
        if node is None:
            self.shards(0, 0)

    def shards(self, held: int, loading: int) -> None:
        self.node.apply(r.ShardsHeld(self.stream.now_ms, held, loading))
        while self.node.table.forgetting:
            self.node.table.forget(5)

    def read(self, count: int = 1 << 31) -> None:
        super().read(count)
        for place in self.found.keys() - self.held_at.keys():
            self.held_at[place] = self.node.store.following.held

    def begin_load(self, shards: int) -> None:
        following = self.node.store.following
        self.shards(following.held, shards)
        self.through = following.position

    def ask(self) -> None:
        """The consumer is made: what the stream holds at this moment."""
        loading = self.node.store.following.loading
        self.unread = [
            each for each in self.stream.beyond(0)
            if isinstance(each.record, SESSION_KINDS) and loading >> shard_of(session_of(each.record)) & 1
        ]  # fmt: skip

    def load(self, count: int) -> None:
        for entry in self.unread[:count]:
            if entry.position <= self.through:
                envelope = Envelope("tmnd-a", 1, entry.position, "", entry.record.encode()).encode()
                self.node.apply(r.ShardLoaded(self.stream.now_ms, entry.position, envelope))
        del self.unread[:count]

    def end_load(self) -> None:
        following = self.node.store.following
        self.shards(following.held | following.loading, 0)

    def take_snapshot(self) -> None:
        """What a start would begin with from now on."""
        made = Logged()
        made.table.exchange(self.from_snapshot().node.table)
        for record in self.node.store.following.records():
            made.store.take_place(record)
        self.base = made, len(self.log)

    @property
    def log(self) -> list[r.AnyRecord]:
        assert isinstance(self.node, Logged)
        return self.node.log

    def start_again(self) -> "PartReader":
        """Another node, made of the last snapshot and the log behind it; what was being loaded is not."""
        made, begin = self.base or (Logged(), 1)
        for sequence, record in enumerate(self.log[begin:], begin + 1):
            made.store.replay(sequence, r.decode(record.encode()))
            made.sequence = sequence
        held = made.store.following.held
        assert held == self.node.store.following.held or (self.base is not None and not held & ~self.node.store.following.held)
        made.log = list(self.log)
        other = PartReader(self.stream, made)
        other.found, other.held_at = self.found, self.held_at
        other.shards(held, 0)
        return other


def session_of(record: r.AnyRecord) -> bytes:
    if isinstance(record, r.SessionsRevoked):
        return record.session_ids[0]
    assert isinstance(record, r.SessionStated | r.SessionHeld)
    return record.session_id


def some(source: random.Random, bits: int) -> int:
    return bits & source.getrandbits(SHARDS)


def drive(source: random.Random, reader: PartReader) -> PartReader:
    """One step of what a node of parts does."""
    following = reader.node.store.following
    chance = source.random()
    if chance < 0.4:
        reader.read(source.choice([1, 1, 2, 10, 1 << 31]))
    elif following.loading:
        if chance < 0.5:
            reader.ask()
        elif chance < 0.9 and reader.unread:
            reader.load(source.choice([1, 1, 3, 20]))
        elif chance < 0.93 or reader.unread:
            pass
        elif chance < 0.96:
            reader.shards(following.held, 0)  # given up
        else:
            reader.ask()
            while reader.unread:
                reader.load(1)
            reader.end_load()
    elif chance < 0.5 and following.held != ALL_SHARDS:
        reader.begin_load(some(source, ALL_SHARDS & ~following.held))
    elif chance < 0.52:
        reader.shards(following.held & ~some(source, some(source, following.held)), 0)
    return reader


def check(readers: list[Reader]) -> int:
    """Of how many shards at how many places the sums were compared."""
    whole, compared = readers[0], 0
    for reader in readers[1:]:
        assert isinstance(reader, PartReader)
        for place in whole.found.keys() & reader.found.keys():
            for shard in range(SHARDS):
                if reader.held_at[place] >> shard & 1:
                    assert reader.found[place][shard] == whole.found[place][shard], (place, shard)
                    compared += 1
    return compared


@pytest.mark.parametrize("seed", range(20))
def test_a_shard_that_was_loaded_is_equal_to_one_that_was_always_held(seed: int) -> None:
    def step(source: random.Random, histories: Histories, readers: list[Reader], number: int) -> None:
        for at in (1, 2):
            reader = readers[at]
            assert isinstance(reader, PartReader)
            for _ in range(3):
                reader = drive(source, reader)
            if number % 97 == 96:
                reader = reader.start_again()
            readers[at] = reader

    readers = run(seed, lambda stream: [PartReader(stream), PartReader(stream)], step)
    assert check(readers) > 500


@pytest.mark.parametrize("seed", range(20))
def test_it_is_so_across_snapshots_too(seed: int) -> None:
    def step(source: random.Random, histories: Histories, readers: list[Reader], number: int) -> None:
        reader = readers[1]
        assert isinstance(reader, PartReader)
        for _ in range(3):
            reader = drive(source, reader)
        if source.random() < 0.02:
            reader.take_snapshot()
        readers[1] = reader.start_again() if source.random() < 0.01 else reader

    readers = run(seed, lambda stream: [PartReader(stream)], step)
    assert check(readers) > 300


def one_that_ended_in_turn_while_it_was_read() -> tuple[PartReader, bytes]:
    """A node that is loading everything, and the id of a session that its consumer still gives as it was before it ended."""
    histories = Histories(random.Random(1))
    part = PartReader(histories.stream)
    histories._create(0)
    session_id = histories.sessions[0].session_id
    part.read()
    part.begin_load(ALL_SHARDS)
    part.ask()
    histories.stream.put(session_id, r.SessionsRevoked(histories.stream.now_ms, [session_id]), 10_000)
    part.read()
    return part, session_id


def test_what_ends_in_turn_while_it_is_read_out_of_turn_does_not_come_back() -> None:
    part, session_id = one_that_ended_in_turn_while_it_was_read()
    part.load(10)
    part.end_load()
    assert part.node.table.find(session_id) < 0


@pytest.mark.parametrize("is_in_snapshot", [False, True])
def test_nor_does_it_after_a_start_from_a_snapshot_that_was_taken_meanwhile(is_in_snapshot: bool) -> None:
    """What has come in turn before a snapshot is not known to who starts from it: so nothing is being loaded there."""
    part, session_id = one_that_ended_in_turn_while_it_was_read()
    if is_in_snapshot:
        part.take_snapshot()
    part.load(10)
    part.end_load()
    assert part.node.store.following.held == ALL_SHARDS
    again = part.start_again()
    assert again.node.store.following.held == (0 if is_in_snapshot else ALL_SHARDS)
    assert again.node.table.find(session_id) < 0


def test_a_shard_is_held_only_when_it_was_being_loaded() -> None:
    part = PartReader(Histories(random.Random(1)).stream)
    part.shards(0b11, 0)
    assert part.node.store.following.held == 0
    part.shards(0, 0b01)
    part.shards(0b11, 0)
    assert part.node.store.following.held == 0b01

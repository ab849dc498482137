"""The short way from a record's bytes into the table means what the ordinary way means, for whatever bytes there may be."""

import random
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmesh._core.clock import Clock
from tokmesh._core.stated import begin_stated, entries_after
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Status, Table
from tokmesh.ids import ALL_SHARDS
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.log.stream_record import Envelope
from tokmesh.store import Store

T0 = 1_734_567_890_000
IDS = [(T0 << 80 | number).to_bytes(16, "big") for number in range(6)]
HASHES = [b"%032d" % number for number in range(6)]
CLOCK = Clock(anchor_ms=T0 + 123)

times = st.integers(T0, T0 + 5000) | st.sampled_from([0, 1, 2**62, 2**63 - 1])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=140) | st.sampled_from(
    ["ann", 'a"\\\n\x01', "é" * 128, "é" * 129, "u" * 128, "u" * 129, "\U0001f600" * 128, "用户"]
)
stated = st.builds(
    r.SessionStated,
    time_ms=times,
    session_id=st.sampled_from(IDS),
    token_hash=st.sampled_from(HASHES),
    old_token_hash=st.just(b""),
    old_valid_until_ms=st.just(0),
    created_at_ms=times,
    expires_at_ms=times,
    last_active_ms=times,
    version=st.sampled_from([0, 1, 1, 1, 2, 7, 2**64 - 1]),
    idle_seconds=st.sampled_from([0, 1, 600, 2**32 - 1]),
    user_id=texts,
    device_id=texts,
    ip_address=st.sampled_from(["", "192.0.2.1", "2001:db8::1", "é" * 32, "x" * 64]),
    user_agent=texts | st.sampled_from(["a" * 512, "a" * 513, "é" * 512]),
    created_by=st.sampled_from(["", "tmak-" + "0" * 26, "é" * 32]),
    data=st.sampled_from([b"{}", b'{"a":"b"}', b"", b"{{", b"x" * 4096, b"x" * 4097]),
)
rotated = st.builds(
    r.SessionStated, times, st.sampled_from(IDS), st.sampled_from(HASHES), st.sampled_from(HASHES), times, times, times, times,
    st.integers(1, 9), st.just(0), st.just("ann"), st.just(""), st.just(""), st.just(""), st.just(""), st.just(b"{}"),
)  # fmt: skip
others = st.one_of(
    st.builds(r.SessionsRevoked, times, st.lists(st.sampled_from(IDS), max_size=3)),
    st.builds(r.NodeStated, times, st.just("tmnd-a"), st.integers(1, 9)),
    st.builds(r.ClusterStated, times, st.just(bytes(16)), st.just(["tmnd-a"])),
)


@st.composite
def envelopes(draw: Any) -> bytes:
    """Mostly sessions; some of them damaged."""
    record = draw(st.one_of(stated, stated, stated, rotated, others)).encode()
    if draw(st.integers(0, 9)) == 0:  # of the record, which its envelope does not tell
        at = draw(st.integers(0, len(record) - 1))
        record = record[:at] + bytes((draw(st.integers(0, 255)),)) + record[at + 1 :]
    origin = draw(st.sampled_from(["tmnd-a", "tmnd-a", "tmnd-a", "knöten", "n" * 128, "n" * 129, ""]))
    whole = Envelope(origin, 1, 2, draw(st.sampled_from(["", "req-1", "é", "q" * 64, "q" * 65])), record).encode()
    damage = draw(st.integers(0, 19))
    if damage == 0:
        whole = whole[: draw(st.integers(0, len(whole)))]
    elif damage == 1:
        whole += draw(st.binary(min_size=1, max_size=3))
    elif damage == 2:
        at = draw(st.integers(0, len(whole) - 1))
        whole = whole[:at] + bytes((draw(st.integers(0, 255)),)) + whole[at + 1 :]
    return whole


class Node:
    """A store that follows a stream; both ways make the same of it or not."""

    def __init__(self, entries_max: int, held: int = ALL_SHARDS) -> None:
        self.table = Table(tombstone_ttl_ms=600_000, seed=bytes(16), entries_max=entries_max)
        self.store = Store(self.table, KeyRing())
        self.store.following.set_shards(r.ShardsHeld(T0, held, 0))
        self.store.apply(1, r.StreamBound(T0, b"c" * 16, 77, 0))

    def everything(self) -> list[object]:
        """Of the table and of what follows the stream."""
        following, table = self.store.following, self.table
        found: list[object] = [
            self.store.applied_sequence, following.position, following.time_ms, following.members, following.incarnations,
            following.quarantined, following.quarantined_total, following.tokenless, table.drain_touched(100),
            {**table.stats(), "memory_bytes": 0},  # pages that were only looked at count there
        ]  # fmt: skip
        for session_id in IDS:
            entry = table.find(session_id)
            found.append((entry, following.sequence_of_entry(entry)))
            if entry >= 0:
                found.append((table.session(entry), table.hashes(entry), table.status(entry, T0 + 1)))
        found.extend(table.find_token(token_hash, T0 + 1) for token_hash in HASHES)
        while table.advance(T0 + 3000, 1000):
            pass
        found.extend(table.find(session_id) >= 0 and table.status(table.find(session_id), T0) for session_id in IDS)
        return found


def batch_of(contents: Sequence[bytes], previous: int = 0, step: int = 1) -> StreamedBatch:
    batch = StreamedBatch(previous, CLOCK)
    for number, envelope in enumerate(contents, 1):
        batch.append(previous + number * step, envelope)
    return batch


@settings(max_examples=300, deadline=None)
@given(st.lists(envelopes(), min_size=1, max_size=12), st.data())
def test_both_ways_make_the_same_of_any_records(contents: list[bytes], data: Any) -> None:
    entries_max = data.draw(st.sampled_from([1, 3, 1000]))
    held = data.draw(st.sampled_from([ALL_SHARDS, ALL_SHARDS, 0b101101, 0b000001]))
    short, ordinary = Node(entries_max, held), Node(entries_max, held)
    at = 0
    while at < len(contents):  # in batches, each in parts
        count = data.draw(st.integers(1, len(contents) - at))
        batch = batch_of(contents[at : at + count], at * 3, 3)
        cut = data.draw(st.integers(0, count))
        short.store.apply_all(2 + at, batch, 0, cut)
        short.store.apply_all(2 + at + cut, batch, cut, count)
        for index in range(count):
            ordinary.store.apply(2 + at + index, r.decode(batch.record(index)))
        at += count
    assert short.everything() == ordinary.everything()


def session(number: int, **changed: object) -> bytes:
    values = {
        "time_ms": T0, "session_id": (T0 << 80 | number).to_bytes(16, "big"), "token_hash": b"%032d" % number,
        "old_token_hash": b"", "old_valid_until_ms": 0, "created_at_ms": T0, "expires_at_ms": T0 + 60_000, "last_active_ms": T0,
        "version": 1, "idle_seconds": 0, "user_id": f"user-{number}", "device_id": "", "ip_address": "192.0.2.1",
        "user_agent": "Mozilla/5.0", "created_by": "tmak-1", "data": b'{"a":"b"}',
    }  # fmt: skip
    record = r.SessionStated(**{**values, **changed})  # type: ignore[arg-type]
    return Envelope("tmnd-a", 1, number, "req-1", record.encode()).encode()


def revocation(*numbers: int) -> bytes:
    ids = [(T0 << 80 | number).to_bytes(16, "big") for number in numbers]
    return Envelope("tmnd-a", 1, 1, "", r.SessionsRevoked(T0, ids).encode()).encode()


def taken_of(contents: Sequence[bytes], previous: int = 0) -> int:
    node, batch = Node(1000), batch_of(contents, previous)
    places = array("Q", bytes(8 * entries_after(node.table, len(batch))))
    return begin_stated(node.table, batch, 0, len(batch), 0, ALL_SHARDS, places)


def test_usual_sessions_are_taken_the_short_way_all_of_them() -> None:
    usual = [
        session(1), session(2, version=9, last_active_ms=T0 + 5), session(3, user_id="用户", device_id="é" * 128),
        session(4, idle_seconds=60, user_agent=""), session(5),
        session(6, version=2, old_token_hash=b"o" * 32, old_valid_until_ms=T0 + 5), revocation(7, 8, 9), revocation(),
    ]  # fmt: skip
    assert taken_of(usual) == 8


@pytest.mark.parametrize(
    "unusual",
    [
        session(1),  # it is there
        session(5, token_hash=b"%032d" % 1),  # another has its token
        revocation(7, 1, 9),
        revocation(7, 8)[:-1],
        session(9, user_id=""),
        session(9, user_id="u" * 129),
        session(9, version=0),
        session(9)[:-1],
        session(9) + b"x",
        b"\x02" + session(9)[1:],
        session(9).replace(b"user-9", b"user-\xff"),
        b"",
    ],
)
def test_what_is_unusual_is_left_untouched_with_all_behind_it(unusual: bytes) -> None:
    assert taken_of([session(1), unusual, session(3)]) == 1


def test_what_does_not_follow_is_not_taken() -> None:
    assert taken_of([session(1)], previous=1) == 0
    node = Node(1000)
    node.store.apply_all(2, batch_of([session(1), session(2)], previous=5), 0, 2)
    assert (node.store.following.position, node.table.find(IDS[1]), node.store.applied_sequence) == (0, -1, 3)


def test_a_batch_that_was_applied_in_part_is_gone_on_with() -> None:
    node, batch = Node(1000), batch_of([session(number) for number in range(4)])
    node.store.apply_all(2, batch, 0, 3)
    node.store.apply_all(2, batch, 0, 4)
    assert (node.store.applied_sequence, node.store.following.position) == (5, 4)
    assert [node.table.session(node.table.find(IDS[number])).version for number in range(4)] == [1, 1, 1, 1]


def test_room_for_the_places_is_looked_at_before_anything_is_taken() -> None:
    node, batch = Node(1000), batch_of([session(1)])
    with pytest.raises(ValueError, match="too small"):
        begin_stated(node.table, batch, 0, 1, 0, ALL_SHARDS, array("Q"))
    with pytest.raises(IndexError):
        begin_stated(node.table, batch, 0, 2, 0, ALL_SHARDS, array("Q", bytes(8000)))
    assert node.table.find(IDS[1]) == -1


def test_many_sessions_are_all_there_with_their_places() -> None:
    seed = random.randrange(2**32)
    numbers = random.Random(seed).sample(range(10**6), 5000)
    node, at = Node(10_000), 0
    while at < len(numbers):
        part = numbers[at : at + 1000]
        batch = batch_of([session(number) for number in part], at)
        node.store.apply_all(2 + at, batch, 0, len(part))
        at += len(part)
    for position, number in enumerate(numbers, 1):
        entry = node.table.find((T0 << 80 | number).to_bytes(16, "big"))
        assert node.store.following.sequence_of_entry(entry) == position, seed
        assert node.table.status(entry, T0 + 1) == Status.LIVE, seed

"""Whatever the history, and however a node came by it, its table is compared equal.

A stream is simulated: it keeps the last record of a subject, for as long as the record says. Nodes read it at once, late, after a
stop, from a snapshot, from the beginning; their clocks differ, and they hear of accesses that others do not hear of. Records go
through `Streamed` and `Store` as they do in a real node.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.unit.test_following import Node, stated, ulid
from tokmesh._core.loader import Loader
from tokmesh.cluster.comparing import MARGIN_MS
from tokmesh.cluster.statement import SLACK_MS, UNCONDITIONAL, Statement, Stating
from tokmesh.cluster.subjects import Subjects
from tokmesh.log import record as r

SESSIONS = 40
STEPS = 1_200
T0 = 1_734_567_890_000
TOMBSTONE_MS = 600_000  # of Node's table
LIFE_MS_MAX = 30 * 24 * 3_600_000
FAST_MS, SLOW_MS = 25_000, -25_000
PLACE = b"place"


class Entry(NamedTuple):
    position: int
    record: r.AnyRecord
    gone_ms: int


class Stream:
    """One record a subject; `at` positions that were replaced or have gone there is nothing."""

    def __init__(self) -> None:
        self.last = 0
        self.now_ms = T0
        self.entries: dict[bytes, Entry] = {}

    def put(self, subject: bytes, record: r.AnyRecord, life_ms: int) -> None:
        self.last += 1
        self.entries.pop(subject, None)
        self.entries[subject] = Entry(self.last, record, self.now_ms + life_ms + SLACK_MS)

    def beyond(self, position: int) -> list[Entry]:
        return [each for each in self.entries.values() if each.position > position and each.gone_ms > self.now_ms]


class Reader:
    """A node that reads it. ahead_ms: of its clock; found: its sums at the places where its table is exact."""

    def __init__(self, stream: Stream, ahead_ms: int = 0, node: Node | None = None) -> None:
        self.stream = stream
        self.ahead_ms = ahead_ms
        self.node = node or Node()
        self.found: dict[int, tuple[int, ...]] = {}

    def read(self, count: int = 1 << 31) -> None:
        following = self.node.store.following
        for entry in self.stream.beyond(following.position)[:count]:
            self.node.stream(entry.position, entry.record)
            place = following.place
            if place is not None and place.position == entry.position and place.is_exact:
                survey = self.node.table.begin_survey((7, place.position), place.time_ms + MARGIN_MS)
                sums = survey.step(1 << 31)
                assert sums is not None
                self.found[place.position] = sums

    def revoke(self, came_back: list[Statement]) -> None:
        """What Revoking would, after revocations of its own have come back."""
        node, now_ms = self.node, self.stream.now_ms
        following = node.store.following
        stating = Stating(Subjects("test"), node.table, node.keyring, following, TOMBSTONE_MS, LIFE_MS_MAX)
        outliving = [each for revocation in came_back for each in stating.outliving(revocation)]
        came_back.clear()
        for session_id in (*sorted(following.tokenless), *outliving):
            found = stating.revocation(session_id, now_ms)
            self.stream.put(session_id, found.record, found.ttl_ms - SLACK_MS)

    def pass_time(self) -> None:
        while self.node.table.advance(self.stream.now_ms + self.ahead_ms, 1 << 31):
            pass

    def from_snapshot(self) -> "Reader":
        """Another node that a snapshot of this one has made."""
        table, made = self.node.table, Node()
        table.begin_image()
        images, _ = table.image.step(1 << 31)
        made.table.exchange(type(table)(tombstone_ttl_ms=TOMBSTONE_MS))
        Loader(made.table, time_ms=self.stream.now_ms).load(images)
        for record in self.node.store.following.records():
            made.store.take_place(record)
        return Reader(self.stream, self.ahead_ms, made)


class Histories:
    """Random changes, each decided on what the stream holds: as nodes do, one wins at each version."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.stream = Stream()
        self.sessions: dict[int, r.SessionStated] = {}
        self.first_ms: dict[int, int] = {}  # the first end
        self.revocations: list[Statement] = []  # that have not come back
        self.losers = 0
        self.longest_ms: dict[int, int] = {}  # by session: the latest end that was stated of it
        self.tokens = 0

    def step(self) -> None:
        source, stream = self.source, self.stream
        stream.now_ms += source.choice([0, 1, 20, 700])
        number = source.randrange(SESSIONS)
        session = self.sessions.get(number)
        if session is None or session.expires_at_ms <= stream.now_ms:
            if session is None or session.expires_at_ms + TOMBSTONE_MS + SLACK_MS < stream.now_ms:
                self._create(number)
                if source.random() < 0.3:
                    self._create_with_the_token_of(self.sessions[number])
        elif source.random() < 0.1:
            self.revoke(number, source.choice([self.longest_ms, self.first_ms])[number])
        else:
            self._change(number, session)

    def revoke(self, number: int, longest_ms: int) -> None:
        """By a node that knows of that end: it may not know yet of what was changed."""
        now_ms, session = self.stream.now_ms, self.sessions.pop(number)
        record, life_ms = r.SessionsRevoked(now_ms, [session.session_id]), max(longest_ms - now_ms, 0) + TOMBSTONE_MS
        self.stream.put(session.session_id, record, life_ms)
        self.revocations.append(Statement("", record, UNCONDITIONAL, life_ms + SLACK_MS, ""))

    def place(self) -> None:
        self.stream.put(PLACE, r.PlaceStated(self.stream.now_ms), 0)

    def _token(self) -> bytes:
        self.tokens += 1
        return b"%032d" % (1_000_000 + self.tokens)

    def _state(self, number: int, session_id: bytes, **fields: Any) -> None:
        now_ms = self.stream.now_ms
        before = self.sessions.get(number)
        values = {} if before is None else {name: getattr(before, name) for name in type(before).__slots__}
        record = stated(1, **{**values, "session_id": session_id, "time_ms": now_ms, "last_active_ms": now_ms, **fields})
        self.sessions[number] = record
        self.first_ms.setdefault(number, record.expires_at_ms)
        longest_ms = self.longest_ms[number] = max(self.longest_ms.get(number, 0), record.expires_at_ms)
        is_held = longest_ms > record.expires_at_ms
        put = r.SessionHeld(now_ms, session_id, longest_ms, record) if is_held else record
        self.stream.put(session_id, put, max(longest_ms - now_ms, 0) + TOMBSTONE_MS)

    def _create(self, number: int) -> None:
        self.sessions.pop(number, None)
        self.longest_ms.pop(number, None)
        self.first_ms.pop(number, None)
        now_ms, source = self.stream.now_ms, self.source
        self._state(
            number, ulid(self.stream.last * 1_000 + number), token_hash=self._token(), created_at_ms=now_ms,
            expires_at_ms=now_ms + source.choice([1_000, 70_000, 600_000, 3_600_000]),
            idle_seconds=source.choice([0, 0, 5, 90, 900]),
            user_id=f"user{number}", user_agent=source.choice(["", "curl"]), ip_address="10.0.0.1",
        )  # fmt: skip

    def _create_with_the_token_of(self, winner: r.SessionStated) -> None:
        """Another node was given the token as well, in the same moment."""
        self.losers += 1
        now_ms, life_ms = self.stream.now_ms, self.source.choice([1_000, 600_000, 3_600_000])
        loser = stated(
            1, session_id=ulid(1_000_000_000 + self.losers), token_hash=winner.token_hash, time_ms=now_ms, created_at_ms=now_ms,
            last_active_ms=now_ms, expires_at_ms=now_ms + life_ms,
        )  # fmt: skip
        self.stream.put(loser.session_id, loser, life_ms + TOMBSTONE_MS)

    def _change(self, number: int, session: r.SessionStated) -> None:
        source, now_ms = self.source, self.stream.now_ms
        # Whoever states it may have forgotten the old token by then.
        grace_over = session.old_valid_until_ms <= now_ms and source.random() < 0.5
        fields: dict[str, Any] = {"old_token_hash": b"", "old_valid_until_ms": 0} if grace_over else {}
        match source.randrange(3):
            case 0:
                fields["data"] = b'{"n":"%d"}' % source.randrange(1_000)
            case 1:
                fields["expires_at_ms"] = now_ms + source.choice([500, 90_000, 3_600_000])
            case _:
                until_ms = now_ms + source.choice([0, 2_000, 61_000, 300_000])
                fields |= {"old_token_hash": session.token_hash, "old_valid_until_ms": until_ms, "token_hash": self._token()}
        self._state(number, session.session_id, version=session.version + 1, **fields)


def touch_some(source: random.Random, readers: list[Reader], histories: Histories) -> None:
    """An access that one node hears of, and not the others."""
    session = source.choice(list(histories.sessions.values()))
    source.choice(readers).node.table.touch(session.session_id, histories.stream.now_ms)


def run(seed: int, others: Callable[[Stream], list[Reader]], each_step: Callable[..., None]) -> list[Reader]:
    """A history with a node that reads at once, and `others`, driven by `each_step(source, histories, readers, step)`."""
    source = random.Random(seed)
    histories = Histories(source)
    readers = [Reader(histories.stream), *others(histories.stream)]
    for number in range(STEPS):
        histories.step()
        if source.random() < 0.05:
            histories.place()
        if histories.sessions and source.random() < 0.3:
            touch_some(source, readers, histories)
        readers[0].read()
        readers[0].revoke(histories.revocations)
        each_step(source, histories, readers, number)
        if source.random() < 0.2:
            source.choice(readers).pass_time()
    histories.place()
    for _ in range(2):
        for reader in readers:
            reader.read()
        histories.place()
    for reader in readers:
        reader.read()
    return readers


def check_equal(readers: list[Reader]) -> int:
    """At every place where two are exact they are equal; of how many places that is so for all."""
    whole = readers[0]
    for reader in readers[1:]:
        common = whole.found.keys() & reader.found.keys()
        assert len(common) >= 2, "else this says nothing"
        for position in common:
            assert reader.found[position] == whole.found[position], position
    return sum(len(reader.found) for reader in readers[1:])


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_read_late_and_by_other_clocks_are_equal_wherever_they_are_exact(seed: int) -> None:
    def late(source: random.Random, histories: Histories, readers: list[Reader], number: int) -> None:
        for reader in readers[1:]:
            if source.random() < 0.3:
                reader.read(source.randrange(1, 60))

    readers = run(seed, lambda stream: [Reader(stream, FAST_MS), Reader(stream, SLOW_MS)], late)
    check_equal(readers)
    assert all(len(reader.found) < len(readers[0].found) for reader in readers[1:]), "late, so not exact everywhere"


@pytest.mark.parametrize("seed", range(12))
def test_a_node_made_of_the_stream_alone_is_equal(seed: int) -> None:
    def begin(source: random.Random, histories: Histories, readers: list[Reader], number: int) -> None:
        if number % 300 == 299:
            readers.append(Reader(histories.stream, source.choice([FAST_MS, SLOW_MS])))
        for reader in readers[1:]:
            reader.read()

    readers = run(seed, lambda stream: [], begin)
    assert check_equal(readers) > 20


@pytest.mark.parametrize("seed", range(12))
def test_a_node_that_comes_back_from_a_snapshot_and_what_the_stream_has_since_is_equal(seed: int) -> None:
    def stop_and_come_back(source: random.Random, histories: Histories, readers: list[Reader], number: int) -> None:
        if number % 200 == 99:
            readers[1] = readers[1].from_snapshot()
        elif number % 200 == 130:  # long enough for the stream to forget a life that was made short
            histories.stream.now_ms += TOMBSTONE_MS + SLACK_MS + 100_000
        elif number % 200 < 100 or number % 200 > 150:  # stopped for the fifty steps behind the snapshot
            readers[1].read()

    readers = run(seed, lambda stream: [Reader(stream)], stop_and_come_back)
    check_equal(readers)


def test_what_a_place_without_its_rule_would_say() -> None:
    """A node that is late lacks what was replaced from behind the place: its table differs there, and nobody is wrong."""
    histories = Histories(random.Random(1))
    whole, late = Reader(histories.stream), Reader(histories.stream)
    for number in range(3):
        histories._create(number)
        histories.place()
        whole.read()
        late.read()
    histories._change(0, histories.sessions[0])
    whole.read()
    histories.place()
    whole.read()
    histories._change(0, histories.sessions[0])
    late.read()
    assert late.node.store.following.position > late.node.store.following.place[0]  # type: ignore[index]
    assert late.node.store.following.place[0] in whole.found.keys() - late.found.keys()  # type: ignore[index]


def test_a_node_that_was_away_when_a_session_ended_that_was_just_made_longer_is_equal() -> None:
    """The end is stated by a node that does not know of that yet, so that the stream would forget it before."""
    histories = Histories(random.Random(1))
    whole, away = Reader(histories.stream), Reader(histories.stream)
    histories._create(0)
    first_ms = histories.stream.now_ms + 70_000
    histories._state(0, histories.sessions[0].session_id, version=2, idle_seconds=0, expires_at_ms=first_ms)
    histories._state(0, histories.sessions[0].session_id, version=3, expires_at_ms=first_ms + 3_600_000)
    for reader in (whole, away):
        reader.read()
    histories.revoke(0, first_ms)
    whole.read()
    whole.revoke(histories.revocations)
    histories.stream.now_ms = first_ms + TOMBSTONE_MS + SLACK_MS + 1
    for _ in range(3):
        histories.place()
        for reader in (whole, away):
            reader.read()
    assert check_equal([whole, away]) == 2

"""What the stream of a cluster makes of a node: each record once, in order, the same from the changes as from the last state."""

import pytest

from tokmesh import following
from tokmesh._core.table import Outcome, Status, Table, Verdict
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.log.stream_record import Envelope
from tokmesh.store import Store

T0 = 1_734_567_890_000
HOUR_MS = 3_600_000
CLUSTER_ID = b"c" * 16


def ulid(number: int) -> bytes:
    return (T0 << 80 | number).to_bytes(16, "big")


def stated(number: int, **fields: object) -> r.SessionStated:
    values = {
        "time_ms": T0, "session_id": ulid(number), "token_hash": b"%032d" % number, "old_token_hash": b"", "old_valid_until_ms": 0,
        "created_at_ms": T0, "expires_at_ms": T0 + HOUR_MS, "last_active_ms": T0, "version": 1, "idle_seconds": 0, "user_id": "ann",
        "device_id": "", "ip_address": "", "user_agent": "", "created_by": "", "data": b"{}",
    }  # fmt: skip
    return r.SessionStated(**{**values, **fields})  # type: ignore[arg-type]


class Node:
    """A node's store, and a stream of its own."""

    def __init__(self) -> None:
        self.table = Table(tombstone_ttl_ms=600_000, seed=bytes(16))
        self.keyring = KeyRing()
        self.store = Store(self.table, self.keyring)
        self.sequence = 0
        self.apply(r.StreamBound(T0, CLUSTER_ID, 77, 0))

    def apply(self, record: r.AnyRecord) -> int | None:
        self.sequence += 1
        return self.store.apply(self.sequence, record)

    def stream(self, position: int, record: r.AnyRecord, previous: int | None = None) -> int | None:
        before = self.store.following.position if previous is None else previous
        envelope = Envelope("tmnd-a", 1, position, "", record.encode())
        return self.apply(r.Streamed(record.time_ms, position, before, envelope.encode()))

    def verdict(self, token_hash: bytes, now_ms: int = T0 + 1) -> int:
        return self.table.find_token(token_hash, now_ms)[0]


def test_a_session_goes_through_its_states() -> None:
    node = Node()
    assert node.stream(1, stated(1)) == Outcome.INSERTED
    assert node.stream(2, stated(1, version=2, expires_at_ms=T0 + 2 * HOUR_MS, time_ms=T0 + 5)) == Outcome.DONE
    first = b"%032d" % 1
    rotated = stated(1, version=3, time_ms=T0 + 6, token_hash=b"n" * 32, old_token_hash=first, old_valid_until_ms=T0 + 60_000)
    assert node.stream(3, rotated) == Outcome.DONE
    view = node.table.session(node.table.find(ulid(1)))
    assert (view.version, view.expires_at, view.last_active) == (3, T0 + HOUR_MS, T0 + 6)
    assert node.verdict(b"n" * 32) == node.verdict(b"%032d" % 1) == Verdict.VERDICT_VALID
    assert node.verdict(b"%032d" % 1, T0 + 60_000) == Verdict.VERDICT_EXPIRED
    assert node.stream(4, r.SessionsRevoked(T0 + 7, [ulid(1)])) == 1
    assert node.verdict(b"n" * 32) == Verdict.VERDICT_REVOKED


def test_the_last_state_alone_makes_the_same_session_as_all_that_led_to_it() -> None:
    last = stated(
        1, version=4, time_ms=T0 + 9, last_active_ms=T0 + 9, data=b'{"a":"b"}', token_hash=b"n" * 32, old_token_hash=b"%032d" % 1,
        old_valid_until_ms=T0 + 60_000,
    )  # fmt: skip
    whole, late = Node(), Node()
    for position, record in enumerate(
        (stated(1), stated(1, version=2, data=b'{"a":"x"}'), stated(1, version=3, data=b'{"a":"b"}'), last), 1
    ):
        whole.stream(position, record)
    late.stream(4, last)
    views = [node.table.session(node.table.find(ulid(1))) for node in (whole, late)]
    assert views[0] == views[1]
    hashes = [node.table.hashes(node.table.find(ulid(1))) for node in (whole, late)]
    assert hashes[0] == hashes[1] == (b"n" * 32, b"%032d" % 1, T0 + 60_000)


def test_a_token_that_this_node_missed_has_its_grace_and_the_one_before_it_none() -> None:
    whole, late = Node(), Node()
    rotations = [
        stated(1),
        stated(1, version=2, time_ms=T0 + 1, token_hash=b"2" * 32, old_token_hash=b"%032d" % 1, old_valid_until_ms=T0 + 1),
        stated(1, version=3, time_ms=T0 + 2, token_hash=b"3" * 32, old_token_hash=b"2" * 32, old_valid_until_ms=T0 + 60_000),
    ]
    for position, record in enumerate(rotations, 1):
        whole.stream(position, record)
        if position != 2:  # it had been replaced in the stream when this node came by
            late.stream(position, record)
    for node in (whole, late):
        assert node.verdict(b"%032d" % 1, T0 + 3) != Verdict.VERDICT_VALID
        assert node.verdict(b"2" * 32, T0 + 3) == node.verdict(b"3" * 32, T0 + 3) == Verdict.VERDICT_VALID
        assert node.table.hashes(node.table.find(ulid(1))) == (b"3" * 32, b"2" * 32, T0 + 60_000)


def place(position: int) -> r.PlaceStated:
    return r.PlaceStated(T0 + position)


def test_a_place_is_exact_when_nothing_was_missing_since_the_one_before() -> None:
    node = Node()
    following = node.store.following
    node.stream(5, place(5))
    assert following.place == (5, T0 + 5, False), "what was before the first is not known"
    node.stream(6, stated(1))
    node.stream(7, place(7))
    assert following.place == (7, T0 + 7, True)
    node.stream(9, stated(2))
    node.stream(10, place(10))
    assert following.place == (10, T0 + 10, False), "8 was missing"
    node.stream(11, place(11))
    assert following.place == (11, T0 + 11, True)
    node.stream(13, place(13))
    assert following.place == (13, T0 + 13, False), "12 was missing, just before it"
    node.apply(r.Streamed(T0, 14, 13, b"junk"))
    node.stream(15, place(15))
    assert following.place == (15, T0 + 15, True), "what means nothing is not missing"
    node.apply(r.Streamed(T0, 17, 15, b"junk"))
    node.stream(18, place(18))
    assert following.place == (18, T0 + 18, False), "but what is missing before it is"


def test_no_place_is_remembered_of_another_stream() -> None:
    node = Node()
    node.stream(1, place(1))
    node.apply(r.StreamBound(T0, CLUSTER_ID, 78, 0))
    assert node.store.following.place is None
    node.stream(1, place(1))
    assert node.store.following.place == (1, T0 + 1, False)


def test_a_revoked_session_is_not_brought_back_by_a_state() -> None:
    node = Node()
    node.stream(1, stated(1))
    node.stream(2, r.SessionsRevoked(T0 + 1, [ulid(1)]))
    assert node.stream(3, stated(1, version=2, time_ms=T0 + 2)) == Outcome.REVOKED_ALREADY
    assert node.table.status(node.table.find(ulid(1)), T0 + 3) == Status.REVOKED


def test_of_two_sessions_with_one_token_the_first_in_the_stream_has_it() -> None:
    node = Node()
    assert node.stream(1, stated(1)) == Outcome.INSERTED
    assert node.stream(2, stated(2, token_hash=b"%032d" % 1)) == Outcome.TOKEN_EXISTS
    assert node.table.find(ulid(2)) < 0


def test_a_record_that_was_applied_or_does_not_follow_changes_nothing() -> None:
    node = Node()
    node.stream(1, stated(1))
    node.stream(5, stated(2))
    assert node.stream(5, stated(3), previous=1) == -1
    assert node.stream(9, stated(3), previous=8) == -1
    assert (node.store.following.position, node.table.find(ulid(3))) == (5, -1)
    assert node.stream(9, stated(3)) == Outcome.INSERTED


def test_what_means_nothing_is_passed_over_counted_and_told_with_its_position() -> None:
    node = Node()
    good = Envelope("tmnd-a", 1, 1, "", stated(1).encode()).encode()
    for position, envelope in enumerate(
        (
            b"\x02" + good[1:],
            b"junk",
            Envelope("tmnd-a", 1, 1, "", b"\x63\x01" + bytes(8)).encode(),
            Envelope("tmnd-a", 1, 1, "", r.StreamBound(T0, bytes(16), 1, 9).encode()).encode(),
            b"",
            Envelope("tmnd-a", 1, 1, "", stated(2, user_id="u" * 200).encode()).encode(),
        ),
        1,
    ):
        # As the own log has it, which must be readable at the next start.
        streamed = r.decode(r.Streamed(T0, position, position - 1, envelope).encode())
        assert node.apply(streamed) == -1
    following = node.store.following
    assert (following.position, following.quarantined, following.quarantined_total) == (6, [1, 2, 3, 4, 5, 6], 6)
    assert following.created_ns == 77
    assert node.stream(7, stated(1)) == Outcome.INSERTED


@pytest.mark.parametrize(("count", "remembered"), [(2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3]), (9, [1, 2, 3])])
def test_of_what_means_nothing_the_first_positions_are_remembered_and_all_counted(
    count: int, remembered: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "QUARANTINED_MAX", 3)
    node = Node()
    for position in range(1, count + 1):
        node.apply(r.Streamed(T0, position, position - 1, b"junk"))
    assert (node.store.following.quarantined, node.store.following.quarantined_total) == (remembered, count)


def test_the_latest_end_ever_stated_is_remembered_until_it_is_past_also_by_a_snapshot() -> None:
    node = Node()
    following = node.store.following
    node.stream(1, stated(1, expires_at_ms=T0 + 2 * HOUR_MS))
    assert following.held_until_ms(ulid(1)) == 0
    shorter = stated(1, version=2, time_ms=T0 + 5, expires_at_ms=T0 + 60_000)
    assert node.stream(3, r.SessionHeld(T0 + 5, ulid(1), T0 + 2 * HOUR_MS, shorter)) == Outcome.DONE
    assert node.table.session(node.table.find(ulid(1))).expires_at == T0 + 60_000
    assert following.sequence_of_entry(node.table.find(ulid(1))) == 3
    node.stream(4, r.SessionHeld(T0 + 6, ulid(1), T0 + HOUR_MS, stated(1, version=3, time_ms=T0 + 6, expires_at_ms=T0 + 50_000)))
    assert following.held_until_ms(ulid(1)) == T0 + 2 * HOUR_MS, "not what another node remembers wrongly"

    late = Store(Table(tombstone_ttl_ms=1, seed=bytes(16)), KeyRing())
    for record in following.records():
        late.take_place(r.decode(record.encode()))  # type: ignore[arg-type]
    assert late.following.held_until_ms(ulid(1)) == T0 + 2 * HOUR_MS

    for number in range(2, 2000):
        time_ms = T0 + 2 * HOUR_MS + number
        brief = stated(number, time_ms=time_ms, expires_at_ms=time_ms)
        node.stream(3 + number, r.SessionHeld(time_ms, ulid(number), time_ms + 1, brief))
    assert following.held_until_ms(ulid(1)) == 0
    assert following.held_until_ms(ulid(1999)) > 0 and sum(isinstance(each, r.SessionHeld) for each in following.records()) == 1


def test_where_a_subject_stands_is_known_for_what_came_by_and_for_nothing_else() -> None:
    node = Node()
    following = node.store.following
    key = r.KeyCreated(T0, b"k" * 16, "admin", "", [], 0.0, 0, "h", bytes(16), bytes(32))
    node.stream(3, stated(1))
    node.stream(4, stated(2))
    node.stream(6, stated(1, version=2))
    node.stream(7, r.KeyStated(T0, True, key))
    assert [following.sequence_of_entry(node.table.find(ulid(number))) for number in (1, 2)] == [6, 4]
    assert (following.sequence_of_key(b"k" * 16), following.sequence_of_key(b"x" * 16)) == (7, 0)
    assert (following.sequence_of_entry(-1), following.sequence_of_entry(10**6)) == (0, 0)


def test_a_key_is_what_is_stated_of_it() -> None:
    node = Node()
    key = r.KeyCreated(T0, b"k" * 16, "issuer", "d", ["10.0.0.0/8"], 1.5, 0, "h", bytes(16), bytes(32))
    assert node.stream(1, r.KeyStated(T0, True, key)) == 1
    assert node.stream(2, r.KeyStated(T0 + 1, False, key)) == 1
    assert node.stream(3, r.KeyStated(T0 + 1, False, key)) == 0
    (stored,) = node.keyring.all()
    assert (stored.api_key.active, stored.created_record()) == (False, key)


def test_members_and_starts_are_those_last_stated_and_survive_a_snapshot() -> None:
    node = Node()
    node.stream(1, r.ClusterStated(T0, CLUSTER_ID, ["tmnd-b", "tmnd-a"]))
    node.stream(2, r.NodeStated(T0, "tmnd-a", 5))
    assert node.stream(3, r.NodeStated(T0, "tmnd-a", 4)) == 0
    other = Store(Table(tombstone_ttl_ms=1, seed=bytes(16)), KeyRing())
    for record in node.store.following.records():
        other.take_place(r.decode(record.encode()))  # type: ignore[arg-type]
    found, expected = other.following, node.store.following
    assert expected.members == ("tmnd-a", "tmnd-b")
    for name in ("position", "created_ns", "cluster_id", "members", "incarnations"):
        assert getattr(found, name) == getattr(expected, name), name


def test_what_lost_its_token_to_another_is_known_until_the_stream_says_that_it_is_over_also_by_a_snapshot() -> None:
    """Who follows the stream knows it from the order of the two, which the stream forgets when the other one is changed."""
    node = Node()
    tokenless = node.store.following.tokenless
    node.stream(1, stated(1))
    assert node.stream(2, stated(2, token_hash=b"%032d" % 1)) == Outcome.TOKEN_EXISTS
    assert node.stream(3, stated(3, token_hash=b"%032d" % 1, version=2)) == Outcome.TOKEN_EXISTS
    assert tokenless == {ulid(2)}, "of what was changed since it began the order is not known"
    other = Store(Table(tombstone_ttl_ms=1, seed=bytes(16)), KeyRing())
    for record in node.store.following.records():
        other.take_place(r.decode(record.encode()))  # type: ignore[arg-type]
    assert other.following.tokenless == {ulid(2)}
    node.stream(4, r.SessionsRevoked(T0 + 1, [ulid(1)]))
    assert tokenless == {ulid(2)}
    node.stream(5, r.SessionsRevoked(T0 + 1, [ulid(2)]))
    assert tokenless == set()


def test_what_has_the_token_of_a_session_that_has_expired_has_lost_it_to_nobody() -> None:
    """Who proposed it remembers that token no more: the slower of two clocks must not end an acknowledged session everywhere."""
    node = Node()
    node.stream(1, stated(1, expires_at_ms=T0 + 1000))
    assert node.stream(2, stated(2, token_hash=b"%032d" % 1, time_ms=T0 + 1000)) == Outcome.TOKEN_EXISTS
    assert node.store.following.tokenless == set()
    node.stream(3, stated(3, expires_at_ms=T0 + 1001))
    assert node.stream(4, stated(4, token_hash=b"%032d" % 3, time_ms=T0 + 1000)) == Outcome.TOKEN_EXISTS
    assert node.store.following.tokenless == {ulid(4)}


def test_what_lost_its_token_in_another_stream_is_forgotten() -> None:
    node = Node()
    node.stream(1, stated(1))
    node.stream(2, stated(2, token_hash=b"%032d" % 1))
    node.apply(r.StreamBound(T0, CLUSTER_ID, 78, 0))
    assert node.store.following.tokenless == set()

"""The applier: every kind reaches the table or the key ring, once, whatever clock and luck; replay keeps memory bounded."""

import pytest

from tokmesh import store as store_module
from tokmesh._core.table import Outcome, Status, Table, Verdict
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.store import Store

T0 = 1_734_567_890_000
HOUR_MS = 3_600_000


def ulid(number: int) -> bytes:
    return (T0 << 80 | number).to_bytes(16, "big")


def created(
    number: int, *, time_ms: int = T0, ttl_ms: int = HOUR_MS, idle_seconds: int = 0, evicts: list[bytes] | None = None
) -> r.SessionCreated:
    token_hash = number.to_bytes(4, "big") * 8
    return r.SessionCreated(
        time_ms, ulid(number), token_hash, "ann", "phone", "10.0.0.1", "agent", "tmak-x", time_ms + ttl_ms,
        idle_seconds, b"{}", evicts or [],
    )  # fmt: skip


@pytest.fixture
def table() -> Table:
    return Table(tombstone_ttl_ms=600_000, seed=bytes(16))


@pytest.fixture
def store(table: Table) -> Store:
    return Store(table, KeyRing())


def test_a_session_lives_through_its_records(table: Table, store: Store) -> None:
    assert store.apply(1, created(1)) == Outcome.INSERTED
    assert store.apply(2, r.SessionRenewed(T0 + 1, ulid(1), T0 + 2 * HOUR_MS)) == Outcome.DONE
    assert store.apply(3, r.SessionUpdated(T0 + 2, ulid(1), b'{"a":"b"}')) == Outcome.DONE
    assert store.apply(4, r.TokenRotated(T0 + 3, ulid(1), b"n" * 32, T0 + 3)) == Outcome.DONE
    assert store.apply(5, r.SessionsTouched(T0 + 9, [(ulid(1), T0 + 8, "10.0.0.2", None)])) == 0
    view = table.session(table.find(ulid(1)))
    assert (view.version, view.expires_at, view.data) == (4, T0 + 2 * HOUR_MS, b'{"a":"b"}')
    assert (view.last_active, view.last_access_ip, view.last_access_ua) == (T0 + 8, "10.0.0.2", "agent")
    assert table.find_token(b"n" * 32, T0 + 9)[0] == 0
    assert store.apply(6, r.SessionsRevoked(T0 + 10, [ulid(1), ulid(2)])) == 1
    assert store.apply(7, r.SessionRenewed(T0 + 11, ulid(1), T0 + 3 * HOUR_MS)) == Outcome.REVOKED_ALREADY
    assert store.apply(8, r.SessionRenewed(T0 + 11, ulid(2), T0 + 3 * HOUR_MS)) == Outcome.MISSING
    assert store.applied_sequence == 8


def test_a_record_is_applied_once(table: Table, store: Store) -> None:
    store.apply(1, created(1))
    assert store.apply(2, r.SessionUpdated(T0 + 2, ulid(1), b"{}")) == Outcome.DONE
    for sequence in (1, 2):
        assert store.apply(sequence, r.SessionUpdated(T0 + 3, ulid(1), b"{}")) is None
    assert table.session(table.find(ulid(1))).version == 2
    assert store.applied_sequence == 2


def test_evictions_happen_with_the_session_that_needs_the_room_and_only_then(table: Table, store: Store) -> None:
    store.apply(1, created(1))
    clash = created(1, evicts=[ulid(1)])
    assert store.apply(2, clash) == Outcome.ID_EXISTS
    assert table.status(table.find(ulid(1)), T0) == Status.LIVE
    assert store.apply(3, created(2, evicts=[ulid(1)])) == Outcome.INSERTED
    assert table.status(table.find(ulid(1)), T0) == Status.REVOKED
    assert table.status(table.find(ulid(2)), T0) == Status.LIVE


def test_keys_are_made_and_switched(table: Table) -> None:
    ring = KeyRing()
    store = Store(table, ring)
    record = r.KeyCreated(
        T0, ulid(9), "issuer", "web", ["10.0.0.0/8"], 5.0, T0 + HOUR_MS, "$argon2id$", b"s" * 16, b"t" * 32
    )
    assert store.apply(1, record) == 1
    assert store.apply(2, record) == 0
    [stored] = ring.all()
    key = stored.api_key
    assert ring.get(key.key_id) is stored
    assert (key.role_name, key.active, key.expires_at_ms, key.rate_per_second) == ("issuer", True, T0 + HOUR_MS, 5.0)
    assert [str(network) for network in key.networks or ()] == ["10.0.0.0/8"]
    generation = key.generation
    assert store.apply(3, r.KeyStatusChanged(T0 + 1, ulid(9), False)) == 1
    assert not key.active and key.generation == generation + 1
    assert store.apply(4, r.KeyStatusChanged(T0 + 2, ulid(9), False)) == 0
    assert store.apply(5, r.KeyStatusChanged(T0 + 2, ulid(8), False)) == 0
    assert key.generation == generation + 1


@pytest.mark.parametrize("until_ms", [None, T0])
def test_replay_drops_what_ended_long_before(
    table: Table, monkeypatch: pytest.MonkeyPatch, until_ms: int | None
) -> None:
    monkeypatch.setattr(store_module, "REPLAY_ADVANCE_RECORDS", 8)
    store = Store(table, KeyRing()) if until_ms is None else Store(table, KeyRing(), replay_until_ms=until_ms)
    # Sessions of one second, one every ten minutes: never more than a handful are alive or remembered at once.
    for number in range(1, 81):
        store.replay(number, created(number, time_ms=T0 + number * 600_000, ttl_ms=1000))
    remembered = sum(table.find(ulid(number)) >= 0 for number in range(1, 81))
    assert remembered <= 11 if until_ms is None else remembered == 80


@pytest.mark.parametrize("is_put_off", [False, True])
def test_replay_forgets_none_that_was_idle_while_such_ends_are_put_off(
    table: Table, monkeypatch: pytest.MonkeyPatch, is_put_off: bool
) -> None:
    monkeypatch.setattr(store_module, "REPLAY_ADVANCE_RECORDS", 1)
    start_ms = T0 + 10 * HOUR_MS
    store = Store(table, KeyRing(), replay_until_ms=start_ms)
    if is_put_off:
        table.idle_ends_from_ms = start_ms + 1_000
    idle = created(1, ttl_ms=100 * HOUR_MS, idle_seconds=60)
    store.replay(1, idle)
    for number in range(2, 30):
        store.replay(number, created(number, time_ms=T0 + number * HOUR_MS))
    assert (table.find(ulid(1)) >= 0) is is_put_off
    assert (table.touch(ulid(1), start_ms) == Outcome.DONE) is is_put_off
    assert (table.find_token(b"\0\0\0\1" * 8, start_ms + 1)[0] == Verdict.VERDICT_VALID) is is_put_off


def test_replay_ends_nothing_that_a_renewal_within_the_slack_keeps(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REPLAY_ADVANCE_RECORDS", 1)
    store = Store(table, KeyRing())
    store.replay(1, created(1, ttl_ms=10_000))
    store.replay(2, created(2, time_ms=T0 + 60_000))  # the wheel is at T0 now
    assert store.replay(3, r.SessionRenewed(T0 + 9_999, ulid(1), T0 + HOUR_MS)) == Outcome.DONE
    assert table.status(table.find(ulid(1)), T0 + 60_000) == Status.LIVE

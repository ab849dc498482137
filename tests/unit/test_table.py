"""What the table promises beyond the model: a full table is left as it was, bad arguments are refused, memory stays small."""

import json
from typing import Any

import pytest

from tests.model.table_pair import hash_of, id_of
from tokmesh._core.table import SESSION_JSON_BYTES_MAX, Outcome, Status, Table, Verdict

NOW_MS = 1_700_000_000_000


def insert(table: Table, number: int, **changes: Any) -> int:
    fields: dict[str, Any] = {
        "session_id": id_of(number),
        "token_hash": hash_of(number),
        "user_id": f"user-{number}",
        "device_id": "",
        "ip_address": "10.0.0.1",
        "user_agent": "curl/8",
        "created_by": "tmak-1",
        "created_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 60_000,
        "idle_seconds": 0,
        "data": b"{}",
    }
    return table.insert(**(fields | changes))


def everything(table: Table) -> tuple[object, ...]:
    entries, _ = table.scan(0, 1000)
    figures = {name: value for name, value in table.stats().items() if name in ("sessions_active", "tombstones", "aliases")}
    return [(table.session(entry), table.session_json(entry)) for entry in entries], figures, table.stats()["interned_strings"]


def test_no_free_entry_is_full_and_changes_nothing() -> None:
    table = Table(tombstone_ttl_ms=1000, entries_max=3)
    assert [insert(table, number) for number in range(4)] == [Outcome.INSERTED] * 3 + [Outcome.FULL]
    before = everything(table)
    assert insert(table, 9, user_agent="another agent") == Outcome.FULL
    assert table.rotate(id_of(0), hash_of(50), NOW_MS, NOW_MS) == Outcome.FULL
    assert not table.token_known(hash_of(50))
    assert table.find(id_of(9)) == -1
    assert everything(table) == before
    table.revoke(id_of(0), NOW_MS)
    assert table.advance(NOW_MS + 1000, 10) == 0
    assert insert(table, 9) == Outcome.INSERTED


def test_a_full_arena_is_full_and_changes_nothing() -> None:
    table = Table(tombstone_ttl_ms=1000, arena_bytes_max=20_000)
    number = 0
    while insert(table, number, data=b'{"k":"%s"}' % (b"x" * 900)) == Outcome.INSERTED:
        number += 1
    before = everything(table)
    assert number > 10
    assert table.update(id_of(0), b'{"k":"%s"}' % (b"y" * 4000), NOW_MS) == Outcome.FULL
    assert table.touch(id_of(0), NOW_MS + 5, "10.0.0.2" * 8, "agent" * 100) == Outcome.FULL
    assert insert(table, 900, user_agent="z" * 512, data=b'{"k":"%s"}' % (b"x" * 900)) == Outcome.FULL
    assert everything(table) == before
    assert table.revoke(id_of(0), NOW_MS) == Outcome.DONE
    table.advance(NOW_MS + 1000, 1 << 30)
    assert insert(table, 900, data=b'{"k":"%s"}' % (b"x" * 900)) == Outcome.INSERTED


def test_the_largest_session_fits_the_largest_answer() -> None:
    table = Table(tombstone_ttl_ms=1000)
    assert (
        insert(
            table,
            1,
            user_id="\x01" * 128,
            device_id="\x02" * 128,
            ip_address="\x03" * 64,
            user_agent="\x04" * 512,
            created_by="\x05" * 64,
            expires_at_ms=2**63 - 1,
            data=b'{"k":"%s"}' % (b"d" * 4088),
        )
        == Outcome.INSERTED
    )
    table.touch(id_of(1), NOW_MS, "\x06" * 64, "\x07" * 512)
    verdict, text = table.check(hash_of(1), NOW_MS)
    assert verdict == Verdict.VERDICT_VALID
    assert 12_000 < len(text) <= SESSION_JSON_BYTES_MAX
    fields = json.loads(text)
    assert fields["last_access_ua"] == "\x07" * 512
    assert fields["expires_at"] == 2**63 - 1
    assert table.advance(NOW_MS + 10**12, 1000) == 0
    assert table.stats()["sessions_active"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"session_id": b"short"},
        {"token_hash": b"x" * 31},
        {"user_id": "u" * 129},
        {"device_id": "d" * 129},
        {"ip_address": "1" * 65},
        {"user_agent": "a" * 513},
        {"created_by": "k" * 65},
        {"data": b"x" * 4097},
        {"user_id": "lone \ud800 surrogate"},
    ],
)
def test_fields_that_break_a_rule_are_refused(changes: dict[str, Any]) -> None:
    table = Table(tombstone_ttl_ms=1000)
    with pytest.raises(ValueError, match=r"bytes|longer|long|surrogates"):
        insert(table, 1, **changes)
    assert table.stats()["entries_used"] == table.stats()["interned_strings"] == 0


def test_an_entry_without_a_session_is_refused() -> None:
    table = Table(tombstone_ttl_ms=1000)
    insert(table, 1)
    entry = table.find(id_of(1))
    table.rotate(id_of(1), hash_of(2), NOW_MS + 1000, NOW_MS)
    for other in (-1, 0, entry + 1, entry + 2, 2**31, 2**64):
        with pytest.raises(IndexError):
            table.session(other)
        with pytest.raises(IndexError):
            table.status(other, NOW_MS)
    assert table.status(entry, NOW_MS) == Status.LIVE


@pytest.mark.parametrize(
    "arguments", [{"entries_max": 0}, {"entries_max": 2**31}, {"arena_bytes_max": 0}, {"tombstone_ttl_ms": -1}]
)
def test_a_table_without_room_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="room"):
        Table(**({"tombstone_ttl_ms": 1000} | arguments))


def test_one_call_of_advance_does_no_more_than_its_budget() -> None:
    table = Table(tombstone_ttl_ms=600_000)
    for number in range(1000):
        insert(table, number)
    left = [table.advance(NOW_MS + 60_000, 100) for _ in range(11)]
    assert left == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0, 0]
    assert table.stats()["tombstones"] == 1000


def test_time_may_jump_by_decades() -> None:
    table = Table(tombstone_ttl_ms=1000)
    insert(table, 1, expires_at_ms=NOW_MS + 20 * 365 * 86_400_000)
    for years in range(20):
        assert table.advance(NOW_MS + years * 365 * 86_400_000, 10) == 0
        assert table.stats()["sessions_active"] == 1
    table.advance(NOW_MS + 20 * 365 * 86_400_000, 10)
    assert table.stats()["sessions_active"] == 0


def test_touched_sessions_wait_their_turn_and_dead_ones_are_left_out() -> None:
    table = Table(tombstone_ttl_ms=0)
    for number in range(5):
        insert(table, number)
        table.touch(id_of(number), NOW_MS + number, "10.0.0.9" if number == 1 else None, "wget" if number == 2 else None)
    table.revoke(id_of(0), NOW_MS)
    table.advance(NOW_MS, 10)
    assert table.drain_touched(2) == [(id_of(1), NOW_MS + 1, "10.0.0.9", None), (id_of(2), NOW_MS + 2, None, "wget")]
    table.touch(id_of(3), NOW_MS)
    assert [row[:2] for row in table.drain_touched(9)] == [(id_of(3), NOW_MS + 3), (id_of(4), NOW_MS + 4)]
    assert table.drain_touched(9) == []


def test_memory_of_a_session_stays_within_the_goal() -> None:
    """0.45 of the 1009 bytes that Redis takes for a session whose JSON has 400 bytes."""
    table = Table(tombstone_ttl_ms=600_000)
    count = 200_000
    for number in range(count):
        insert(
            table, number, user_agent=f"Mozilla/5.0 (agent {number % 50})", created_by="tmak-01hzxk7m8n9p0q1r2s3t4v5w6x",
            data=b'{"department":"sales","theme":"dark"}',
        )  # fmt: skip
    assert 380 <= len(table.session_json(1)) <= 420
    assert table.stats()["memory_bytes"] / count < 0.45 * 1009

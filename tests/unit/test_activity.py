"""Idle ends that are put off, and the last-active times that one table tells another."""

from typing import Any

import pytest

from tests.model.table_pair import hash_of, id_of
from tokmesh._core.activity import ACTIVITY_ITEM_BYTES, ACTIVITY_PIECE_BYTES_MAX, collect_activity, take_activity
from tokmesh._core.table import Outcome, Status, Table, Verdict

NOW_MS = 1_700_000_000_000
TTL_MS = 10_000
IDLE_MS = 5_000
HOUR_MS = 3_600_000
ALL = 1 << 30


def table_with(*numbers: int, **changes: Any) -> Table:
    """Sessions of an hour with an idle limit of five seconds."""
    table = Table(tombstone_ttl_ms=TTL_MS)
    for number in numbers:
        fields: dict[str, Any] = {
            "session_id": id_of(number), "token_hash": hash_of(number), "user_id": "u", "device_id": "", "ip_address": "",
            "user_agent": "", "created_by": "", "created_at_ms": NOW_MS, "expires_at_ms": NOW_MS + HOUR_MS,
            "idle_seconds": IDLE_MS // 1000, "data": b"{}",
        }  # fmt: skip
        assert table.insert(**(fields | changes)) == Outcome.INSERTED
    return table


def last_active(table: Table, number: int) -> int:
    return table.session(table.find(id_of(number))).last_active


def item(number: int, last_active_ms: int) -> bytes:
    return id_of(number) + last_active_ms.to_bytes(8, "little")


def collected(table: Table, since_ms: int = 0) -> bytes:
    pieces, cursor = [], 0
    while True:
        piece, following = collect_activity(table, cursor, since_ms)
        assert len(piece) <= ACTIVITY_PIECE_BYTES_MAX
        pieces.append(piece)
        if following == 0:
            return b"".join(pieces)
        assert following > cursor
        cursor = following


def test_the_wheel_ends_no_session_for_its_idle_limit_before_the_time_that_is_set() -> None:
    table = table_with(1)
    table.idle_ends_from_ms = NOW_MS + 60_000
    table.advance(NOW_MS + 59_000, ALL)
    assert table.user_entries("u") == [table.find(id_of(1))]
    assert table.check(hash_of(1), NOW_MS + IDLE_MS)[0] == Verdict.VERDICT_EXPIRED  # a look-up is exact
    table.advance(NOW_MS + 60_000, ALL)
    assert table.user_entries("u") == []


def test_what_ends_by_its_own_time_ends_all_the_same() -> None:
    table = table_with(1, expires_at_ms=NOW_MS + 20_000)
    table.idle_ends_from_ms = NOW_MS + 60_000
    table.advance(NOW_MS + 19_000, ALL)
    assert table.user_entries("u") != []
    table.advance(NOW_MS + 20_000, ALL)
    assert table.user_entries("u") == []
    table.advance(NOW_MS + 20_000 + TTL_MS, ALL)
    assert table.find(id_of(1)) == -1


def test_a_session_that_had_ended_for_its_idle_limit_is_not_forgotten_meanwhile_and_lives_again_when_it_was_active() -> None:
    table = table_with(1)
    table.advance(NOW_MS + IDLE_MS, ALL)
    assert table.user_entries("u") == []
    table.idle_ends_from_ms = NOW_MS + 60_000
    table.advance(NOW_MS + 59_000, ALL)
    assert take_activity(table, item(1, NOW_MS + 58_000)) == 1
    assert table.check(hash_of(1), NOW_MS + 59_000)[0] == Verdict.VERDICT_VALID
    assert table.user_entries("u") == [table.find(id_of(1))]


def test_when_the_bound_is_taken_away_what_nobody_has_seen_ends_and_what_was_active_goes_on() -> None:
    table = table_with(1, 2)
    table.idle_ends_from_ms = NOW_MS + 60_000
    table.advance(NOW_MS + 50_000, ALL)
    assert take_activity(table, item(2, NOW_MS + 58_000)) == 1
    table.idle_ends_from_ms = 0
    table.advance(NOW_MS + 61_000, ALL)
    assert table.find(id_of(1)) == -1
    assert table.status(table.find(id_of(2)), NOW_MS + 61_000) == Status.LIVE
    table.advance(NOW_MS + 63_000, ALL)
    assert table.user_entries("u") == []


def test_told_are_sessions_with_an_idle_limit_that_live_and_were_active_after_their_creation() -> None:
    table = table_with(1, 2, 3, 4)
    without = table_with(5, idle_seconds=0)
    for each, number in ((table, 1), (table, 2), (table, 3), (without, 5)):
        each.touch(id_of(number), NOW_MS + 1000 * number)
    table.revoke(id_of(3), NOW_MS + 4_000)
    assert collected(table) == item(1, NOW_MS + 1000) + item(2, NOW_MS + 2000)
    assert collected(table, NOW_MS + 2000) == item(2, NOW_MS + 2000)
    assert collected(without) == b""
    assert collect_activity(table, 2**64 - 1, 0) == (b"", 0)


def test_what_is_told_in_pieces_is_all_of_it_and_another_table_has_it_afterwards() -> None:
    count = 2 * (ACTIVITY_PIECE_BYTES_MAX // ACTIVITY_ITEM_BYTES) + 3
    table, other = table_with(*range(count)), table_with(*range(count))
    for number in range(count):
        table.touch(id_of(number), NOW_MS + 1 + number)
    told = collected(table)
    assert len(told) == count * ACTIVITY_ITEM_BYTES
    assert take_activity(other, told) == count
    assert collected(other) == told
    assert take_activity(other, told) == 0
    assert len(other.drain_touched(ALL)) == count  # for its own log


def test_a_piece_looks_at_no_more_sessions_than_it_could_tell_of_when_none_was_active() -> None:
    looked = ACTIVITY_PIECE_BYTES_MAX // ACTIVITY_ITEM_BYTES
    table = table_with(*range(looked + 2))
    table.touch(id_of(looked + 1), NOW_MS + 1)
    piece, following = collect_activity(table, 0, 0)
    assert (piece, following) == (b"", looked + 1)
    assert collect_activity(table, following, 0) == (item(looked + 1, NOW_MS + 1), 0)


def test_a_time_never_goes_back_and_what_is_unknown_or_revoked_is_passed_over() -> None:
    table = table_with(1, 2)
    table.touch(id_of(1), NOW_MS + 2000)
    table.revoke(id_of(2), NOW_MS)
    assert take_activity(table, item(1, NOW_MS + 1999) + item(2, NOW_MS + 5) + item(9, NOW_MS + 5)) == 0
    assert (last_active(table, 1), last_active(table, 2)) == (NOW_MS + 2000, NOW_MS)


@pytest.mark.parametrize("tail", [b"x", b"x" * 23, item(1, 2**53), item(1, 2**64 - 1)])
def test_what_is_no_activity_is_refused_and_nothing_of_it_noted(tail: bytes) -> None:
    table = table_with(1)
    with pytest.raises(ValueError, match=r"not whole items|a time cannot be"):
        take_activity(table, item(1, NOW_MS + 5) + tail)
    assert last_active(table, 1) == NOW_MS
    assert take_activity(table, item(1, 2**53 - 1)) == 1

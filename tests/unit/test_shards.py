"""Shards: a session's tokens are of its shard, and a table can be without some."""

import random
from typing import Any

import pytest

from tokmesh._core.table import Table, Verdict
from tokmesh.ids import SHARDS, RandomSource, UlidSource, new_token_of, shard_of, token_hash

NOW_MS = 1_700_000_000_000
ELSEWHERE = int(Verdict.VERDICT_ELSEWHERE)


def inserted(table: Table, count: int) -> list[tuple[bytes, bytes]]:
    source = RandomSource()
    ulids = UlidSource(source)
    made = []
    for number in range(count):
        hashed = token_hash(new_token_of(number % SHARDS, source))
        session_id = ulids.make(NOW_MS, shard_of(hashed))
        table.insert(session_id, hashed, f"u{number % 7}", "d", "", "", "", NOW_MS, NOW_MS + 10**6, 0, b"{}")
        made.append((session_id, hashed))
    return made


def active(table: Table) -> tuple[Any, ...]:
    stats = table.stats()
    return stats["sessions_active"], stats["aliases"], stats["tombstones"]


@pytest.mark.parametrize("shard", [0, 1, 62, 63])
def test_a_token_can_be_of_any_shard(shard: int) -> None:
    source = RandomSource()
    made = {new_token_of(shard, source) for _ in range(100)}
    assert len(made) == 100 and {shard_of(token_hash(each)) for each in made} == {shard}


def test_there_is_no_token_of_a_shard_that_is_none() -> None:
    with pytest.raises(ValueError, match="64 shards"):
        new_token_of(SHARDS, RandomSource())


def test_ids_of_shards_rise_also_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    ulids = UlidSource(RandomSource())
    times = [NOW_MS] * 500 + [NOW_MS - 1] * 500 + [NOW_MS + 1] * 500
    shards = [random.randrange(SHARDS) for _ in times]
    made = [ulids.make(now_ms, shard) for now_ms, shard in zip(times, shards, strict=True)]
    assert [shard_of(each) for each in made] == shards
    assert made == sorted(set(made))


def test_of_a_shard_that_is_not_held_nothing_is_said() -> None:
    table = Table(tombstone_ttl_ms=1000)
    ((_, here), (_, away)) = inserted(table, 2)
    table.held_shards = 1
    assert table.check(here, NOW_MS)[0] == int(Verdict.VERDICT_VALID)
    assert table.check(away, NOW_MS) == (ELSEWHERE, b"")
    assert table.check(bytes(31) + b"\x01", NOW_MS, NOW_MS) == (ELSEWHERE, b""), "nor of a token that nobody has"


def test_what_is_forgotten_is_gone_from_everything_and_the_rest_stays() -> None:
    table = Table(tombstone_ttl_ms=1000)
    made = inserted(table, 10 * SHARDS)
    gone_id, gone_hash = made[1]
    twice_id, twice_hash = made[1 + SHARDS]
    table.revoke(made[1 + 2 * SHARDS][0], NOW_MS)
    table.rotate(gone_id, token_hash(new_token_of(1, RandomSource())), NOW_MS + 5000, NOW_MS)
    for _ in range(2):
        table.rotate(twice_id, token_hash(new_token_of(1, RandomSource())), NOW_MS + 5000, NOW_MS)
    table.touch(gone_id, NOW_MS + 1)
    table.begin_forgetting(1 << 1 | 1 << 5)
    steps = 0
    while table.forget(100):
        steps += 1
        assert table.forgetting
    assert steps > 3 and not table.forgetting and table.forget(100) == 0
    assert active(table) == (10 * (SHARDS - 2), 0, 0)
    for session_id, hashed in made:
        is_gone = shard_of(session_id) in (1, 5)
        assert (table.find(session_id) < 0) == is_gone == (not table.token_known(hashed))
    assert not table.token_known(gone_hash) and not table.token_known(twice_hash)
    assert sum(len(table.user_entries(f"u{user}")) for user in range(7)) == 10 * (SHARDS - 2)
    assert table.drain_touched(10) == []
    again = inserted(table, 10 * SHARDS)
    assert all(table.find(session_id) > 0 for session_id, _ in again)
    assert table.advance(NOW_MS + 10**7, 10**6) == 0


def test_shards_can_be_added_while_others_are_being_forgotten() -> None:
    table = Table(tombstone_ttl_ms=1000)
    inserted(table, 10 * SHARDS)
    table.begin_forgetting(1)
    assert table.forget(300) > 0
    table.begin_forgetting(2)
    while table.forget(100):
        pass
    assert active(table) == (10 * (SHARDS - 2), 0, 0)

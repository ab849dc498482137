"""A survey, taken while the table changes, is of one moment; it depends on all that the records say and on nothing else."""

import random
from typing import Any

import pytest

from tests.model import test_table_history as history
from tests.model.table_pair import BUDGET, TablePair, id_of
from tokmesh._core.table import Table

T0 = 1_700_000_000_000
HOUR_MS = 3_600_000
KEY = (1, 2)
IDS = 300


def survey_of(table: Table, beyond_ms: int, key: tuple[int, int] = KEY) -> tuple[int, ...]:
    sums = table.begin_survey(key, beyond_ms).step(1 << 31)
    assert sums is not None and len(sums) == 64
    return sums


def new_table(seed: bytes = b"one") -> Table:
    return Table(tombstone_ttl_ms=30_000, seed=seed, entries_max=1 << 20, arena_bytes_max=1 << 30)


SESSION: dict[str, Any] = {
    "session_id": bytes(15) + b"\x07", "token_hash": b"t" * 32, "user_id": "ann", "device_id": "phone", "ip_address": "10.0.0.1",
    "user_agent": "curl", "created_by": "tmak-1", "created_at_ms": T0, "expires_at_ms": T0 + HOUR_MS, "idle_seconds": 0,
    "data": b'{"a":"b"}',
}  # fmt: skip
SESSION_ID = SESSION["session_id"]


def made_with(**fields: Any) -> Table:
    table = new_table()
    table.insert(*{**SESSION, **fields}.values())
    return table


@pytest.mark.parametrize("seed", range(6))
def test_a_survey_in_pieces_is_that_of_the_moment_when_it_began(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "IDS", IDS)
    source = random.Random(seed)
    pair = TablePair()
    for _ in range(2_000):
        history.step(pair, source)
    for _ in range(6):
        beyond_ms = pair.now_ms + source.choice([0, 1_000, 60_000])
        expected = survey_of(pair.table, beyond_ms)
        assert any(expected)
        survey, sums = pair.table.begin_survey(KEY, beyond_ms), None
        images = source.random() < 0.5
        if images:
            pair.table.begin_image()
        while sums is None:
            for _ in range(source.randrange(12)):
                history.step(pair, source)
            if images and pair.table.image.active:
                pair.table.image.step(3)
            sums = survey.step(source.randrange(1, 9))
        pair.table.image.abandon()
        assert sums == expected
        assert survey_of(pair.table, beyond_ms) != expected, "it has changed since"


def test_where_entries_lie_and_what_was_there_before_makes_no_difference() -> None:
    one, other = new_table(b"one"), new_table(b"other")
    numbers = list(range(200))
    for table in (one, other):
        for number in numbers:
            table.insert(*{**SESSION, "session_id": id_of(number), "token_hash": id_of(number) * 2}.values())
        numbers.reverse()
    for number in range(0, 200, 3):
        other.revoke(id_of(number), T0)
        one.revoke(id_of(number), T0)
    one.advance(T0 + 40_000, BUDGET)  # one has forgotten the revoked ones
    assert one.stats()["entries_used"] < other.stats()["entries_used"]
    assert survey_of(one, T0) == survey_of(other, T0)


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": bytes(14) + b"\x01\x07"}, {"token_hash": b"t" * 31 + b"u"}, {"user_id": "anna"}, {"device_id": ""},
        {"user_id": "annp", "device_id": "hone"}, {"ip_address": "10.0.0.2"}, {"user_agent": "curl/8"}, {"user_agent": ""},
        {"created_by": "tmak-2"}, {"created_at_ms": T0 + 1}, {"expires_at_ms": T0 + HOUR_MS + 1}, {"idle_seconds": 3_000},
        {"data": b'{"a":"c"}'}, {"data": b"{}"},
    ],
    ids=str,
)  # fmt: skip
def test_another_value_of_any_field_is_another_sum_of_its_shard_alone(fields: dict[str, Any]) -> None:
    one, other = survey_of(made_with(), T0), survey_of(made_with(**fields), T0)
    assert [shard for shard in range(64) if one[shard] != other[shard]] == [7]


def test_a_version_a_revocation_a_grace_and_its_end_are_in_the_sum() -> None:
    seen = {survey_of(made_with(), T0), (0,) * 64}
    versioned = made_with()
    versioned.set_version(SESSION_ID, 2)
    seen.add(survey_of(versioned, T0))
    for until_ms in (T0, T0 + 1_000, T0 + 1_001):
        rotated = made_with()
        rotated.rotate(SESSION_ID, b"n" * 32, until_ms, T0)
        seen.add(survey_of(rotated, T0))
    assert len(seen) == 6
    revoked = made_with()
    revoked.revoke(SESSION_ID, T0)
    assert survey_of(revoked, T0) == (0,) * 64


def test_what_a_node_has_by_itself_is_not_in_the_sum() -> None:
    table, expected = made_with(), survey_of(made_with(), T0)
    table.touch(SESSION_ID, T0 + 5_000, "10.9.9.9", "another agent")
    table.check(SESSION["token_hash"], T0 + 1, T0 + 9_000)
    assert survey_of(table, T0) == expected
    swept = made_with()
    swept.advance(T0 + HOUR_MS + 1_000, BUDGET)
    assert swept.stats()["sessions_active"] == 0
    assert survey_of(swept, T0) == expected, "that this node's clock is fast is not in the records"


def test_what_ends_by_then_does_not_count() -> None:
    for table in (made_with(), made_with(idle_seconds=3_600, expires_at_ms=T0 + 2 * HOUR_MS)):
        table.touch(SESSION_ID, T0 + HOUR_MS // 2)
        assert any(survey_of(table, T0 + HOUR_MS - 1))
        assert not any(survey_of(table, T0 + HOUR_MS))
    table = made_with()
    table.rotate(SESSION_ID, b"n" * 32, T0 + 1_000, T0)
    without = made_with(token_hash=b"n" * 32)
    without.set_version(SESSION_ID, 2)
    assert survey_of(table, T0 + 999) != survey_of(without, T0 + 999)
    assert survey_of(table, T0 + 1_000) == survey_of(without, T0 + 1_000)


def test_another_key_gives_other_sums() -> None:
    table = made_with()
    assert len({survey_of(table, T0, key) for key in ((1, 2), (2, 2), (1, 3))}) == 3


def test_an_abandoned_survey_leaves_nothing_and_another_can_begin() -> None:
    table = made_with()
    survey = table.begin_survey(KEY, T0)
    survey.abandon()
    assert not survey.active
    table.revoke(SESSION_ID, T0)
    assert survey_of(table, T0) == (0,) * 64

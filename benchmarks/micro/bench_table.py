"""The token table at a million sessions: found, found with its JSON, not found, inserted, revoked. Random order."""

import itertools
from types import ModuleType

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.conftest import NOW_MS, FilledTable, insert
from tokmesh._core.table import Outcome, Table

LOOKUPS = 1000


def test_look_up_hit_x1000(benchmark: BenchmarkFixture, loops: ModuleType, filled_table: FilledTable) -> None:
    rounds = itertools.cycle([filled_table.hashes(LOOKUPS, known=True, seed=seed) for seed in range(50)])
    found = benchmark(lambda: loops.check_tokens(filled_table.table, next(rounds), NOW_MS, False))
    assert found == LOOKUPS


def test_look_up_hit_with_json_x1000(benchmark: BenchmarkFixture, loops: ModuleType, filled_table: FilledTable) -> None:
    rounds = itertools.cycle([filled_table.hashes(LOOKUPS, known=True, seed=seed) for seed in range(50)])
    found = benchmark(lambda: loops.check_tokens(filled_table.table, next(rounds), NOW_MS, True))
    assert found == LOOKUPS


def test_look_up_hot_x1000(benchmark: BenchmarkFixture, loops: ModuleType, filled_table: FilledTable) -> None:
    """The same token again and again: all of it in the first cache."""
    hashes = filled_table.hashes(1, known=True) * LOOKUPS
    assert benchmark(loops.check_tokens, filled_table.table, hashes, NOW_MS, True) == LOOKUPS


def test_look_up_miss_x1000(benchmark: BenchmarkFixture, loops: ModuleType, filled_table: FilledTable) -> None:
    rounds = itertools.cycle([filled_table.hashes(LOOKUPS, known=False, seed=seed) for seed in range(50)])
    assert benchmark(lambda: loops.check_tokens(filled_table.table, next(rounds), NOW_MS, False)) == 0


def test_insert_from_python(benchmark: BenchmarkFixture) -> None:
    table = Table(tombstone_ttl_ms=600_000)
    numbers = itertools.count()
    assert benchmark(lambda: insert(table, next(numbers))) == Outcome.INSERTED


def test_revoke_from_python(benchmark: BenchmarkFixture) -> None:
    table = Table(tombstone_ttl_ms=600_000)
    numbers = itertools.count()

    def prepare() -> tuple[tuple[bytes, int], dict[str, object]]:
        number = next(numbers)
        insert(table, number)
        return (number.to_bytes(16, "big"), NOW_MS), {}

    outcome = benchmark.pedantic(table.revoke, setup=prepare, rounds=2000)  # type: ignore[no-untyped-call]
    assert outcome == Outcome.DONE

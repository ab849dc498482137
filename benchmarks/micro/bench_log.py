"""The log: one durable record, a group of 64 proposed together, and the parts a group is made of."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.conftest import NOW_MS, TTL_MS, hash_of
from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord, SessionCreated, decode

GROUP = 64
Commit = Callable[[int], list[Any]]


def record(number: int) -> SessionCreated:
    return SessionCreated(
        NOW_MS, number.to_bytes(16, "big"), hash_of(number), f"user-{number}", "device-1", "10.0.0.1", "Mozilla/5.0",
        "tmak-01jf8z6k4v3h9q2n7r5t1w0abc", NOW_MS + TTL_MS, 0, b'{"role":"reader"}',
    )  # fmt: skip


@pytest.fixture(params=["always", "interval"])
def commit(request: pytest.FixtureRequest, log_directory: Path) -> Iterator[Commit]:
    """Proposes so many records at once and waits until all are acknowledged."""
    log: FileLog[AnyRecord] = FileLog(
        log_directory, sync_mode=request.param, sync_interval_ms=100, segment_bytes_max=64 << 20, decode=decode,
        clock=Clock(),
    )  # fmt: skip
    log.recover(lambda sequence, record: None)
    loop = asyncio.new_event_loop()
    log.start(loop, lambda sequence, record: sequence)
    records = [record(number) for number in range(GROUP)]

    async def propose(count: int) -> list[Any]:
        return await asyncio.gather(*[log.propose(one) for one in records[:count]])

    yield lambda count: loop.run_until_complete(propose(count))
    loop.run_until_complete(log.close())
    loop.close()


def test_append_one(benchmark: BenchmarkFixture, commit: Commit) -> None:
    assert len(benchmark(commit, 1)) == 1


def test_group_commit_of_64(benchmark: BenchmarkFixture, commit: Commit) -> None:
    assert len(benchmark(commit, GROUP)) == GROUP


def test_encode_record(benchmark: BenchmarkFixture) -> None:
    assert decode(benchmark(record(1).encode)).time_ms == NOW_MS


def test_encode_frame_of_64(benchmark: BenchmarkFixture) -> None:
    payloads = [record(number).encode() for number in range(GROUP)]
    frame, _ = benchmark(wal.encode_frame, 1, 1, 0, 0, payloads)
    assert len(frame) > sum(map(len, payloads))

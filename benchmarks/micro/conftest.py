"""Fixtures of the micro benchmarks: the compiled loops, a table with a million sessions, one validate request."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import compiled
from benchmarks.load.http import raw_post
from benchmarks.load.workload import session_input
from tokmesh._core.table import Table

NOW_MS = 1_734_567_890_123
TTL_MS = 7_200_000
API_KEY = "tmak-01jf8z6k4v3h9q2n7r5t1w0abc:tmas_" + "k" * 43
TOKEN = "tmtk_" + "t" * 43
SESSIONS_TIMED = 1_000_000
SESSIONS_SMOKE = 1000  # enough to see that the benchmark runs


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return compiled.build(Path(__file__).with_name("core_loops.pyx"), tmp_path_factory.mktemp("loops"))


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> bool:
    """False in a smoke run (--benchmark-disable), which may be small."""
    return not request.config.getoption("benchmark_disable")


@dataclass(frozen=True)
class FilledTable:
    table: Table
    size: int

    def hashes(self, count: int, known: bool, seed: int = 1) -> bytes:
        """`count` token hashes, 32 bytes each, in random order; none in the table unless `known`."""
        order = random.Random(seed)
        first = 0 if known else self.size
        return b"".join(hash_of(first + order.randrange(self.size)) for _ in range(count))


def hash_of(number: int) -> bytes:
    return hashlib.sha256(b"token %d" % number).digest()


def insert(table: Table, number: int) -> int:
    """One session as the store would insert it, of 400 bytes as JSON."""
    one = session_input(number, number)
    return table.insert(
        number.to_bytes(16, "big"), hash_of(number), one.user_id, one.device_id, one.ip_address, one.user_agent,
        "tmak-01jf8z6k4v3h9q2n7r5t1w0abc", NOW_MS, NOW_MS + TTL_MS, 0, b'{"r":"%b"}' % one.data["r"].encode(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def filled_table(timed: bool) -> Iterator[FilledTable]:
    table = Table(tombstone_ttl_ms=600_000)
    size = SESSIONS_TIMED if timed else SESSIONS_SMOKE
    for number in range(size):
        insert(table, number)
    yield FilledTable(table, size)


@pytest.fixture
def validate_request() -> bytes:
    return raw_post("/tokens/validate", f'{{"token":"{TOKEN}"}}', API_KEY)


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    """Where pytest keeps its files; `python -m benchmarks` points it at the disk of the working directory."""
    return tmp_path / "log"

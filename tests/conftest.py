"""Fixtures of every test: a fresh server process, and one shared by the tests of a module."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.support.server import TokMeshProcess

# How long a case takes is the machine's affair, under sanitizers or beside a benchmark: it fails nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """What a test makes of the root logger's level ends with it."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """What a command that runs in this process makes of it ends with its test."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokMeshProcess]:
    """A server of this test alone, with an empty data directory; killed at the end."""
    with TokMeshProcess(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokMeshProcess]:
    """A server shared by the tests of one module; each uses users of its own."""
    with TokMeshProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory where a sync costs nothing: thousands of recoveries run in it."""
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / f"tokmesh-test-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


# The longest first: what is left at the end is short, and no core waits for the one that has the last long file.
LONG_FILES: Final = (
    "crash/test_kills.py",
    "crash/test_snapshots.py",
    "observability/test_rules.py",
    "observability/test_cluster_alerts.py",
    "observability/test_alerts.py",
    "crash/test_encrypted_server.py",
    "crash/test_server_kills.py",
    "crash/test_backup_command.py",
    "cluster/test_administration.py",
    "http/test_recovering.py",
    "observability/test_cluster_seen.py",
    "cluster/test_faults.py",
    "benchmarks/test_benchmarks.py",
    "cluster/test_trial.py",
    "crash/test_snapshot_kills.py",
    "observability/test_tracing_configuration.py",
    "http/test_tools_after_restore.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONG_FILES, then the others; the tests of a file stay as they are."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONG_FILES)}
    missing = [str(path) for path in rank if not path.exists()]
    assert not missing, f"no such tests: {missing}"
    items.sort(key=lambda item: rank.get(item.path, len(rank)))

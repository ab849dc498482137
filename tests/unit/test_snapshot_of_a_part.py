"""Snapshots of nodes of a cluster, as they are read, rewritten and restored: what the node did not hold whole is not in them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from tests.crash.records import ENCRYPTED
from tests.model.table_pair import id_of
from tests.support.server import run_command
from tests.support.snapshots import Made, new_table, write_snapshot
from tokmesh._core.clock import Clock
from tokmesh.ids import SHARDS, shard_of
from tokmesh.keyring import KeyRing
from tokmesh.log.record import ShardsHeld, StreamBound
from tokmesh.snapshots import offline
from tokmesh.snapshots.loading import load
from tokmesh.snapshots.taking import Snapshots
from tokmesh.storage.recovery import Progress
from tokmesh.storage.snapshot_file import About
from tokmesh.store import Store

SESSIONS: Final = 150
EVEN: Final = sum(1 << shard for shard in range(0, SHARDS, 2))
CLUSTER: Final = (StreamBound(1, b"c" * 16, 77, 5), ShardsHeld(1, EVEN, 0))
KEYS = ENCRYPTED.keys


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshots"
    folder.mkdir(mode=0o700)
    return folder


def test_a_snapshot_under_another_key_still_says_which_stream_the_node_follows_and_what_it_holds(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = write_snapshot(folder, Made(None, SESSIONS), 9, CLUSTER)
    assert offline.rekey(folder, KEYS, True) == 1
    loaded = load(path, new_table, KEYS, None, Progress())
    assert (tuple(loaded.cluster), loaded.table.stats()["sessions_active"]) == (CLUSTER, SESSIONS * 4 // 5)
    assert offline.rekey(folder, KEYS, True) == 0


def test_what_a_node_was_loading_or_forgetting_is_not_restored(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = write_snapshot(folder, Made(None, SESSIONS), 9, CLUSTER)
    state = offline.of_snapshot(path, new_table, None, Progress())
    known = [state.table.find(id_of(number)) >= 0 for number in range(SESSIONS)]
    assert known == [bool(EVEN >> shard_of(id_of(number)) & 1) for number in range(SESSIONS)]
    assert any(known) and not all(known) and state.held == EVEN
    whole = offline.of_snapshot(write_snapshot(folder, Made(None, 3), 10), new_table, None, Progress())
    assert whole.held.bit_count() == SHARDS


def test_none_becomes_due_while_shards_are_loaded(tmp_path: Path) -> None:
    """A start from it would have to load again what is held by then."""

    async def life() -> None:
        clock, store = Clock(), Store(new_table(), KeyRing())
        log: Any = SimpleNamespace(stats=lambda: {"state": "open", "write_bytes_total": 10})
        rules: Any = SimpleNamespace(interval_ms=3_600_000, threshold_bytes=1)
        snapshots = Snapshots(
            directory=folder_of(tmp_path), table=store._table, keyring=store._keyring, following=store.following,
            applied_sequence=lambda: 7, log=log, rules=rules, clock=clock, about=About("tmnd-a", "1"), new_sealer=lambda: None,
        )  # fmt: skip
        snapshots.start(asyncio.get_running_loop(), unusable=(), log_bytes=10)
        found = []
        for loading in (0, 1, 0):
            store.apply(store.applied_sequence + 1, ShardsHeld(1, EVEN & ~1, loading))
            found.append((snapshots.due_ratio() >= 1, snapshots._is_due()))
        assert found == [(True, True), (True, False), (True, True)]
        await snapshots.stop()

    asyncio.run(life())


def test_people_are_told_that_it_is_a_part(tmp_path: Path) -> None:
    path = write_snapshot(folder_of(tmp_path), Made(None, SESSIONS), 9, CLUSTER)
    part = "sessions (32 of 64 shards: other nodes held the rest), 5 API keys"
    verified = run_command("backup", "verify", str(path))
    assert verified.returncode == 0 and part in verified.stdout
    restored = run_command("backup", "restore", str(path), f"--dir={tmp_path / 'alone'}")
    assert restored.returncode == 0 and part in restored.stdout, restored.stderr

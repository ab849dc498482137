"""Trouble with snapshots on a real server: it is a condition while it lasts, and none before and after."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until

SNAPSHOTS = "/admin/v1/backups/snapshots"
BULK = {name: name * 1000 for name in "abc"}  # 3 KB of a session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path, "--session.quota.max_per_user=10000", "--storage.snapshot.threshold=1MB") as running:
        yield running


def conditions(server: TokMeshProcess) -> set[str]:
    """Those about snapshots."""
    summary = server.data("GET", "/admin/v1/status/summary")
    return {each["code"] for each in summary["conditions"] if each["code"].startswith("TokMeshSnapshot")}


def told(server: TokMeshProcess) -> dict[str, Any]:
    snapshots: dict[str, Any] = server.data("GET", "/admin/v1/status/summary")["snapshots"]
    return snapshots


def spoil(server: TokMeshProcess, snapshot: dict[str, Any]) -> Path:
    """Alters a byte of its file while the server is down, and starts the server."""
    path = server.directory / "snapshots" / f"{snapshot['id']}.tms"
    server.kill()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    server.start()
    return path


def test_attempts_that_fail_are_told_until_one_succeeds(server: TokMeshProcess) -> None:
    assert told(server) == {
        "running": False, "last_taken_at": None, "kept": 0, "unusable": 0, "failed_attempts": 0, "last_bytes": 0,
        "due_ratio": pytest.approx(0, abs=0.1), "log_bytes": told(server)["log_bytes"],
    }  # fmt: skip
    server.create_session()
    in_the_way = server.directory / "snapshots" / "snapshot.tmp"
    in_the_way.mkdir()
    status, answer = server.request("POST", SNAPSHOTS)
    assert (status, answer["code"], answer["details"]) == (503, "TM-SYS-5001", {"reason": "disk_error"})
    assert conditions(server) == {"TokMeshSnapshotFailing"} and told(server)["failed_attempts"] == 1
    in_the_way.rmdir()
    taken = server.data("POST", SNAPSHOTS)
    assert conditions(server) == set()
    assert told(server) == {
        "running": False, "last_taken_at": taken["taken_at"], "kept": 1, "unusable": 0, "failed_attempts": 0,
        "last_bytes": taken["size_bytes"], "due_ratio": 0, "log_bytes": 0,
    }  # fmt: skip


def test_a_snapshot_that_is_due_and_not_taken_is_told(server: TokMeshProcess) -> None:
    in_the_way = server.directory / "snapshots" / "snapshot.tmp"
    in_the_way.mkdir()
    for _ in range(1000):
        server.create_session("u", data=BULK)
    assert told(server)["due_ratio"] == pytest.approx(told(server)["log_bytes"] / (1 << 20))
    assert 3 < told(server)["due_ratio"] < 4
    both = {"TokMeshSnapshotFailing", "TokMeshSnapshotOverdue"}
    wait_until(lambda: conditions(server) == both, "it was tried")
    in_the_way.rmdir()
    server.data("POST", SNAPSHOTS)
    assert conditions(server) == set()


def test_a_damaged_snapshot_is_told_until_it_is_gone_and_another_is_taken(server: TokMeshProcess) -> None:
    server.create_session()
    path = spoil(server, server.data("POST", SNAPSHOTS))
    assert conditions(server) == {"TokMeshSnapshotUnusable"} and told(server)["unusable"] == 1
    server.create_session()
    server.data("POST", SNAPSHOTS)
    assert conditions(server) == {"TokMeshSnapshotUnusable"}, "it is still there"
    path.unlink()
    server.create_session()
    server.data("POST", SNAPSHOTS)
    assert conditions(server) == set()


def test_a_damaged_snapshot_that_is_taken_anew_is_good(server: TokMeshProcess) -> None:
    server.create_session()
    damaged = server.data("POST", SNAPSHOTS)
    spoil(server, damaged)
    again = server.data("POST", SNAPSHOTS)
    assert again["id"] == damaged["id"], "the same record is the last"
    assert conditions(server) == set()
    server.kill()
    server.start()
    assert conditions(server) == set()
    assert json.dumps(server.data("GET", SNAPSHOTS)["items"]) == json.dumps([again])

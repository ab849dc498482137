"""Snapshots go on being taken after any failure, and each failure is counted and told."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.backups import BackedUp, run_backups
from tests.support.waiting import until
from tokmesh.errors import ApiError
from tokmesh.snapshots import taking


def a_bug(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


def test_a_bug_in_a_snapshot_is_counted_and_told_and_the_next_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(taking, "CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(taking, "RETRY_S", 0.001)

    async def body(node: BackedUp) -> None:
        snapshots = node.backups.snapshots
        with monkeypatch.context() as patched:
            patched.setattr(taking, "SnapshotHeader", a_bug)
            await until(lambda: snapshots.stats()["failed_since"] >= 2, "it is tried again")
            with pytest.raises(ApiError) as caught:
                await snapshots.take()
            assert (caught.value.code, caught.value.details) == ("TM-SYS-5001", {"reason": "internal error"})
        await until(lambda: snapshots.stats()["taken"] == 1, "one is taken")
        assert snapshots.stats()["failed"] >= 3 and snapshots.stats()["failed_since"] == 0

    run_backups(tmp_path, body, interval_ms=1)
    told = [record for record in caplog.records if record.getMessage() == "a snapshot could not be taken"]
    assert len(told) >= 3 and all(record.exc_info for record in told)


def test_a_bug_of_what_looks_whether_one_is_due_ends_no_later_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(taking, "CHECK_INTERVAL_S", 0.001)

    async def body(node: BackedUp) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(type(node.backups.snapshots), "due_ratio", a_bug)
            await until(lambda: caplog.records, "it is told")
        await until(lambda: node.backups.snapshots.stats()["taken"] == 1, "one is taken")

    run_backups(tmp_path, body, interval_ms=1)

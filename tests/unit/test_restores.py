"""A restore of a node's state begins and ends whatever goes wrong; what is remembered of restores is bounded."""

import asyncio
import threading
from pathlib import Path, PosixPath
from typing import Any, NoReturn

import pytest

from tests.support.backups import LIFE_S_MAX, BackedUp, run_backups
from tests.support.waiting import until
from tokmesh.errors import ApiError
from tokmesh.snapshots import restoring
from tokmesh.snapshots.restoring import Restores


async def ended(restores: Restores, job: restoring.Job) -> tuple[str, str | None]:
    await until(lambda: restores.reason() is None, "the restore ends")
    return job.state, job.error


def no_memory(*_: Any) -> NoReturn:
    raise MemoryError


def test_a_restore_that_cannot_begin_for_want_of_memory_is_over_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(node: BackedUp) -> None:
        restores = node.backups.restores
        with monkeypatch.context() as patched:
            patched.setattr(restoring, "_check", no_memory)
            with pytest.raises(MemoryError):
                await restores.begin(node.file, "an uploaded file")
        (job,) = restores.jobs()
        assert (job.state, restores.reason()) == ("failed", None)
        assert await ended(restores, await restores.begin(node.file, "an uploaded file")) == ("done", None)

    run_backups(tmp_path, body)


def test_a_restore_whose_request_ends_while_its_file_is_read_is_over(tmp_path: Path) -> None:
    async def body(node: BackedUp) -> None:
        restores = node.backups.restores
        beginning = asyncio.ensure_future(restores.begin(node.file, "an uploaded file"))
        await asyncio.sleep(0)
        assert restores.reason() is not None
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert (restores.reason(), restores.jobs()[0].state) == (None, "failed")

    run_backups(tmp_path, body)


class SlowToRemove(PosixPath):
    """A file whose disk is in no hurry."""

    gone = threading.Event()

    def unlink(self, missing_ok: bool = False) -> None:
        assert self.gone.wait(LIFE_S_MAX)
        super().unlink(missing_ok)


def test_the_end_waits_for_a_restore_that_is_done_and_removes_its_upload(tmp_path: Path) -> None:
    async def body(node: BackedUp) -> None:
        restores = node.backups.restores
        job = await restores.begin(SlowToRemove(node.file), "an uploaded file", remove=True)
        assert await ended(restores, job) == ("done", None)
        stopping = asyncio.ensure_future(restores.stop())
        await asyncio.sleep(0.05)
        assert node.file.exists() and not stopping.done()
        SlowToRemove.gone.set()
        await stopping
        assert not node.file.exists()

    run_backups(tmp_path, body)


def test_what_is_remembered_of_restores_is_bounded_and_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "JOBS_MAX", 3)

    async def body(node: BackedUp) -> None:
        restores = node.backups.restores
        node.file.write_bytes(b"no snapshot")
        for number in range(5):
            with pytest.raises(ApiError, match="TM-ADMIN-4221"):
                await restores.begin(node.file, f"file {number}")
            expected = [f"file {each}" for each in range(number, max(-1, number - 3), -1)]
            assert [job.source for job in restores.jobs()] == expected

    run_backups(tmp_path, body)

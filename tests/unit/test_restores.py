"""A restore of a node's state begins and ends whatever goes wrong; what is remembered of restores is bounded."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path, PosixPath
from typing import Any, Final, NoReturn

import pytest

from tests.support.config import load_settings
from tests.support.snapshots import Made, write_snapshot
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh.backups import Backups
from tokmesh.errors import ApiError
from tokmesh.snapshots import restoring
from tokmesh.snapshots.restoring import Restores
from tokmesh.state import State

LIFE_S_MAX: Final = 60.0


def run(directory: Path, body: Callable[[Backups, Path], Awaitable[None]]) -> None:
    """Runs `body` with the backups of a node that serves, and with a snapshot of another; then the node ends as it should."""
    other = directory / "other"
    other.mkdir()
    path = write_snapshot(other, Made(None, 20), 9)
    settings = load_settings({"storage.dir": str(directory / "data")})

    async def life() -> None:
        state = State(settings, Clock(), "tmnd-restored")
        state.replay()
        loop = asyncio.get_running_loop()
        state.log.start(loop, state.store.apply)
        backups = Backups(state, settings.storage, "1", lambda: None, in_cluster=False)
        backups.start(loop)
        try:
            await body(backups, path)
            await backups.stop()
        finally:
            await state.log.close()

    asyncio.run(asyncio.wait_for(life(), LIFE_S_MAX))


async def ended(restores: Restores, job: restoring.Job) -> tuple[str, str | None]:
    await until(lambda: restores.reason() is None, "the restore ends")
    return job.state, job.error


def no_memory(*_: Any) -> NoReturn:
    raise MemoryError


def test_a_restore_that_cannot_begin_for_want_of_memory_is_over_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(backups: Backups, path: Path) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(restoring, "_check", no_memory)
            with pytest.raises(MemoryError):
                await backups.restores.begin(path, "an uploaded file")
        (job,) = backups.restores.jobs()
        assert (job.state, backups.restores.reason()) == ("failed", None)
        assert await ended(backups.restores, await backups.restores.begin(path, "an uploaded file")) == ("done", None)

    run(tmp_path, body)


def test_a_restore_whose_request_ends_while_its_file_is_read_is_over(tmp_path: Path) -> None:
    async def body(backups: Backups, path: Path) -> None:
        beginning = asyncio.ensure_future(backups.restores.begin(path, "an uploaded file"))
        await asyncio.sleep(0)
        assert backups.restores.reason() is not None
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert (backups.restores.reason(), backups.restores.jobs()[0].state) == (None, "failed")

    run(tmp_path, body)


class SlowToRemove(PosixPath):
    """A file whose disk is in no hurry."""

    gone = threading.Event()

    def unlink(self, missing_ok: bool = False) -> None:
        assert self.gone.wait(LIFE_S_MAX)
        super().unlink(missing_ok)


def test_the_end_waits_for_a_restore_that_is_done_and_removes_its_upload(tmp_path: Path) -> None:
    async def body(backups: Backups, path: Path) -> None:
        job = await backups.restores.begin(SlowToRemove(path), "an uploaded file", remove=True)
        assert await ended(backups.restores, job) == ("done", None)
        stopping = asyncio.ensure_future(backups.restores.stop())
        await asyncio.sleep(0.05)
        assert path.exists() and not stopping.done()
        SlowToRemove.gone.set()
        await stopping
        assert not path.exists()

    run(tmp_path, body)


def test_what_is_remembered_of_restores_is_bounded_and_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "JOBS_MAX", 3)

    async def body(backups: Backups, path: Path) -> None:
        path.write_bytes(b"no snapshot")
        for number in range(5):
            with pytest.raises(ApiError, match="TM-ADMIN-4221"):
                await backups.restores.begin(path, f"file {number}")
            expected = [f"file {each}" for each in range(number, max(-1, number - 3), -1)]
            assert [job.source for job in backups.restores.jobs()] == expected

    run(tmp_path, body)

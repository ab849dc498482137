"""FileLog on an event loop: order, groups, rotation, refusals, the lock, and what close leaves behind."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.records import Note, make_log, read_log
from tests.support.running_log import run_log
from tests.support.waiting import until, wait_until
from tokmesh._core.wal import FRAME_HEADER_BYTES, RECORD_HEADER_BYTES
from tokmesh.errors import ApiError
from tokmesh.log import appender, file_log
from tokmesh.log.appender import Appender, frame_bytes_max
from tokmesh.log.file_log import FileLog
from tokmesh.storage.segment import LogLocked, list_segments


class Applied:
    """Collects what is applied; insists on one strict order."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def __call__(self, sequence: int, note: Note) -> str:
        self.notes.append(note)
        assert sequence == len(self.notes)
        return f"{sequence}:{note.text}"


def run(
    directory: Path, body: Callable[[FileLog[Note], Applied], Awaitable[None]], segment_bytes: int = 4096, **kwargs: Any
) -> Applied:
    """`body` with a log there, and what was applied."""
    applied = Applied()
    return run_log(make_log(directory, segment_bytes, **kwargs), applied, body, applied)


def test_a_proposal_gives_what_apply_returned_and_survives(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        assert await log.propose(Note("a")) == "1:a"
        assert await log.propose(Note("b")) == "2:b"
        assert log.stats()["durable_sequence"] == 2 and log.writable and log.failure is None

    run(tmp_path / "wal", body)

    async def again(log: FileLog[Note], applied: Applied) -> None:
        assert applied.notes == [Note("a"), Note("b")]
        assert log.stats()["recovery_records"] == 2
        assert await log.propose(Note("c")) == "3:c"

    run(tmp_path / "wal", again)


class HeldWriter:
    """Keeps the writer from its next turn until `release`."""

    def __init__(self, log: FileLog[Note], monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.release = threading.Event(), threading.Event()
        assert log._writer is not None
        write = log._writer._write

        def wait_and_write() -> None:
            self.held.set()
            assert self.release.wait(60)
            write()

        monkeypatch.setattr(log._writer, "_write", wait_and_write)
        log._commits.interrupt()

    async def reached(self) -> None:
        """Comes back when the writer is held."""
        assert await asyncio.get_running_loop().run_in_executor(None, self.held.wait, 60)


def test_what_gathers_while_the_writer_is_busy_is_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        writer = HeldWriter(log, monkeypatch)
        await writer.reached()
        futures = [log.propose(Note(str(i))) for i in range(1000)]
        assert log.stats()["pending"] == 1000 and not applied.notes, "nothing is answered before its sync"
        writer.release.set()
        assert await asyncio.gather(*futures) == [f"{i + 1}:{i}" for i in range(1000)]
        stats = log.stats()
        assert stats["records_total"] == 1000 and stats["last_sequence"] == 1000 and stats["pending"] == 0
        assert stats["groups_total"] == stats["fsync_total"] == 1
        assert log.group_histogram.snapshot(0)[1] == 1000
        assert log.fsync_histogram.snapshot(0)[0][-1] == 1

    run(tmp_path / "wal", body, segment_bytes=1 << 20)


def test_segments_rotate_and_are_named_by_their_first_sequence(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        for index in range(40):
            await asyncio.gather(*(log.propose(Note(f"{index}.{n}", 100)) for n in range(index % 5 + 1)))
        assert log.stats()["segments"] == len(list_segments(tmp_path / "wal")) > 3

    notes = run(tmp_path / "wal", body).notes
    again, report = read_log(tmp_path / "wal", 4096)
    assert again == notes
    for sequence, path in list_segments(tmp_path / "wal"):
        assert path.name == f"wal-{sequence:020d}.log"
    assert report.segments == len(list_segments(tmp_path / "wal"))


def test_a_group_larger_than_a_frame_is_split(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        await asyncio.gather(*(log.propose(Note(str(i), 900)) for i in range(50)))
        assert log.stats()["groups_total"] >= 15

    assert len(run(tmp_path / "wal", body).notes) == 50


def test_files_are_private(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        for path in (tmp_path / "data" / "wal").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path

    previous = os.umask(0)
    try:
        run(tmp_path / "data" / "wal", body)
    finally:
        os.umask(previous)
    assert (tmp_path / "data" / "wal").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_record_larger_than_a_frame_is_refused(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        room = frame_bytes_max(4096, encrypted=False) - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES
        edge = room - len(Note("edge").encode())
        for _ in range(3):
            assert await log.propose(Note("edge", edge)) == f"{len(applied.notes)}:edge"
        with pytest.raises(ApiError, match="TM-SYS-4130"):
            await log.propose(Note("edge", edge + 1))
        assert await log.propose(Note("small")) == "4:small"

    assert len(run(tmp_path / "wal", body).notes) == 4


def test_interval_answers_after_the_write_and_syncs_in_its_time(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        for index in range(20):
            await log.propose(Note(str(index)))
        assert log.stats()["fsync_total"] < 20
        await until(lambda: log.stats()["durable_sequence"] == 20, "what was answered is synced")

    run(tmp_path / "wal", body, sync_mode="interval", sync_interval_ms=200)
    assert len(read_log(tmp_path / "wal", 4096)[0]) == 20


def test_what_was_written_and_not_answered_when_a_sync_at_intervals_fails_is_refused(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        assert log._writer is not None and log._appender is not None
        await log.propose(Note("answered"))
        waiting = log.propose(Note("written"))
        log._commits.wake()
        wait_until(lambda: log.stats()["records_total"] == 2, "the record is written")  # the loop stands still: no answer goes out
        log._writer.fail("fdatasync: Input/output error", True)
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await waiting
        assert log.stats()["fsync_failed_total"] == 1

    assert run(tmp_path / "wal", body, sync_mode="interval", sync_interval_ms=60_000).notes == [Note("answered")]


def test_close_answers_what_was_proposed_and_refuses_what_comes_later(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        futures = [log.propose(Note(str(i))) for i in range(100)]
        await log.close()
        assert [await future for future in futures] == [f"{i + 1}:{i}" for i in range(100)]
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await log.propose(Note("late"))
        assert log.stats()["state"] == "closed" and not log.writable

    run(tmp_path / "wal", body)
    assert len(read_log(tmp_path / "wal", 4096)[0]) == 100


def test_what_is_proposed_just_before_close_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer finds nothing to do; then a record is proposed and the log is told to close; then the writer looks
    whether it is closing."""

    async def body(log: FileLog[Note], applied: Applied) -> None:
        empty, told = threading.Event(), threading.Event()
        assert log._writer is not None
        write = log._writer._write

        def write_slowly() -> None:
            write()
            if not empty.is_set():
                empty.set()
                told.wait(10)

        monkeypatch.setattr(log._writer, "_write", write_slowly)
        await asyncio.get_running_loop().run_in_executor(None, empty.wait, 10)
        future = log.propose(Note("last"))
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        told.set()
        await closing
        assert await asyncio.wait_for(future, 5) == "1:last"

    assert run(tmp_path / "wal", body).notes == [Note("last")]


def test_an_orderly_stop_seals_once(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        pass

    run(tmp_path / "wal", body)
    path = list_segments(tmp_path / "wal")[0][1]
    sealed = path.read_bytes()
    assert len(sealed.rstrip(b"\0")) > 64
    run(tmp_path / "wal", body)
    assert path.read_bytes() == sealed
    assert sorted(p.name for p in (tmp_path / "wal").iterdir()) == ["lock", path.name]


def test_an_exception_of_apply_stops_everything_after_it(tmp_path: Path) -> None:
    async def life() -> None:
        log = make_log(tmp_path / "wal")
        seen: list[int] = []

        def apply(sequence: int, note: Note) -> None:
            if note.text == "3":
                raise RuntimeError("our bug")
            seen.append(sequence)

        log.recover(apply)
        log.start(asyncio.get_running_loop(), apply)
        answers = await asyncio.gather(*(log.propose(Note(str(i))) for i in range(8)), return_exceptions=True)
        assert answers[:3] == [None, None, None] and isinstance(answers[3], RuntimeError)
        assert all(isinstance(answer, ApiError) for answer in answers[4:])
        assert seen == [1, 2, 3] and log.stats()["state"] == "failed" and log.failure
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await log.propose(Note("x"))
        await log.close()

    asyncio.run(life())


def test_a_bug_of_the_writer_ends_the_log_and_leaves_no_waiter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        await log.propose(Note("a"))
        monkeypatch.setattr(Appender, "limit", lambda self, reserved: 1 // 0)
        log._commits.interrupt()
        for _ in range(3):
            with pytest.raises(ApiError, match="TM-SYS-5001"):
                await log.propose(Note("b"))
        assert log.state == "failed" and log.failure == "writer: ZeroDivisionError"
        monkeypatch.undo()

    assert run(tmp_path / "wal", body).notes == [Note("a")]
    assert read_log(tmp_path / "wal", 4096)[0] == [Note("a")]


def test_a_shortage_of_descriptors_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors(directory: Path, size_bytes: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def body(log: FileLog[Note], applied: Applied) -> None:
        monkeypatch.setattr(appender, "make_spare", no_descriptors)
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            for index in range(100):
                await log.propose(Note(str(index), 500))
        assert len(applied.notes) > 10 and log.state == "full" and log.failure == "no room: Too many open files"
        monkeypatch.undo()
        await until(lambda: log.writable, "the log looks again")
        await log.propose(Note("again", 500))

    assert run(tmp_path / "wal", body).notes[-1] == Note("again", 500)


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_log, "PENDING_MAX", 10)

    async def body(log: FileLog[Note], applied: Applied) -> None:
        writer = HeldWriter(log, monkeypatch)
        await writer.reached()
        futures = [log.propose(Note(str(i))) for i in range(30)]
        assert [future.done() for future in futures] == [False] * 10 + [True] * 20
        writer.release.set()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert answers[:10] == [f"{i + 1}:{i}" for i in range(10)] and len(applied.notes) == 10
        assert [answer.code for answer in answers[10:] if isinstance(answer, ApiError)] == ["TM-SYS-5030"] * 20
        assert await log.propose(Note("again")) == "11:again"

    run(tmp_path / "wal", body)


def test_a_cancelled_waiter_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def body(log: FileLog[Note], applied: Applied) -> None:
        first, second = log.propose(Note("a")), log.propose(Note("b"))
        first.cancel()
        assert await second == "2:b"

    assert run(tmp_path / "wal", body).notes == [Note("a"), Note("b")]


def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.crash.records import make_log\n"
        "try:\n    make_log(Path(sys.argv[1])).recover(lambda s, r: None)\nexcept Exception as e:\n"
        "    print(type(e).__name__, e)\n"
    )

    async def body(log: FileLog[Note], applied: Applied) -> None:
        await log.propose(Note("a"))
        with pytest.raises(LogLocked, match="in use by another process"):
            make_log(tmp_path / "wal").recover(applied)
        out = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "wal")], capture_output=True, text=True, timeout=30, check=True
        )
        assert out.stdout.startswith("LogLocked TM-SYS-5001: the log in ")
        assert await log.propose(Note("b")) == "2:b"

    run(tmp_path / "wal", body)
    run(tmp_path / "wal", body_of_nothing)


async def body_of_nothing(log: FileLog[Note], applied: Applied) -> None:
    assert len(applied.notes) == 2


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        make_log(tmp_path, 100)
    with pytest.raises(ValueError):
        make_log(tmp_path, sync_mode="sometimes")

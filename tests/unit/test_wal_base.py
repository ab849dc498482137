"""Recovery behind a snapshot: it reads what leads on, refuses what is missing, and drops only what is covered."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.records import QUIET, Note, decode_note, write_groups
from tokmesh._core.clock import Clock
from tokmesh.log.file_log import FileLog
from tokmesh.storage.recovery import Base, RecoveryReport
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments, remove_covered

SEGMENT_BYTES = 1024
NOTES = [Note(f"n{number}", 150) for number in range(1, 26)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log of 25 records in several segments."""
    path = tmp_path / "log"
    write_groups(path, [[note] for note in NOTES], SEGMENT_BYTES, True)
    assert len(list_segments(path)) >= 5
    return path


def recover(directory: Path, base: Base) -> tuple[list[tuple[int, Note]], RecoveryReport]:
    found: list[tuple[int, Note]] = []
    log: FileLog[Note] = FileLog(
        directory, sync_mode="always", sync_interval_ms=20, segment_bytes_max=SEGMENT_BYTES, decode=decode_note, clock=Clock(),
        logger=QUIET,
    )  # fmt: skip
    report = log.recover(lambda sequence, note: found.append((sequence, note)), base=base)
    asyncio.run(log.close())
    return found, report


@pytest.mark.parametrize("sequence", [0, 1, 7, 24, 25])
def test_what_leads_on_is_read(directory: Path, sequence: int) -> None:
    found, report = recover(directory, Base(sequence))
    assert found == list(enumerate(NOTES, 1))[sequence:]
    assert (report.records, report.last_sequence) == (25 - sequence, 25)


@pytest.mark.parametrize("sequence", range(1, 26))
def test_what_is_covered_can_be_dropped(directory: Path, sequence: int) -> None:
    before = list_segments(directory)
    removed = remove_covered(directory, sequence)
    left = list_segments(directory)
    assert left == before[removed:] and left
    assert left[0][0] <= sequence + 1 and all(first > sequence + 1 for first, _ in left[1:])
    found, report = recover(directory, Base(sequence))
    assert found == list(enumerate(NOTES, 1))[sequence:]
    assert report.segments == len(left)
    assert remove_covered(directory, sequence) == 0


def test_records_that_neither_snapshot_nor_log_has_stop_the_start(directory: Path) -> None:
    remove_covered(directory, 20)
    first, path = list_segments(directory)[0]
    for sequence in (0, first - 2):
        with pytest.raises(LogDamaged, match=f"records {sequence + 1} to {first - 1} are missing, and no snapshot") as caught:
            recover(directory, Base(sequence))
        assert caught.value.path == path
    assert recover(directory, Base(first - 1))[1].last_sequence == 25


def test_a_log_that_ends_before_the_snapshot_stops_the_start(directory: Path) -> None:
    assert recover(directory, Base(25))[0] == []
    with pytest.raises(LogDamaged, match="the log ends with record 25, and a snapshot was taken at 26"):
        recover(directory, Base(26))


def test_a_log_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(LogDamaged, match="the log is missing, and a snapshot was taken at record 3"):
        recover(tmp_path / "log", Base(3))


def test_behind_a_restore_the_log_begins_anew(directory: Path) -> None:
    """What the records before led to is not the restored state: none of them is applied, and none is missed."""
    found, report = recover(directory, Base(40, restored=True))
    assert found == [] and report.last_sequence == 40
    names = [first for first, _ in list_segments(directory)]
    assert names[-1] == 41
    write_more(directory, Base(40, restored=True))
    found, report = recover(directory, Base(40, restored=True))
    assert [sequence for sequence, _ in found] == [41, 42]
    with pytest.raises(LogDamaged):
        recover(directory, Base(7))  # from before the restore nothing leads on to now


def test_a_restore_into_an_empty_directory_begins_behind_its_sequence(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    assert recover(directory, Base(9, restored=True))[1].last_sequence == 9
    assert [first for first, _ in list_segments(directory)] == [10]


def write_more(directory: Path, base: Base) -> None:
    async def write() -> None:
        log: FileLog[Note] = FileLog(
            directory, sync_mode="always", sync_interval_ms=20, segment_bytes_max=SEGMENT_BYTES, decode=decode_note,
            clock=Clock(), logger=QUIET,
        )  # fmt: skip
        log.recover(lambda sequence, note: None, base=base)
        log.start(asyncio.get_running_loop(), lambda sequence, note: sequence)
        assert await log.propose(Note("a")) == base.sequence + 1
        assert await log.propose(Note("b")) == base.sequence + 2
        await log.close()

    asyncio.run(write())

"""A disk that is really full: a small tmpfs, filled to every page around a rotation."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import full_disks
from tests.crash.full_disks import PAGED_SEGMENT_BYTES, propose_until_full, until_writable
from tests.crash.records import FORMS, Note, make_log, read_log, write_groups
from tests.support.small_disk import PAGE_BYTES, fill, small_disk
from tokmesh.errors import ApiError
from tokmesh.log import file_log
from tokmesh.storage.recovery import SMALL_SEGMENT_BYTES, Base
from tokmesh.storage.segment import list_segments

IN_BOTH_FORMS = pytest.mark.parametrize("form", ["plain", "encrypted"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "512k") as point:
        yield point


@IN_BOTH_FORMS
def test_a_full_disk_refuses_keeps_revocations_going_and_recovers_by_itself(disk: Path, form: str) -> None:
    async def life() -> list[Note]:
        log = make_log(disk / "wal", PAGED_SEGMENT_BYTES, keys=FORMS[form])
        notes: list[Note] = []
        log.recover(lambda sequence, note: notes.append(note))
        log.start(asyncio.get_running_loop(), lambda sequence, note: notes.append(note))
        await log.propose(Note("first"))
        fill(disk / "filler", 0)
        accepted = await propose_until_full(log, "a")
        assert len(notes) == accepted + 1 > 100  # the rest of the segment and the spare were still usable
        assert log.stats()["state"] == "full" and not log.writable
        assert log.failure == "no room: No space left on device"
        # In one group with refused records, and alone: revocations commit from the reserve, until that is used up.
        mixed = await asyncio.gather(
            *(log.propose(Note(f"m{i}", 40, reserved=i % 2 == 1)) for i in range(20)), return_exceptions=True
        )
        assert [isinstance(answer, ApiError) for answer in mixed] == [True, False] * 10
        for index in range(50):
            await log.propose(Note(f"revoke.{index}", 40, reserved=True))
        assert log.stats()["state"] == "full"
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            for index in range(1000):
                await log.propose(Note(f"more.{index}", 40, reserved=True))
        (disk / "filler").unlink()
        await until_writable(log)
        await log.propose(Note("again", 500))
        assert log.stats()["state"] == "open"
        await log.close()
        return notes

    notes = asyncio.run(asyncio.wait_for(life(), 60))
    assert read_log(disk / "wal", PAGED_SEGMENT_BYTES, FORMS[form])[0] == notes


@IN_BOTH_FORMS
def test_a_full_log_takes_no_record_but_revocations_however_small(disk: Path, form: str) -> None:
    """What would still fit is refused too: what is said of a full log is then true of it."""

    async def life() -> list[Note]:
        log = make_log(disk / "wal", PAGED_SEGMENT_BYTES, keys=FORMS[form])
        notes: list[Note] = []
        log.recover(lambda sequence, note: notes.append(note))
        log.start(asyncio.get_running_loop(), lambda sequence, note: notes.append(note))
        fill(disk / "filler", 0)
        await propose_until_full(log, "large", 3000)
        assert log.stats()["state"] == "full"
        small = await asyncio.gather(
            *(log.propose(Note(f"s{i}", 1, reserved=i % 2 == 1)) for i in range(6)), return_exceptions=True
        )
        assert [isinstance(answer, ApiError) for answer in small] == [True, False] * 3
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await log.propose(Note("s", 1))
        assert not log.writable
        (disk / "filler").unlink()
        await until_writable(log)
        await log.propose(Note("s", 1))
        await log.close()
        return notes

    notes = asyncio.run(asyncio.wait_for(life(), 60))
    assert read_log(disk / "wal", PAGED_SEGMENT_BYTES, FORMS[form])[0] == notes


@IN_BOTH_FORMS
@pytest.mark.parametrize("is_freed", [False, True])
def test_a_restore_that_finds_no_room_for_its_segment_in_time_ends_the_log_with_the_reason(
    disk: Path, form: str, is_freed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then its snapshot has a name: the next start begins from that, and from no log before it."""
    monkeypatch.setattr(file_log, "SKIP_TIMEOUT_NS", 60_000_000_000 if is_freed else 100_000_000)

    async def life() -> list[Note]:
        log = make_log(disk / "wal", PAGED_SEGMENT_BYTES, keys=FORMS[form])
        notes: list[Note] = []
        log.recover(lambda sequence, note: notes.append(note))
        log.start(asyncio.get_running_loop(), lambda sequence, note: notes.append(note))
        fill(disk / "filler", 0)
        await propose_until_full(log, "before")
        await log.suspend(lambda: ApiError("TM-ADMIN-5031"))
        skipping = asyncio.ensure_future(log.skip_to(9000))
        if is_freed:
            await asyncio.sleep(0.1)
            assert not skipping.done()
            (disk / "filler").unlink()
            await skipping
            log.resume()
            await until_writable(log)
            await log.propose(Note("behind"))
            assert log.last_sequence == 9001
        else:
            with pytest.raises(ApiError, match="TM-SYS-5001"):
                await skipping
            (disk / "filler").unlink()
            log.resume()
            with pytest.raises(ApiError, match="TM-SYS-5001"):
                await log.propose(Note("never"))
            assert (log.state, log.failure) == ("failed", "no room for the segment that follows a restore")
        await log.close()
        return notes

    notes = asyncio.run(asyncio.wait_for(life(), 60))
    again: list[tuple[int, Note]] = []
    log = make_log(disk / "wal", PAGED_SEGMENT_BYTES, keys=FORMS[form])
    report = log.recover(lambda sequence, note: again.append((sequence, note)), base=Base(9000, True))
    asyncio.run(log.close())
    assert again == ([(9001, notes[-1])] if is_freed else []) and report.last_sequence == 9000 + is_freed


@pytest.mark.parametrize("torn", [False, True])
def test_a_start_without_room_says_how_much_it_needs_and_is_right(disk: Path, torn: bool) -> None:
    """An encrypted log begins a segment at each start; a torn tail is copied before it is cut, as well."""
    log, needed_bytes = disk / "wal", SMALL_SEGMENT_BYTES
    write_groups(log, [[Note("a", 8000)], [Note("b", 4000)]], PAGED_SEGMENT_BYTES, keys=FORMS["encrypted"])
    segment = list_segments(log)[-1][1]
    if torn:
        content = segment.read_bytes().rstrip(b"\0")
        segment.write_bytes(content[:-1] + bytes(PAGED_SEGMENT_BYTES - len(content) + 1))
        needed_bytes += len(segment.read_bytes().rstrip(b"\0"))
    pages = 1 if torn else SMALL_SEGMENT_BYTES // PAGE_BYTES - 1
    fill(disk / "filler", pages)
    with pytest.raises(ApiError) as caught:
        make_log(log, PAGED_SEGMENT_BYTES, keys=FORMS["encrypted"]).recover(lambda sequence, note: None)
    free = f"it needs {needed_bytes} bytes in {log}, where {pages * PAGE_BYTES} are free"
    assert caught.value.details == {"reason": f"log cannot be read or repaired: No space left on device; {free}"}
    fill(disk / "filler", -(-needed_bytes // PAGE_BYTES))
    notes, report = read_log(log, PAGED_SEGMENT_BYTES, FORMS["encrypted"])
    assert report.torn_tail is torn and len(notes) == 2 - torn


@IN_BOTH_FORMS
def test_disk_full_at_every_page_around_a_rotation(disk: Path, form: str) -> None:
    assert full_disks.run_pages(disk, form, 1) == full_disks.SEGMENT_PAGES + 3

"""What a salvage takes: every record of every undamaged frame, under its own sequence, and nothing that never was one.

The original is a log of several segments with every kind of record; what was salvaged is read back by a start's own code.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.records import FORMS
from tests.golden import make
from tests.support.damaged_log import RECORDS, Original, filler, without
from tokmesh._core import wal
from tokmesh.log.record import decode
from tokmesh.storage.inspection import Inspection
from tokmesh.storage.salvage import Salvage
from tokmesh.storage.scan import LogDamaged, LogUnreadable
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_writer import SegmentWriter

SEED = 20_241_220


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


@pytest.fixture(params=["plain", "encrypted"])
def original(folder: Path, request: pytest.FixtureRequest) -> Original:
    return Original(folder, keys=FORMS[request.param])


@pytest.fixture
def plain(folder: Path) -> Original:
    """Where the test writes frames of its own, or takes away the header, without which nothing is decrypted."""
    return Original(folder)


def test_of_a_whole_log_everything_is_taken(original: Original) -> None:
    report, found = original.salvage()
    assert found == RECORDS and not report.is_lossy and report.tail is None


def test_a_torn_tail_is_left_out_as_a_start_would(folder: Path) -> None:
    log = Original(folder, seal=False)
    last = log.frames[-1]
    log.spoil(last)
    report, found = log.salvage()
    assert found == without(last.sequences) and not report.is_lossy
    assert report.tail is not None and (report.tail.file, report.tail.offset) == (last.path.name, last.offset)


@pytest.mark.parametrize("at", [0, 20, 45, 57])
def test_each_damaged_frame_costs_its_own_records_only(original: Original, at: int) -> None:
    for frame in original.frames[:-1]:
        if not frame.sequences and (at == 57 or original.keys.sealing):
            continue  # a seal has no payload, or is the end of its segment, where it says nothing
        original.spoil(frame, at)
        report, found = original.salvage()
        assert found == without(frame.sequences)
        assert report.missing == ([(frame.sequences[0], frame.sequences[-1])] if frame.sequences else [])
        told = report.damages[0]
        assert (told.file, told.offset) == (frame.path.name, frame.offset) and told.size_bytes <= frame.end - frame.offset
        original.restore()


def test_two_damages_in_two_segments_are_two_ranges(original: Original) -> None:
    first, second = original.frames[3], original.frames[-3]
    assert first.path != second.path
    original.spoil(first)
    original.spoil(second)
    report, found = original.salvage()
    assert found == without(first.sequences, second.sequences)
    assert report.missing == [(each.sequences[0], each.sequences[-1]) for each in (first, second)]


def test_a_segment_whose_header_is_lost_is_read_all_the_same(plain: Original) -> None:
    for path in plain.paths:
        plain.damage(path, 0, bytes(64))
        report, found = plain.salvage()
        assert found == RECORDS and report.missing == []
        assert [told.reason for told in report.damages] == ["the segment's header is damaged"]
        plain.restore()


def test_an_encrypted_segment_whose_header_is_lost_is_lost_and_the_others_are_not(folder: Path) -> None:
    log = Original(folder, keys=FORMS["encrypted"])
    for path in log.paths:
        log.damage(path, 0, bytes(64))
        report, found = log.salvage()
        lost = [frame.sequences for frame in log.frames if frame.path == path]
        assert found == without(*lost) and report.is_lossy
        log.restore()


@pytest.mark.parametrize("sealing", [False, True])
def test_what_was_encrypted_is_encrypted_again_even_where_encryption_is_off(folder: Path, sealing: bool) -> None:
    log = Original(folder, keys=FORMS["encrypted"])
    log.keys = log.keys._replace(sealing=sealing)
    log.spoil(log.frames[3])
    log.salvage()
    written = list_segments(folder / "new" / "log")[:-1]  # the last was begun by the start that read them back
    assert written
    for _, path in written:
        header = wal.decode_segment_header(path.read_bytes())
        assert header is not None and header.key_id


def test_a_frame_by_another_hand_is_not_salvaged(folder: Path) -> None:
    log = Original(folder, keys=FORMS["encrypted"])
    frame = log.frames[3]
    content = bytearray(log.bytes[frame.path][frame.offset : frame.end])
    content[-1] ^= 1
    content[40:44] = wal.crc32c(content[56:]).to_bytes(4, "little")
    content[52:56] = wal.crc32c(content[:52]).to_bytes(4, "little")
    log.damage(frame.path, frame.offset, bytes(content))
    report, found = log.salvage()
    assert found == without(frame.sequences) and report.is_lossy


def test_a_lost_first_sector_costs_the_frames_in_it(plain: Original) -> None:
    for path in plain.paths[:-1]:
        plain.damage(path, 0, bytes(512))
        lost = [frame.sequences for frame in plain.frames if frame.path == path and frame.offset < 512]
        report, found = plain.salvage()
        assert lost and found == without(*lost) and report.is_lossy
        plain.restore()


def test_a_missing_segment_is_a_range(original: Original) -> None:
    for path in original.paths[:-1]:
        lost = [frame.sequences for frame in original.frames if frame.path == path and frame.sequences]
        path.unlink()
        report, found = original.salvage()
        assert found == without(*lost)
        assert report.missing == [(lost[0][0], lost[-1][-1])] and report.damages == []
        original.restore()


def test_a_shortened_segment_gives_what_is_left(original: Original) -> None:
    for path in original.paths:
        inside = [frame for frame in original.frames if frame.path == path]
        os.truncate(path, inside[0].end + 1)
        _, found = original.salvage()
        assert found == without(*(frame.sequences for frame in inside[1:]))
        original.restore()


def test_a_renamed_segment_is_read_in_its_place(original: Original) -> None:
    original.paths[0].rename(original.directory / "wal-00000000000000000900.log")
    report, found = original.salvage()
    assert found == RECORDS and report.missing == []


def test_frames_at_the_end_of_which_only_the_header_is_left_are_counted_as_missing(original: Original) -> None:
    last = original.frames[-2]
    assert last.sequences and not original.frames[-1].sequences
    original.damage(last.path, last.offset, bytes(20))
    original.damage(last.path, original.frames[-1].offset + 40, b"xxxx")  # the seal: its payload CRC, but not...
    seal = bytearray(original.frames[-1].path.read_bytes()[original.frames[-1].offset :][:56])
    seal[52:56] = wal.crc32c(seal[:52]).to_bytes(4, "little")  # ...its header's
    original.damage(last.path, original.frames[-1].offset, bytes(seal))
    report, found = original.salvage()
    assert found == without(last.sequences)
    assert report.missing == [(last.sequences[0], last.sequences[-1])]


def test_a_record_that_does_not_decode_is_replaced_and_told(plain: Original) -> None:
    path = plain.paths[-1]
    header = wal.decode_segment_header(plain.bytes[path])
    assert header is not None
    seal = plain.frames[-1]
    due = max(RECORDS) + 1
    records = [b"no record", RECORDS[1].encode()]
    chain = int.from_bytes(plain.bytes[path][seal.offset + 44 : seal.offset + 48], "little")
    frame, _ = wal.encode_frame(header.segment_id, due, due - 1, chain, records)
    plain.damage(path, seal.end, frame)
    report, found = plain.salvage()
    assert found == {**RECORDS, due + 1: RECORDS[1]}
    assert report.missing == [(due, due)] and report.damages[0].reason == f"record {due} cannot be decoded"


def test_frames_out_of_place_are_not_taken_twice(original: Original) -> None:
    frame = original.frames[0]
    content = original.bytes[frame.path][frame.offset : frame.end]
    end = max(each.end for each in original.frames if each.path == frame.path)
    original.damage(frame.path, end, content[: 2048 - end])
    report, found = original.salvage()
    assert found == RECORDS and report.damages == [], "behind the end of a closed segment: a cut tail"
    original.restore()
    second, third = original.frames[1], original.frames[2]
    swapped = original.bytes[frame.path][third.offset : third.end] + original.bytes[frame.path][second.offset : second.end]
    original.damage(frame.path, second.offset, swapped)
    report, found = original.salvage()
    assert found == without(second.sequences) and any("out of place" in told.reason for told in report.damages)


def test_a_frame_quoted_in_a_record_is_not_taken_for_one(folder: Path) -> None:
    """Also when the frame around it is lost, and the segment's header too."""
    quoted, _ = wal.encode_frame(7, 4, 3, 0, [make.created(77, "forged").encode()])
    log = Original(folder)
    path = log.paths[0]
    victim = log.frames[2]
    assert victim.path == path and victim.end - victim.offset > 70 + len(quoted)
    log.damage(path, victim.offset + 60, quoted)
    for lose_header in (False, True):
        if lose_header:
            log.damage(path, 0, bytes(64))
        _, found = log.salvage()
        assert found == without(victim.sequences)


def test_a_log_that_begins_later_keeps_its_beginning_where_there_is_a_snapshot(original: Original) -> None:
    begins_at = list_segments(original.directory)[1][0]
    original.paths[0].unlink()
    (original.folder / "snapshots").mkdir()
    (original.folder / "snapshots" / "one").touch()
    target = original.folder / "new"
    with Inspection(original.directory, original.keys) as inspection:
        report = Salvage(inspection, target, make.SEGMENT_BYTES, decode, filler).run()
    assert (report.begins_at, report.missing, report.damages) == (begins_at, [], [])
    with Inspection(target, original.keys) as inspection:
        assert inspection.begins_at == begins_at
        frames = list(inspection.frames())
        assert frames[0].frame.first_sequence == begins_at
        assert inspection.position.sequence_due == max(RECORDS) + 1 and inspection.position.sealed


def test_what_another_release_wrote_is_not_damage(original: Original) -> None:
    frame = original.frames[4]
    header = bytearray(original.bytes[frame.path][frame.offset : frame.offset + 56])
    header[5] = 2
    header[52:56] = wal.crc32c(header[:52]).to_bytes(4, "little")
    original.damage(frame.path, frame.offset, bytes(header))
    with pytest.raises(LogUnreadable, match="flags 0x2"):
        original.salvage()
    assert not (original.folder / "new").exists()


def test_where_nothing_can_be_read_nothing_is_written(original: Original) -> None:
    for path in original.paths:
        path.write_bytes(bytes(2048))
    with pytest.raises(LogDamaged, match="no record of the log can be read"):
        original.salvage()
    assert not (original.folder / "new").exists()


@pytest.mark.parametrize(("gap", "refused"), [(1_000, False), (1_001, True)])
def test_a_sequence_that_cannot_be_true_is_refused(
    gap: int, refused: bool, plain: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokmesh.storage.salvage.FILLERS_MAX", 1_000)
    path = plain.paths[-1]
    header = wal.decode_segment_header(plain.bytes[path])
    assert header is not None
    first = len(RECORDS) + 1 + gap
    frame, _ = wal.encode_frame(header.segment_id, first, first - 1, 0, [RECORDS[1].encode()])
    plain.damage(path, plain.frames[-1].end, frame)
    if refused:
        with pytest.raises(LogDamaged, match="more is missing than a new log can stand for"):
            plain.salvage()
        assert not (plain.folder / "new").exists()
    else:
        report, found = plain.salvage()
        assert found == {**RECORDS, first: RECORDS[1]}
        assert report.missing == [(len(RECORDS) + 1, first - 1)]


def test_whatever_is_overwritten_no_record_is_another_than_it_was_and_undamaged_frames_are_all_there(original: Original) -> None:
    source = random.Random(SEED)
    for turn in range(300):
        touched: list[tuple[Path, int, int]] = []
        for _ in range(source.randint(1, 4)):
            path = source.choice(original.paths)
            size = source.choice((1, 8, 64, 512))
            offset = source.randrange(64, 2048 - size)
            junk = source.choice((bytes(size), source.randbytes(size), original.bytes[original.paths[0]][:size]))
            original.damage(path, offset, junk)
            touched.append((path, offset, offset + size))
        hit = [
            frame.sequences
            for frame in original.frames
            if any(path == frame.path and start < frame.end and frame.offset < end for path, start, end in touched)
        ]
        # The end of the last segment may pass for a torn tail.
        tail = [frame.sequences for frame in original.frames if frame.path == original.paths[-1]]
        label = f"seed {SEED}, turn {turn}: {touched}"
        report, found = original.salvage()
        assert all(RECORDS[sequence] == record for sequence, record in found.items()), label
        lost = set(RECORDS) - set(found)
        allowed = {sequence for each in (*hit, *(tail if report.tail else ())) for sequence in each}
        assert lost <= allowed, label
        original.restore()


@pytest.mark.parametrize(("extra", "segments"), [(0, 1), (1, 2)])
def test_there_is_always_room_for_the_seal_behind_the_last_record(folder: Path, extra: int, segments: int) -> None:
    directory = folder / "log"
    directory.mkdir(mode=0o700)
    writer = SegmentWriter(directory, 2048, 1, 0)
    room = 2048 - wal.SEGMENT_HEADER_BYTES - 3 * wal.FRAME_HEADER_BYTES - 2 * wal.RECORD_HEADER_BYTES
    records = [make.created(1, "u").encode().ljust(600, b"1"), bytes(room - 600 + extra)]
    for record in records:
        writer.add(record)
    writer.finish()
    writer.close()
    with Inspection(directory) as inspection:
        frames = list(inspection.frames())
        assert inspection.position.sealed
    assert [record for placed in frames for record in placed.frame.records] == records
    assert len(inspection.segments) == segments and frames[-1].path == frames[-2].path


@pytest.mark.parametrize("count", [0, 1, 27, 28, 29, 5_000])
def test_many_records_alike_are_as_many_as_were_asked_for(folder: Path, count: int) -> None:
    directory = folder / "log"
    directory.mkdir(mode=0o700)
    writer = SegmentWriter(directory, 2048, 1, 0)
    writer.add(b"first")
    writer.add_repeated(filler(5), count)
    writer.add(b"last")
    writer.finish()
    writer.close()
    with Inspection(directory) as inspection:
        records = [record for placed in inspection.frames() for record in placed.frame.records]
    assert records == [b"first", *[filler(5)] * count, b"last"]

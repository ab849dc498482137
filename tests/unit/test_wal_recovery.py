"""What recovery makes of a log with every bit flipped, every length cut and every write torn.

Rule under test: damage is refused with file and offset and changes nothing; only the end of the last segment may look
like a write that a crash cut short, and is then cut to exactly the records before it. One limit is inherent and shown
here: without a seal, a flip inside the very last frame cannot be told from a torn write.
"""

import os
from pathlib import Path

import pytest

from tests.crash.records import ENCRYPTED, Note, end_of, make_log, read_log, write_groups
from tests.support.sanitizers import bits_of
from tokmesh._core import wal
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

SEGMENT_BYTES = 1024
GROUPS = [[Note(f"n{group}.{index}", 20) for index in range(group % 3 + 1)] for group in range(11)]
NOTES = [note for group in GROUPS for note in group]
IN_BOTH_FORMS = pytest.mark.parametrize("keys", [PLAIN, ENCRYPTED], ids=["plain", "encrypted"])


class Original:
    """A log, its files' bytes, and where the frames of its last segment are."""

    def __init__(self, directory: Path, seal: bool, keys: SegmentKeys = PLAIN) -> None:
        self.directory = directory
        self.keys = keys
        offsets = write_groups(directory, GROUPS, SEGMENT_BYTES, seal, keys)
        self.paths = [path for _, path in list_segments(directory)]
        assert len(self.paths) == 2
        self.bytes = {path: path.read_bytes() for path in self.paths}
        last = [i for i in range(1, len(offsets)) if offsets[i] <= offsets[i - 1]][-1]
        self.last_frame = offsets[-1]
        self.seal_bytes = wal.FRAME_HEADER_BYTES + (wal.TAG_BYTES if keys.sealing else 0)
        self.last_frame_notes = len(GROUPS[-1])
        self.first_segment_notes = sum(len(group) for group in GROUPS[:last])
        self.first_end = end_of(self.bytes[self.paths[0]])
        self.last_end = end_of(self.bytes[self.paths[1]])

    def restore(self) -> None:
        for path in self.directory.iterdir():
            path.unlink()
        for path, data in self.bytes.items():
            path.write_bytes(data)

    def assert_refused(self, path: Path, data: bytes, label: object) -> LogDamaged:
        with pytest.raises(LogDamaged) as caught:
            read_log(self.directory, SEGMENT_BYTES, self.keys)
        assert caught.value.path in self.paths, label
        assert f"{caught.value.path} at offset {caught.value.offset}" in str(caught.value)
        assert path.read_bytes() == data, label
        assert sorted(self.directory.iterdir()) == self.paths, label
        return caught.value


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@IN_BOTH_FORMS
@pytest.mark.parametrize("seal", [False, True])
def test_every_bit_of_the_last_segment_flipped(memory_path: Path, seal: bool, keys: SegmentKeys) -> None:
    log = Original(memory_path / "log", seal, keys)
    path = log.paths[1]
    original = log.bytes[path]
    for bit in bits_of(original):
        data = flipped(original, bit)
        path.write_bytes(data)
        if bit // 8 < log.last_frame or (seal and bit // 8 < log.last_end - log.seal_bytes):
            damage = log.assert_refused(path, data, bit)
            assert damage.path == path and damage.offset <= bit // 8
            continue
        notes, report = read_log(log.directory, SEGMENT_BYTES, keys)
        lost = log.last_frame_notes if not seal and bit // 8 < log.last_end else 0
        assert notes == NOTES[: len(NOTES) - lost], bit
        assert report.torn_tail and report.broken_path is not None
        assert report.broken_path.read_bytes() == data
        log.restore()


@IN_BOTH_FORMS
def test_every_bit_of_an_earlier_segment_flipped(memory_path: Path, keys: SegmentKeys) -> None:
    log = Original(memory_path / "log", False, keys)
    path = log.paths[0]
    original = log.bytes[path]
    for bit in bits_of(original):
        data = flipped(original, bit)
        path.write_bytes(data)
        if bit // 8 < log.first_end:
            assert log.assert_refused(path, data, bit).path == path
        else:
            assert read_log(log.directory, SEGMENT_BYTES, keys)[0] == NOTES
            log.restore()


@IN_BOTH_FORMS
def test_every_length_of_the_last_segment_cut(memory_path: Path, keys: SegmentKeys) -> None:
    log = Original(memory_path / "log", False, keys)
    path = log.paths[1]
    for size in range(len(log.bytes[path])):
        data = log.bytes[path][:size]
        path.write_bytes(data)
        damage = log.assert_refused(path, data, size)
        assert damage.offset == (0 if size < wal.SEGMENT_HEADER_BYTES else size)


@IN_BOTH_FORMS
def test_every_length_of_an_earlier_segment_cut(memory_path: Path, keys: SegmentKeys) -> None:
    log = Original(memory_path / "log", False, keys)
    path = log.paths[0]
    for size in range(len(log.bytes[path])):
        data = log.bytes[path][:size]
        path.write_bytes(data)
        if size < log.first_end:
            log.assert_refused(path, data, size)
        else:
            assert read_log(log.directory, SEGMENT_BYTES, keys)[0] == NOTES
            log.restore()


@IN_BOTH_FORMS
def test_every_way_to_tear_the_last_write(memory_path: Path, keys: SegmentKeys) -> None:
    """A crash leaves any part of an unsynced write: a prefix, or the sectors behind a hole."""
    log = Original(memory_path / "log", False, keys)
    path = log.paths[1]
    original = log.bytes[path]
    for cut in range(log.last_frame, log.last_end):
        for data in (
            original[:cut] + bytes(SEGMENT_BYTES - cut),
            original[: log.last_frame] + bytes(cut - log.last_frame) + original[cut:],
        ):
            path.write_bytes(data)
            notes, report = read_log(log.directory, SEGMENT_BYTES, keys)
            whole = data == original
            assert notes == (NOTES if whole else NOTES[: -log.last_frame_notes]), cut
            assert report.torn_tail == (not whole and any(data[log.last_frame :]))
            # The log goes on, and a second start finds nothing to repair.
            write_groups(log.directory, [[Note("after")]], SEGMENT_BYTES, keys=keys)
            again, report = read_log(log.directory, SEGMENT_BYTES, keys)
            assert again == [*notes, Note("after")] and not report.torn_tail
            log.restore()


@IN_BOTH_FORMS
def test_a_torn_tail_keeps_a_copy_begins_a_segment_and_cuts_the_old(memory_path: Path, keys: SegmentKeys) -> None:
    log = Original(memory_path / "log", False, keys)
    path = log.paths[1]
    torn = log.bytes[path][: log.last_end - 3] + bytes(SEGMENT_BYTES - log.last_end + 3)
    path.write_bytes(torn)
    notes, report = read_log(log.directory, SEGMENT_BYTES, keys)
    assert notes == NOTES[: -log.last_frame_notes]
    assert report.torn_tail and report.last_sequence == len(notes) and report.segments == 3
    assert report.broken_path == path.with_name(path.name + ".broken")
    assert report.broken_path.read_bytes() == torn
    assert report.broken_path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == log.last_frame
    assert list_segments(log.directory)[-1][0] == len(notes) + 1


@IN_BOTH_FORMS
def test_a_crash_between_the_steps_of_a_repair_is_repaired(memory_path: Path, keys: SegmentKeys) -> None:
    """After the new segment exists the cut counts; the torn bytes may still be in the old one."""
    log = Original(memory_path / "log", False, keys)
    path = log.paths[1]
    torn = log.bytes[path][: log.last_end - 3] + bytes(SEGMENT_BYTES - log.last_end + 3)
    path.write_bytes(torn)
    read_log(log.directory, SEGMENT_BYTES, keys)
    path.write_bytes(torn)
    notes, report = read_log(log.directory, SEGMENT_BYTES, keys)
    assert notes == NOTES[: -log.last_frame_notes] and not report.torn_tail


def test_a_torn_first_frame_of_a_segment_replaces_that_segment(memory_path: Path) -> None:
    directory = memory_path / "log"
    write_groups(directory, [], SEGMENT_BYTES, seal=True)
    path = list_segments(directory)[0][1]
    data = bytearray(path.read_bytes())
    data[200] = 1
    path.write_bytes(data)
    notes, report = read_log(directory, SEGMENT_BYTES)
    assert notes == [] and report.torn_tail
    write_groups(directory, [[Note("a")]], SEGMENT_BYTES)
    assert read_log(directory, SEGMENT_BYTES)[0] == [Note("a")]


def test_an_empty_last_segment_is_a_clean_end(memory_path: Path) -> None:
    """A writer killed between beginning a segment and its first frame."""
    log = Original(memory_path / "log", False)
    first = log.bytes[log.paths[1]][: wal.SEGMENT_HEADER_BYTES]
    log.paths[1].write_bytes(first + bytes(SEGMENT_BYTES - len(first)))
    notes, report = read_log(log.directory, SEGMENT_BYTES)
    assert notes == NOTES[: log.first_segment_notes]
    assert not report.torn_tail and report.segments == 2


def test_names_left_unsynced_by_a_killed_writer_are_synced_before_anything_is_built_on_them(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer killed after a rename or a mkdir, before the sync of the directory: the name is seen and not durable."""
    directory = memory_path / "data" / "log"
    directory.parent.mkdir()
    write_groups(directory, [[Note("a")]], 4096)
    synced: set[str] = set()
    fsync = os.fsync

    def record(fd: int) -> None:
        fsync(fd)
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))

    def apply(sequence: int, note: Note) -> None:
        assert {str(directory), str(directory.parent), str(memory_path)} <= synced

    monkeypatch.setattr(os, "fsync", record)
    assert make_log(directory).recover(apply).records == 1


def test_a_spare_left_by_a_killed_writer_is_not_a_segment(memory_path: Path) -> None:
    log = Original(memory_path / "log", False)
    (log.directory / "spare.tmp").write_bytes(log.bytes[log.paths[1]])
    assert read_log(log.directory, SEGMENT_BYTES)[0] == NOTES
    assert not (log.directory / "spare.tmp").exists()


def test_stale_bytes_of_another_segment_are_not_taken_for_frames(memory_path: Path) -> None:
    """A disk may show old blocks behind the end; whole frames of another segment prove nothing about this one."""
    log = Original(memory_path / "log", False)
    path = log.paths[1]
    stale = log.bytes[log.paths[0]][wal.SEGMENT_HEADER_BYTES : wal.SEGMENT_HEADER_BYTES + SEGMENT_BYTES - log.last_end]
    path.write_bytes(log.bytes[path][: log.last_end] + stale)
    notes, report = read_log(log.directory, SEGMENT_BYTES)
    assert notes == NOTES and report.torn_tail


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_is_refused(memory_path: Path, missing: int) -> None:
    log = Original(memory_path / "log", False)
    write_groups(log.directory, [[Note("x", 600)], [Note("y", 600)]], SEGMENT_BYTES)
    assert len(list_segments(log.directory)) >= 3
    log.paths[missing].unlink()
    with pytest.raises(LogDamaged) as caught:
        read_log(log.directory, SEGMENT_BYTES)
    assert caught.value.offset in (0, log.first_end)


def test_a_record_that_does_not_decode_is_refused_with_its_place(memory_path: Path) -> None:
    directory = memory_path / "log"
    offsets = write_groups(directory, [[Note("a")], [Note("b")]], SEGMENT_BYTES)

    class Odd(Note):
        def encode(self) -> bytes:
            return b"not a note"

    offsets += write_groups(directory, [[Odd("c")]], SEGMENT_BYTES)
    with pytest.raises(LogDamaged, match="record 3 cannot be decoded") as caught:
        read_log(directory, SEGMENT_BYTES)
    assert caught.value.offset == offsets[-1]


def test_unsynced_frames_may_reach_the_disk_out_of_order(memory_path: Path) -> None:
    """`interval`: frames written since the last sync can be lost in any combination; that is a torn tail, not
    damage."""
    directory = memory_path / "log"
    write_groups(directory, [[Note("synced")]], SEGMENT_BYTES)
    path = list_segments(directory)[0][1]
    data = bytearray(path.read_bytes())
    header = wal.decode_segment_header(data)
    assert header is not None
    _, frame = wal.read_frame(data, wal.SEGMENT_HEADER_BYTES, header.segment_id, 1, header.chain)
    assert frame is not None
    lost, chain = wal.encode_frame(header.segment_id, 2, 1, frame.chain, [Note("lost").encode()])
    later, _ = wal.encode_frame(header.segment_id, 3, 1, chain, [Note("later").encode()])
    data[frame.end + len(lost) : frame.end + len(lost) + len(later)] = later
    path.write_bytes(data)
    notes, report = read_log(directory, SEGMENT_BYTES)
    assert notes == [Note("synced")] and report.torn_tail


@pytest.mark.parametrize("seal", [False, True])
def test_a_frame_of_a_later_format_is_refused_and_not_cut_as_a_torn_tail(memory_path: Path, seal: bool) -> None:
    """What another release has written and synced is not ours to throw away."""
    log = Original(memory_path / "log", seal)
    path = log.paths[1]
    data = bytearray(log.bytes[path])
    last = log.last_end - wal.FRAME_HEADER_BYTES if seal else log.last_frame
    data[last + 4] += 1
    data[last + 52 : last + 56] = wal.crc32c(data[last : last + 52]).to_bytes(4, "little")
    path.write_bytes(data)
    damage = log.assert_refused(path, bytes(data), seal)
    assert damage.offset == last and "written in format 2, and this release reads format 1" in damage.reason


def test_a_segment_of_a_later_format_or_of_an_unknown_form_is_called_so(memory_path: Path) -> None:
    log = Original(memory_path / "log", False)
    for path in log.paths:
        for at, reason in ((8, "written in format 2"), (12, "written in a form (flags 0x2)")):
            data = bytearray(log.bytes[path])
            data[at] ^= 3 if at == 8 else 2
            data[60:64] = wal.crc32c(data[:60]).to_bytes(4, "little")
            path.write_bytes(data)
            damage = log.assert_refused(path, bytes(data), at)
            assert damage.path == path and damage.offset == 0 and reason in damage.reason
            log.restore()

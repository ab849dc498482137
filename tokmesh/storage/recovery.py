"""Reading the log back: what is replayed, what is cut, what is refused.

Segments are read in order and every frame must be the one due: right segment id, sequence, chain and CRCs. The last
frame of a segment that has a successor is pinned by the successor's header (first sequence and chain), so only the end
of the last segment can be in doubt. There:

- zeros to the end: the clean end;
- no whole frame, and no later header that was written when this place was already durable: a write that a crash cut
  short, never acknowledged (`sync_mode: interval`: acknowledged as not yet durable). The segment is kept as `.broken`,
  a new segment that begins at the lost frame's sequence is made durable - the moment the cut counts -, then the old
  file is shortened;
- anything else, and a segment shorter than it was made: damage. LogDamaged, with file and offset; nothing is changed.

What was read is synced before anyone may answer from it, and is read from the disk rather than from a cache that may
hold pages which an earlier process failed to sync.
"""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from tokmesh._core import wal
from tokmesh._core.wal import FrameStatus
from tokmesh.errors import ApiError
from tokmesh.storage.segment import (
    BROKEN_SUFFIX,
    Segment,
    adopt_spare,
    list_segments,
    make_spare,
    open_directory,
    remove_spare,
    sync,
    sync_directory,
)

R = TypeVar("R")

READ_BYTES: Final = 4 << 20  # one pread
SEGMENT_READ_BYTES_MAX: Final = 4 << 30  # no segment is larger than this, whatever a file says


class LogDamaged(ApiError):
    """The log is damaged where no crash can have damaged it (TM-SYS-5001). `path` and `offset` say where, `reason`
    how."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__("TM-SYS-5001", {"file": path.name, "offset": offset, "reason": reason})
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: log damaged: {self.path} at offset {self.offset}: {self.reason}"


class RecoveryCancelled(Exception):
    """The replay was told to stop (`Progress.cancel`); nothing was changed on disk."""


class Progress:
    """How far a replay is; another thread may read it, and may end it after the frame under way."""

    __slots__ = ("_base_bytes", "_cancelled", "bytes_read", "bytes_total", "records")

    def __init__(self) -> None:
        self.records = self.bytes_read = self.bytes_total = 0
        self._base_bytes = 0
        self._cancelled = False

    def cancel(self) -> None:
        """Makes the replay raise RecoveryCancelled."""
        self._cancelled = True

    def begin(self, segments: list[tuple[int, Path]]) -> None:
        """The segments that will be read. Raises OSError."""
        self.bytes_total = sum(path.stat().st_size for _, path in segments)

    def advance(self, records: int, offset: int) -> None:
        """`records` are applied, and the segment under way is read up to `offset`. Raises RecoveryCancelled."""
        self.records = records
        self.bytes_read = self._base_bytes + offset
        if self._cancelled:
            raise RecoveryCancelled

    def end_segment(self, segment_bytes: int) -> None:
        """The segment under way is read; what follows its records is zeros."""
        self._base_bytes += segment_bytes
        self.bytes_read = self._base_bytes


class RecoveryReport(NamedTuple):
    """What a recovery found. seconds: how long it took; broken_path: the copy of a segment whose torn tail was cut."""

    records: int
    last_sequence: int
    segments: int
    torn_tail: bool
    broken_path: Path | None
    seconds: float


class LogEnd(NamedTuple):
    """Where appending goes on: the open last segment, the offset of its next frame, the sequence due there, the
    chain."""

    segment: Segment
    offset: int
    sequence_due: int
    chain: int
    sealed: bool  # the last frame is a seal: a second one would say nothing


class _Undecodable(Exception):
    """A record whose frame is right and whose bytes mean nothing to the decoder."""


class _Position:
    """Where the scan stands; moves over the segments with it."""

    __slots__ = ("chain", "offset", "progress", "sealed", "sequence_due")

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.sequence_due = 1
        self.chain = 0
        self.offset = 0
        self.sealed = False


def replay(
    directory: Path,
    segment_bytes_max: int,
    decode: Callable[[bytes], R],
    apply: Callable[[int, R], object],
    progress: Progress | None = None,
) -> tuple[LogEnd, RecoveryReport]:
    """Applies (sequence, decoded record) of the whole log in order, repairs a torn tail and opens the log's end for
    append.

    The caller holds the directory's lock. Whatever `decode` raises makes its record LogDamaged; what `apply` raises
    passes. Raises LogDamaged, OSError, RecoveryCancelled. `seconds` of the report is 0: the caller has the clock."""

    def deliver(sequence: int, data: bytes) -> None:
        try:
            record = decode(data)
        except Exception as error:
            raise _Undecodable from error
        apply(sequence, record)

    remove_spare(directory)
    sync_directory(directory)  # a writer killed between a rename and its sync left a name that is seen and not durable
    segments = list_segments(directory)
    progress = progress or Progress()
    position = _Position(progress)
    progress.begin(segments)
    if not segments:
        return LogEnd(_new_segment(directory, segment_bytes_max, position), wal.SEGMENT_HEADER_BYTES, 1, 0, False), (
            RecoveryReport(0, 0, 1, False, None, 0.0)
        )
    for (name_sequence, path), successor in itertools.pairwise(segments):
        _scan_closed(path, name_sequence, successor, position, deliver)
    name_sequence, path = segments[-1]
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = _read_whole(fd)
        header = _check_header(path, name_sequence, data, position)
        if len(data) < header.size_bytes:
            raise LogDamaged(path, len(data), f"the file was made with {header.size_bytes} bytes and is shorter")
        status = _scan(path, data, header, position, deliver)
        progress.end_segment(len(data))
        torn = status != FrameStatus.FRAME_END
        if torn:
            _refuse_unless_torn(path, data, header, position, status)
    except BaseException:
        os.close(fd)
        raise
    segment, broken_path = Segment(path, fd, header), None
    if torn:
        segment, broken_path = _cut(directory, segment, data, segment_bytes_max, position)
    last_sequence = position.sequence_due - 1
    end = LogEnd(segment, position.offset, position.sequence_due, position.chain, position.sealed)
    count = len(segments) + torn
    return end, RecoveryReport(last_sequence, last_sequence, count, torn, broken_path, 0.0)


def _read_whole(fd: int) -> bytearray:
    """All bytes of a segment. OSError when the disk cannot read them."""
    size = os.fstat(fd).st_size
    if size > SEGMENT_READ_BYTES_MAX:
        raise OSError(errno.EFBIG, "segment larger than any segment of ours")
    data = bytearray(size)
    view = memoryview(data)
    offset = 0
    while offset < size:  # bounded by size; a file that shrinks meanwhile ends it
        count = os.preadv(fd, [view[offset : offset + READ_BYTES]], offset)
        if count == 0:
            return data[:offset]
        offset += count
    return data


def _check_header(path: Path, name_sequence: int, data: bytearray, position: _Position) -> wal.SegmentHeader:
    header = wal.decode_segment_header(data)
    if header is None:
        raise LogDamaged(path, 0, "not a segment header of a version known here")
    if header.first_sequence != name_sequence:
        raise LogDamaged(path, 0, f"the header says sequence {header.first_sequence}, the name {name_sequence}")
    if header.first_sequence != position.sequence_due or header.chain != position.chain:
        raise LogDamaged(path, 0, f"does not follow: the segment with sequence {position.sequence_due} is missing")
    position.offset = wal.SEGMENT_HEADER_BYTES
    position.sealed = False
    return header


def _scan(
    path: Path,
    data: bytearray,
    header: wal.SegmentHeader,
    position: _Position,
    deliver: Callable[[int, bytes], object],
    sequence_end: int | None = None,
) -> int:
    """Delivers frames until one is not valid or `sequence_end` is due; returns the status that ended it."""
    while position.sequence_due != sequence_end:  # ends: each frame takes bytes, the data are finite
        status, frame = wal.read_frame(data, position.offset, header.segment_id, position.sequence_due, position.chain)
        if frame is None:
            return status
        for record in frame.records:
            try:
                deliver(position.sequence_due, record)
            except _Undecodable as error:
                reason = f"record {position.sequence_due} cannot be decoded"
                raise LogDamaged(path, position.offset, reason) from error
            position.sequence_due += 1
        position.sealed = not frame.records
        position.offset = frame.end
        position.chain = frame.chain
        position.progress.advance(position.sequence_due - 1, frame.end)
    return FrameStatus.FRAME_VALID


def _scan_closed(
    path: Path,
    name_sequence: int,
    successor: tuple[int, Path],
    position: _Position,
    deliver: Callable[[int, bytes], object],
) -> None:
    """A segment that has a successor: it must lead to exactly where the successor begins; what lies behind is a cut
    tail."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = _read_whole(fd)
    finally:
        os.close(fd)
    sequence_next, path_next = successor
    with path_next.open("rb") as file:
        header_next = wal.decode_segment_header(file.read(wal.SEGMENT_HEADER_BYTES))
    if header_next is None:
        raise LogDamaged(path_next, 0, "not a segment header of a version known here")
    header = _check_header(path, name_sequence, data, position)
    _scan(path, data, header, position, deliver, sequence_next)
    position.progress.end_segment(len(data))
    # A seal takes no sequence: the frame that makes the chain right may still follow.
    while position.chain != header_next.chain:
        _, frame = wal.read_frame(data, position.offset, header.segment_id, position.sequence_due, position.chain)
        if frame is None or frame.records:
            break
        position.offset = frame.end
        position.chain = frame.chain
    if position.sequence_due != sequence_next or position.chain != header_next.chain:
        raise LogDamaged(path, position.offset, f"record {position.sequence_due} is damaged or missing")


def _refuse_unless_torn(path: Path, data: bytearray, header: wal.SegmentHeader, position: _Position, status: int) -> None:
    if status == FrameStatus.FRAME_MISPLACED:
        reason = f"a whole frame that does not follow record {position.sequence_due - 1}"
        raise LogDamaged(path, position.offset, reason)
    later = wal.find_later_header(data, position.offset, header.segment_id, position.sequence_due)
    if later >= 0:
        raise LogDamaged(path, position.offset, f"record {position.sequence_due} is damaged; the log goes on at offset {later}")


def _new_segment(directory: Path, size_bytes: int, position: _Position) -> Segment:
    directory_fd = open_directory(directory)
    try:
        fd = make_spare(directory, size_bytes)
        try:
            return adopt_spare(directory, directory_fd, fd, size_bytes, position.sequence_due, position.chain)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(directory_fd)


def _cut(directory: Path, segment: Segment, data: bytearray, segment_bytes_max: int, position: _Position) -> tuple[Segment, Path]:
    """Keeps a copy, begins a new segment at the lost frame, shortens the old one; may be interrupted anywhere."""
    broken_path = segment.path.with_name(segment.path.name + BROKEN_SUFFIX)
    try:
        _keep_copy(broken_path, data)
        if position.sequence_due == segment.header.first_sequence:
            # Nothing whole in it: the name of the new segment is this one's. The copy has it; the rename replaces it.
            successor = _new_segment(directory, segment_bytes_max, _started(segment))
        else:
            successor = _new_segment(directory, segment_bytes_max, position)
            os.ftruncate(segment.fd, position.offset)
            sync(segment.fd)
    finally:
        os.close(segment.fd)
    position.offset = wal.SEGMENT_HEADER_BYTES
    position.chain = successor.header.chain
    position.sealed = False
    return successor, broken_path


def _keep_copy(path: Path, data: bytearray) -> None:
    """Writes `data` to a file whose end of zeros takes no room, and makes it durable with its name."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    directory_fd = open_directory(path.parent)
    try:
        content = data.rstrip(b"\0")
        status = wal.write_at(fd, content, 0)
        if status != 0:
            raise OSError(status, f"{os.strerror(status)}: {path.name}")
        os.ftruncate(fd, len(data))
        sync(fd)
        sync(directory_fd)
    finally:
        os.close(fd)
        os.close(directory_fd)


def _started(segment: Segment) -> _Position:
    """The position at the segment's own beginning."""
    position = _Position(Progress())
    position.sequence_due = segment.header.first_sequence
    position.chain = segment.header.chain
    return position

"""Reading the log back: what is replayed, what is cut, what is refused.

The rules of what follows what, of torn tails and of damage are scan.py's. A torn tail is cut here: the segment is kept
as `.broken`, a new segment that begins at the lost frame's sequence is made durable - the moment the cut counts -, then
the old file is shortened. Where there is damage nothing is changed.

A process appends to no encrypted segment that another one began, because nobody knows which nonces that one used up: a new
segment begins behind it, also where encryption was turned on or off meanwhile.

What was read is synced before anyone may answer from it, and is read from the disk rather than from a cache that may
hold pages which an earlier process failed to sync.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from tokmesh._core import wal
from tokmesh.storage.scan import Found, LogDamaged, Position, closed_segment, header_of, last_segment, read_whole, undecodable
from tokmesh.storage.segment import (
    BROKEN_SUFFIX,
    NO_ROOM,
    Segment,
    adopt_spare,
    list_segments,
    make_spare,
    open_directory,
    remove_spare,
    sync,
    sync_directory,
)
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

R = TypeVar("R")

SMALL_SEGMENT_BYTES: Final = 64 << 10  # where there is no room for a whole one at the start: what can still be read must be served


class RecoveryCancelled(Exception):
    """The replay was told to stop (`Progress.cancel`); nothing was changed on disk."""


class NoRoom(OSError):
    """A start has no room for what it must write. needed_bytes: that must be free in the log's directory, at least."""

    def __init__(self, error: OSError, needed_bytes: int) -> None:
        super().__init__(error.errno, os.strerror(error.errno or 0))
        self.needed_bytes = needed_bytes


class Progress:
    """How far a start is, with a snapshot and then with the log; another thread may read it, and may end it after the frame (or
    chunk) under way. bytes_applied: of the frames that were applied, without the zeros behind them."""

    __slots__ = ("_base_bytes", "_cancelled", "bytes_applied", "bytes_read", "bytes_total", "phase", "records")

    def __init__(self) -> None:
        self.phase = "replaying the log"
        self.records = self.bytes_read = self.bytes_total = 0
        self._base_bytes = self.bytes_applied = 0
        self._cancelled = False

    def cancel(self) -> None:
        """Makes the replay raise RecoveryCancelled."""
        self._cancelled = True

    def begin_snapshot(self, name: str, size_bytes: int) -> None:
        """A snapshot will be read; `records` are then its sessions."""
        self.phase = f"loading {name}"
        self.records = self.bytes_read = self._base_bytes = 0
        self.bytes_total = size_bytes

    def begin(self, segments: list[tuple[int, Path]]) -> None:
        """The segments that will be read. Raises OSError."""
        self.phase = "replaying the log"
        self.records = self.bytes_read = 0
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


class Base(NamedTuple):
    """What is known before the log is read: the state at `sequence`, from a snapshot. restored: a restore made it, so that the
    records up to there, if there are any, led elsewhere."""

    sequence: int
    restored: bool = False


NO_BASE: Final = Base(0)


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


def replay(
    directory: Path,
    segment_bytes_max: int,
    decode: Callable[[bytes], R],
    apply: Callable[[int, R], object],
    progress: Progress | None = None,
    keys: SegmentKeys = PLAIN,
    base: Base = NO_BASE,
) -> tuple[LogEnd, RecoveryReport]:
    """Applies (sequence, decoded record) of the log behind `base` in order, repairs a torn tail and opens the log's end for
    append.

    The caller holds the directory's lock. Whatever `decode` raises makes its record LogDamaged; what `apply` raises
    passes. Raises LogDamaged, KeyMissing, OSError, RecoveryCancelled. `seconds` of the report is 0: the caller has the clock."""

    progress = progress or Progress()

    def deliver(path: Path, frames: Iterator[Found]) -> None:
        for offset, frame in frames:
            for sequence, data in enumerate(frame.records, frame.first_sequence):
                if sequence > base.sequence:
                    apply(sequence, _decoded(path, offset, sequence, data, decode))
            last = frame.first_sequence + len(frame.records) - 1
            if last > base.sequence:
                progress.bytes_applied += frame.end - offset
            progress.advance(last, frame.end)

    every = list_segments(directory)
    segments = _leading_on(directory, every, base)
    keys.refuse_unknown(path for _, path in segments)
    progress.begin(segments)
    remove_spare(directory)
    sync_directory(directory)  # a writer killed between a rename and its sync left a name that is seen and not durable
    position = Position(keys=keys)
    if not segments:
        position.sequence_due = base.sequence + 1
        segment = _new_segment(directory, segment_bytes_max, position)
        end = LogEnd(segment, wal.SEGMENT_HEADER_BYTES, position.sequence_due, 0, False)
        return end, RecoveryReport(0, base.sequence, len(every) + 1, False, None, 0.0)
    _begin(position, segments[0], base)
    for (name_sequence, path), successor in itertools.pairwise(segments):
        deliver(path, closed_segment(path, name_sequence, successor, position))
        progress.end_segment(path.stat().st_size)
    name_sequence, path = segments[-1]
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = read_whole(fd)
        deliver(path, last_segment(path, name_sequence, data, position))
        progress.end_segment(len(data))
        header, torn = header_of(path, data), position.torn
        if position.sequence_due <= base.sequence:
            reason = f"the log ends with record {position.sequence_due - 1}, and a snapshot was taken at {base.sequence}"
            raise LogDamaged(path, position.offset, reason)
    except BaseException:
        os.close(fd)
        raise
    segment, broken_path = Segment(path, fd, header), None
    if torn:
        broken_path = _keep_broken(segment, data)
    if torn or keys.sealing or header.key_id:
        segment = _succeed(directory, segment, segment_bytes_max, position)
    last_sequence = position.sequence_due - 1
    end = LogEnd(segment, position.offset, position.sequence_due, position.chain, position.sealed)
    count = len(every) + (segment.path != path)
    return end, RecoveryReport(last_sequence - base.sequence, last_sequence, count, torn, broken_path, 0.0)


def _decoded(path: Path, offset: int, sequence: int, data: bytes, decode: Callable[[bytes], R]) -> R:
    try:
        return decode(data)
    except Exception as error:
        raise undecodable(path, offset, sequence) from error


def _leading_on(directory: Path, segments: list[tuple[int, Path]], base: Base) -> list[tuple[int, Path]]:
    """The segments that lead on from `base`; none for a log that is yet to begin. Raises LogDamaged when records are missing."""
    if base.restored:
        segments = [segment for segment in segments if segment[0] > base.sequence]
    else:
        before = [segment for segment in segments if segment[0] <= base.sequence + 1]
        segments = segments[max(len(before) - 1, 0) :]
    if segments and segments[0][0] > base.sequence + 1:
        missing = f"records {base.sequence + 1} to {segments[0][0] - 1} are missing"
        raise LogDamaged(segments[0][1], 0, f"{missing}, and no snapshot that can be used covers them")
    if not segments and base.sequence and not base.restored:
        raise LogDamaged(directory, 0, f"the log is missing, and a snapshot was taken at record {base.sequence}")
    return segments


def _begin(position: Position, first: tuple[int, Path], base: Base) -> None:
    """Puts the position before the first segment that is read: where a snapshot covers what came before, its header's word for the
    chain is taken."""
    name_sequence, path = first
    if base.sequence == 0:
        return
    with path.open("rb") as file:
        header = wal.decode_segment_header(file.read(wal.SEGMENT_HEADER_BYTES))
    if header is not None:
        position.sequence_due, position.chain = name_sequence, header.chain


def _new_segment(directory: Path, size_bytes: int, position: Position) -> Segment:
    directory_fd = open_directory(directory)
    try:
        fd, size_bytes = _make_spare(directory, size_bytes)
        try:
            sealer = position.keys.new_sealer()
            return adopt_spare(directory, directory_fd, fd, size_bytes, position.sequence_due, position.chain, sealer)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(directory_fd)


def _make_spare(directory: Path, size_bytes: int) -> tuple[int, int]:
    """The descriptor and size of a spare of `size_bytes`, or of a small one where that has no room. OSError, NoRoom."""
    try:
        return make_spare(directory, size_bytes), size_bytes
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        if size_bytes <= SMALL_SEGMENT_BYTES:
            raise NoRoom(error, size_bytes) from error
    return _make_spare(directory, SMALL_SEGMENT_BYTES)


def _keep_broken(segment: Segment, data: bytearray) -> Path:
    broken_path = segment.path.with_name(segment.path.name + BROKEN_SUFFIX)
    try:
        _keep_copy(broken_path, data)
    except OSError as error:
        os.close(segment.fd)
        if error.errno not in NO_ROOM:
            raise
        needed_bytes = len(data.rstrip(b"\0")) + SMALL_SEGMENT_BYTES  # the copy, and the segment that follows it
        raise NoRoom(error, needed_bytes) from error
    except BaseException:
        os.close(segment.fd)
        raise
    return broken_path


def _succeed(directory: Path, segment: Segment, segment_bytes_max: int, position: Position) -> Segment:
    """Begins a new segment where `segment` ended whole and shortens that one to there; may be interrupted anywhere."""
    try:
        if position.sequence_due == segment.header.first_sequence:
            # No record in it: the name of the new segment is this one's, which the rename replaces.
            successor = _new_segment(directory, segment_bytes_max, _started(segment, position))
        else:
            successor = _new_segment(directory, segment_bytes_max, position)
            os.ftruncate(segment.fd, position.offset)
            sync(segment.fd)
    finally:
        os.close(segment.fd)
    position.offset = wal.SEGMENT_HEADER_BYTES
    position.chain = successor.header.chain
    position.sealed = False
    return successor


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
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
        os.close(directory_fd)


def _started(segment: Segment, ended: Position) -> Position:
    """The position at the segment's own beginning."""
    return Position(segment.header.first_sequence, segment.header.chain, ended.keys)

"""The rules of reading a log: which frame is due, where a segment ends, what is a torn tail and what is damage.

Segments are read in order and every frame must be the one due: right segment id, sequence, chain and CRCs. The last
frame of a segment that has a successor is pinned by the successor's header (first sequence and chain), so only the end
of the last segment can be in doubt. There:

- zeros to the end: the clean end;
- no whole frame, and no later header that was written when this place was already durable: a write that a crash cut
  short, never acknowledged (`sync_mode: interval`: acknowledged as not yet durable). `Position.torn` is then set;
- anything else, and a segment shorter than it was made: damage. LogDamaged, with file and offset.

Encrypted segments follow the same rules: what is torn and what is damage is told by CRCs, without a key. A frame that is whole and
whose tag is wrong was written by another hand, or with a key that another one pretends to be: damage.

Nothing here changes a file: recovery.py repairs and goes on, inspection.py tells, salvage.py takes what is left.
"""

import errno
import os
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokmesh._core import wal, wal_search
from tokmesh._core.wal import FrameStatus
from tokmesh.errors import ApiError
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

if TYPE_CHECKING:
    from tokmesh.storage.encryption import Opener

Found = tuple[int, wal.Frame]  # a frame, and the offset where it begins

READ_BYTES: Final = 4 << 20  # one pread
SEGMENT_READ_BYTES_MAX: Final = 4 << 30  # no segment is larger than this, whatever a file says

FLAGS_KNOWN: Final = (0, 1)  # of a segment and its frames: plain, encrypted

_MAGIC: Final = b"TMESHLOG"
_VERSION_AND_FLAGS: Final = struct.Struct("<8xII")
_FRAME_VERSION_AND_FLAGS: Final = struct.Struct("<4xBB")


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


class LogUnreadable(LogDamaged):
    """Nothing says that the log is damaged, but this release cannot read it as it is: a newer format."""

    def __str__(self) -> str:
        return f"{self.code}: log not readable: {self.path} at offset {self.offset}: {self.reason}"


class Position:
    """Where a scan stands; moves over the segments with it. torn: the last segment ends, at `offset`, in a write cut short; keys:
    that open what is encrypted; over_restores: go on where a restore made the log jump, into another history."""

    __slots__ = ("chain", "keys", "offset", "opener", "over_restores", "sealed", "sequence_due", "torn")

    def __init__(
        self, sequence_due: int = 1, chain: int = 0, keys: SegmentKeys = PLAIN, *, over_restores: bool = False
    ) -> None:
        self.over_restores = over_restores
        self.keys = keys
        self.opener: Opener | None = None  # of the segment under way
        self.sequence_due = sequence_due
        self.chain = chain
        self.offset = 0
        self.sealed = False
        self.torn = False


def read_whole(fd: int) -> bytearray:
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


def read_file(path: Path) -> bytearray:
    """All bytes of a segment by its name. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_whole(fd)
    finally:
        os.close(fd)


def header_of(path: Path, data: bytes | bytearray) -> wal.SegmentHeader:
    """The header at the start of a segment's bytes. LogDamaged; LogUnreadable when it is whole and of another release."""
    header = wal.decode_segment_header(data)
    if header is not None:
        return header
    raw = data[: wal.SEGMENT_HEADER_BYTES]
    whole = len(raw) == wal.SEGMENT_HEADER_BYTES and raw[:8] == _MAGIC
    if whole and wal.crc32c(raw[:60]) == int.from_bytes(raw[60:], "little"):
        version, flags = _VERSION_AND_FLAGS.unpack_from(raw)
        raise LogUnreadable(path, 0, _not_for_us(version, flags))
    if len(raw) < wal.SEGMENT_HEADER_BYTES:
        raise LogDamaged(path, 0, "the file ends within its header" if raw else "the file is empty")
    raise LogDamaged(path, 0, "not a segment header of a version known here")


def _not_for_us(version: int, flags: int) -> str:
    if version != wal.FORMAT_VERSION:
        return f"written in format {version}, and this release reads format {wal.FORMAT_VERSION}: use the release that wrote it"
    return f"written in a form (flags {flags:#x}) that this release does not know: use the release that wrote it"


def check_header(path: Path, name_sequence: int, data: bytearray, position: Position) -> wal.SegmentHeader:
    """The header of the segment due at `position`, which moves to its first frame. LogDamaged, KeyMissing."""
    header = header_of(path, data)
    if header.first_sequence != name_sequence:
        raise LogDamaged(path, 0, f"the header says sequence {header.first_sequence}, the name {name_sequence}")
    if header.first_sequence != position.sequence_due or header.chain != position.chain:
        raise LogDamaged(path, 0, f"does not follow: the segment with sequence {position.sequence_due} is missing")
    position.opener = position.keys.opener(path, header)
    position.offset = wal.SEGMENT_HEADER_BYTES
    position.sealed = False
    return header


def closed_segment(path: Path, name_sequence: int, successor: tuple[int, Path], position: Position) -> Iterator[Found]:
    """Frames of a segment that has a successor: it must lead to exactly where the successor begins; what lies behind is
    a cut tail. LogDamaged, OSError."""
    data = read_file(path)
    sequence_next, path_next = successor
    with path_next.open("rb") as file:
        header_next = header_of(path_next, file.read(wal.SEGMENT_HEADER_BYTES))
    header = check_header(path, name_sequence, data, position)
    status = yield from _frames(data, header, position, sequence_next, header_next.chain)
    if position.over_restores and position.sequence_due < sequence_next and header_next.chain in (0, position.chain):
        # A running server goes on with the chain, a start behind a restore of a stopped one begins it anew. No loss looks so.
        if status != FrameStatus.FRAME_END:
            _refuse_unless_torn(path, data, header, position, status)
        position.sequence_due, position.chain = sequence_next, header_next.chain
    if position.sequence_due != sequence_next or position.chain != header_next.chain:
        _refuse_foreign_frame(path, data, status, position)
        raise LogDamaged(path, position.offset, f"record {position.sequence_due} is damaged or missing")


def last_segment(path: Path, name_sequence: int, data: bytearray, position: Position) -> Iterator[Found]:
    """Frames of the segment at the log's end, whose bytes are `data`; then `position.torn` is right. LogDamaged."""
    header = check_header(path, name_sequence, data, position)
    if len(data) < header.size_bytes:
        raise LogDamaged(path, len(data), f"the file was made with {header.size_bytes} bytes and is shorter")
    status = yield from _frames(data, header, position, None, 0)
    position.torn = status != FrameStatus.FRAME_END
    if position.torn:
        _refuse_unless_torn(path, data, header, position, status)


def _frames(
    data: bytearray, header: wal.SegmentHeader, position: Position, sequence_end: int | None, chain_end: int
) -> Generator[Found, None, int]:
    """Frames due, each passed once its consumer asks for the next, until one is not there or the end is reached: a given
    sequence and chain, since a seal takes no sequence and may still follow. Returns the status that ended it.

    The one place where a start and the tools turn bytes into frames."""
    segment_id = header.segment_id
    while True:  # ends: each frame takes bytes, the data are finite
        ended = position.sequence_due == sequence_end
        if ended and position.chain == chain_end:
            return FrameStatus.FRAME_VALID
        offset = position.offset
        status, frame = wal.read_frame(data, offset, segment_id, position.sequence_due, position.chain, position.opener)
        if frame is None or (ended and frame.records):
            return status
        yield offset, frame
        position.sequence_due += len(frame.records)
        position.sealed = not frame.records
        position.offset = frame.end
        position.chain = frame.chain


def undecodable(path: Path, offset: int, sequence: int) -> LogDamaged:
    """For a record whose bytes mean nothing to the decoder, though its frame, at `offset`, is right."""
    return LogDamaged(path, offset, f"record {sequence} cannot be decoded")


def _refuse_unless_torn(path: Path, data: bytearray, header: wal.SegmentHeader, position: Position, status: int) -> None:
    _refuse_foreign_frame(path, data, status, position)
    if status == FrameStatus.FRAME_MISPLACED:
        reason = f"a whole frame that does not follow record {position.sequence_due - 1}"
        raise LogDamaged(path, position.offset, reason)
    later = wal_search.find_later_header(data, position.offset, header.segment_id, position.sequence_due)
    if later >= 0:
        raise LogDamaged(path, position.offset, f"record {position.sequence_due} is damaged; the log goes on at offset {later}")


def _refuse_foreign_frame(path: Path, data: bytearray, status: int, position: Position) -> None:
    """LogUnreadable for a whole frame of this segment that another release wrote, LogDamaged for one by another hand."""
    if status == FrameStatus.FRAME_FORGED:
        reason = f"record {position.sequence_due} is whole, and not what was encrypted here: another hand has written it"
        raise LogDamaged(path, position.offset, reason)
    if status == FrameStatus.FRAME_MISPLACED:
        version, flags = _FRAME_VERSION_AND_FLAGS.unpack_from(data, position.offset)
        if version != wal.FORMAT_VERSION or flags not in FLAGS_KNOWN:
            raise LogUnreadable(path, position.offset, _not_for_us(version, flags))

"""What is left of a damaged log, read past the damage and written into a new one that a start accepts.

Every record of an undamaged frame is taken, in order of sequence, and keeps its sequence, so that a snapshot and a report
go on meaning what they meant. A start needs sequences without a gap: in the place of each record that is lost stands a
filler, a record that changes nothing. Invariants:

- the damaged log is read only, and the new one appears under its name when it is complete and durable, or not at all;
- a frame counts when its header's and its payload's CRCs are right and it bears the segment's id; where the header of
  the segment itself is lost, its id is the one that most whole frames in the file bear;
- what a start would cut as a torn tail was never acknowledged as durable, and is left out here too;
- frames that another release wrote are not damage: LogUnreadable, and nothing is written;
- of a log that was restored, only what came behind the restore is taken: what is before it was undone, revocations or not;
- what was encrypted is encrypted again, under the first key; without the header of its segment it is lost.
"""

import contextlib
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from tokmesh._core import wal, wal_search
from tokmesh.storage.figures import Timed
from tokmesh.storage.inspection import Inspection
from tokmesh.storage.scan import FLAGS_KNOWN, LogDamaged, LogUnreadable, header_of, read_file
from tokmesh.storage.segment import LOG_DIRECTORY, make_directory, sync_directory
from tokmesh.storage.segment_keys import SegmentKeys
from tokmesh.storage.segment_writer import SegmentWriter
from tokmesh.storage.snapshot_directory import SNAPSHOT_DIRECTORY, list_snapshots
from tokmesh.storage.snapshot_file import SnapshotDamaged, SnapshotReader

R = TypeVar("R", bound=Timed)

FILLERS_MAX: Final = 100_000_000  # 1.8 GB of them; a gap beyond this is no gap, but a wrong number
UNFINISHED: Final = LOG_DIRECTORY + ".unfinished"

_SEQUENCE_AND_COUNT: Final = struct.Struct("<16xQ8xI")


class Damage(NamedTuple):
    """Bytes of a segment that no record could be read from, and why."""

    file: str
    offset: int
    size_bytes: int
    reason: str


class Report:
    """What a salvage took and what is lost. records: taken; missing: (first, last) sequences of the lost ones, in whose
    places fillers stand; tail: a write that a crash cut short, left out as a start would."""

    def __init__(self, begins_at: int) -> None:
        self.begins_at = begins_at
        self.records = 0
        self.missing: list[tuple[int, int]] = []
        self.damages: list[Damage] = []
        self.tail: Damage | None = None

    @property
    def missing_count(self) -> int:
        """How many records are lost, as far as their sequences tell."""
        return sum(last - first + 1 for first, last in self.missing)

    @property
    def is_lossy(self) -> bool:
        """Whether the new log is less than the old one was."""
        return bool(self.missing or self.damages)

    def add_missing(self, first: int, last: int) -> None:
        """Lost sequences, after all those before."""
        if self.missing and self.missing[-1][1] == first - 1:
            first = self.missing.pop()[0]
        self.missing.append((first, last))


class _Source(NamedTuple):
    """A segment as the salvage sees it. first_sequence: by its header, else by its name."""

    first_sequence: int
    path: Path
    header: wal.SegmentHeader | None


class Salvage(Generic[R]):
    """From the log of `inspection`, which the caller holds, into the data directory `target`, new or empty.

    segment_bytes: of new segments, at least; decode: bytes to a record, may raise anything; filler: bytes of a record that
    changes nothing, given the time of the record before it."""

    def __init__(
        self,
        inspection: Inspection,
        target: Path,
        segment_bytes: int,
        decode: Callable[[bytes], R],
        filler: Callable[[int], bytes],
    ) -> None:
        self._inspection = inspection
        self._target = target
        self._decode = decode
        self._filler = filler
        self._restored_at = _restored_at(inspection.directory.parent / SNAPSHOT_DIRECTORY)
        sources = sorted(_source(*segment) for segment in inspection.segments)
        self._sources = [source for source in sources if source.first_sequence > self._restored_at]
        if not self._sources:
            raise LogDamaged(sources[0].path, 0, f"nothing was written behind the restore at {self._restored_at}")
        headers = [source.header for source in self._sources if source.header is not None]
        self._known_ids = frozenset(header.segment_id for header in headers)
        keys = inspection.keys
        self._keys = SegmentKeys(keys.keys, keys.sealing or any(header.key_id for header in headers))
        self._segment_bytes = max([segment_bytes, *(header.size_bytes for header in headers)])
        self._time_ms = 0
        self._fillers = 0

    def run(self) -> Report:
        """Writes the new log. Raises LogUnreadable, LogDamaged (nothing can be read, or the numbers cannot be true), OSError
        of writing; nothing is then left in `target`."""
        begins_at, chain = self._beginning()
        self._due, self._report = begins_at, Report(begins_at)
        unfinished = self._target / UNFINISHED
        new_target = not self._target.exists()
        make_directory(unfinished)
        try:
            self._writer = SegmentWriter(unfinished, self._segment_bytes, begins_at, chain, self._keys)
            with contextlib.closing(self._writer):
                for index, source in enumerate(self._sources):
                    self._take_segment(index, source)
                if not self._report.records:
                    raise LogDamaged(self._sources[0].path, 0, "no record of the log can be read")
                self._writer.finish()
            unfinished.rename(self._target / LOG_DIRECTORY)
            sync_directory(self._target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            if new_target:
                with contextlib.suppress(OSError):
                    self._target.rmdir()
            raise
        return self._report

    def _beginning(self) -> tuple[int, int]:
        """(sequence, chain) of the new log: those of the old one where a snapshot stands for what was before it."""
        snapshots = self._inspection.directory.parent / SNAPSHOT_DIRECTORY
        first = self._sources[0]
        if self._restored_at:
            return self._restored_at + 1, first.header.chain if first.header is not None else 0
        if snapshots.is_dir() and any(snapshots.iterdir()):
            return first.first_sequence, first.header.chain if first.header is not None else 0
        return 1, 0

    def _take_segment(self, index: int, source: _Source) -> None:
        path, is_last = source.path, index + 1 == len(self._sources)
        sequence_end = None if is_last else self._sources[index + 1].first_sequence
        try:
            data = read_file(path)
        except OSError as error:
            self._report.damages.append(Damage(path.name, 0, path.stat().st_size, f"cannot be read ({error.strerror})"))
            return
        segment_id = self._segment_id(source, data)
        if source.header is not None:
            self._lose_until(source.first_sequence, path, 0)
        elif segment_id is None:
            self._report.damages.append(Damage(path.name, 0, len(data), "no header and no whole frame of a segment"))
            return
        else:
            self._report.damages.append(Damage(path.name, 0, wal.SEGMENT_HEADER_BYTES, "the segment's header is damaged"))
        chain = source.header.chain if source.header is not None else None
        opener = self._keys.opener(path, source.header) if source.header is not None else None
        offset = wal.SEGMENT_HEADER_BYTES
        while True:  # ends: each frame takes bytes, the data are finite
            found = wal_search.find_frame(data, offset, segment_id, opener)
            at = len(data) if found is None else found[0]
            skipped = wal.first_nonzero(memoryview(data)[:at], offset) >= 0 or (found is not None and at > offset)
            if skipped and is_last and wal_search.find_later_header(data, offset, segment_id or 0, self._due) < 0:
                self._report.tail = Damage(path.name, offset, len(data.rstrip(b"\0")) - offset, "a write that a crash cut short")
                return
            ended = sequence_end is not None and self._due >= sequence_end
            if skipped and not ended:
                self._add_gap(path, data, offset, at)
            if found is None or (ended and found[2].records):
                # What lies behind the end of a closed segment is a cut tail.
                if is_last and skipped:
                    self._lose_headed(path, data, offset, segment_id or 0)
                return
            frame = found[2]
            if chain is not None and at == offset and wal.crc32c(data[at : at + 44], chain) != frame.chain:
                self._report.damages.append(Damage(path.name, at, 0, "does not follow the frame before it"))
            self._take_frame(path, at, frame, sequence_end)
            offset, chain = frame.end, frame.chain

    def _segment_id(self, source: _Source, data: bytearray) -> int | None:
        if source.header is not None:
            return source.header.segment_id
        votes: Counter[int] = Counter()
        found = wal_search.find_frame(data, 0)
        while found is not None:  # ends: each frame takes bytes
            votes[found[1]] += 1
            found = wal_search.find_frame(data, found[2].end)
        own = [(count, segment_id) for segment_id, count in votes.items() if segment_id not in self._known_ids]
        return max(own)[1] if own else None

    def _lose_headed(self, path: Path, data: bytearray, offset: int, segment_id: int) -> None:
        """At the end of the log, frames of which only the header is left still tell which records they had."""
        while (offset := wal_search.find_later_header(data, offset, segment_id, self._due)) >= 0:  # ends: `offset` grows
            first_sequence, count = _SEQUENCE_AND_COUNT.unpack_from(data, offset)
            self._lose_until(first_sequence + count, path, offset)
            offset += wal.FRAME_HEADER_BYTES

    def _add_gap(self, path: Path, data: bytearray, offset: int, end: int) -> None:
        """Bytes that are no whole frame, or one by another hand. LogUnreadable where they are one of another release."""
        if data[offset : offset + 4] == b"TMFR" and wal.crc32c(data[offset : offset + 52]) == _u32(data, offset + 52):
            version, flags = data[offset + 4], data[offset + 5]
            if version != wal.FORMAT_VERSION or flags not in FLAGS_KNOWN:
                reason = f"a frame of format {version} with flags {flags:#x}, which this release cannot read"
                raise LogUnreadable(path, offset, reason)
        size = len(data[offset:end].rstrip(b"\0")) or end - offset
        self._report.damages.append(Damage(path.name, offset, size, "no whole frame"))

    def _take_frame(self, path: Path, offset: int, frame: wal.Frame, sequence_end: int | None) -> None:
        if not frame.records:  # a seal: it says what would have come next
            if sequence_end is None or frame.first_sequence <= sequence_end:
                self._lose_until(frame.first_sequence, path, offset)
            return
        last = frame.first_sequence + len(frame.records) - 1
        if frame.first_sequence < self._due or (sequence_end is not None and last >= sequence_end):
            reason = f"a frame of records {frame.first_sequence} to {last}, out of place"
            self._report.damages.append(Damage(path.name, offset, frame.end - offset, reason))
            return
        self._lose_until(frame.first_sequence, path, offset)
        for data in frame.records:
            try:
                self._time_ms = self._decode(data).time_ms
            except Exception:
                self._report.damages.append(Damage(path.name, offset, len(data), f"record {self._due} cannot be decoded"))
                self._lose_until(self._due + 1, path, offset)
                continue
            self._writer.add(data)
            self._report.records += 1
            self._due += 1

    def _lose_until(self, sequence: int, path: Path, offset: int) -> None:
        """Fillers for what is lost before `sequence`."""
        if sequence <= self._due:
            return
        self._fillers += sequence - self._due
        if self._fillers > FILLERS_MAX:
            reason = f"sequence {sequence} follows {self._due - 1}: more is missing than a new log can stand for"
            raise LogDamaged(path, offset, reason)
        self._report.add_missing(self._due, sequence - 1)
        self._writer.add_repeated(self._filler(self._time_ms), sequence - self._due)
        self._due = sequence


def _restored_at(snapshots: Path) -> int:
    """The sequence of the newest restore; what is behind it is the log, what is before it another history. 0: there was none."""
    for file in list_snapshots(snapshots):
        with contextlib.suppress(SnapshotDamaged, OSError), SnapshotReader(file.path) as reader:
            if reader.header.restored:
                return file.sequence
    return 0


def _source(name_sequence: int, path: Path) -> _Source:
    """LogUnreadable for a segment of another release; a damaged header is None."""
    try:
        with path.open("rb") as file:
            header = header_of(path, file.read(wal.SEGMENT_HEADER_BYTES))
    except LogUnreadable:
        raise
    except (LogDamaged, OSError):
        return _Source(name_sequence, path, None)
    return _Source(header.first_sequence, path, header)


def _u32(data: bytearray, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")

"""A log of several segments with every kind of record, to be damaged and salvaged; and what a start reads from the result."""

import shutil
from pathlib import Path

from tests.crash.records import QUIET
from tests.golden import make
from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh.log.appender import Appender
from tokmesh.log.record import AnyRecord, SessionsTouched, decode
from tokmesh.storage import recovery
from tokmesh.storage.inspection import Inspection
from tokmesh.storage.salvage import Report, Salvage
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

GROUPS = make.BEFORE_SEAL + make.AFTER_SEAL
RECORDS: dict[int, AnyRecord] = dict(enumerate((each for group in GROUPS for each in group), 1))


def filler(time_ms: int) -> bytes:
    return SessionsTouched(time_ms, ()).encode()


class Frame:
    """A frame of the original: where it is, and the sequences of its records."""

    def __init__(self, path: Path, offset: int, end: int, sequences: range) -> None:
        self.path, self.offset, self.end, self.sequences = path, offset, end, sequences


class Original:
    """The log to damage: its files as they were, and its frames."""

    def __init__(self, folder: Path, *, seal: bool = True, keys: SegmentKeys = PLAIN) -> None:
        self.folder = folder
        self.keys = keys
        self.directory = folder / "log"
        self.directory.mkdir(mode=0o700)
        make.append(self.directory, make.BEFORE_SEAL, seal=True, keys=keys)
        make.append(self.directory, make.AFTER_SEAL, seal=seal, keys=keys)
        self.paths = [path for _, path in list_segments(self.directory)]
        self.bytes = {path: path.read_bytes() for path in self.paths}
        with Inspection(self.directory, keys) as inspection:
            self.frames = [
                Frame(each.path, each.offset, each.frame.end, range(each.frame.first_sequence, self._end(each.frame)))
                for each in inspection.frames()
            ]
        assert len(self.paths) >= 3 and len(self.frames) >= 15

    @staticmethod
    def _end(frame: wal.Frame) -> int:
        return frame.first_sequence + len(frame.records)

    def damage(self, path: Path, offset: int, new: bytes) -> None:
        content = bytearray(path.read_bytes())
        content[offset : offset + len(new)] = new
        path.write_bytes(content)

    def spoil(self, frame: Frame, at: int = 20) -> None:
        """One bit of a frame."""
        byte = self.bytes[frame.path][frame.offset + at]
        self.damage(frame.path, frame.offset + at, bytes([byte ^ 4]))

    def restore(self) -> None:
        for path in self.directory.iterdir():
            path.unlink()
        for path, content in self.bytes.items():
            path.write_bytes(content)
            path.chmod(0o600)

    def salvage(self) -> tuple[Report, dict[int, AnyRecord]]:
        """The report, and the records that a start reads from the new log, fillers left out."""
        target = self.folder / "new"
        shutil.rmtree(target, ignore_errors=True)
        with Inspection(self.directory, self.keys) as inspection:
            report = Salvage(inspection, target, make.SEGMENT_BYTES, decode, filler).run()
        found = read_back(target / "log", self.keys)
        missing = {sequence for first, last in report.missing for sequence in range(first, last + 1)}
        assert sorted(found) == list(range(1, len(found) + 1)), "a start finds no gap"
        for sequence in missing:
            record = found.pop(sequence)
            assert isinstance(record, SessionsTouched) and record.touches == ()
        assert report.records == len(found) and report.missing_count == len(missing)
        return report, found


def read_back(directory: Path, keys: SegmentKeys = PLAIN) -> dict[int, AnyRecord]:
    """The records of a log that a start reads and finds sealed."""
    found: dict[int, AnyRecord] = {}
    with Inspection(directory, keys) as inspection:
        assert [*inspection.frames()] and inspection.position.sealed
    end, report = recovery.replay(directory, make.SEGMENT_BYTES, decode, found.__setitem__, keys=keys)
    Appender(directory, end, make.SEGMENT_BYTES, Clock(make.T0), QUIET, keys).close(seal=False)
    assert not report.torn_tail
    for path in (directory, *directory.iterdir()):
        assert path.stat().st_mode & 0o077 == 0
    return found


def without(*lost: range) -> dict[int, AnyRecord]:
    gone = {sequence for each in lost for sequence in each}
    return {sequence: record for sequence, record in RECORDS.items() if sequence not in gone}

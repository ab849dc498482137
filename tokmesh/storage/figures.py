"""What a log holds, counted while it is read: per segment and in total.

Figures are of whole frames only; of a segment that is damaged they tell what comes before the damage.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from tokmesh._core import wal
from tokmesh.storage.inspection import Placed

TOTAL: Final = "total"


class Timed(Protocol):
    """A decoded record; the name of its class is its kind."""

    @property
    def time_ms(self) -> int:
        """Unix ms of its proposal."""


class Figures:
    """Of one segment, or of several together. file_bytes: of the file as it is; used_bytes: header and whole frames; free_bytes:
    the rest; seals: frames without a record; times are of the first and the last record."""

    def __init__(self, name: str, file_bytes: int) -> None:
        self.name = name
        self.file_bytes = file_bytes
        self.used_bytes = 0
        self.frames = self.seals = 0
        self.records_by_kind: Counter[str] = Counter()
        self.first_sequence = self.last_sequence = 0  # 0: no record
        self.first_time_ms = self.last_time_ms = 0

    @property
    def records(self) -> int:
        """How many, of all kinds."""
        return self.records_by_kind.total()

    @property
    def free_bytes(self) -> int:
        """Of the file, without room for frames: what was preallocated and not used."""
        return self.file_bytes - self.used_bytes

    def add_frame(self, placed: Placed) -> None:
        """Counts a frame of this segment."""
        self.used_bytes = placed.frame.end
        if placed.frame.records:
            self.frames += 1
        else:
            self.seals += 1

    def add_record(self, sequence: int, record: Timed) -> None:
        """Counts a record of this segment."""
        if not self.first_sequence:
            self.first_sequence, self.first_time_ms = sequence, record.time_ms
        self.last_sequence, self.last_time_ms = sequence, record.time_ms
        self.records_by_kind[type(record).__name__] += 1

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, for JSON; null where there is no record."""
        return {
            "segment": self.name,
            "file_bytes": self.file_bytes,
            "used_bytes": self.used_bytes,
            "free_bytes": self.free_bytes,
            "frames": self.frames,
            "seals": self.seals,
            "records": self.records,
            "records_by_kind": dict(sorted(self.records_by_kind.items())),
            "first_sequence": self.first_sequence or None,
            "last_sequence": self.last_sequence or None,
            "first_time_ms": self.first_time_ms if self.first_sequence else None,
            "last_time_ms": self.last_time_ms if self.first_sequence else None,
        }


class LogFigures:
    """Of a log: one row for each of its segments, in order."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Raises OSError."""
        self._rows = {path: Figures(path.name, path.stat().st_size) for path in paths}

    @property
    def rows(self) -> list[Figures]:
        """Of each segment."""
        return list(self._rows.values())

    def of(self, path: Path) -> Figures:
        """Of the segment in that file; who asks has come to it, so that its header counts as used."""
        row = self._rows[path]
        row.used_bytes = row.used_bytes or wal.SEGMENT_HEADER_BYTES
        return row

    def total(self) -> Figures:
        """Of all segments together."""
        total = Figures(TOTAL, 0)
        for row in self.rows:
            total.file_bytes += row.file_bytes
            total.used_bytes += row.used_bytes
            total.frames += row.frames
            total.seals += row.seals
            total.records_by_kind += row.records_by_kind
            if row.first_sequence:
                if not total.first_sequence:
                    total.first_sequence, total.first_time_ms = row.first_sequence, row.first_time_ms
                total.last_sequence, total.last_time_ms = row.last_sequence, row.last_time_ms
        return total

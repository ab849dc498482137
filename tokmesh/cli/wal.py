"""`tokmesh wal verify|stats|dump|salvage`: the log of a stopped server, or a copy of it, read without changing it.

What is asked for goes to standard output; the verdict, unless it is that all is well, to standard error; and the exit code
is the verdict, whatever the action.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokmesh.cli.config import load_options
from tokmesh.cli.table import print_rows, shown_time
from tokmesh.config import Settings
from tokmesh.errors import EX_DATAERR, EX_OK, EX_TEMPFAIL, ApiError
from tokmesh.host import process
from tokmesh.host.encryption_keys import read_keys
from tokmesh.log.record import AnyRecord, SessionsTouched, decode
from tokmesh.log.record_summary import KINDS, summary
from tokmesh.storage.figures import Figures, LogFigures
from tokmesh.storage.inspection import Inspection, LogRefused, Placed, decoded
from tokmesh.storage.salvage import Report, Salvage
from tokmesh.storage.scan import LogDamaged, LogUnreadable
from tokmesh.storage.segment_keys import SegmentKeys

VERDICTS: Final = {EX_OK: "whole", EX_TEMPFAIL: "torn tail", EX_DATAERR: "damaged"}
MISSING_SHOWN: Final = 20  # ranges and places that the text of a salvage lists; --json has all

_Found = tuple[Placed, int, AnyRecord]


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Runs one action. Raises ApiError (LogRefused, KeyMissing, TM-ARG-…) or ConfigError."""
    process.harden()  # from here on there are keys in memory
    loaded = load_options(options, settings).settings
    try:
        keys = SegmentKeys(read_keys(loaded.storage.encryption), loaded.storage.encryption.enabled)
        with Inspection(Path(options.source) if options.source else loaded.storage.dir, keys) as inspection:
            if options.action == "salvage":
                return _salvage(options, inspection, loaded)
            return _Reading(inspection).finish(_ACTIONS[options.action](options))
    except LogDamaged as damage:  # before anything could be read
        _say(str(damage))
        return EX_DATAERR


def _say(line: str) -> None:
    sys.stdout.flush()
    print(f"tokmesh: {line}", file=sys.stderr)


class _Reading:
    """A log being read to its end or to its first damage, and counted on the way."""

    def __init__(self, inspection: Inspection) -> None:
        self.inspection = inspection
        self.figures = LogFigures(path for _, path in inspection.segments)
        self.damage: LogDamaged | None = None

    def finish(self, action: "_Action") -> int:
        """Reads all of it, record by record through `action`; tells the verdict, and returns it as an exit code."""
        for found in self._records():
            action.see(*found)
        action.end(self)
        if self.damage is not None:
            _say(f"{self.damage}; {self._cure(self.damage)}")
        elif self.inspection.position.torn:
            _say(f"torn tail: {self.inspection.last_path} at offset {self.inspection.position.offset}: {self._torn_reason()}")
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """The verdict."""
        if self.damage is not None:
            return EX_DATAERR
        return EX_TEMPFAIL if self.inspection.position.torn else EX_OK

    def as_dict(self) -> dict[str, Any]:
        """The verdict and where it was reached, for JSON."""
        verdict: dict[str, Any] = {"verdict": VERDICTS[self.exit_code], "directory": str(self.inspection.directory)}
        if self.damage is not None:
            if isinstance(self.damage, LogUnreadable):
                verdict["verdict"] = "not readable"
            verdict |= {"file": self.damage.path.name, "offset": self.damage.offset, "reason": self.damage.reason}
        elif self.inspection.position.torn:
            place = {"file": self.inspection.last_path.name, "offset": self.inspection.position.offset}
            verdict |= {**place, "reason": self._torn_reason()}
        return {**verdict, "begins_at": self.inspection.begins_at, "sealed": self._sealed}

    def told(self) -> str:
        """What was read, in one line."""
        total = self.figures.total()
        records = f"records {total.first_sequence} to {total.last_sequence}" if total.records else "no record"
        begins = self.inspection.begins_at
        before = f"; begins at {begins}, what is before is in a snapshot" if begins > 1 else ""
        end = "sealed" if self._sealed else "not sealed"
        return f"{len(self.figures.rows)} segments, {total.frames} frames, {total.records} records ({records}), {end}{before}"

    @property
    def _sealed(self) -> bool:
        return self.damage is None and self.inspection.position.sealed and not self.inspection.position.torn

    def _records(self) -> Iterator[_Found]:
        try:
            for placed in self.inspection.frames():
                figures = self.figures.of(placed.path)
                figures.add_frame(placed)
                for sequence, record in decoded(placed, decode):
                    figures.add_record(sequence, record)
                    yield placed, sequence, record
        except LogDamaged as damage:
            self.damage = damage

    def _torn_reason(self) -> str:
        return "a write that a crash cut short, never acknowledged as durable; the next start cuts it off and keeps a copy"

    def _cure(self, damage: LogDamaged) -> str:
        if isinstance(damage, LogUnreadable):
            return "nothing was changed"
        return f"restore a backup, or take what can be read: tokmesh wal salvage --dir={self.inspection.directory} --to=NEW"


class _Action:
    """What one action does with each record, and at the end. The base, that of `verify`, only tells the verdict."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def see(self, placed: Placed, sequence: int, record: AnyRecord) -> None:
        """A record, in order."""

    def end(self, reading: _Reading) -> None:
        """Everything was read, or all before the first damage."""
        if self.options.json:
            print(json.dumps({**reading.as_dict(), **reading.figures.total().as_dict()}))
            return
        heads = {EX_OK: "OK", EX_TEMPFAIL: "OK up to a torn tail", EX_DATAERR: "before the damage"}
        print(f"{heads[reading.exit_code]}: {reading.told()}")


class _Dump(_Action):
    """Prints the records asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        unknown = sorted(set(options.kind) - set(KINDS))
        if unknown:
            raise ApiError("TM-ARG-1001", {"--kind": f"{unknown[0][:64]!r} is none of {', '.join(KINDS)}"})
        if options.first < 1 or (options.last is not None and options.last < options.first):
            raise ApiError("TM-ARG-1001", {"--from, --to": "must be sequences from 1, the second not before the first"})
        self._kinds = frozenset(options.kind or KINDS)

    def see(self, placed: Placed, sequence: int, record: AnyRecord) -> None:
        last = self.options.last
        if sequence < self.options.first or (last is not None and sequence > last) or type(record).__name__ not in self._kinds:
            return
        print(json.dumps({"sequence": sequence, "file": placed.path.name, "offset": placed.offset, **summary(record)}))

    def end(self, reading: _Reading) -> None:
        """All is printed."""


class _Stats(_Action):
    """Prints the figures of each segment and of all."""

    def end(self, reading: _Reading) -> None:
        rows, total = reading.figures.rows, reading.figures.total()
        if self.options.json:
            told = {**reading.as_dict(), "segments": [row.as_dict() for row in rows], "total": total.as_dict()}
            print(json.dumps(told))
            return
        head = ("SEGMENT", "BYTES", "USED", "FREE", "FRAMES", "SEALS", "RECORDS", "FIRST", "LAST", "FROM", "TO")
        print_rows([head, *(_cells(row) for row in (*rows, total))])
        print()
        for kind, count in sorted(total.records_by_kind.items()):
            print(f"{kind:<18}{count}")
        print(reading.told())


_ACTIONS: Final = {"verify": _Action, "stats": _Stats, "dump": _Dump}


def _cells(row: Figures) -> tuple[str, ...]:
    numbers = (row.file_bytes, row.used_bytes, row.free_bytes, row.frames, row.seals, row.records)
    if not row.records:
        return (row.name, *map(str, numbers), "-", "-", "-", "-")
    times = (shown_time(row.first_time_ms), shown_time(row.last_time_ms))
    return (row.name, *map(str, numbers), str(row.first_sequence), str(row.last_sequence), *times)


def _salvage(options: argparse.Namespace, inspection: Inspection, settings: Settings) -> int:
    target = _checked_target(Path(options.target), inspection.directory)

    def filler(time_ms: int) -> bytes:
        return SessionsTouched(time_ms, ()).encode()

    try:
        report = Salvage(inspection, target, settings.storage.wal.segment_size_bytes, decode, filler).run()
    except OSError as error:
        raise LogRefused("TM-SYS-5001", target, f"cannot be written ({error.strerror})", "give a place with room") from error
    print(json.dumps(_salvage_dict(report, target)) if options.json else _salvage_text(report, target))
    return EX_DATAERR if report.is_lossy else EX_OK


def _checked_target(target: Path, source: Path) -> Path:
    """A directory that is new or empty, outside of the log's. LogRefused."""
    cure = "give a directory that does not exist yet, or is empty"
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise LogRefused("TM-ARG-1001", target, "is not a directory", cure)
        if target.is_dir() and any(target.iterdir()):
            raise LogRefused("TM-ARG-1001", target, "is not empty", cure)
        if target.resolve().is_relative_to(source.resolve()):
            raise LogRefused("TM-ARG-1001", target, "is inside of the log that is read", cure)
    except OSError as error:
        raise LogRefused("TM-CFG-1004", target, f"cannot be used ({error.strerror})", cure) from error
    return target


def _salvage_dict(report: Report, target: Path) -> dict[str, Any]:
    return {
        "directory": str(target),
        "begins_at": report.begins_at,
        "records": report.records,
        "missing_count": report.missing_count,
        "missing": [{"first": first, "last": last} for first, last in report.missing],
        "damages": [damage._asdict() for damage in report.damages],
        "tail": report.tail._asdict() if report.tail is not None else None,
    }


def _salvage_text(report: Report, target: Path) -> str:
    lines = [f"{report.records} records written to {target}"]
    if report.begins_at > 1:
        lines.append(f"the log begins at {report.begins_at}: copy the directory snapshots too, it has what is before")
    if report.tail is not None:
        lines.append(f"left out, as a start would: {report.tail.file} at offset {report.tail.offset}: {report.tail.reason}")
    if report.is_lossy:
        lines.append(f"{report.missing_count} records are missing; where they were stand fillers that change nothing:")
        lines += _listed([f"{first} to {last}" if last > first else str(first) for first, last in report.missing])
        places = report.damages
        lines.append("damaged:" if places else "nothing that is there is damaged")
        lines += _listed([f"{each.file} at offset {each.offset}, {each.size_bytes} bytes: {each.reason}" for each in places])
        lines.append("a missing record may have been a revocation: revoke again what must not be valid")
    return "\n".join(lines)


def _listed(items: list[str]) -> list[str]:
    more = len(items) - MISSING_SHOWN
    return [*(f"  {item}" for item in items[:MISSING_SHOWN]), *([f"  and {more} more (--json has all)"] if more > 0 else [])]

"""A log looked at by somebody who is not its server: found, checked, held, read in order.

Invariants: nothing of the log is changed, no file made, no lock file either; a log that a process has open is refused,
and no process can open it while it is read here (a shared flock, where there is a lock file); only the log's own files
are read, never what a symbolic link leads to. The rules of reading are those of a start: scan.py.
"""

import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from tokmesh._core import wal
from tokmesh.errors import ApiError
from tokmesh.storage.rekey import READY
from tokmesh.storage.scan import Found, LogDamaged, Position, closed_segment, last_segment, read_file, undecodable
from tokmesh.storage.segment import LOCK_NAME, LOG_DIRECTORY, SPARE_NAME, list_segments
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

R = TypeVar("R")

_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP  # who may do what with a log that nobody may do


class LogRefused(ApiError):
    """A directory or file that is not looked at: which, why, and what to do about it.

    TM-WAL-1001: no log; TM-CFG-1003: missing; TM-CFG-1004: permissions, symbolic links; TM-SYS-5001: in use."""

    def __init__(self, code: str, path: Path, reason: str, cure: str) -> None:
        super().__init__(code, {"file": str(path), "reason": reason, "cure": cure})
        self._line = f"{code}: {path} {reason}; {cure}"

    def __str__(self) -> str:
        return self._line


class Placed(NamedTuple):
    """A frame, and where it begins."""

    path: Path
    offset: int
    frame: wal.Frame


class Inspection:
    """The log in `given`, a data directory or a log directory, held while the context lasts. LogRefused, KeyMissing.

    keys: that open what is encrypted.
    segments: (first sequence by name, path) in order; begins_at: the first sequence the log has; position: how far
    `frames` has read."""

    def __init__(self, given: Path, keys: SegmentKeys = PLAIN) -> None:
        self.keys = keys
        self.directory = _log_directory(given)
        _check_private(self.directory, self.directory.lstat())
        self.segments = _segments(self.directory)
        if not self.segments:
            reason = "holds no log: no file wal-….log in it"
            raise LogRefused("TM-WAL-1001", self.directory, reason, "give the data directory of a server (storage.dir)")
        if (self.directory / READY).exists():
            cure = "start the server, or run tokmesh storage rekey again"
            raise LogRefused("TM-SYS-5001", self.directory, "is half written anew: a tokmesh storage rekey was ended", cure)
        for path in self.directory.iterdir():
            if path.name in (LOCK_NAME, SPARE_NAME) or path.name.startswith("wal-"):
                _check_file(path)
        keys.refuse_unknown(path for _, path in self.segments)
        self.begins_at, chain = _beginning(self.segments[0])
        self.position = Position(self.begins_at, chain, keys, over_restores=True)
        self._lock_fd = -1

    def __enter__(self) -> Self:
        path = self.directory / LOCK_NAME
        try:
            self._lock_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return self  # a copy without it: nobody serves from that
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            cure = "stop it, or look at a copy that was made while it was stopped"
            raise LogRefused("TM-SYS-5001", self.directory, "is in use by a running server", cure) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    @property
    def last_path(self) -> Path:
        """The segment at the log's end."""
        return self.segments[-1][1]

    def frames(self) -> Iterator[Placed]:
        """Every frame in order; then `position.torn` is right. LogDamaged, also for what the disk cannot read."""
        for (name_sequence, path), successor in itertools.pairwise(self.segments):
            yield from _placed(path, closed_segment(path, name_sequence, successor, self.position))
        name_sequence, path = self.segments[-1]
        try:
            data = read_file(path)
        except OSError as error:
            raise LogDamaged(path, 0, f"cannot be read ({error.strerror})") from error
        yield from _placed(path, last_segment(path, name_sequence, data, self.position))


def decoded(placed: Placed, decode: Callable[[bytes], R]) -> Iterator[tuple[int, R]]:
    """(sequence, record) of a frame. LogDamaged for bytes that mean nothing to `decode`, whatever that raises."""
    for sequence, data in enumerate(placed.frame.records, placed.frame.first_sequence):
        try:
            record = decode(data)
        except Exception as error:
            raise undecodable(placed.path, placed.offset, sequence) from error
        yield sequence, record


def _placed(path: Path, frames: Iterator[Found]) -> Iterator[Placed]:
    # What a consumer raises does not pass through here: a generator hears only of its own reads.
    try:
        for offset, frame in frames:
            yield Placed(path, offset, frame)
    except OSError as error:
        raise LogDamaged(path, 0, f"cannot be read ({error.strerror})") from error


def _log_directory(given: Path) -> Path:
    """The directory of the segments: `given`, or `log` in it. LogRefused."""
    _check_directory(given)
    if _segments(given):
        return given
    below = given / LOG_DIRECTORY
    if os.path.lexists(below):
        _check_directory(below)
        return below
    empty = not any(given.iterdir())
    reason = "is empty" if empty else f"is no data directory of TokMesh: neither {LOG_DIRECTORY}/ nor a file wal-….log in it"
    raise LogRefused("TM-WAL-1001", given, reason, "give the data directory of a server (storage.dir), or its log directory")


def _check_directory(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise LogRefused("TM-CFG-1003", path, "does not exist", "give the data directory of a server (storage.dir)") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    _refuse_link(path, status)
    if not stat.S_ISDIR(status.st_mode):
        raise LogRefused("TM-WAL-1001", path, "is not a directory", "give the data directory of a server (storage.dir)")


def _check_file(path: Path) -> None:
    """A file of the log: its own, regular, private, readable."""
    status = path.lstat()
    _refuse_link(path, status)
    if not stat.S_ISREG(status.st_mode):
        raise LogRefused("TM-WAL-1001", path, "is not a regular file", "move it out of the log")
    _check_private(path, status)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except OSError as error:
        raise _unreadable(path, error) from error


def _refuse_link(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        reason = f"is a symbolic link to {os.readlink(path)}"
        raise LogRefused("TM-CFG-1004", path, reason, "put the file itself there, or give the directory that it leads to")


def _check_private(path: Path, status: os.stat_result) -> None:
    if status.st_mode & _OTHERS:
        mode = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        reason = f"has mode {stat.S_IMODE(status.st_mode):04o}: others can read or write it"
        raise LogRefused("TM-CFG-1004", path, reason, f"run chmod {mode:o} {path}")


def _segments(directory: Path) -> list[tuple[int, Path]]:
    try:
        return list_segments(directory)
    except OSError as error:
        raise _unreadable(directory, error) from error


def _unreadable(path: Path, error: OSError) -> LogRefused:
    return LogRefused("TM-CFG-1004", path, f"cannot be read ({error.strerror})", "run this as the server's user, or as root")


def _beginning(first: tuple[int, Path]) -> tuple[int, int]:
    """(sequence, chain) the log begins with: what its first segment says, 1 and 0 unless a snapshot stands for the rest."""
    name_sequence, path = first
    with path.open("rb") as file:
        header = wal.decode_segment_header(file.read(wal.SEGMENT_HEADER_BYTES))
    if header is None or header.first_sequence != name_sequence or name_sequence <= 1:
        return 1, 0
    return name_sequence, header.chain

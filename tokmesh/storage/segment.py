"""Segment files of the log: their names, how they come to be, and how the directory is held.

Invariants. A file under a segment's name is complete: header written, space allocated, both synced, then renamed and
the directory synced; so a last segment that is shorter than its header says has been tampered with. A directory has at
most one spare, allocated ahead so that a full disk is met before it matters; a spare left by a dead process is
worthless and removed. Files are 0600, the directory 0700.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tokmesh._core import wal
from tokmesh.errors import ApiError

if TYPE_CHECKING:
    from tokmesh.storage.encryption import Sealer

SPARE_NAME: Final = "spare.tmp"
LOCK_NAME: Final = "lock"
BROKEN_SUFFIX: Final = ".broken"
LOG_DIRECTORY: Final = "log"  # in the data directory
SEGMENT_BYTES_MIN: Final = 1024
SEGMENTS_MAX: Final = 1_000_000  # bound of a directory listing

# What a write or an allocation says when there is no room: the disk, a quota, a file size limit.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_NAME = re.compile(r"wal-(\d{20})\.log")


class LogLocked(ApiError):
    """Another process has the log open (TM-SYS-5001)."""

    def __init__(self, directory: Path) -> None:
        super().__init__("TM-SYS-5001", {"reason": "log directory is in use by another process"})
        self.directory = directory

    def __str__(self) -> str:
        return f"{self.code}: the log in {self.directory} is in use by another process"


class SyncFailed(OSError):
    """A sync failed: what it covered may be gone from the disk and from the cache, and asking again would hide that."""


class Segment(NamedTuple):
    """An open segment; fd: for reading and writing; sealer: of one that this process has begun, None of a plain one."""

    path: Path
    fd: int
    header: wal.SegmentHeader
    sealer: "Sealer | None" = None


def segment_path(directory: Path, first_sequence: int) -> Path:
    return directory / f"wal-{first_sequence:020d}.log"


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """(first sequence by name, path) in order; other files are not looked at."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found.append((int(match.group(1)), path))
    assert len(found) <= SEGMENTS_MAX, "more segments than any log of ours could have"
    return sorted(found)


def remove_covered(directory: Path, sequence: int) -> int:
    """Removes segments of which every record is at or below `sequence`, oldest first, never the last; how many. OSError.

    Another process or thread may append meanwhile."""
    segments = list_segments(directory)
    covered = [path for (_, path), (following, _) in itertools.pairwise(segments) if following <= sequence + 1]
    for path in covered:
        path.unlink()
    if covered:
        sync_directory(directory)
    return len(covered)


def make_directory(directory: Path) -> None:
    """Creates the log's directory and its missing parents, mode 0700, and makes their names durable. OSError.

    A process killed before its sync may have left the names of the two nearest: they are synced also when they exist."""
    if not directory.is_dir():
        make_directory(directory.parent)  # ends at the root at the latest
        directory.mkdir(mode=0o700, exist_ok=True)
    for parent in (directory.parent, directory.parent.parent):
        # Beyond a mount point, or where this user may not look, no process of ours made the name.
        if parent.stat().st_dev == directory.stat().st_dev and os.access(parent, os.R_OK):
            sync_directory(parent)


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable. OSError, SyncFailed."""
    fd = open_directory(directory)
    try:
        sync(fd)
    finally:
        os.close(fd)


def lock_directory(directory: Path) -> int:
    """Takes the directory for this process; the lock lives as long as the returned descriptor. LogLocked, OSError."""
    fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LogLocked(directory) from None
    return fd


def open_directory(directory: Path) -> int:
    """A descriptor to sync the directory with; held for long, so that a shortage of descriptors cannot stop a
    rotation."""
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync(fd: int) -> None:
    """Makes a file (or a directory's names) durable. SyncFailed: it may not be."""
    try:
        os.fsync(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def remove_spare(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory / SPARE_NAME)


def make_spare(directory: Path, size_bytes: int) -> int:
    """Allocates the next segment's file of `size_bytes`, all zeros; returns its descriptor.

    OSError (of NO_ROOM when the disk is full): nothing is left behind. SyncFailed."""
    remove_spare(directory)
    path = directory / SPARE_NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        sync(fd)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return fd


def new_header(first_sequence: int, size_bytes: int, chain: int, sealer: "Sealer | None") -> wal.SegmentHeader:
    """Of a segment that is to be begun, with an id of its own; sealer: of nothing else."""
    if sealer is None:
        return wal.SegmentHeader(secrets.randbits(64), first_sequence, size_bytes, chain)
    segment_id = int.from_bytes(sealer.salt[:8], "little")
    return wal.SegmentHeader(segment_id, first_sequence, size_bytes, chain, sealer.salt, sealer.key_id)


def frame_overhead(encrypted: bool) -> int:
    """Bytes of a frame beside its payload."""
    return wal.FRAME_HEADER_BYTES + (wal.TAG_BYTES if encrypted else 0)


def adopt_spare(
    directory: Path,
    directory_fd: int,
    fd: int,
    size_bytes: int,
    first_sequence: int,
    chain: int,
    sealer: "Sealer | None" = None,
) -> Segment:
    """Turns the spare `fd` into the segment that begins with `first_sequence`; durable on return. It takes the place of a segment
    of that name, which then holds no record. sealer: of nothing else.

    OSError, SyncFailed: the descriptor is still the caller's; whether the segment exists is for the next start to
    see."""
    header = new_header(first_sequence, size_bytes, chain, sealer)
    status = wal.write_at(fd, wal.encode_segment_header(header), 0)
    if status != 0:
        raise OSError(status, os.strerror(status))
    sync(fd)
    path = segment_path(directory, first_sequence)
    os.rename(directory / SPARE_NAME, path)
    sync(directory_fd)
    return Segment(path, fd, header, sealer)

"""The snapshots on disk: their names, how one comes to be, which are kept.

Invariants: a file under a snapshot's name is whole and durable: it was written under another name, synced, renamed, and the
directory synced; a draft that a dead process left is worthless and removed. Files are 0600, the directory 0700.
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tokmesh.storage.segment import make_directory, sync, sync_directory

SNAPSHOT_DIRECTORY: Final = "snapshots"  # in the data directory
DRAFT_SUFFIX: Final = ".tmp"
_NAME: Final = re.compile(r"snapshot-(\d{20})\.tms")


class SnapshotFile(NamedTuple):
    """A snapshot by its name."""

    sequence: int
    path: Path

    @property
    def id(self) -> str:
        """What it is called outside."""
        return self.path.stem


def snapshot_path(directory: Path, sequence: int) -> Path:
    """Where the snapshot of a sequence is."""
    return directory / f"snapshot-{sequence:020d}.tms"


def snapshot_named(directory: Path, snapshot_id: str) -> Path | None:
    """The file of the snapshot with that id."""
    return next((file.path for file in list_snapshots(directory) if file.id == snapshot_id), None)


def list_snapshots(directory: Path) -> list[SnapshotFile]:
    """Newest first; other files are not looked at. [] where there is no directory. OSError."""
    if not directory.exists():
        return []
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found.append(SnapshotFile(int(match.group(1)), path))
    return sorted(found, reverse=True)


def remove_drafts(directory: Path) -> None:
    """Removes what a process left that died while it wrote. OSError."""
    for path in directory.glob(f"*{DRAFT_SUFFIX}"):
        path.unlink()


class Draft:
    """A file being written. `fd` is open for writing until `publish` or `discard`. OSError, from all of it."""

    def __init__(self, directory: Path, name: str = "snapshot") -> None:
        make_directory(directory)
        self._directory = directory
        self._path = directory / f"{name}{DRAFT_SUFFIX}"
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def publish(self, sequence: int) -> SnapshotFile:
        """Gives it the name of the snapshot of `sequence`, durably; its bytes are synced before."""
        sync(self.fd)
        path = snapshot_path(self._directory, sequence)
        os.rename(self._path, path)
        sync_directory(self._directory)
        self._close()
        return SnapshotFile(sequence, path)

    def discard(self) -> None:
        """Removes it, as well as that can be done; nothing happens to one that is published."""
        if self.fd >= 0:
            self._close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1


def surplus(found: Sequence[tuple[SnapshotFile, int]], count_max: int, taken_after_ms: int) -> list[SnapshotFile]:
    """Which of (snapshot, time_ms) need not be kept: those beyond the newest `count_max`, and those taken too long ago; never the
    newest."""
    newest_first = sorted(found, reverse=True)
    return [
        file for rank, (file, time_ms) in enumerate(newest_first) if rank > 0 and (rank >= count_max or time_ms < taken_after_ms)
    ]


def remove(directory: Path, files: Sequence[SnapshotFile]) -> None:
    """Removes snapshots, oldest first, and makes that durable. OSError."""
    for file in sorted(files):
        file.path.unlink(missing_ok=True)
    if files:
        sync_directory(directory)

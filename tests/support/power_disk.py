"""A disk whose power can be cut: an ext4 image on a loop device that stops at once and forgets what was not on it.

To be mounted within `own_mounts`, or a process that copied the mounts keeps what the disk has lost. Needs root, loop devices and
mkfs.ext4.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EXT4_IOC_SHUTDOWN: Final = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH: Final = 2
COMMAND_TIMEOUT_S: Final = 60.0


class PowerDisk:
    """image: the file that is the disk, made here, empty; point: the folder where it is mounted, made here too."""

    def __init__(self, image: Path, point: Path, size_bytes: int = 64 << 20) -> None:
        self.image = image
        self.point = point
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _command("mkfs.ext4", "-q", str(image))

    def mount(self) -> None:
        """What is on the disk, and no more, is in its folder."""
        _command("mount", "-o", "loop", str(self.image), str(self.point))

    def unmount(self) -> None:
        """No process has a file of it open any more. Nothing happens to a disk that is not mounted."""
        if self.point.is_mount():
            _command("umount", str(self.point))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Mounts it, and unmounts it at the end."""
        self.mount()
        try:
            yield
        finally:
            self.unmount()

    def sync(self) -> None:
        """What was written so far is on the disk."""
        _command("sync", "--file-system", str(self.point))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, neither data nor journal; it stays mounted, and every write to it fails."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        finally:
            os.close(fd)


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed; this test needs root and loop devices: {done.stderr.strip()}")

"""The data directory: made private, checked, and given the identity of this node.

Invariants: the directory belongs to the user of this process (root may use anybody's) and nobody else can write to it;
`node_id` is written once, durably, and never changes.
"""

import os
import stat
from pathlib import Path
from typing import Final

from tokmesh._core.clock import Clock
from tokmesh.config import ConfigError, Problem
from tokmesh.ids import RandomSource, UlidSource, format_ulid
from tokmesh.storage.segment import sync_directory

ADMIN_SOCKET_NAME: Final = "admin.sock"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
NODE_ID_BYTES_MAX: Final = 128
INCARNATION_NAME: Final = "incarnation"


def prepare(directory: Path) -> None:
    """Makes the directory (mode 0700) when it is missing and checks whom it belongs to.

    Raises ConfigError with TM-CFG-1004.
    """
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise refused(directory, f"cannot be made ({error.strerror})") from None
    if not stat.S_ISDIR(status.st_mode):
        raise refused(directory, "is not a directory")
    if status.st_uid != os.geteuid():
        raise refused(directory, f"belongs to user {status.st_uid}, and this process is user {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise refused(directory, f"has mode {mode:04o}: others can write to it; run chmod 700")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise refused(directory, "cannot be read and written")


def node_id(directory: Path, clock: Clock) -> str:
    """The identity of this node, `tmnd-` and a ULID, made at the first call. Raises ConfigError with TM-CFG-1004."""
    path = directory / "node_id"
    try:
        text = path.read_bytes()[:NODE_ID_BYTES_MAX].decode("ascii", "replace").strip()
        if text.startswith("tmnd-"):
            return text
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror})") from None
    if text:
        raise refused(path, "does not hold a node id (tmnd-…)")
    made = "tmnd-" + format_ulid(UlidSource(RandomSource()).make(clock.now_ms()))
    try:
        write_durably(path, f"{made}\n".encode())
    except OSError as error:
        raise refused(path, f"cannot be written ({error.strerror})") from None
    return made


def next_incarnation(directory: Path, clock: Clock) -> int:
    """A number for this start of the node, larger than that of any start before: the time in Unix ms, unless the clock went back.
    Raises ConfigError with TM-CFG-1004."""
    path = directory / INCARNATION_NAME
    try:
        last = int(path.read_bytes()[:NODE_ID_BYTES_MAX].strip() or b"0")
    except FileNotFoundError:
        last = 0
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise refused(path, "does not hold a number") from None
    made = max(clock.now_ms(), last + 1)
    try:
        write_durably(path, f"{made}\n".encode())
    except OSError as error:
        raise refused(path, f"cannot be written ({error.strerror})") from None
    return made


def is_of_cluster(directory: Path) -> bool:
    """Whether it was ever given to a node of a cluster."""
    return (directory / INCARNATION_NAME).exists()


def write_durably(path: Path, content: bytes) -> None:
    """A file that is there in full or not at all, whatever happens in between."""
    unfinished = path.with_name(path.name + ".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(path.parent)


def refused(path: Path, rule: str) -> ConfigError:
    """TM-CFG-1004."""
    return ConfigError([Problem("TM-CFG-1004", "storage.dir", str(path), rule)])

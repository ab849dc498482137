"""A node whose table is held to be wrong: it stands apart from its cluster, and begins anew from the stream.

What is decided is one file, `stands_apart`, written at once or not at all: as long as it is there the node answers nothing about
sessions and keys, in this process and in every later one. Most often it says as well that the node is to begin anew: then the
process ends, and a start moves what the node had into `set_aside` before it reads any of it, and gives the file another name,
`began_anew`, as its last step. Whatever is killed in between leaves the first name, and the next start goes on from there. So
nothing ever answers from a table that was found wrong.

`began_anew` tells when that was. A node that is found wrong again within AGAIN_MS is not helped by beginning anew: it stands apart
until a hand has emptied its directory.
"""

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tokmesh.host.data_directory import refused, write_durably
from tokmesh.storage.segment import LOCK_NAME, LOG_DIRECTORY, make_directory, sync_directory
from tokmesh.storage.snapshot_directory import SNAPSHOT_DIRECTORY

APART_NAME: Final = "stands_apart"
BEGAN_NAME: Final = "began_anew"
SET_ASIDE_NAME: Final = "set_aside"
AGAIN_MS: Final = 3_600_000
REASON_BYTES_MAX: Final = 1024
RETRY_S: Final = 1.0
_UNFINISHED: Final = ".tmp"  # what a process left that died while it wrote: worth nothing, and a start removes it
_ANEW: Final = re.compile(r"^begins anew: ([0-9]{1,18}) ([0-9]{1,19}) ([0-9a-f]{32})$", re.ASCII | re.MULTILINE)

logger = logging.getLogger("tokmesh.host")


class Anew(NamedTuple):
    """time_ms: when the node was found to be wrong, Unix; created_ns, cluster_id: the stream that it is to begin from."""

    time_ms: int
    created_ns: int
    cluster_id: bytes

    def encode(self) -> str:
        """A line."""
        return f"begins anew: {self.time_ms} {self.created_ns} {self.cluster_id.hex()}\n"


class Apart:
    """Of the node in this directory. reason: why it stands apart; None: it does not. anew: it begins anew, and from what; None: it
    waits for a hand. began: the last time that it did. decided: told in another thread when it is to begin anew and that is
    written down; until then only this process knows. Raises ConfigError TM-CFG-1004 when the files cannot be read."""

    def __init__(self, directory: Path, decided: Callable[[], None] | None = None) -> None:
        self._directory = directory
        self._decided = decided
        self.reason, self.anew = _read(directory / APART_NAME)
        told, self.began = _read(directory / BEGAN_NAME)
        if told is not None and self.began is None:
            raise refused(directory / BEGAN_NAME, "does not tell when this node began anew: remove it")

    @property
    def cure(self) -> str:
        """What follows, for people."""
        if self.anew is not None:
            return "it begins anew from the stream"
        return "empty its directory but for node_id and incarnation, and start it"

    def begin(self, reason: str, time_ms: int, created_ns: int, cluster_id: bytes) -> None:
        """It stands apart from now on, as of that time, and begins anew from that stream if it has not done so lately."""
        self.reason = reason
        if self.began is None or time_ms - self.began.time_ms >= AGAIN_MS:
            self.anew = Anew(time_ms, created_ns, cluster_id)
        threading.Thread(target=self._write, name="tokmesh-apart", daemon=True).start()

    def _write(self) -> None:
        # That it begins anew comes first: a reason may be longer than what is read of the file.
        text = f"{self.anew.encode() if self.anew is not None else ''}{self.reason}\n"
        told = ""
        while True:  # until it is: a start before that would answer from the wrong table. The thread ends with the process
            try:
                write_durably(self._directory / APART_NAME, text.encode())
                break
            except OSError as error:
                reason = str(error.strerror)
            if reason != told:
                told = reason
                logger.error("that this node stands apart could not be written down; tried again", extra={"reason": reason})
            time.sleep(RETRY_S)
        if self.anew is not None and self._decided is not None:
            self._decided()


def begin_anew(directory: Path) -> None:
    """Moves aside what the node had when it is to begin anew; to be called with the lock of its log, before that is read. Of what
    was set aside only the newest is kept. Raises ConfigError TM-CFG-1004; it is gone on with at the next call."""
    apart = Apart(directory)
    if apart.anew is None:
        return
    folder = directory / SET_ASIDE_NAME / str(apart.anew.time_ms)
    try:
        for name in (LOG_DIRECTORY, SNAPSHOT_DIRECTORY):
            _move_all(directory / name, folder / name)
        for path in folder.parent.iterdir():
            if path != folder:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        sync_directory(folder.parent)
        (directory / APART_NAME).rename(directory / BEGAN_NAME)
        sync_directory(directory)
    except OSError as error:
        raise refused(folder, f"what this node had cannot be set aside ({error.strerror})") from None
    extra = {"code": "TM-CLST-5050", "reason": apart.reason, "folder": str(folder)}
    logger.error("this node begins anew from the stream: what it had was wrong, and is set aside", extra=extra)


def _move_all(source: Path, target: Path) -> None:
    """All but the lock, which is held meanwhile, and what is unfinished."""
    make_directory(target)
    if not source.is_dir():
        return
    for path in sorted(source.iterdir()):
        if path.name != LOCK_NAME and path.suffix != _UNFINISHED:
            path.rename(target / path.name)
    sync_directory(target)
    sync_directory(source)


def _read(path: Path) -> tuple[str | None, Anew | None]:
    """What a file says: why, and of beginning anew. None: there is no file; nothing of the kind."""
    try:
        with path.open("rb") as file:
            text = file.read(REASON_BYTES_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror})") from None
    found = _ANEW.search(text)
    anew = None if found is None else Anew(int(found[1]), int(found[2]), bytes.fromhex(found[3]))
    return _ANEW.sub("", text).strip() or "its table was wrong", anew

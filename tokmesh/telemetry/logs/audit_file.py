"""The audit trail on disk: `audit.jsonl` in the data directory, one JSON object a line, and its predecessor `audit.jsonl.1`.

Invariants: together they never hold more than 2 * FILE_BYTES_MAX; only the owner can read them; nobody waits for them (a thread
writes); what cannot be written is counted. A line is written in one call, but not synced: after a power cut the last ones may
be missing, and a line cut short is passed over when the file is read.
"""

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "audit.jsonl"
FILE_BYTES_MAX: Final = 1 << 20
FILE_MODE: Final = 0o600
PENDING_MAX: Final = 1024  # lines on their way to the disk


class AuditFile:
    """Appends to, and once reads, the files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.lost = 0
        self._path = directory / FILE_NAME
        self._earlier = directory / (FILE_NAME + ".1")
        self._pending = 0
        self._writer = ThreadPoolExecutor(1, "tokmesh-audit")

    def load(self) -> list[dict[str, Any]]:
        """What the files hold, oldest first; a file that cannot be read counts as empty."""
        entries = []
        for path in (self._earlier, self._path):
            with contextlib.suppress(OSError), path.open("rb") as file:
                for line in file.read(2 * FILE_BYTES_MAX).split(b"\n"):
                    with contextlib.suppress(ValueError, RecursionError):
                        entry = json.loads(line)
                        if isinstance(entry, dict) and type(entry.get("id")) is int:
                            entries.append(entry)
        return entries

    def append(self, line: bytes) -> None:
        """Has the thread write a line, which has no newline yet. Called by one thread."""
        if self._pending >= PENDING_MAX:
            self.lost += 1
            return
        self._pending += 1
        self._writer.submit(self._append, line + b"\n")

    def close(self) -> None:
        """Waits for what is on its way."""
        self._writer.shutdown()

    def _append(self, line: bytes) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            try:
                if os.fstat(file).st_size + len(line) > FILE_BYTES_MAX:
                    self._path.replace(self._earlier)
                    os.close(file)
                    file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
                if os.write(file, line) != len(line):
                    self.lost += 1
                    os.write(file, b"\n")
            finally:
                os.close(file)
        except OSError:
            self.lost += 1
        finally:
            self._pending -= 1

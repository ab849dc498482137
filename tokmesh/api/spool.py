"""A request body on its way to a file: for uploads that are too large for memory.

A route with a `SpoolSpec` has its bodies written to `directory` while they come, each to a file of its own (mode 0600), in threads
of the loop's pool. The handler runs when the body is there whole, with `request.body_file` and an empty `request.body`. The file
is removed when its request ends, whatever way that is; a handler that wants to keep it renames it away. What a crash leaves behind
goes by `remove_leftovers` at the next start.

Of a file no two writes are under way at a time, and its removal waits for the write that is. It is synced every SYNC_BYTES, so that
an upload never heaps up unwritten pages which the next sync of the log would have to wait for, and when it is whole.
"""

import asyncio
import logging
import os
import secrets
import threading
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final

from tokmesh.errors import ApiError

PREFIX: Final = "upload-"
SYNC_BYTES: Final = 8 << 20

logger = logging.getLogger("tokmesh.http")


@dataclass(frozen=True, slots=True)
class SpoolSpec:
    """Where and how large. directory: exists, private, on the file system the file is to stay on; bytes_max: of a decoded body,
    beyond it 413 TM-ADMIN-4130; free_bytes_min: what an upload leaves free of its disk, else 503 TM-SYS-5001.
    """

    directory: Path
    bytes_max: int
    free_bytes_min: int = 64 << 20

    def begin(self, loop: asyncio.AbstractEventLoop, announced_bytes: int) -> "Spool":
        """The file of one body, made with its first piece. announced_bytes: 0 when the length is not known."""
        return Spool(loop, self, announced_bytes)


class Spool:
    """One file. write, complete, discard: called by the loop's thread, by the connection alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: SpoolSpec, announced_bytes: int) -> None:
        self.path = spec.directory / f"{PREFIX}{secrets.token_hex(16)}"
        self._loop = loop
        self._spec = spec
        self._left_bytes = announced_bytes
        self._writing: asyncio.Future[None] | None = None
        self._lock = threading.Lock()  # a file's work is done by one thread at a time
        self._fd = -1
        self._made = self._discarded = False
        self._unsynced_bytes = 0

    def write(self, piece: bytearray) -> "asyncio.Future[None]":
        """Appends a piece; the one before is written. ApiError in the future: TM-SYS-5001."""
        self._writing = self._loop.run_in_executor(None, self._append, piece)
        return self._writing

    async def complete(self, piece: bytearray) -> None:
        """Appends the last piece; the file is then whole and durable. Raises ApiError TM-SYS-5001."""
        if self._writing is not None:
            await self._writing
        await self._loop.run_in_executor(None, self._finish, piece)

    def discard(self) -> None:
        """Removes the file, if it is still there, after what is being done to it. May be called when nothing was written."""
        self._loop.run_in_executor(None, self._remove)

    # In a thread.

    def _append(self, piece: bytearray) -> None:
        with self._lock:
            if not self._discarded:
                try:
                    self._put(piece)
                except OSError as error:
                    raise _refusal(error) from None

    def _finish(self, piece: bytearray) -> None:
        with self._lock:
            try:
                self._put(piece)
                os.fdatasync(self._fd)
                self._close()
            except OSError as error:
                raise _refusal(error) from None

    def _put(self, piece: bytearray) -> None:
        if not self._made:
            self._keep_free(os.statvfs(self._spec.directory), self._left_bytes)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._made = True
        rest = memoryview(piece)
        self._left_bytes = max(0, self._left_bytes - len(rest))
        self._unsynced_bytes += len(rest)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        if self._unsynced_bytes >= SYNC_BYTES:
            os.fdatasync(self._fd)
            self._unsynced_bytes = 0
        self._keep_free(os.fstatvfs(self._fd), self._left_bytes)

    def _keep_free(self, disk: os.statvfs_result, coming_bytes: int) -> None:
        if disk.f_bavail * disk.f_frsize - coming_bytes < self._spec.free_bytes_min:
            raise OSError(ENOSPC, "the rest of the disk is not for uploads")

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _remove(self) -> None:
        with self._lock:
            self._discarded = True
            try:
                if self._made:
                    self.path.unlink(missing_ok=True)
                self._close()
            except OSError as error:
                logger.warning("an upload's file could not be removed", extra={"file": self.path.name, "error": error.strerror})


def remove_leftovers(directory: Path) -> int:
    """Removes the files of uploads that a crash interrupted; how many there were. Nobody may be uploading. Raises OSError."""
    left = list(directory.glob(f"{PREFIX}{'[0-9a-f]' * 32}"))
    for path in left:
        path.unlink()
    return len(left)


def _refusal(error: OSError) -> ApiError:
    if error.errno in (ENOSPC, EDQUOT):
        return ApiError("TM-SYS-5001", {"reason": "disk_full"}, retry_after_s=1)
    logger.warning("an upload could not be stored", extra={"error": error.strerror})
    return ApiError("TM-SYS-5001", {"reason": "disk_error"}, retry_after_s=1)

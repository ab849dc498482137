"""Mounts that no other process can hold: who makes a mount namespace of its own copies what is mounted, and keeps it alive."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

_NEW_MOUNTS: Final = 0x00020000  # CLONE_NEWNS
_LEAVE_TRIES: Final = 500


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """What this thread and the processes that it starts mount is theirs alone; threads that it starts meanwhile end before. Needs
    root.

    A file system that others hold lives on behind its umount: a mount of its image then gets it again as it was, not what the disk
    has."""
    before, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), os.getcwd()
    try:
        _call("unshare", _NEW_MOUNTS)
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=60)
            yield
        finally:
            _leave(before)
            os.chdir(folder)
    finally:
        os.close(before)


def _leave(before: int) -> None:
    # Refused while another thread has this one's folder, as one that was joined still does while the kernel ends it.
    for _ in range(_LEAVE_TRIES):
        with contextlib.suppress(OSError):
            return _call("setns", before, _NEW_MOUNTS)
        time.sleep(0.01)
    _call("setns", before, _NEW_MOUNTS)


def _call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}; this test needs root")

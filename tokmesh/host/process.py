"""What the process sets for itself once, before it holds a secret or opens a file."""

import ctypes
import faulthandler
import logging
import os
import resource
import sys
from typing import Final, NoReturn

FILE_MODE_MASK: Final = 0o077
SWITCH_INTERVAL_S: Final = 0.0005
DESCRIPTORS_BESIDE: Final = 1024  # handshakes under way, connections beyond the limit, files
_PR_SET_DUMPABLE: Final = 4
# mallopt(3): a block below it comes from the heap, whose pages stay; the answer to a batch of 1000 tokens has half a megabyte,
# and mapping and unmapping that for each answer cost a tenth of it.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
HEAP_BLOCK_BYTES: Final = 16 << 20


def harden() -> None:
    """No core dumps and no ptrace by others (memory holds secrets), and files that only the owner can read.

    To be called before the process reads a private key or a file that names one; again does no harm. What is left of a crash is
    where every thread was, on standard error: names of functions and lines, no values.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.umask(FILE_MODE_MASK)


def tune(connections_max: int, logger: logging.Logger) -> None:
    """Hands the interpreter over quickly between the loop and the log's thread; takes blocks up to HEAP_BLOCK_BYTES from the heap,
    which keeps their pages; makes room for descriptors.

    connections_max: as configured; each needs a descriptor. Says so in the log when the limit of the system is lower.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 4 * HEAP_BLOCK_BYTES)
    wanted = connections_max + DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    if reachable < wanted:
        logger.warning(
            "the limit of open files is below what server.http.max_connections may need",
            extra={"open_files_max": reachable, "wanted": wanted},
        )


def begin_anew() -> NoReturn:
    """This process becomes a fresh one by the command that started it: its id and environment stay, memory and descriptors go. So
    nobody has to start it again. OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

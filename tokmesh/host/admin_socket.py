"""The administration socket: a Unix socket in the data directory for the operator of this host.

Who may use it is decided twice: by the kernel (mode 0600, in a directory of mode 0700), and by the credentials of the
peer when a connection is made (_core.connection): the user of this process, or root. The path is reached through
/proc/self/fd, because a socket's path may have at most 107 bytes and a data directory's may be longer.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

from tokmesh.host.data_directory import ADMIN_SOCKET_NAME


def bind(directory: Path) -> socket.socket:
    """A bound socket, not yet listening, that only the owner can connect to.

    The caller holds the lock on the directory's log, so a socket that is already there is stale and replaced. Raises
    OSError, also when something other than a socket is in its place.
    """
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        path = f"/proc/self/fd/{folder}/{ADMIN_SOCKET_NAME}"
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        made.bind(path)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
        os.close(folder)
    return made


def remove(directory: Path) -> None:
    """Takes the socket away, after its listener was closed."""
    with contextlib.suppress(OSError):
        os.unlink(directory / ADMIN_SOCKET_NAME)

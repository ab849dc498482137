"""The administration socket: a Unix socket in the data directory for the operator of this host.

Who may use it is decided twice, by the kernel (mode 0600, in a directory of mode 0700) and by the credentials of the
peer when it connects: the user of this process, or root. The path is reached through /proc/self/fd, because a socket's
path may have at most 107 bytes and a data directory's may be longer.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokmesh.data_directory import ADMIN_SOCKET_NAME

BACKLOG: Final = 16
ACCEPTS_PER_WAKE_MAX: Final = 16
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class AdminSocket:
    """Listens from `open` to `close`. The caller holds the lock on the directory, so a socket found there is stale."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        factory: Callable[[], asyncio.BaseProtocol],
        logger: logging.Logger,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._factory = factory
        self._logger = logger
        self._listener: socket.socket | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Binds and listens. Raises OSError."""
        folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            path = f"/proc/self/fd/{folder}/{ADMIN_SOCKET_NAME}"
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
            listener.bind(path)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(mask)
            os.close(folder)
        self._listener = listener
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stops listening and removes the socket; connections that are open stay."""
        if self._listener is None:
            return
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            os.unlink(self._directory / ADMIN_SOCKET_NAME)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE_MAX):
            assert self._listener is not None
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._logger.warning("cannot accept on the administration socket", extra={"reason": error.strerror})
                return
            if not permitted(connection):
                self._logger.warning("administration socket: refused a connection of another user")
                connection.close()
                continue
            connection.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(
                self._loop.connect_accepted_socket(self._factory, connection)
            )
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)


def permitted(connection: socket.socket) -> bool:
    """Whether the peer is the user of this process or root, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return user in (os.geteuid(), 0)

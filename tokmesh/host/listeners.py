"""The sockets that clients connect to: HTTP, HTTPS, and the administration socket of the host."""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, TypeVar

from tokmesh.config import ConfigError, Problem
from tokmesh.config.values import Address
from tokmesh.errors import ApiError
from tokmesh.host import admin_socket
from tokmesh.host.tls_listener import ProtocolFactory, TlsListener

T = TypeVar("T")

BACKLOG: Final = 4096
ADMIN_BACKLOG: Final = 16

Server = asyncio.Server | TlsListener


class Listeners:
    """Opens listeners one after the other and closes them together. Each says in the log where it listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        self._loop = loop
        self._logger = logger
        self._servers: list[Server] = []
        self._directory: Path | None = None  # of the administration socket

    async def open_http(self, address: Address, factory: ProtocolFactory) -> None:
        """Listens for plain HTTP. Raises ApiError TM-SYS-5030 when the address cannot be had."""
        opening = self._loop.create_server(factory, address.host, address.port, backlog=BACKLOG)
        self._keep("http", await _opened("server.http.address", address, opening))

    async def open_https(self, address: Address, factory: ProtocolFactory, context: ssl.SSLContext) -> None:
        """Listens for HTTPS. Raises ApiError TM-SYS-5030 when the address cannot be had."""
        listener = TlsListener(self._loop, factory, context)
        await _opened("server.https.address", address, listener.open(address.host, address.port, BACKLOG))
        self._keep("https", listener)

    async def open_admin_socket(self, directory: Path, factory: ProtocolFactory) -> None:
        """Listens on the Unix socket of the data directory. Raises ConfigError with TM-CFG-1004."""
        try:
            bound = admin_socket.bind(directory)
        except OSError as error:
            rule = f"the administration socket cannot be made ({error.strerror})"
            raise ConfigError([Problem("TM-CFG-1004", "storage.dir", str(directory), rule)]) from None
        self._servers.append(await self._loop.create_unix_server(factory, sock=bound, backlog=ADMIN_BACKLOG))
        self._directory = directory

    def _keep(self, scheme: str, server: Server) -> None:
        self._servers.append(server)
        for each in server.sockets:
            host, port = each.getsockname()[:2]
            self._logger.info("listening", extra={"scheme": scheme, "host": host, "port": port})

    def close(self) -> None:
        """Stops accepting; connections that are open stay."""
        for server in self._servers:
            server.close()
        if self._directory is not None:
            admin_socket.remove(self._directory)


async def _opened(key: str, address: Address, opening: Awaitable[T]) -> T:
    try:
        return await opening
    except OSError as error:
        reason = f"cannot listen on {address} ({os.strerror(error.errno) if error.errno and error.errno > 0 else 'no such host'})"
        raise ApiError("TM-SYS-5030", {"key": key, "reason": reason}) from None

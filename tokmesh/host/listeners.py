"""The sockets that clients connect to: HTTP, HTTPS, and the administration socket of the host."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokmesh.config import ConfigError, Problem
from tokmesh.config.values import Address
from tokmesh.errors import ApiError
from tokmesh.host import admin_socket

BACKLOG: Final = 4096
ADMIN_BACKLOG: Final = 16
TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Listeners:
    """Opens listeners one after the other and closes them together. Each says in the log where it listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        self._loop = loop
        self._logger = logger
        self._servers: list[asyncio.Server] = []
        self._directory: Path | None = None  # of the administration socket

    async def open_http(self, address: Address, factory: ProtocolFactory) -> None:
        """Listens for plain HTTP. Raises ApiError TM-SYS-5030 when the address cannot be had."""
        await self._open("server.http.address", "http", address, factory, None)

    async def open_https(self, address: Address, factory: ProtocolFactory, context: ssl.SSLContext) -> None:
        """Listens for HTTPS. Raises ApiError TM-SYS-5030 when the address cannot be had."""
        await self._open("server.https.address", "https", address, factory, context)

    async def open_admin_socket(self, directory: Path, factory: ProtocolFactory) -> None:
        """Listens on the Unix socket of the data directory. Raises ConfigError with TM-CFG-1004."""
        try:
            bound = admin_socket.bind(directory)
        except OSError as error:
            rule = f"the administration socket cannot be made ({error.strerror})"
            raise ConfigError([Problem("TM-CFG-1004", "storage.dir", str(directory), rule)]) from None
        self._servers.append(await self._loop.create_unix_server(factory, sock=bound, backlog=ADMIN_BACKLOG))
        self._directory = directory

    async def _open(
        self, key: str, scheme: str, address: Address, factory: ProtocolFactory, context: ssl.SSLContext | None
    ) -> None:
        try:
            server = await self._loop.create_server(
                factory,
                address.host,
                address.port,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if context is not None else None,
            )
        except OSError as error:
            reason = f"cannot listen on {address} ({os.strerror(error.errno) if error.errno else 'no such host'})"
            raise ApiError("TM-SYS-5030", {"key": key, "reason": reason}) from None
        self._servers.append(server)
        for socket in server.sockets:
            host, port = socket.getsockname()[:2]
            self._logger.info("listening", extra={"scheme": scheme, "host": host, "port": port})

    def close(self) -> None:
        """Stops accepting; connections that are open stay."""
        for server in self._servers:
            server.close()
        if self._directory is not None:
            admin_socket.remove(self._directory)

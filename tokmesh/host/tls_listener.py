"""The listener of HTTPS: accepts connections and sees them through their handshakes.

A connection becomes the server's when its handshake is done; until then it is here, with a descriptor and some 50 KB. So there are
never more than `handshakes_max` of them: for one more, the oldest goes, which has had the most time. Whoever opens many connections
and says nothing thus pushes out its own, and a client that does its handshake gets through.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

HANDSHAKES_MAX: Final = 512
HANDSHAKE_TIMEOUT_S: Final = 10.0
ACCEPTED_MAX: Final = 64  # in one turn of the loop
RETRY_S: Final = 0.1  # when there is no descriptor, or no memory, for the next connection
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class TlsListener:
    """Listens on an address until it is closed. `sockets`: what it listens on, one for each address that the host's name has."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: ProtocolFactory,
        context: ssl.SSLContext,
        *,
        handshakes_max: int = HANDSHAKES_MAX,
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._context = context
        self._handshakes_max = handshakes_max
        self._handshakes: dict[asyncio.Task[None], None] = {}  # oldest first
        self.sockets: list[socket.socket] = []

    async def open(self, host: str, port: int, backlog: int) -> None:
        """Begins to listen. Raises OSError, and then listens nowhere."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((each[0], each[4]) for each in found):
                listening = socket.create_server(address, family=family, backlog=backlog)
                listening.setblocking(False)
                self.sockets.append(listening)
        except OSError:
            self.close()
            raise
        for listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Stops accepting, and lets go of what has not done its handshake."""
        for listening in self.sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self.sockets = []
        for handshake in list(self._handshakes):
            handshake.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._loop.remove_reader(listening)
                    self._loop.call_later(RETRY_S, self._resume, listening)
                    return
                continue  # of a peer that has gone meanwhile
            if len(self._handshakes) >= self._handshakes_max:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.cancel()
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = self._loop.create_task(self._shake_hands(accepted), name="tokmesh-handshake")
            self._handshakes[handshake] = None
            handshake.add_done_callback(lambda done: self._handshakes.pop(done, None))

    def _resume(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError:
            accepted.close()  # no TLS, no agreement, or too late: the peer's fault, and nothing to tell

"""A server in a thread of its own on real sockets, whose routes send a file and take an upload: for tests of what streams.

GET /file?name=…: a file of `folder`. POST /upload: what came, as JSON; `?keep=name` renames it, `?wait` waits for `gate`, `?fail`
is a bug. GET /health and POST /plain are there for what goes on beside and behind.
"""

import asyncio
import hashlib
import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from tests.support.answers import Reply as Received
from tests.support.waiting import wait_until
from tests.support.wire import CREDENTIAL, OneKey
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Table
from tokmesh._core.validate import Validator
from tokmesh.api.answer import FileAnswer, Reply, Request
from tokmesh.api.route import Route
from tokmesh.api.spool import SpoolSpec
from tokmesh.errors import ApiError

MB = 1 << 20
CONTENT = os.urandom(5 * MB + 13)
HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
T = TypeVar("T")


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def get_file(name: str, fields: bytes = b"") -> bytes:
    return b"GET /file?name=%b HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n%b\r\n" % (name.encode(), CREDENTIAL, fields)


def upload_head(length: int | None, query: str = "", fields: bytes = b"", key: bytes = CREDENTIAL) -> bytes:
    """length: announced; None: chunked."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    head = b"POST /upload%b HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n%b%b\r\n\r\n"
    return head % (query.encode(), key, fields, framing)


def chunked(body: bytes, chunk_bytes: int, trailer: bytes = b"") -> bytes:
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"


class Client:
    """One connection, read answer by answer."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, *, receive_bytes: int | None = None) -> None:
        plain = socket.socket()
        if receive_bytes is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        self._received = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_what_is_taken(self, data: bytes) -> None:
        """Of a request that may be refused before it is here whole."""
        try:
            self.send(data)
        except OSError:
            return

    def answer(self) -> Received:
        """The next answer, whole. AssertionError when the connection ends before."""
        head, _, rest = self.until(lambda received: b"\r\n\r\n" in received).partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        size = int(headers.get("content-length", 0))
        self._received = rest
        body = self.until(lambda received: len(received) >= size)
        self._received = body[size:]
        return Received(int(status.split()[1]), headers, body[:size])

    def stored(self, body: bytes) -> dict[str, Any]:
        """The answer to an upload that arrived as it was sent."""
        reply = self.answer()
        assert reply.status == 200, reply
        data: dict[str, Any] = reply.envelope["data"]
        assert (data["bytes"], data["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        return data

    def refused(self, code: str) -> tuple[int, dict[str, Any], bool]:
        """Status, details and whether the connection ends, of a refusal."""
        reply = self.answer()
        assert reply.envelope["code"] == code, reply
        return reply.status, reply.envelope.get("details", {}), reply.headers.get("connection") == "close"

    def reset_at_end(self) -> None:
        """The connection will end by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def interim(self) -> bytes:
        """An interim answer, such as 100 Continue."""
        head, _, self._received = self.until(lambda received: b"\r\n\r\n" in received).partition(b"\r\n\r\n")
        return head

    def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        pieces = [self._received]
        self._received = b""
        try:
            while piece := self.socket.recv(1 << 20):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def until(self, enough: Callable[[bytearray], bool]) -> bytes:
        pieces = bytearray(self._received)
        while not enough(pieces):
            piece = self.socket.recv(1 << 20)
            assert piece, f"the connection ended after {len(pieces)} bytes: {bytes(pieces[:200])!r}"
            pieces += piece
        return bytes(pieces)


class Tracked(Connection):
    """A connection whose unsent bytes a test can see. most_unsent_bytes: after any piece of an answer."""

    kept: Any = None  # the transport

    def connection_made(self, transport: Any) -> None:
        self.kept = transport
        self.most_unsent_bytes = 0
        super().connection_made(transport)

    def write_piece(self, piece: bytes) -> None:
        super().write_piece(piece)
        self.most_unsent_bytes = max(self.most_unsent_bytes, self.unsent_bytes())

    def unsent_bytes(self) -> int:
        return 0 if self.kept is None or self.kept.is_closing() else int(self.kept.get_write_buffer_size())


class StreamServer:
    """The server. folder: of the files to send; uploads: where bodies go. gate: opened by the test; seen: bodies' paths."""

    def __init__(
        self,
        folder: Path,
        uploads: Path,
        *,
        bytes_max: int = 1 << 40,
        free_bytes_min: int = 0,
        context: ssl.SSLContext | None = None,
        **limits: int,
    ) -> None:
        self.folder, self.uploads = folder, uploads
        self.counters = CounterBlock()
        self.seen: list[Path] = []
        self.connections: list[Tracked] = []
        self.loop = uvloop.new_event_loop()
        self.gate: asyncio.Future[None] = self.loop.create_future()
        clock = Clock()
        self.authenticator = OneKey(clock)
        routes = (
            Route("GET", "/file", "admin", self._file),
            Route("POST", "/upload", "admin", self._upload, spool=SpoolSpec(uploads, bytes_max, free_bytes_min)),
            Route("POST", "/plain", "admin", self._plain),
            Route("GET", "/health", "none", self._health),
            Route("POST", "/tokens/validate", "validator", self._plain),
        )
        self._make_server = partial(
            Server, self.loop, routes, Validator(Table(tombstone_ttl_ms=600_000), self.counters), clock, self.authenticator,
            self.counters, Limits(**limits), logging.getLogger("tokmesh.test.streams"),
        )  # fmt: skip
        self._context = context
        self._thread = threading.Thread(target=self._run, name="stream-server")

    def __enter__(self) -> "StreamServer":
        self._thread.start()
        self.run(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self.drain(0.0)
        self.run(self.loop.shutdown_default_executor)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _listen(self) -> None:
        self.server = self._make_server()  # by the loop that its timer is for
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self._listener = await self.loop.create_server(self._connect, sock=listening, ssl=self._context)

    def _connect(self) -> Connection:
        self.connections.append(Tracked(self.server))
        return self.connections[-1]

    def run(self, make: Callable[[], Any]) -> Any:
        """What a coroutine comes to, run by the server's loop."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(60)

    def drain(self, timeout_s: float) -> bool:
        """Stops as the application does; whether all connections ended by themselves."""

        async def stop() -> bool:
            self._listener.close()
            self.server.begin_drain()
            return await self.server.drained(timeout_s)

        return bool(self.run(stop))

    def open_gate(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.set_result, None)

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    def received(self, count: int) -> None:
        """Waits until the server has read `count` bytes in all."""
        wait_until(lambda: self.counters.read(Counter.RECEIVED_BYTES) >= count, f"{count} bytes are read")

    def is_idle(self) -> bool:
        """Nothing of any request is left: no connection, no file, no task, no room taken."""

        async def look() -> tuple[int, int, int]:
            return self.server.connections, self.server.buffered_bytes, len(asyncio.all_tasks(self.loop)) - 1

        return self.run(look) == (0, 0, 0) and not self.files() and not self.open_files()

    def files(self) -> list[str]:
        return sorted(os.listdir(self.uploads))

    def open_files(self) -> list[str]:
        """Files of both folders that this process has open."""
        targets = []
        for number in os.listdir("/proc/self/fd"):
            try:
                targets.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue
        return [target for target in targets if target.startswith((str(self.folder), str(self.uploads)))]

    # Handlers.

    async def _health(self, request: Request) -> Reply:
        return {"status": "ok"}

    async def _plain(self, request: Request) -> Reply:
        return {"bytes": len(request.body), "file": request.body_file is not None}

    async def _file(self, request: Request) -> Reply:
        try:
            return await FileAnswer.open(
                self.folder / request.query_args()["name"], "application/octet-stream", [("X-Kind", "test")]
            )
        except FileNotFoundError:
            raise ApiError("TM-ADMIN-4041") from None

    async def _upload(self, request: Request) -> Reply:
        args = request.query_args()
        path = request.body_file
        assert path is not None and request.body == b""
        self.seen.append(path)
        content = path.read_bytes()
        if "wait" in args:
            await asyncio.shield(self.gate)
        if "fail" in args:
            raise RuntimeError("a bug")
        if "keep" in args:
            path.rename(path.parent / args["keep"])
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mode": oct(path.stat().st_mode & 0o777)
                if "keep" not in args else ""}  # fmt: skip

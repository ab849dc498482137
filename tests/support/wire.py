"""The wire path alone, in memory: connections over a transport that records, so that a test chooses every split of the bytes.

Routes are the smallest that tell apart what the wire path does; everything else is the real thing.
"""

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable
from typing import Any

from tests.support.answers import Reply as Received
from tests.support.answers import split_answers
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.principal import ApiKey, Grant
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Outcome, Table
from tokmesh._core.validate import Validator
from tokmesh.api.answer import Reply, Request
from tokmesh.api.route import Route
from tokmesh.errors import ApiError

CREDENTIAL = b"tmak-test:tmas_test"
HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
HOUR_MS = 3_600_000


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; has a peer of 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.writes = 0
        self.closed = False
        self.reading = True
        self.half_closes = False    # whether it can end its own direction alone
        self.eof_written = False

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        self.sent += bytes(data)
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return self.half_closes

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40000) if name == "peername" else default

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class OneKey:
    """An authenticator that knows CREDENTIAL and nothing else."""

    def __init__(self, clock: Clock, role: str = "admin") -> None:
        self.clock = clock
        self.key = ApiKey("tmak-test", role)

    def cached(self, credential: bytes) -> Grant | None:
        return Grant(self.key, self.clock.now_ms() + 60_000) if credential == CREDENTIAL else None

    async def authenticate(self, credential: bytes) -> Grant:
        raise ApiError("TM-AUTH-4011")


async def _health(request: Request) -> Reply:
    return {"status": "ok"}


class Wire:
    """A server without sockets. `waiting`: futures of GET /wait requests, for the test to complete."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make_authenticator: Callable[[Clock], OneKey] = OneKey, **limits: int
    ) -> None:
        self.clock = Clock()
        self.counters = CounterBlock()
        self.table = Table(tombstone_ttl_ms=600_000)
        self.authenticator = make_authenticator(self.clock)
        self.waiting: list[asyncio.Future[str]] = []
        self.validated: list[bytes] = []

        async def validate(request: Request) -> Reply:
            self.validated.append(request.body)
            return {"general": True}

        async def wait(request: Request) -> Reply:
            self.waiting.append(loop.create_future())
            return {"waited": await self.waiting[-1]}

        self.server = Server(
            loop,
            (
                Route("GET", "/health", "none", _health),
                Route("GET", "/wait", "none", wait),
                Route("POST", "/tokens/validate", "validator", validate),
            ),
            Validator(self.table, self.counters), self.clock, self.authenticator, self.counters,
            Limits(**limits), logging.getLogger("tokmesh.test"),
        )  # fmt: skip

    def connect(self, *, half_closes: bool = False) -> tuple[Connection, RecordingTransport]:
        """A new connection and what it writes to."""
        connection = Connection(self.server)
        transport = RecordingTransport()
        transport.half_closes = half_closes
        connection.connection_made(transport)
        return connection, transport


def spin(loop: asyncio.AbstractEventLoop, turns: int = 3) -> None:
    """Lets callbacks that are due run."""
    for _ in range(turns):
        loop.run_until_complete(asyncio.sleep(0))


def add_session(wire: Wire, number: int, *, lives_ms: int = HOUR_MS) -> str:
    """A live session; returns its token."""
    token = "tmtk_" + base64.urlsafe_b64encode(hashlib.sha256(b"%d" % number).digest()).decode().rstrip("=")
    now_ms = wire.clock.now_ms()
    outcome = wire.table.insert(
        number.to_bytes(16, "big"), hashlib.sha256(token.encode()).digest(), "ana", "", "", "", "tmak-test",
        now_ms, now_ms + lives_ms, 0, b"{}",
    )  # fmt: skip
    assert outcome == Outcome.INSERTED
    return token


def validate(body: bytes, fields: bytes = b"") -> bytes:
    head = b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (CREDENTIAL, fields, len(body)) + body


def canonical(token: str) -> bytes:
    return b'{"token":"%b"}' % token.encode()


def ask(connection: Connection, transport: RecordingTransport, sent: bytes) -> list[Received]:
    """Sends bytes; returns the answers that came in return."""
    before = len(transport.sent)
    connection.data_received(sent)
    return split_answers(transport.sent[before:])

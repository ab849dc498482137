"""The whole validate without a socket: request bytes into the connection, answer bytes out of it, all of it between.

The connection, the server's shared state, the table and the counters are the real ones; only the transport and the
verified credential are stand-ins.
"""

import asyncio
import hashlib
import logging
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.http import raw_post
from benchmarks.load.workload import session_input
from benchmarks.micro.conftest import API_KEY, TOKEN, TTL_MS
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.principal import ApiKey, Grant
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Table
from tokmesh._core.validate import Validator
from tokmesh.api.answer import Answer
from tokmesh.api.route import Route
from tokmesh.errors import ApiError

BATCH = 1000
DEPTH = 16


class Transport(asyncio.Transport):
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000)})
        self.last: bytes | bytearray | memoryview = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.last = data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None


class VerifiedKey:
    """An authenticator that has verified one validator key."""

    def __init__(self, clock: Clock) -> None:
        key_id = API_KEY.partition(":")[0]
        self._grant = Grant(ApiKey(key_id, "validator"), clock.now_ms() + TTL_MS)

    def cached(self, credential: bytes) -> Grant | None:
        return self._grant if credential == API_KEY.encode() else None

    async def authenticate(self, credential: bytes) -> Grant:
        raise ApiError("TM-AUTH-4011")


class Wire:
    """A connection with one session behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = Clock()
        now_ms = self.clock.now_ms()
        table = Table(tombstone_ttl_ms=600_000)
        counters = CounterBlock()
        self.validator = Validator(table, counters)
        one = session_input(0, 0)
        table.insert(
            bytes(16), hashlib.sha256(TOKEN.encode()).digest(), one.user_id, one.device_id, one.ip_address,
            one.user_agent, API_KEY.partition(":")[0], now_ms, now_ms + TTL_MS, 0,
            b'{"r":"%b"}' % one.data["r"].encode(),
        )  # fmt: skip
        self._server = Server(
            loop, [Route("POST", "/tokens/validate", "validator", refuse)], self.validator, self.clock,
            VerifiedKey(self.clock), counters, Limits(), logging.getLogger("benchmark"),
        )  # fmt: skip
        self.transport = Transport()
        self.connection = Connection(self._server)
        self.connection.connection_made(self.transport)

    def exchange(self, requests: bytes) -> bytes:
        self.connection.data_received(requests)
        return bytes(self.transport.last)


async def refuse(request: object) -> Answer:
    raise AssertionError("a canonical validate never reaches the general handler")


@pytest.fixture
def wire() -> Iterator[Wire]:
    loop = asyncio.new_event_loop()
    yield Wire(loop)
    loop.close()


def test_validate_one(benchmark: BenchmarkFixture, wire: Wire, validate_request: bytes) -> None:
    answer = benchmark(wire.exchange, validate_request)
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"valid":true' in answer


def test_validate_16_pipelined(benchmark: BenchmarkFixture, wire: Wire, validate_request: bytes) -> None:
    answer = benchmark(wire.exchange, validate_request * DEPTH)
    assert answer.count(b'"valid":true') == DEPTH


def test_validate_two_with_other_heads(benchmark: BenchmarkFixture, wire: Wire) -> None:
    """The remembered head never fits, so both requests go through the parser. Two requests a round."""
    body = f'{{"token":"{TOKEN}"}}'
    plain = raw_post("/tokens/validate", body, API_KEY)
    requests = [plain.replace(b"\r\n\r\n", b"\r\nX-Request-ID: bench-%d\r\n\r\n" % number, 1) for number in range(2)]
    answers = benchmark(lambda: [wire.exchange(request) for request in requests])
    assert all(b'"valid":true' in answer for answer in answers)


def test_validate_batch_of_1000(benchmark: BenchmarkFixture, wire: Wire) -> None:
    answer = benchmark(wire.validator.validate_batch, [TOKEN] * BATCH, wire.clock.now_ms(), False)
    assert answer.count(b'"valid":true') == BATCH

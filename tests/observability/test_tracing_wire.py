"""Which span is the current one on the wire path: log lines name the trace of their own request and of no other."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from tests.support.wire import CREDENTIAL, OneKey, RecordingTransport, canonical, spin, validate
from tokmesh._core.clock import Clock, monotonic_ns
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.sampling import Sampler
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Table
from tokmesh._core.validate import Validator
from tokmesh.api.answer import Reply, Request
from tokmesh.api.route import Route
from tokmesh.errors import ApiError
from tokmesh.ids import RandomSource
from tokmesh.telemetry.logs.formatter import JsonFormatter
from tokmesh.telemetry.logs.scope import ScopeFilter, scope_of
from tokmesh.telemetry.tracing.span import Span
from tokmesh.telemetry.tracing.tracer import Tracer

SAMPLED = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
OTHER_SAMPLED = "00-" + "3" * 32 + "-" + "4" * 16 + "-01"


class Share:
    """Nothing is sampled but what a caller wants sampled."""

    sampling_ratio = 0.0
    max_traces_per_second = 100_000


class TracedWire:
    """A server without sockets whose handlers log. `waiting`: futures of GET /wait; `lines`: what was logged, as lines."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: list[asyncio.Future[str]] = []
        self.spans: list[Span] = []
        self.lines: list[dict[str, str]] = []
        clock, counters = Clock(), CounterBlock()
        sampler = Sampler(1)
        tracer = Tracer(sampler, RandomSource().take, self.spans.append)
        tracer.configure(Share())
        routes = (
            Route("GET", "/wait", "none", self._wait),
            Route("GET", "/fail", "none", self._fail),
            Route("GET", "/refuse", "none", self._refuse),
            Route("POST", "/tokens/validate", "validator", self._wait),
        )
        validator = Validator(Table(tombstone_ttl_ms=600_000), counters)
        logger = logging.getLogger("tokmesh.test.tracing")
        self.server = Server(
            loop, routes, validator, clock, OneKey(clock), counters, Limits(), logger, sampler=sampler, tracer=tracer
        )  # fmt: skip

        self._scope = ScopeFilter()
        self._scope.follow(lambda: scope_of(self.server.handling, self.current()))

    def current(self) -> Span | None:
        """The span of what is being done now."""
        request = self.server.handling
        return None if request is None or request.trace is None else request.trace.current

    def log(self, message: str) -> None:
        self.note(logging.LogRecord("tokmesh.test", logging.INFO, "", 0, message, None, None))

    def note(self, record: logging.LogRecord) -> None:
        """Makes a record a line, as the handler of logs does."""
        self._scope.filter(record)
        self.lines.append(json.loads(JsonFormatter().format(record)))

    def connect(self) -> tuple[Connection, RecordingTransport]:
        connection, transport = Connection(self.server), RecordingTransport()
        connection.connection_made(transport)
        return connection, transport

    async def _wait(self, request: Request) -> Reply:
        self.log("begins")
        self.waiting.append(self.loop.create_future())
        await self.waiting[-1]
        self.log("goes on")
        return {}

    async def _fail(self, request: Request) -> Reply:
        raise RuntimeError("a bug")

    async def _refuse(self, request: Request) -> Reply:
        raise ApiError("TM-SYS-5030")

    def told(self) -> list[tuple[str, str | None]]:
        return [(line["message"], line.get("trace_id")) for line in self.lines]


@pytest.fixture(name="wire")
def _wire() -> Iterator[TracedWire]:
    loop = asyncio.new_event_loop()
    yield TracedWire(loop)
    loop.close()


def get(path: str, traceparent: str | None = None) -> bytes:
    field = "" if traceparent is None else f"traceparent: {traceparent}\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n".encode()


def test_lines_of_requests_that_wait_at_the_same_time_name_each_its_own_trace(wire: TracedWire) -> None:
    (one, _), (two, _), (three, _) = wire.connect(), wire.connect(), wire.connect()
    one.data_received(get("/wait", SAMPLED))
    two.data_received(get("/wait"))
    three.data_received(get("/wait", OTHER_SAMPLED))
    assert wire.current() is None
    for number in (2, 1, 0):
        wire.waiting[number].set_result("")
        spin(wire.loop)
    ones, threes = "1" * 32, "3" * 32
    assert wire.told() == [
        ("begins", ones), ("begins", None), ("begins", threes), ("goes on", threes), ("goes on", None), ("goes on", ones),
    ]  # fmt: skip
    assert wire.lines[0]["span_id"] == wire.lines[5]["span_id"] == wire.spans[1].span_id.hex()


def test_a_request_behind_a_traced_one_on_its_connection_is_not_in_its_trace(wire: TracedWire) -> None:
    connection, transport = wire.connect()
    connection.data_received(get("/wait", SAMPLED) + get("/wait"))
    for number in (0, 1):
        wire.waiting[number].set_result("")
        spin(wire.loop)
    assert wire.told() == [("begins", "1" * 32), ("goes on", "1" * 32), ("begins", None), ("goes on", None)]
    assert transport.sent.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("path", ["/fail", "/refuse", "/nowhere"])
def test_nothing_stays_current_after_a_traced_request_that_fails(wire: TracedWire, path: str) -> None:
    connection, _ = wire.connect()
    connection.data_received(get(path, SAMPLED) + get("/wait"))
    assert wire.told() == [("begins", None)]
    assert wire.current() is None
    assert len(wire.spans) == 1


def test_the_line_of_a_failed_request_names_its_trace(wire: TracedWire) -> None:
    handler = logging.Handler()
    handler.emit = wire.note  # type: ignore[method-assign]
    logger = logging.getLogger("tokmesh.test.tracing")
    logger.addHandler(handler)
    try:
        connection, _ = wire.connect()
        connection.data_received(get("/fail", SAMPLED))
        connection.data_received(get("/fail"))
    finally:
        logger.removeHandler(handler)
    assert wire.told() == [("request failed", "1" * 32), ("request failed", None)]
    [span] = wire.spans
    assert span.error == "TM-SYS-5000"


def test_a_span_begins_when_the_request_is_here_whole(wire: TracedWire) -> None:
    connection, _ = wire.connect()
    request = validate(canonical("tmtk_" + "A" * 43), f"traceparent: {SAMPLED}\r\n".encode())
    connection.data_received(request[:-10])
    while_it_came_ns = monotonic_ns()
    assert wire.current() is None and wire.spans == []
    connection.data_received(request[-10:])
    assert [span.started_ns >= while_it_came_ns for span in wire.spans] == [True, True]


def test_a_request_that_never_comes_whole_has_no_span_and_nothing_stays_current(wire: TracedWire) -> None:
    connection, transport = wire.connect()
    head = f"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {CREDENTIAL.decode()}\r\ntraceparent: {SAMPLED}\r\n"
    connection.data_received(f"{head}Transfer-Encoding: chunked\r\n\r\nno chunk\r\n".encode())
    assert b"HTTP/1.1 400" in transport.sent
    assert wire.current() is None and wire.spans == []


def test_a_traced_request_whose_peer_goes_away_ends_its_span_all_the_same(wire: TracedWire) -> None:
    connection, _ = wire.connect()
    connection.data_received(get("/wait", SAMPLED))
    connection.connection_lost(None)
    wire.waiting[0].set_result("")
    spin(wire.loop)
    assert len(wire.spans) == 1 and wire.current() is None


def test_validates_answered_in_place_leave_no_current_span(wire: TracedWire) -> None:
    connection, transport = wire.connect()
    body = canonical("tmtk_" + "A" * 43)
    traced = validate(body, f"traceparent: {SAMPLED}\r\n".encode())
    connection.data_received(traced * 3 + validate(body) * 2)
    assert transport.sent.count(b"TM-TOKN-4010") == 5
    assert [span.name for span in wire.spans] == ["token validate", "POST /tokens/validate"] * 3
    assert wire.current() is None

"""Rules of a connection that no single request shows: order, batching, back-pressure, time limits, draining."""

import asyncio

import pytest

from tests.support.answers import split_answers
from tests.support.wire import CREDENTIAL, HEALTH, WAIT, Wire, ask, spin, validate
from tokmesh._core.counters import Counter

# Order and batching.


def test_pipelined_requests_are_answered_in_one_write(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.data_received(HEALTH * 16)
    assert len(split_answers(transport.sent)) == 16
    assert transport.writes == 1


def test_more_than_the_pipeline_limit_takes_further_turns(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_pipelined=4)
    connection, transport = wire.connect()
    connection.data_received(HEALTH * 9)
    assert len(split_answers(transport.sent)) == 4
    spin(loop, 4)
    assert len(split_answers(transport.sent)) == 9
    assert transport.writes == 3


def test_answers_keep_the_order_of_requests_while_one_waits(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, transport = wire.connect()
    connection.data_received(HEALTH + WAIT + HEALTH)
    assert [reply.envelope["data"] for reply in split_answers(transport.sent)] == [{"status": "ok"}]
    connection.data_received(WAIT)
    wire.waiting[0].set_result("first")
    spin(loop)
    assert len(wire.waiting) == 2, "the next request began only when the one before was answered"
    wire.waiting[1].set_result("second")
    spin(loop)
    data = [reply.envelope["data"] for reply in split_answers(transport.sent)]
    assert data == [{"status": "ok"}, {"waited": "first"}, {"status": "ok"}, {"waited": "second"}]


def test_answer_to_a_peer_that_has_gone_is_dropped(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, _ = wire.connect()
    connection.data_received(WAIT)
    connection.connection_lost(None)
    wire.waiting[0].set_result("late")
    spin(loop)
    other, transport = wire.connect()
    assert [reply.status for reply in ask(other, transport, HEALTH)] == [200]


def test_cancelled_wait_is_an_error_and_the_connection_goes_on(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, transport = wire.connect()
    connection.data_received(WAIT + HEALTH)
    wire.waiting[0].cancel()
    spin(loop)
    assert [reply.status for reply in split_answers(transport.sent)] == [500, 200]


# Back-pressure.


def test_reading_stops_while_the_peer_does_not_read(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.pause_writing()
    assert not transport.reading
    connection.data_received(HEALTH)
    assert not transport.sent
    connection.resume_writing()
    assert transport.reading
    assert len(split_answers(transport.sent)) == 1


def test_reading_stops_while_much_waits_behind_a_request(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, transport = wire.connect()
    connection.data_received(WAIT)
    connection.data_received(HEALTH * 3000)
    assert not transport.reading
    wire.waiting[0].set_result("x")
    spin(loop, 200)
    assert transport.reading
    assert len(split_answers(transport.sent)) == 3001


def test_a_turn_answers_no_more_than_the_write_buffer_holds(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_write_buffer_bytes=1024)
    connection, transport = wire.connect()
    connection.data_received(HEALTH * 30)
    assert transport.high == 1024
    assert len(transport.sent) < 2048
    spin(loop, 30)
    assert len(split_answers(transport.sent)) == 30


# The end of a connection.


def test_half_closed_peer_gets_its_answer_before_the_end(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, transport = wire.connect()
    connection.data_received(WAIT)
    assert connection.eof_received() is True
    wire.waiting[0].set_result("x")
    spin(loop)
    assert [reply.status for reply in split_answers(transport.sent)] == [200]
    assert transport.closed


def test_end_in_the_middle_of_a_request_closes_without_an_answer(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.data_received(HEALTH[:-3])
    assert not connection.eof_received()
    assert transport.sent == b""


def test_drain_closes_idle_connections_and_answers_with_close(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    idle, idle_transport = wire.connect()
    busy, busy_transport = wire.connect()
    busy.data_received(WAIT + HEALTH)
    wire.server.begin_drain()
    assert idle_transport.closed
    assert not busy_transport.closed
    wire.waiting[0].set_result("x")
    spin(loop)
    (reply,) = split_answers(busy_transport.sent)
    assert reply.headers["connection"] == "close"
    assert busy_transport.closed
    idle.connection_lost(None)
    busy.connection_lost(None)
    assert loop.run_until_complete(wire.server.drained(5.0))


def test_drain_aborts_what_does_not_end_in_time(wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
    connection, transport = wire.connect()
    connection.data_received(WAIT)
    wire.server.begin_drain()
    assert not loop.run_until_complete(wire.server.drained(0.01))
    assert transport.closed


def test_connection_beyond_the_limit_is_told_to_come_back(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_connections=2)
    kept = [wire.connect() for _ in range(2)]
    _, transport = wire.connect()
    (reply,) = split_answers(transport.sent)
    assert (reply.status, reply.envelope["code"]) == (503, "TM-SYS-5030")
    assert reply.headers["retry-after"] == "1"
    assert transport.closed
    assert wire.counters.read(Counter.CONNECTION_REFUSED) == 1
    kept[0][0].connection_lost(None)
    assert not wire.connect()[1].sent


def test_refused_peer_may_finish_sending_so_that_it_can_read_why(wire: Wire) -> None:
    connection, transport = wire.connect()
    transport.half_closes = True
    head = b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n"
    (reply,) = ask(connection, transport, head)
    assert reply.status == 413
    assert (transport.eof_written, transport.closed) == (True, False)
    assert not ask(connection, transport, b"x" * 65536 + HEALTH), "what comes after is dropped"
    now_ns = wire.clock.monotonic_ns()
    connection.check_time(now_ns + SECOND_NS)
    assert not transport.closed
    connection.check_time(now_ns + 3 * SECOND_NS)
    assert transport.closed


# Time limits; seconds are ns here.

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("sent", "limit_s", "status"),
    [(b"", 75, None), (b"GET /hea", 10, 408), (HEALTH, 75, None)],
    ids=["no byte", "part of a head", "idle after an answer"],
)
def test_waiting_is_bounded(wire: Wire, sent: bytes, limit_s: int, status: int | None) -> None:
    connection, transport = wire.connect()
    connection.data_received(sent)
    answered = len(transport.sent)
    now_ns = wire.clock.monotonic_ns()
    connection.check_time(now_ns + (limit_s - 1) * SECOND_NS)
    assert not transport.closed
    connection.check_time(now_ns + (limit_s + 1) * SECOND_NS)
    assert transport.closed
    replies = split_answers(transport.sent[answered:])
    assert [reply.status for reply in replies] == ([] if status is None else [status])


def test_body_slower_than_the_minimum_rate_ends(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.data_received(validate(b"x" * 4096)[:-2048])
    now_ns = wire.clock.monotonic_ns()
    connection.check_time(now_ns + 6 * SECOND_NS)    # 2048 bytes are good for 5 + 2 s at 1024 bytes/s
    assert not transport.closed
    connection.check_time(now_ns + 8 * SECOND_NS)
    assert [reply.status for reply in split_answers(transport.sent)] == [408]
    assert transport.closed


def test_peer_that_never_takes_its_answers_is_dropped(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.pause_writing()
    now_ns = wire.clock.monotonic_ns()
    connection.check_time(now_ns + 74 * SECOND_NS)
    assert not transport.closed
    connection.check_time(now_ns + 76 * SECOND_NS)
    assert transport.closed


# Expect: 100-continue.


def test_continue_is_sent_once_and_only_when_the_body_is_held_back(wire: Wire) -> None:
    request = validate(b'{"token":1}', b"Expect: 100-continue\r\n")
    head, body = request[:-11], request[-11:]
    connection, transport = wire.connect()
    connection.data_received(head)
    assert transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(body[:5])
    connection.data_received(body[5:])
    (reply,) = split_answers(transport.sent[25:])
    assert reply.status == 200
    connection, transport = wire.connect()
    (reply,) = ask(connection, transport, request)
    assert reply.status == 200


def test_continue_is_not_sent_for_a_body_beyond_the_limit(wire: Wire) -> None:
    connection, transport = wire.connect()
    head = b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n"
    (reply,) = ask(connection, transport, head)
    assert (reply.status, transport.closed) == (413, True)


# Single answers.


def test_answer_to_head_has_no_body(wire: Wire) -> None:
    connection, transport = wire.connect()
    head, after = ask(connection, transport, HEALTH.replace(b"GET", b"HEAD") + HEALTH)
    assert (head.status, head.headers["allow"], head.body) == (405, "GET", b"")
    assert after.status == 200


def test_credential_that_is_no_good_does_not_close_a_route_without_a_role(wire: Wire) -> None:
    connection, transport = wire.connect()
    with_key = HEALTH[:-2] + b"X-API-Key: " + CREDENTIAL + b"\r\n\r\n"
    assert [reply.status for reply in ask(connection, transport, with_key * 2)] == [200, 200]
    wire.authenticator.key.set_active(False)
    assert [reply.status for reply in ask(connection, transport, with_key * 2)] == [200, 200]
    assert [reply.status for reply in ask(connection, transport, with_key.replace(CREDENTIAL, b"x:y"))] == [200]

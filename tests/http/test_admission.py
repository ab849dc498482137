"""A request is decided on by its head: who may not make it has it refused before its body costs anything.

In memory, so that a test chooses what has come when; the same with a real server's memory is in test_body_memory.py.
"""

import asyncio
import time
from functools import partial
from ipaddress import ip_network

import pytest

from tests.support.answers import split_answers
from tests.support.wire import CREDENTIAL, HEALTH, OneKey, RecordingTransport, Wire, add_session, ask, canonical, spin, validate
from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import Counter
from tokmesh._core.principal import ApiKey, Grant
from tokmesh.errors import ApiError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SECOND_NS = 1_000_000_000


def head(size: int, fields: bytes = b"", key: bytes | None = CREDENTIAL) -> bytes:
    """The head of a validate request with a body of `size` bytes."""
    credential = b"" if key is None else b"Authorization: Bearer %b\r\n" % key
    return b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\n%b%bContent-Length: %d\r\n\r\n" % (credential, fields, size)


CHUNKED_HEAD = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


class SlowKey(OneKey):
    """Knows CREDENTIAL, but each verification waits for the test: `verifications` are its futures, True for a good key."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(clock)
        self.loop = loop
        self.verifications: list[asyncio.Future[bool]] = []

    def cached(self, credential: bytes) -> Grant | None:
        return None

    async def authenticate(self, credential: bytes) -> Grant:
        self.verifications.append(self.loop.create_future())
        if not await self.verifications[-1]:
            raise ApiError("TM-AUTH-4011")
        return Grant(self.key, self.clock.now_ms() + 60_000)


def slow_wire(loop: asyncio.AbstractEventLoop, **limits: int) -> tuple[Wire, SlowKey]:
    wire = Wire(loop, partial(SlowKey, loop), **limits)
    assert isinstance(wire.authenticator, SlowKey)
    return wire, wire.authenticator


def statuses(transport: RecordingTransport, skipped: int = 0) -> list[int]:
    return [reply.status for reply in split_answers(transport.sent[skipped:])]


# Refused on the head.


def test_refusal_does_not_wait_for_the_body(wire: Wire) -> None:
    connection, transport = wire.connect()
    (reply,) = ask(connection, transport, head(1000, key=None))
    assert (reply.status, reply.headers.get("connection")) == (401, None)
    assert not ask(connection, transport, b"x" * 999)
    assert [reply.status for reply in ask(connection, transport, b"x" + HEALTH)] == [200]
    assert not transport.closed


def test_body_not_worth_reading_ends_the_connection_with_its_answer(wire: Wire) -> None:
    for size, closes in ((262_144, False), (262_145, True)):
        connection, transport = wire.connect()
        (reply,) = ask(connection, transport, head(size, key=None))
        assert reply.status == 401
        assert (reply.headers.get("connection") == "close", transport.closed) == (closes, closes)


def test_peer_of_an_unread_body_may_finish_sending_for_a_while(wire: Wire) -> None:
    connection, transport = wire.connect()
    transport.half_closes = True
    ask(connection, transport, head(1 << 20, key=None))
    assert (transport.eof_written, transport.closed) == (True, False)
    assert not ask(connection, transport, b"x" * 65536 + HEALTH)
    connection.check_time(wire.clock.monotonic_ns() + 3 * SECOND_NS)
    assert transport.closed


def test_refused_body_that_does_not_come_ends_the_connection_without_a_second_answer(wire: Wire) -> None:
    connection, transport = wire.connect()
    ask(connection, transport, head(1000, key=None) + b"x" * 10)
    connection.check_time(wire.clock.monotonic_ns() + 4 * SECOND_NS)
    assert not transport.closed
    connection.check_time(wire.clock.monotonic_ns() + 6 * SECOND_NS)
    assert transport.closed
    assert statuses(transport) == [401]


def test_drain_does_not_wait_for_a_refused_body(wire: Wire) -> None:
    connection, transport = wire.connect()
    ask(connection, transport, head(1000, key=None))
    wire.server.begin_drain()
    assert transport.closed


def test_get_with_a_body_is_refused_on_its_head(wire: Wire) -> None:
    connection, transport = wire.connect()
    (reply,) = ask(connection, transport, HEALTH[:-2] + b"Content-Length: 5\r\n\r\n")
    assert (reply.status, reply.envelope["details"]) == (400, {"reason": "body_not_allowed"})
    assert [reply.status for reply in ask(connection, transport, b"abcde" + HEALTH)] == [200]


# A key that must be verified first.


def test_continue_follows_the_verification(loop: asyncio.AbstractEventLoop) -> None:
    wire, slow = slow_wire(loop)
    connection, transport = wire.connect()
    connection.data_received(head(11, b"Expect: 100-continue\r\n"))
    assert transport.sent == b""
    slow.verifications[0].set_result(True)
    spin(loop)
    assert transport.sent == CONTINUE
    connection.data_received(b'{"token":1}')
    assert statuses(transport, len(CONTINUE)) == [200]


def test_no_continue_for_a_key_that_is_no_good(loop: asyncio.AbstractEventLoop) -> None:
    wire, slow = slow_wire(loop)
    connection, transport = wire.connect()
    connection.data_received(head(11, b"Expect: 100-continue\r\n"))
    slow.verifications[0].set_result(False)
    spin(loop)
    (reply,) = split_answers(transport.sent)
    assert (reply.status, reply.headers["connection"], transport.closed) == (401, "close", True)


def test_body_is_held_back_while_its_key_is_being_verified(loop: asyncio.AbstractEventLoop) -> None:
    wire, slow = slow_wire(loop)
    connection, transport = wire.connect()
    connection.data_received(head(200_000))
    connection.data_received(b" " * 65_000)
    assert transport.reading
    connection.data_received(b" " * 1_000)
    assert not transport.reading, "beyond 64 KB the peer waits for the verdict on its key"
    slow.verifications[0].set_result(True)
    spin(loop)
    assert transport.reading
    connection.data_received(b" " * 134_000)
    assert statuses(transport) == [200]
    assert wire.validated == [b" " * 200_000]


def test_body_of_a_key_found_wrong_is_dropped_and_the_connection_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    wire, slow = slow_wire(loop)
    connection, transport = wire.connect()
    connection.data_received(head(100_000) + b" " * 50_000)
    slow.verifications[0].set_result(False)
    spin(loop)
    assert statuses(transport) == [401]
    connection.data_received(b" " * 50_000 + HEALTH)
    assert statuses(transport) == [401, 200]
    assert wire.server.buffered_bytes == 0


def test_peer_that_goes_while_its_key_is_verified_leaves_nothing(loop: asyncio.AbstractEventLoop) -> None:
    wire, slow = slow_wire(loop)
    connection, _ = wire.connect()
    connection.data_received(head(1000) + b" " * 500)
    assert wire.server.buffered_bytes == 500
    connection.connection_lost(None)
    slow.verifications[0].set_result(True)
    spin(loop)
    assert wire.server.buffered_bytes == 0
    assert not wire.validated


def test_key_disabled_while_the_body_comes_is_refused(wire: Wire) -> None:
    connection, transport = wire.connect()
    connection.data_received(head(11) + b'{"tok')
    wire.authenticator.key.set_active(False)
    connection.data_received(b'en":1}')
    (reply,) = split_answers(transport.sent)
    assert (reply.status, reply.envelope["code"]) == (401, "TM-AUTH-4012")
    assert not wire.validated


def test_requests_of_one_body_count_once_against_the_key(wire: Wire) -> None:
    connection, _ = wire.connect()
    for byte in validate(b'{"token":1}'):
        connection.data_received(bytes([byte]))
    assert wire.counters.read(Counter.AUTH_OK) == 1


# Room for bodies.


def test_bodies_beyond_the_room_are_refused_and_counted(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_buffered_bytes=3000)
    first, first_transport = wire.connect()
    second, second_transport = wire.connect()
    third, third_transport = wire.connect()
    assert not ask(first, first_transport, head(2000) + b" ")
    assert wire.server.buffered_bytes == 2000, "room is taken for what was announced, not for what has come"
    (reply,) = ask(second, second_transport, head(1001))
    assert (reply.status, reply.envelope["code"]) == (503, "TM-SYS-5030")
    assert (reply.headers["retry-after"], reply.envelope["details"]) == ("1", {"reason": "buffers_full"})
    assert wire.counters.read(Counter.REJECT_BUFFERED_BYTES) == 1
    assert not ask(third, third_transport, head(1000) + b" ")
    assert wire.server.buffered_bytes == 3000
    assert [reply.status for reply in ask(first, first_transport, b" " * 1999)] == [200]
    assert wire.server.buffered_bytes == 1000
    assert [reply.status for reply in ask(second, second_transport, b" " * 1001 + head(2000) + b" " * 2000)] == [200]
    third.connection_lost(None)
    assert wire.server.buffered_bytes == 0


def test_chunks_are_refused_when_they_outgrow_the_room(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_buffered_bytes=3000)
    connection, transport = wire.connect()
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    assert not ask(connection, transport, CHUNKED_HEAD + chunk * 3)
    assert wire.server.buffered_bytes == 3000
    assert [reply.status for reply in ask(connection, transport, chunk)] == [503]
    assert wire.server.buffered_bytes == 0
    assert [reply.status for reply in ask(connection, transport, chunk + b"0\r\n\r\n" + HEALTH)] == [200]


def test_a_full_room_keeps_nobody_from_asking_without_one(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire(loop, max_buffered_bytes=1000)
    token = add_session(wire, 1)
    other, other_transport = wire.connect()
    assert [reply.status for reply in ask(other, other_transport, validate(canonical(token)))] == [200]
    connection, _ = wire.connect()
    connection.data_received(head(1000))
    replies = ask(other, other_transport, validate(canonical(token)) + HEALTH + validate(b" "))
    assert [reply.status for reply in replies] == [200, 200, 503], "validates on a known head, and requests without a body, go on"


@pytest.mark.parametrize("sent", [head(1000), head(1000, key=None), CHUNKED_HEAD + b"5\r\nabcde\r\n", b"POST /x HTTP/1.1\r\n"])
@pytest.mark.parametrize("end", ["lost", "too slow", "bad"])
def test_room_comes_back_however_a_connection_ends(wire: Wire, sent: bytes, end: str) -> None:
    connection, transport = wire.connect()
    connection.data_received(sent)
    if end == "too slow":
        connection.check_time(wire.clock.monotonic_ns() + 20 * SECOND_NS)
        assert transport.closed
        assert wire.server.buffered_bytes == 0, "also while the peer may finish sending"
    elif end == "bad":
        connection.data_received(b"\x00" * 2000)
    connection.connection_lost(None)
    assert wire.server.buffered_bytes == 0


# The minimum rate, 1024 bytes a second over any 5 seconds.


def begun(wire: Wire) -> tuple[Connection, RecordingTransport, int]:
    """A connection whose body has just begun, and when that was."""
    connection, transport = wire.connect()
    connection.data_received(head(1 << 20))
    return connection, transport, wire.clock.monotonic_ns()


def test_peer_that_sent_fast_may_not_stall_for_longer(wire: Wire) -> None:
    """What came before was once good for as many seconds as it had kilobytes."""
    connection, transport, begun_ns = begun(wire)
    connection.data_received(b" " * 600_000)
    connection.check_time(begun_ns + SECOND_NS)
    for second in range(2, 6):
        connection.check_time(begun_ns + second * SECOND_NS)
        assert not transport.closed, second
    connection.check_time(begun_ns + 7 * SECOND_NS)
    assert statuses(transport) == [408]


def test_slow_start_has_its_grace_and_may_catch_up(wire: Wire) -> None:
    connection, transport, begun_ns = begun(wire)
    connection.check_time(begun_ns + 49 * SECOND_NS // 10)
    assert not transport.closed
    connection.data_received(b" " * 6000)
    connection.check_time(begun_ns + 9 * SECOND_NS)
    assert not transport.closed
    connection.check_time(begun_ns + 12 * SECOND_NS)
    assert statuses(transport) == [408]


def test_steady_peer_at_the_minimum_rate_is_left_alone(wire: Wire) -> None:
    for bytes_per_s, status in ((1024, []), (900, [408])):
        connection, transport, begun_ns = begun(wire)
        for second in range(1, 61):
            if not transport.closed:
                connection.data_received(b" " * bytes_per_s)
                connection.check_time(begun_ns + second * SECOND_NS)
        assert statuses(transport) == status


def test_peer_is_not_blamed_while_nothing_is_read(wire: Wire) -> None:
    connection, transport, begun_ns = begun(wire)
    connection.pause_writing()
    connection.check_time(begun_ns + 20 * SECOND_NS)
    connection.resume_writing()
    connection.check_time(begun_ns + 24 * SECOND_NS)
    assert not transport.closed
    connection.check_time(begun_ns + 26 * SECOND_NS)
    assert statuses(transport) == [408]


def test_a_request_behind_a_slow_body_has_its_own_time(loop: asyncio.AbstractEventLoop) -> None:
    """The head's time was once counted from the beginning of the body before it."""
    wire = Wire(loop, head_timeout_ms=1000)
    connection, transport = wire.connect()
    connection.data_received(head(3) + b" ")
    time.sleep(0.05)
    now_ns = wire.clock.monotonic_ns()
    connection.data_received(b"  " + HEALTH[:5])
    connection.check_time(now_ns + 980_000_000)
    assert statuses(transport) == [200]


def test_who_may_not_use_a_key_uses_nothing_of_its_rate(wire: Wire) -> None:
    """A key that is known elsewhere than where it may be used is no means to keep those out who may."""
    elsewhere = (ip_network("192.0.2.0/24"),)
    wire.authenticator.key = ApiKey("tmak-test", "validator", networks=elsewhere, rate_per_second=2)
    connection, transport = wire.connect()
    assert [ask(connection, transport, validate(b"{}"))[0].status for _ in range(5)] == [403] * 5
    wire.authenticator.key = ApiKey("tmak-test", "metrics", rate_per_second=2)
    connection, transport = wire.connect()
    assert [ask(connection, transport, validate(b"{}"))[0].status for _ in range(5)] == [403] * 5

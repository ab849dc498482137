"""What a peer without a key may cost the server: no more memory than it sent, time in proportion to it, no line in the log, no
descriptor beyond the limit for longer than it takes to say so."""

import asyncio
import socket
import time
import tracemalloc
from typing import Any

from tests.support.wire import HEALTH, RecordingTransport, Wire, ask
from tokmesh._core.connection import Connection
from tokmesh._core.counters import Counter
from tokmesh._core.server import TURNED_AWAY_MAX

CHUNKED_HEAD = b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY_CHUNKS = b"2\r\nab\r\n" * 8192


class NamelessTransport(RecordingTransport):
    """A socket whose peer has gone: it has no name any more."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None


class LocalTransport(RecordingTransport):
    """The administration socket, with a peer of this very process."""

    def __init__(self, own: socket.socket) -> None:
        super().__init__()
        self.own = own

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.own if name == "socket" else default


def test_clients_do_not_lock_out_the_operator_of_the_host(loop: asyncio.AbstractEventLoop) -> None:
    """What is to be done about too many connections is done through the administration socket."""
    wire = Wire(loop, max_connections=1)
    wire.connect()
    own, other = socket.socketpair()
    with own, other:
        connection, transport = Connection(wire.server, True), LocalTransport(own)
        connection.connection_made(transport)
        assert [reply.status for reply in ask(connection, transport, HEALTH)] == [200]
        wire.server.begin_drain()
        refused = LocalTransport(own)
        Connection(wire.server, True).connection_made(refused)
        assert refused.closed


def test_peer_that_reset_before_it_was_accepted_is_let_go(wire: Wire) -> None:
    """Its address is gone with it; this was once an error in the log, which anybody could cause."""
    connection, transport = Connection(wire.server), NamelessTransport()
    connection.connection_made(transport)
    assert transport.closed
    assert not transport.sent
    connection.data_received(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.connection_lost(None)
    assert wire.server.connections == 0


def test_body_in_tiny_chunks_takes_no_more_than_its_size(wire: Wire) -> None:
    """Each chunk was once an object of its own: some 28 MB for a body of 1 MB."""
    connection, _ = wire.connect()
    connection.data_received(CHUNKED_HEAD)
    tracemalloc.start()
    try:
        for _ in range(32):
            connection.data_received(TINY_CHUNKS)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    body_bytes = 32 * 8192 * 2
    assert held < 2 * body_bytes + len(TINY_CHUNKS)


def seconds_of_empty_lines(wire: Wire, count: int) -> float:
    """What it takes to pass over a refused body of so many empty lines."""
    body = b"\r\n\r\n" * count
    connection, _ = wire.connect()
    connection.data_received(CHUNKED_HEAD)
    sent = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    began_s = time.thread_time()
    connection.data_received(sent)
    return time.thread_time() - began_s


def test_chunk_of_empty_lines_takes_time_in_proportion_to_its_size(wire: Wire) -> None:
    """Each of them may be the body's end; what lay behind it was once copied each time: a second for 256 KB."""
    small_s = min(seconds_of_empty_lines(wire, 8_000) for _ in range(3))
    large_s = min(seconds_of_empty_lines(wire, 64_000) for _ in range(3))
    assert large_s < 20 * small_s


def test_peers_beyond_the_limit_do_not_stay_and_of_many_some_are_not_even_answered(loop: asyncio.AbstractEventLoop) -> None:
    """Nothing once ended the connection of one that did not go by itself: the descriptors were anybody's to use up."""
    wire = Wire(loop, max_connections=1)
    wire.connect()
    refused = [wire.connect(half_closes=True) for _ in range(TURNED_AWAY_MAX + 1)]
    told = [transport for _, transport in refused[:-1]]
    assert not any(transport.closed for transport in told)
    assert refused[-1][1].closed and not refused[-1][1].sent
    loop.run_until_complete(asyncio.sleep(3))
    assert all(transport.eof_written and transport.closed for transport in told)
    assert wire.counters.read(Counter.CONNECTION_REFUSED) == len(refused)
    for connection, _ in refused:
        connection.connection_lost(None)
    assert wire.connect(half_closes=True)[1].sent, "there is room for the next"

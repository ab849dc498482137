"""What a peer without a key may cost the server: no more memory than it sent, no line in the log."""

import asyncio
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.wire import RecordingTransport, Wire
from tokmesh._core.connection import Connection

CHUNKED_HEAD = b"POST /tokens/validate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY_CHUNKS = b"2\r\nab\r\n" * 8192


class NamelessTransport(RecordingTransport):
    """A socket whose peer has gone: it has no name any more."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None


@pytest.fixture
def wire() -> Iterator[Wire]:
    loop = asyncio.new_event_loop()
    yield Wire(loop)
    loop.close()


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

"""What floods cost a real server: unended uploads nothing without a key and no more than the room for bodies with one; and what a
flood took comes back.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.server import TokMeshProcess

UPLOADS = 200
BODY_BYTES = 1 << 20
MB = 1 << 20
ROOM_BYTES = 8 * MB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path, "--server.http.body_buffer_size=8MB", "--server.http.min_body_rate=0") as process:
        process.create_session()    # what is needed once is there
        yield process


def resident_bytes(server: TokMeshProcess) -> int:
    pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def metric(server: TokMeshProcess, series: str) -> float:
    text = server.exchange("GET", "/metrics")[2].decode()
    return float(next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.rsplit(" ", 1)[0] == series))


@contextmanager
def stalled_uploads(server: TokMeshProcess, key: str | None, length: int) -> Iterator[list[socket.socket]]:
    """Connections that send all of a body but its last byte, as far as the server takes it, and then wait."""
    credential = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /sessions HTTP/1.1\r\nHost: a\r\n{credential}Content-Length: {length}\r\n\r\n".encode()
    with ExitStack() as stack:
        connections = []
        for _ in range(UPLOADS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=0.2))
            try:
                connection.sendall(head + b" " * (length - 1))
            except OSError:    # closed, or not read any more: what was to be shown
                pass
            connections.append(connection)
        time.sleep(0.2)    # for what is under way in the kernel
        yield connections


def status_of(connection: socket.socket) -> int | None:
    """The status of the answer that is there; None when there is none."""
    try:
        line = connection.recv(12)
    except (TimeoutError, ConnectionResetError):
        return None
    return int(line[9:])


@pytest.mark.parametrize("length", [BODY_BYTES, 262_144], ids=["ends the connection", "is dropped"])
def test_stalled_uploads_without_a_key_cost_nothing(server: TokMeshProcess, length: int) -> None:
    """200 of them once cost 213 MB."""
    before = resident_bytes(server)
    with stalled_uploads(server, None, length) as connections:
        grown = resident_bytes(server) - before
        assert metric(server, "tokmesh_http_buffered_bytes") == 0
        if length == 262_144:
            assert [status_of(connection) for connection in connections] == [401] * UPLOADS
    assert grown < 16 * MB


def test_stalled_uploads_with_a_key_stay_within_the_room(server: TokMeshProcess) -> None:
    before = resident_bytes(server)
    with stalled_uploads(server, server.admin_key, BODY_BYTES) as connections:
        grown = resident_bytes(server) - before
        assert metric(server, "tokmesh_http_buffered_bytes") == ROOM_BYTES
        refused = metric(server, 'tokmesh_http_rejects_total{reason="buffered_bytes"}')
        assert server.request("POST", "/sessions", json={"user_id": "late"})[0] == 503
        assert refused == UPLOADS - ROOM_BYTES // BODY_BYTES
        answered = [status_of(connection) for connection in connections[:ROOM_BYTES // BODY_BYTES]]
        assert answered == [None] * len(answered)
    assert grown < 2 * ROOM_BYTES
    deadline = time.monotonic() + 10
    while metric(server, "tokmesh_http_buffered_bytes"):
        assert time.monotonic() < deadline, "the room did not come back"
        time.sleep(0.05)
    assert server.request("POST", "/sessions", json={"user_id": "late"})[0] == 200


def test_memory_of_a_flood_of_connections_comes_back(server: TokMeshProcess) -> None:
    """Its pages once stayed for good."""
    before = resident_bytes(server)
    with ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 15_000)
        assert server.request("GET", "/health")[0] == 200    # all of them have been accepted before this one
        time.sleep(1.2)    # a look at their number
        grown = resident_bytes(server) - before
        assert grown > 12 * MB
    deadline = time.monotonic() + 10
    while resident_bytes(server) - before > grown // 2:
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.1)

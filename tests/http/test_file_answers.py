"""Answers that leave in pieces: whole and in their place, or visibly cut; in bounded memory, and with nothing left behind."""

import asyncio
import hashlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.streams import CONTENT, HEALTH, MB, Client, StreamServer, get_file, resident_bytes
from tests.support.waiting import wait_until
from tokmesh._core.clock import monotonic_ns
from tokmesh._core.counters import Counter
from tokmesh.api import answer


@pytest.fixture(name="folders")
def _folders(stream_folders: tuple[Path, Path]) -> tuple[Path, Path]:
    folder, _ = stream_folders
    (folder / "some").write_bytes(CONTENT)
    (folder / "empty").write_bytes(b"")
    with (folder / "large").open("wb") as large:
        large.truncate(64 * MB)    # no room on the disk
    return stream_folders


@pytest.fixture(name="server")
def _server(folders: tuple[Path, Path]) -> Iterator[StreamServer]:
    with StreamServer(*folders) as server:
        yield server


def count(server: StreamServer, route: str, status: str) -> int:
    return sum(n for _, template, code, n in server.server.meter.series() if (template, code) == (route, status))


def begin_large(server: StreamServer, **options: int) -> Client:
    """A client that has the head of a large file's answer, and reads no further."""
    client = server.client(receive_bytes=65536, **options)
    client.send(get_file("large"))
    assert client.socket.recv(8) == b"HTTP/1.1"
    return client


def test_a_file_leaves_whole_and_is_counted_like_any_answer(server: StreamServer) -> None:
    with server.client() as client:
        sent_before = server.counters.read(Counter.SENT_BYTES)
        client.send(get_file("some"))
        reply = client.answer()
        assert reply.status == 200
        assert reply.body == CONTENT
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["x-kind"] == "test"
        assert "connection" not in reply.headers
        assert reply.headers["x-request-id"].startswith("req-")
        wait_until(lambda: count(server, "/file", "200") == 1, "the answer is counted")
        head_bytes = server.counters.read(Counter.SENT_BYTES) - sent_before - len(CONTENT)
        assert 100 < head_bytes < 400
    wait_until(server.is_idle, "nothing is left")


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145])
def test_sizes_around_a_piece(server: StreamServer, size: int) -> None:
    (server.folder / "sized").write_bytes(CONTENT[:size])
    with server.client() as client:
        client.send(get_file("sized") + HEALTH)
        assert client.answer().body == CONTENT[:size]
        assert client.answer().envelope["data"] == {"status": "ok"}


def test_answers_behind_and_before_a_file_keep_their_places(server: StreamServer) -> None:
    with server.client() as client:
        client.send(HEALTH * 3 + get_file("some") + HEALTH + get_file("empty") + get_file("some") + HEALTH * 2)
        bodies = [client.answer() for _ in range(9)]
    kinds = ["health" if "json" in reply.headers["content-type"] else len(reply.body) for reply in bodies]
    assert kinds == ["health"] * 3 + [len(CONTENT), "health", 0, len(CONTENT), "health", "health"]
    assert hashlib.sha256(bodies[3].body).digest() == hashlib.sha256(bodies[6].body).digest() == hashlib.sha256(CONTENT).digest()


def test_the_request_may_come_in_any_two_pieces(server: StreamServer) -> None:
    request = get_file("some") + HEALTH
    for at in range(1, len(request), 7):
        with server.client() as client:
            received = server.counters.read(Counter.RECEIVED_BYTES)
            client.send(request[:at])
            server.received(received + at)
            client.send(request[at:])
            assert client.answer().body == CONTENT
            assert client.answer().status == 200


def test_http10_and_close_end_the_connection_after_the_file(server: StreamServer) -> None:
    for request in (get_file("some", b"Connection: close\r\n"), get_file("some").replace(b"HTTP/1.1", b"HTTP/1.0")):
        with server.client() as client:
            client.send(request)
            reply = client.answer()
            assert (reply.body, reply.headers["connection"]) == (CONTENT, "close")
            assert client.rest() == b""


def test_what_the_handler_says_of_a_missing_file_is_the_answer(server: StreamServer) -> None:
    with server.client() as client:
        client.send(get_file("none") + get_file("some").replace(b"GET", b"HEAD") + HEALTH)
        assert client.answer().envelope["code"] == "TM-ADMIN-4041"
        head = client.until(lambda received: b"\r\n\r\n" in received)
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"Allow: GET\r\n" in head


def test_a_file_that_shrinks_is_seen_to_be_incomplete(server: StreamServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), begin_large(server) as client:
        os.truncate(server.folder / "large", 8 * MB)
        client.send(HEALTH)    # must not be answered in the middle of the file
        received = client.rest()
        assert len(received) < 8 * MB + 1000
        assert b'"status":"ok"' not in received
        wait_until(server.is_idle, "nothing is left")
    assert [record.message for record in caplog.records] == ["answer cut short"]
    assert count(server, "/file", "200") == 1


def test_a_client_that_leaves_leaves_nothing(server: StreamServer, caplog: pytest.LogCaptureFixture) -> None:
    """Between its request and the answer, in the middle, and at once."""
    with caplog.at_level(logging.WARNING):
        begin_large(server).socket.close()
        wait_until(server.is_idle, "nothing is left")
        with begin_large(server) as client:
            client.socket.recv(3 * MB)
            client.socket.shutdown(socket.SHUT_RDWR)
        wait_until(server.is_idle, "nothing is left")
        for _ in range(20):
            with server.client() as client:
                client.send(get_file("large"))
        wait_until(server.is_idle, "nothing is left")
    assert count(server, "/file", "200") == 22, "each of them came to its end"
    assert not caplog.records
    with server.client() as client:
        client.send(HEALTH)
        assert client.answer().status == 200


def test_a_client_that_sends_no_more_gets_its_file(server: StreamServer) -> None:
    with server.client() as client:
        client.send(get_file("some"))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().body == CONTENT
        assert client.rest() == b""


def test_a_stop_waits_for_the_file_and_takes_no_request_behind_it(server: StreamServer) -> None:
    with begin_large(server) as client:
        client.send(HEALTH)
        server.received(len(get_file("large")) + len(HEALTH))
        outcome: list[bool] = []
        stop = threading.Thread(target=lambda: outcome.append(server.drain(30.0)))
        stop.start()
        wait_until(lambda: server.server.draining, "the stop is under way")
        received = b"HTTP/1.1" + client.rest()
        stop.join()
        assert outcome == [True]
        assert len(received.partition(b"\r\n\r\n")[2]) == 64 * MB
    wait_until(server.is_idle, "nothing is left")


def test_a_stop_waits_no_longer_than_its_timeout(server: StreamServer) -> None:
    with begin_large(server):
        assert server.drain(0.3) is False
        wait_until(server.is_idle, "nothing is left")


def test_a_client_that_takes_nothing_is_cut(folders: tuple[Path, Path]) -> None:
    with StreamServer(*folders, keepalive_timeout_ms=1500) as server, begin_large(server) as client:
        started = time.monotonic()
        wait_until(server.is_idle, "the connection is cut", 20)
        assert time.monotonic() - started > 1.0
        assert server.counters.read(Counter.REJECT_WRITE_BUFFER) == 1
        assert len(client.rest()) < 64 * MB


def look(server: StreamServer, *after_s: int) -> list[bool]:
    """Lets the server look at its connection as if so much time had passed; after each look, whether that has been cut."""
    connection = server.connections[0]

    async def looks() -> list[bool]:
        while connection.unsent_bytes() <= MB // 2:    # it has more to send than its client has taken
            await asyncio.sleep(0.02)
        now_ns, cut = monotonic_ns(), []
        for later_s in after_s:
            connection.check_time(now_ns + later_s * 1_000_000_000)
            cut.append(bool(connection.kept.is_closing()))
        return cut

    outcome: list[bool] = server.run(looks)
    return outcome


def take(client: Client, size: int) -> None:
    while size > 0:
        size -= len(client.socket.recv(min(size, MB)))


def test_a_client_may_take_any_time_above_the_minimum_rate(server: StreamServer) -> None:
    """1 KB a second, over any 75 s: how much it took before is no excuse."""
    with begin_large(server) as client:
        assert look(server, 70) == [False]
        take(client, 8 * MB)
        assert look(server, 140) == [False]
        take(client, 8 * MB)
        assert look(server, 210, 283, 287) == [False, False, True]
        wait_until(server.is_idle, "nothing is left")
        assert server.counters.read(Counter.REJECT_WRITE_BUFFER) == 1


def test_a_client_below_the_minimum_rate_is_cut_though_it_reads(folders: tuple[Path, Path]) -> None:
    with StreamServer(*folders, min_body_bytes_per_s=MB) as server, begin_large(server) as client:
        assert look(server, 0, 70) == [False, False]
        take(client, 8 * MB)
        assert look(server, 90) == [True]
        wait_until(server.is_idle, "nothing is left")


def test_a_slow_disk_is_not_the_clients_fault(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    readable = threading.Event()

    class SlowFile:
        def __init__(self, path: Path) -> None:
            self.file = path.open("rb", buffering=0)
            self.close = self.file.close

        def read(self, size: int) -> bytes:
            assert readable.wait(60)
            return self.file.read(size)

    monkeypatch.setattr(answer, "_open", lambda path: (SlowFile(path), path.stat().st_size))
    with server.client() as client:
        client.send(get_file("some"))
        client.until(lambda received: received.endswith(b"\r\n\r\n"))
        connection = server.connections[0]

        async def look_in_an_hour() -> bool:
            connection.check_time(monotonic_ns() + 3_600_000_000_000)
            return bool(connection.kept.is_closing())

        assert server.run(look_in_an_hour) is False
        readable.set()
        rest = bytearray()
        while len(rest) < len(CONTENT):
            rest += client.socket.recv(MB)
        assert rest == CONTENT


@pytest.mark.parametrize("rate", [0, 1024])
def test_without_a_minimum_rate_a_client_must_take_something(folders: tuple[Path, Path], rate: int) -> None:
    with StreamServer(*folders, min_body_bytes_per_s=rate) as server, begin_large(server):
        assert look(server, 0, 73, 77) == [False, False, True]
        wait_until(server.is_idle, "nothing is left")


def test_twenty_downloads_take_bounded_memory_and_let_others_be_served(server: StreamServer) -> None:
    before = resident_bytes()
    clients = [begin_large(server) for _ in range(20)]

    def stalled() -> bool:
        sent = server.counters.read(Counter.SENT_BYTES)
        time.sleep(0.2)
        return sent == server.counters.read(Counter.SENT_BYTES)

    wait_until(stalled, "all of them wait for their clients")
    grown = resident_bytes() - before
    assert server.counters.read(Counter.SENT_BYTES) > 20 * MB // 2, "they have begun"
    assert grown < 20 * MB + 8 * MB, f"{grown} bytes for 1.25 GB of answers"
    with server.client() as other:
        other.send(HEALTH)
        assert other.answer().status == 200
    totals: list[int] = []
    readers = [threading.Thread(target=lambda client=client: totals.append(_drain(client))) for client in clients]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert totals == [64 * MB] * 20
    wait_until(server.is_idle, "nothing is left")


def _drain(client: Client) -> int:
    """Reads the rest of a large file's answer, keeping nothing; its body's size."""
    client.socket.settimeout(120)
    head = bytearray()
    while b"\r\n\r\n" not in head:
        head += client.socket.recv(4096)
    total = len(bytes(head).partition(b"\r\n\r\n")[2])
    while total < 64 * MB:
        piece = client.socket.recv(MB)
        assert piece, f"cut after {total} bytes"
        total += len(piece)
    client.socket.close()
    return total


def test_no_more_than_the_write_buffer_is_in_memory(folders: tuple[Path, Path]) -> None:
    """With the smallest one that can be configured, and a client that takes nothing."""
    limit = 16384
    with StreamServer(*folders, max_write_buffer_bytes=limit) as server, begin_large(server) as client:
        connection = server.connections[0]
        wait_until(lambda: connection.unsent_bytes() > 0, "the client takes nothing more")
        assert _drain(client) == 64 * MB
        assert 0 < connection.most_unsent_bytes <= limit


def test_over_tls_with_a_client_that_stalls(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    trust = ssl.create_default_context(cafile=cert_file)
    with StreamServer(*folders, context=context) as server:
        before = resident_bytes()
        with server.client(context=trust) as client:
            client.send(get_file("large") + HEALTH)
            wait_until(lambda: server.connections[0].unsent_bytes() > 0, "the client takes nothing more")
            assert resident_bytes() - before < 8 * MB
            assert len(client.answer().body) == 64 * MB
            assert client.answer().status == 200
        wait_until(server.is_idle, "nothing is left")

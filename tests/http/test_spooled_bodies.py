"""Bodies that go to a file: whole at their handler, with a limit of their own, and no file left behind whatever happens."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.streams import CONTENT, HEALTH, MB, Client, StreamServer, chunked, upload_head
from tests.support.waiting import wait_until
from tokmesh._core.counters import Counter
from tokmesh._core.principal import ApiKey, Grant
from tokmesh.api import spool
from tokmesh.api.spool import PREFIX

LIMIT = 300_000


@pytest.fixture(name="limited")
def _limited(stream_folders: tuple[Path, Path]) -> Iterator[StreamServer]:
    with StreamServer(*stream_folders, bytes_max=LIMIT) as server:
        yield server


# What arrives.


@pytest.mark.parametrize("size", [0, 1, 131_071, 131_072, 131_073, 5 * MB + 13])
@pytest.mark.parametrize("chunk_bytes", [None, 65_536], ids=["announced", "chunked"])
def test_a_body_arrives_whole_and_the_connection_goes_on(stream_server: StreamServer, size: int, chunk_bytes: int | None) -> None:
    body = CONTENT[:size]
    with stream_server.client() as client:
        for _ in range(2):
            if chunk_bytes is None:
                client.send(upload_head(size) + body + HEALTH)
            else:
                client.send(upload_head(None) + chunked(body, chunk_bytes, b"X-Sum: 1\r\nX-More: 2\r\n") + HEALTH)
            assert client.stored(body)["mode"] == "0o600"
            assert client.answer().envelope["data"] == {"status": "ok"}
    wait_until(stream_server.is_idle, "nothing is left")
    assert len(set(stream_server.seen)) == 2
    assert all(path.parent == stream_server.uploads and path.name.startswith(PREFIX) for path in stream_server.seen)


def test_a_body_behind_an_equal_head_goes_to_a_file_too(stream_server: StreamServer) -> None:
    """The way of repeated heads hands over bodies in memory."""
    with stream_server.client() as client:
        client.send((upload_head(5) + b"12345") * 3)
        for _ in range(3):
            client.stored(b"12345")
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_body_without_a_length_is_empty(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(0).replace(b"Content-Length: 0\r\n", b"") + HEALTH)
        client.stored(b"")
        assert client.answer().status == 200
    wait_until(stream_server.is_idle, "nothing is left")


def test_tiny_chunks_and_bytes_one_by_one(stream_server: StreamServer) -> None:
    body = CONTENT[:20_000]
    with stream_server.client() as client:
        client.send(upload_head(None) + chunked(body, 3))
        client.stored(body)
        for byte in upload_head(40) + CONTENT[:40]:
            client.send(bytes([byte]))
        client.stored(CONTENT[:40])
    wait_until(stream_server.is_idle, "nothing is left")


@pytest.mark.parametrize("length", [37, None], ids=["announced", "chunked"])
def test_split_at_every_offset_the_same_body_arrives(stream_server: StreamServer, length: int | None) -> None:
    body = CONTENT[:37]
    sent = upload_head(length) + (body if length else chunked(body, 11, b"T: 1\r\n")) + HEALTH
    with stream_server.client() as client:
        received = 0
        for at in range(1, len(sent)):
            client.send(sent[:at])
            stream_server.received(received + at)
            client.send(sent[at:])
            client.stored(body)
            assert client.answer().status == 200
            received += len(sent)
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_handler_keeps_a_file_by_renaming_it(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(len(CONTENT), "?keep=kept") + CONTENT)
        client.stored(CONTENT)
    wait_until(lambda: not stream_server.open_files(), "it is closed")
    assert stream_server.files() == ["kept"]
    assert (stream_server.uploads / "kept").read_bytes() == CONTENT
    (stream_server.uploads / "kept").unlink()


def test_the_file_of_a_handler_that_fails_goes(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(5, "?fail") + b"12345" + HEALTH)
        client.refused("TM-SYS-5000")
        assert client.answer().status == 200
    assert stream_server.seen
    wait_until(stream_server.is_idle, "nothing is left")


def test_other_routes_keep_their_limit(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        head = upload_head(MB).replace(b"/upload", b"/plain")
        client.send(head + CONTENT[:MB])
        assert client.answer().envelope["data"] == {"bytes": MB, "file": False}
        client.send(upload_head(MB + 1).replace(b"/upload", b"/plain"))
        assert client.refused("TM-SYS-4130")[0] == 413
        assert client.rest() == b""


# Refused.


@pytest.mark.parametrize("framing", ["announced", "chunked", "small chunks"])
def test_the_limit_at_n_and_one_byte_more(limited: StreamServer, framing: str) -> None:
    def send(client: Client, size: int) -> None:
        if framing == "announced":
            client.send_what_is_taken(upload_head(size) + CONTENT[:size])
        else:
            chunk_bytes = 65_536 if framing == "chunked" else 100
            client.send_what_is_taken(upload_head(None) + chunked(CONTENT[:size], chunk_bytes))

    with limited.client() as client:
        send(client, LIMIT)
        client.stored(CONTENT[:LIMIT])
        send(client, LIMIT + 1)
        status, details, closes = client.refused("TM-ADMIN-4130")
        assert (status, details) == (413, {"maximum": LIMIT})
        assert closes == (framing == "announced"), "what is left of a chunked one is small"
        if not closes:
            client.send(HEALTH)
            assert client.answer().status == 200
    assert len(limited.seen) == 1
    assert limited.counters.read(Counter.REJECT_BODY_SIZE) == 1
    wait_until(limited.is_idle, "nothing is left")


def test_a_chunked_upload_far_beyond_the_limit_ends_the_connection(limited: StreamServer) -> None:
    with limited.client() as client:
        client.send_what_is_taken(upload_head(None) + chunked(CONTENT, 65_536) + HEALTH)
        client.refused("TM-ADMIN-4130")
        assert client.rest() == b"", "and what stands behind it is not answered"
    wait_until(limited.is_idle, "nothing is left")


@pytest.mark.parametrize("key", [b"tmak-nobody:tmas_x", b""], ids=["a wrong key", "an empty key"])
def test_a_request_refused_by_its_head_makes_no_file(
    stream_server: StreamServer, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(spool.SpoolSpec, "begin", lambda spec, loop, size: begun.append(size))
    with stream_server.client() as client:
        client.send_what_is_taken(upload_head(200_000, key=key) + CONTENT[:200_000] + HEALTH)
        assert client.answer().status == 401
        assert client.answer().status == 200
    with stream_server.client() as client:
        stream_server.authenticator.key = ApiKey("tmak-test", "issuer")
        client.send_what_is_taken(upload_head(200_000) + CONTENT[:200_000])
        assert client.refused("TM-AUTH-4030")[0] == 403
    with stream_server.client() as client:
        client.send(upload_head(5).replace(b"POST", b"GET") + b"12345" + HEALTH)
        client.refused("TM-SYS-4050")
        assert client.answer().status == 200
    assert not begun
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_key_that_must_be_verified_first(stream_server: StreamServer) -> None:
    """The body waits, unread but for 64 KB, and then goes to its file."""
    verified = stream_server.loop.create_future()

    class Slow:
        def cached(self, credential: bytes) -> None:
            return None

        async def authenticate(self, credential: bytes) -> Grant:
            await asyncio.shield(verified)
            return Grant(stream_server.authenticator.key, 1 << 62)

    monkey = pytest.MonkeyPatch()
    monkey.setattr(type(stream_server.authenticator), "cached", Slow.cached)
    monkey.setattr(type(stream_server.authenticator), "authenticate", Slow.authenticate)
    with monkey.context(), stream_server.client() as client:
        sender = threading.Thread(target=client.send, args=(upload_head(len(CONTENT)) + CONTENT + HEALTH,))
        sender.start()
        stream_server.received(65_536)
        assert not stream_server.files()
        stream_server.loop.call_soon_threadsafe(verified.set_result, None)
        client.stored(CONTENT)
        assert client.answer().status == 200
        sender.join()
    monkey.undo()
    wait_until(stream_server.is_idle, "nothing is left")


def test_an_upload_that_asks_first_is_told_to_go_on(limited: StreamServer) -> None:
    expects = b"Expect: 100-continue\r\n"
    with limited.client() as client:
        client.send(upload_head(5, fields=expects))
        assert client.interim() == b"HTTP/1.1 100 Continue"
        assert limited.files() == [], "before there is anything to keep"
        client.send(b"12345")
        client.stored(b"12345")
        client.send(upload_head(LIMIT + 1, fields=expects))
        assert client.refused("TM-ADMIN-4130")[2], "and the body is never asked for"
    with limited.client() as client:
        client.send(upload_head(5, fields=expects, key=b"tmak-nobody:tmas_x"))
        assert client.answer().status == 401
    wait_until(limited.is_idle, "nothing is left")


def test_a_malformed_chunk_in_the_middle_leaves_no_file(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(None) + b"3\r\nabc\r\n")
        wait_until(stream_server.files, "the file is made")
        client.send(b"zz\r\n" + HEALTH)
        assert client.answer().status == 400
        assert client.rest() == b""
    wait_until(stream_server.is_idle, "nothing is left")
    assert not stream_server.seen


# The peer.


def test_a_client_that_leaves_in_the_middle_leaves_no_file(stream_server: StreamServer, caplog: pytest.LogCaptureFixture) -> None:
    body = CONTENT[:MB]
    with caplog.at_level(logging.WARNING):
        for head in (upload_head(MB), upload_head(None)):
            sent = head + (body if b"Content-Length" in head else chunked(body, 65_536))
            for at in (len(head), len(head) + 1, len(head) + 100_000, len(sent) - 1):
                for ends_softly in (True, False):
                    with stream_server.client() as client:
                        before = stream_server.counters.read(Counter.RECEIVED_BYTES)
                        client.send(sent[:at])
                        stream_server.received(before + at)
                        if ends_softly:
                            client.socket.shutdown(socket.SHUT_WR)
                            assert client.rest() == b""
                        else:
                            client.reset_at_end()
                    wait_until(stream_server.is_idle, "nothing is left")
    assert not stream_server.seen
    assert not caplog.records


def test_a_client_that_leaves_while_its_body_is_handled_leaves_no_file(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(5, "?wait") + b"12345")
        wait_until(lambda: stream_server.seen, "it is handled")
    stream_server.open_gate()
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_body_below_the_minimum_rate_is_refused_and_leaves_no_file(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(MB) + CONTENT[:1000])
        wait_until(stream_server.files, "the file is made")
        assert client.answer().status == 408
        assert client.rest() == b""
    wait_until(stream_server.is_idle, "nothing is left")
    assert stream_server.counters.read(Counter.REJECT_BODY_RATE) == 1

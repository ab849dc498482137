"""Uploads and the disk: slow, full, failing; many of them; and a stop in between. No file is ever left behind."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_disk import small_disk
from tests.support.streams import CONTENT, HEALTH, MB, StreamServer, chunked, resident_bytes, upload_head
from tests.support.waiting import wait_until
from tokmesh._core.counters import Counter
from tokmesh.api.spool import PREFIX, remove_leftovers


class Disk:
    """Stands in front of os.write for files of uploads. gate: closed, writes wait; error: what they raise; errors: what the next
    ones raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None
        self.errors: list[OSError] = []
        self.waiting = 0
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: Any) -> int:
        if not isinstance(data, memoryview):    # not an upload's
            return self._write(fd, data)
        self.waiting += 1
        assert self.gate.wait(60)
        self.waiting -= 1
        if self.errors:
            raise self.errors.pop()
        if self.error is not None:
            raise self.error
        return self._write(fd, data[:100_000])    # as a disk may: less than asked for


@pytest.fixture(name="disk")
def _disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


# The disk.


def test_a_slow_disk_stops_reading_and_is_not_the_peers_fault(stream_folders: tuple[Path, Path], disk: Disk) -> None:
    with StreamServer(*stream_folders, min_body_bytes_per_s=10 * MB) as server, server.client() as client:
        disk.gate.clear()
        sender = threading.Thread(target=client.send, args=(upload_head(len(CONTENT) * 8) + CONTENT * 8,))
        sender.start()
        wait_until(lambda: disk.waiting, "the disk is asked")

        def stalled() -> bool:
            read = server.counters.read(Counter.RECEIVED_BYTES)
            time.sleep(0.2)
            return read == server.counters.read(Counter.RECEIVED_BYTES)

        wait_until(stalled, "reading stops")
        assert server.counters.read(Counter.RECEIVED_BYTES) < MB
        assert server.server.buffered_bytes == MB, "its part of the room"
        time.sleep(6.0)    # beyond the grace of a slow body
        with server.client() as other:
            other.send(HEALTH)
            assert other.answer().status == 200
        disk.gate.set()
        client.stored(CONTENT * 8)
        sender.join()
        client.socket.close()
        wait_until(server.is_idle, "nothing is left")


def test_a_client_that_leaves_while_the_disk_is_slow_leaves_no_file(stream_server: StreamServer, disk: Disk) -> None:
    disk.gate.clear()
    for sent in (upload_head(MB) + CONTENT[:1000], upload_head(MB) + CONTENT[:MB]):
        with stream_server.client() as client:
            client.send_what_is_taken(sent)
            wait_until(lambda: disk.waiting, "the disk is asked")
            client.reset_at_end()
    disk.gate.set()
    wait_until(stream_server.is_idle, "nothing is left")


@pytest.mark.parametrize(("error", "reason"), [(28, "disk_full"), (122, "disk_full"), (5, "disk_error"), (30, "disk_error")])
def test_an_error_of_the_disk_is_the_answer(stream_server: StreamServer, disk: Disk, error: int, reason: str) -> None:
    disk.error = OSError(error, os.strerror(error))
    with stream_server.client() as client:
        for size in (5, 200_000):    # found when the body is whole, and before
            client.send(upload_head(size) + CONTENT[:size] + HEALTH)
            status, details, _ = client.refused("TM-SYS-5001")
            assert (status, details) == (503, {"reason": reason})
            assert client.answer().status == 200
        disk.error = None
        client.send(upload_head(5) + b"12345")
        client.stored(b"12345")
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_piece_that_is_lost_fails_the_upload_though_the_last_one_is_written(stream_server: StreamServer, disk: Disk) -> None:
    disk.gate.clear()
    disk.errors.append(OSError(5, os.strerror(5)))
    with stream_server.client() as client:
        client.send(upload_head(2000) + CONTENT[:1000])
        wait_until(lambda: disk.waiting, "the disk is asked")
        received = stream_server.counters.read(Counter.RECEIVED_BYTES)
        client.send(CONTENT[1000:2000])
        stream_server.received(received + 1000)
        disk.gate.set()
        assert client.refused("TM-SYS-5001")[1] == {"reason": "disk_error"}
    assert not stream_server.seen
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_full_disk_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with small_disk(tmp_path / "uploads", "2m") as uploads:
        free = os.statvfs(uploads).f_bavail
        with StreamServer(tmp_path / "files", uploads) as server:
            for sent in (upload_head(len(CONTENT)) + CONTENT, upload_head(None) + chunked(CONTENT, 65_536)):
                with server.client() as client:
                    client.send_what_is_taken(sent)
                    assert client.refused("TM-SYS-5001")[:2] == (503, {"reason": "disk_full"})
                wait_until(server.is_idle, "nothing is left")
                assert os.statvfs(uploads).f_bavail == free
            with server.client() as client:
                client.send(upload_head(MB) + CONTENT[:MB])
                client.stored(CONTENT[:MB])
            wait_until(server.is_idle, "nothing is left")


def test_an_upload_leaves_room_for_others_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with small_disk(tmp_path / "uploads", "2m") as uploads:
        with StreamServer(tmp_path / "files", uploads, free_bytes_min=MB) as server, server.client() as client:
            client.send(upload_head(MB // 2) + CONTENT[: MB // 2])
            client.stored(CONTENT[: MB // 2])
            wait_until(lambda: not server.files(), "its room is given back")
            for sent in (upload_head(MB + 1) + CONTENT[: MB + 1], upload_head(None) + chunked(CONTENT[: MB + 1], 65_536)):
                with server.client() as other:
                    other.send_what_is_taken(sent)
                    assert other.refused("TM-SYS-5001")[1] == {"reason": "disk_full"}
        assert not list(uploads.iterdir())


def test_a_directory_that_is_not_there_is_the_answer(stream_server: StreamServer) -> None:
    stream_server.uploads.rmdir()
    with stream_server.client() as client:
        client.send(upload_head(5) + b"12345")
        assert client.refused("TM-SYS-5001")[1] == {"reason": "disk_error"}
    stream_server.uploads.mkdir()


# Many, and the end.


def test_uploads_share_the_room_for_bodies(stream_folders: tuple[Path, Path]) -> None:
    with StreamServer(*stream_folders, max_buffered_bytes=3 * MB) as server:
        clients = [server.client() for _ in range(3)]
        for client in clients:
            client.send(upload_head(10 * MB) + b"1")
        wait_until(lambda: len(server.files()) == 3, "all of them have begun")
        with server.client() as late:
            late.send(upload_head(10 * MB))
            assert late.refused("TM-SYS-5030")[1] == {"reason": "buffers_full"}
        for client in clients:
            client.socket.close()
        wait_until(server.is_idle, "the room came back")


def test_many_uploads_take_bounded_memory(stream_server: StreamServer) -> None:
    before, peak = resident_bytes(), 0
    done: list[bool] = []

    def upload() -> None:
        with stream_server.client() as client:
            client.send(upload_head(4 * len(CONTENT)))
            for _ in range(4):
                client.send(CONTENT)
            done.append(client.answer().status == 200)

    threads = [threading.Thread(target=upload) for _ in range(10)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if not stream_server.seen:    # a handler of the test reads the whole file
            peak = max(peak, resident_bytes())
        time.sleep(0.01)
    assert done == [True] * 10
    assert peak, "some of the time nothing was handled yet"
    assert peak - before < 15 * MB
    wait_until(stream_server.is_idle, "nothing is left")


def stop_beside(server: StreamServer, timeout_s: float) -> Callable[[], bool]:
    """Begins a stop; returns what waits for its outcome."""
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(server.drain(timeout_s)))
    thread.start()
    wait_until(lambda: server.server.draining, "the stop is under way")

    def join() -> bool:
        thread.join()
        return outcome[0]

    return join


def test_a_stop_waits_for_the_upload(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(MB) + CONTENT[:1000])
        wait_until(stream_server.files, "the file is made")
        join = stop_beside(stream_server, 30.0)
        client.send(CONTENT[1000:MB])
        reply = client.answer()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert join() is True
    wait_until(stream_server.is_idle, "nothing is left")


def test_a_stop_waits_no_longer_than_its_timeout_and_leaves_no_file(stream_server: StreamServer) -> None:
    with stream_server.client() as client:
        client.send(upload_head(MB) + CONTENT[:1000])
        wait_until(stream_server.files, "the file is made")
        assert stop_beside(stream_server, 0.3)() is False
    wait_until(stream_server.is_idle, "nothing is left")


def test_what_a_crash_left_goes_at_the_next_start(tmp_path: Path) -> None:
    for name in (PREFIX + "0" * 32, PREFIX + "a1" * 16, PREFIX + "notes", "other"):
        (tmp_path / name).write_bytes(b"x")
    assert remove_leftovers(tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == ["other", PREFIX + "notes"]
    assert remove_leftovers(tmp_path / "none") == 0

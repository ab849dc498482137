"""The administration socket: who gets in, at paths of any length, and what is cleaned up."""

import asyncio
import logging
import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from tokmesh._core.clock import Clock
from tokmesh._core.connection import Connection
from tokmesh._core.counters import CounterBlock
from tokmesh._core.principal import Grant
from tokmesh._core.server import Limits, Server
from tokmesh._core.table import Table
from tokmesh._core.validate import Validator
from tokmesh.host import admin_socket


def client(directory: Path) -> socket.socket:
    """A connected client of the socket in a directory."""
    folder = os.open(directory, os.O_PATH)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(f"/proc/self/fd/{folder}/admin.sock")
    finally:
        os.close(folder)
    return connected


def check_reachable(directory: Path) -> None:
    with admin_socket.bind(directory) as bound:
        bound.listen()
        assert stat.S_IMODE((directory / "admin.sock").stat().st_mode) == 0o600
        with client(directory):
            bound.setblocking(True)
            bound.settimeout(10)
            bound.accept()[0].close()
    admin_socket.remove(directory)
    assert not (directory / "admin.sock").exists()
    admin_socket.remove(directory)


def test_the_path_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    check_reachable(folder)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    admin_socket.bind(tmp_path).close()
    assert (tmp_path / "admin.sock").exists()
    check_reachable(tmp_path)


def test_a_file_in_its_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        admin_socket.bind(tmp_path)
    assert (tmp_path / "admin.sock").read_text() == "mine"


class FakeSocket:
    """Its peer is a process of `user`."""

    def __init__(self, user: int) -> None:
        self.user = user

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("3i", 7, self.user, 7)


class FakeTransport:
    """Remembers whether it was hung up."""

    def __init__(self, user: int) -> None:
        self.socket = FakeSocket(user)
        self.aborted = False

    def get_extra_info(self, name: str) -> FakeSocket:
        assert name == "socket"
        return self.socket

    def set_write_buffer_limits(self, high: int) -> None:
        return

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is said to a peer that has not asked")

    def abort(self) -> None:
        self.aborted = True


class NoKeys:
    """An authenticator that knows nobody."""

    def cached(self, credential: bytes) -> Grant | None:
        return None

    async def authenticate(self, credential: bytes) -> Grant:
        raise AssertionError


async def hung_up(user: int) -> bool:
    """Whether a connection from a process of `user` is ended as it is made."""
    counters = CounterBlock()
    table = Table(tombstone_ttl_ms=1000)
    server = Server(
        asyncio.get_running_loop(),
        (),
        Validator(table, counters),
        Clock(),
        NoKeys(),
        counters,
        Limits(),
        logging.getLogger("test"),
    )
    transport = FakeTransport(user)
    connection = Connection(server, True)
    connection.connection_made(transport)  # type: ignore[arg-type]
    assert server.connections == int(not transport.aborted)
    connection.connection_lost(None)
    await server.drained(0)
    return transport.aborted


def test_our_own_user_and_root_get_in_and_nobody_else() -> None:
    assert asyncio.run(hung_up(os.geteuid())) is False
    assert asyncio.run(hung_up(0)) is False
    assert asyncio.run(hung_up(os.geteuid() + 1)) is True

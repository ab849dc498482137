"""The administration socket: who gets in, at paths of any length, and what is cleaned up."""

import asyncio
import logging
import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from tokmesh.admin_socket import AdminSocket, permitted


class Greeter(asyncio.Protocol):
    """Says one word and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"hello")
        transport.close()


async def greeting(directory: Path) -> bytes:
    """What a client of the socket hears; b"" when it is hung up on."""
    folder = os.open(directory, os.O_PATH)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/admin.sock")
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()
    finally:
        os.close(folder)


async def open_and_greet(directory: Path) -> bytes:
    loop = asyncio.get_running_loop()
    admin_socket = AdminSocket(loop, directory, Greeter, logging.getLogger("test"))
    admin_socket.open()
    try:
        assert stat.S_IMODE((directory / "admin.sock").stat().st_mode) == 0o600
        return await greeting(directory)
    finally:
        admin_socket.close()
        assert not (directory / "admin.sock").exists()


def test_our_own_user_gets_in_also_where_the_path_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    assert asyncio.run(open_and_greet(folder)) == b"hello"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    folder = os.open(tmp_path, os.O_PATH)
    stale.bind(f"/proc/self/fd/{folder}/admin.sock")
    os.close(folder)
    stale.close()
    assert asyncio.run(open_and_greet(tmp_path)) == b"hello"


def test_a_file_in_its_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("mine")

    async def fails() -> None:
        with pytest.raises(OSError, match="in use"):
            AdminSocket(asyncio.get_running_loop(), tmp_path, Greeter, logging.getLogger("test")).open()

    asyncio.run(fails())
    assert (tmp_path / "admin.sock").read_text() == "mine"


def test_another_user_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokmesh.admin_socket.permitted", lambda connection: False)
    assert asyncio.run(open_and_greet(tmp_path)) == b""


@pytest.mark.parametrize(
    ("peer", "ours", "expected"), [(1000, 1000, True), (0, 1000, True), (1001, 1000, False), (1000, 0, False)]
)
def test_the_peers_user_decides(peer: int, ours: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            return struct.pack("3i", 7, peer, 7)

    monkeypatch.setattr(os, "geteuid", lambda: ours)
    assert permitted(Connection()) is expected  # type: ignore[arg-type]

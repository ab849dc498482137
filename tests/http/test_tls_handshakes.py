"""Connections whose handshake is not done: their number is bounded, and those who do theirs get through."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.certificates import make_certificate
from tokmesh.config.keys import TlsSettings
from tokmesh.host.tls import server_context
from tokmesh.host.tls_listener import TlsListener

HANDSHAKES_MAX = 4
WAIT_S = 20.0


class Greeter(asyncio.Protocol):
    """Says hello to whom it is connected to."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


def run(certificate: tuple[Path, Path], scenario: Callable[[TlsListener, int], Awaitable[None]]) -> None:
    async def listening() -> None:
        context = server_context(TlsSettings(*certificate, None))
        listener = TlsListener(asyncio.get_running_loop(), Greeter, context, handshakes_max=HANDSHAKES_MAX)
        await listener.open("127.0.0.1", 0, 64)
        try:
            await scenario(listener, listener.sockets[0].getsockname()[1])
        finally:
            listener.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(listening(), WAIT_S))


async def greeting(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    said = await reader.read()
    writer.close()
    return said


@contextlib.asynccontextmanager
async def silent(port: int, count: int) -> AsyncIterator[list[socket.socket]]:
    """Connections that say nothing, in the order in which they were made."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
            made[-1].setblocking(False)
            await asyncio.sleep(0.01)
        yield made


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_of_many_that_say_nothing_the_oldest_go_and_a_client_gets_through(certificate: tuple[Path, Path]) -> None:
    async def scenario(listener: TlsListener, port: int) -> None:
        async with silent(port, 3 * HANDSHAKES_MAX) as made:
            assert await greeting(port) == b"hello"
            assert [is_ended(each) for each in made] == [True] * (2 * HANDSHAKES_MAX + 1) + [False] * (HANDSHAKES_MAX - 1)
            listener.close()
            while not all(is_ended(each) for each in made):
                await asyncio.sleep(0.01)

    run(certificate, scenario)


def test_what_is_no_tls_ends_and_leaves_its_place(certificate: tuple[Path, Path]) -> None:
    async def scenario(listener: TlsListener, port: int) -> None:
        for _ in range(2 * HANDSHAKES_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with_alert = await reader.read()
            assert b"hello" not in with_alert
            writer.close()
        async with silent(port, HANDSHAKES_MAX) as made:
            assert not any(is_ended(each) for each in made)

    run(certificate, scenario)

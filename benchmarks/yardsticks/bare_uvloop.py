"""The least a Python server on uvloop can do: a constant answer for whatever arrives, one write per `data_received`.

Usage: python bare_uvloop.py PORT ANSWER_FILE, where the file holds the complete answer, status line and head included.
It parses nothing, so it is an upper bound, and only right for clients that send a request in one piece and then wait.
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop


def protocol_class(answer: bytes) -> type[asyncio.Protocol]:
    class ConstantAnswer(asyncio.Protocol):
        __slots__ = ("_transport",)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's

        def data_received(self, data: bytes) -> None:
            self._transport.write(answer)

    return ConstantAnswer


async def serve(port: int, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol_class(answer), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))

"""Takes whatever is POSTed and answers 200 with nothing, which is what an OTLP receiver says when it took all spans.

Usage: python otlp_sink.py PORT. It decodes nothing: what a receiver costs is not the server's.
"""

import asyncio
import re
import sys

LENGTH = re.compile(rb"(?i)content-length: (\d+)")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:  # ends with the connection
            found = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
            assert found is not None, "a POST has a Content-Length"
            await reader.readexactly(int(found[1]))
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(take, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

"""Scrapers by the dozen, as a process beside a load: all of them ask for /metrics at once, once a second, as Prometheus asks.

Usage: python -m benchmarks.load.scrapers PORT API_KEY, until SIGTERM; then prints how many pages came and ends. An answer other
than 200, or a broken connection, ends it with an error.
"""

import asyncio
import signal
import sys

SCRAPERS = 50
EVERY_S = 1.0
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
BUFFER_BYTES = 1 << 20


async def scrape(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"a scrape was answered {head[:200]!r}")
    [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(length)


async def storm(port: int, api_key: str) -> int:
    """→ pages received."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    message = (
        f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {api_key}\r\nAccept: {ACCEPT}\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    ).encode()
    connections = [await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES) for _ in range(SCRAPERS)]
    pages = 0
    while not over.is_set():
        await asyncio.gather(*(scrape(reader, writer, message) for reader, writer in connections))
        pages += SCRAPERS
        try:
            await asyncio.wait_for(over.wait(), EVERY_S)
        except TimeoutError:
            continue
    return pages


if __name__ == "__main__":
    print(asyncio.run(storm(int(sys.argv[1]), sys.argv[2])))

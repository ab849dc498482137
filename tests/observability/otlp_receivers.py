"""Receivers of spans for tests: oteltap, which is not ours, and a small one that misbehaves on purpose.

Both are on a port of 127.0.0.1 that the kernel chose. What the small one got is decoded with opentelemetry-proto.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.support.ports import free_port
from tests.support.waiting import wait_until

WAIT_S = 20.0


def attributes_of(message: Any) -> dict[str, str | int]:
    """Attributes of a span, a resource or the like; only strings and integers are used here."""
    found: dict[str, str | int] = {}
    for pair in message.attributes:
        kind = pair.value.WhichOneof("value")
        assert kind in ("string_value", "int_value"), pair
        assert pair.key not in found, f"{pair.key} is given twice"
        found[pair.key] = getattr(pair.value, kind)
    return found


class OtelTap:
    """oteltap on a loop of its own in a thread; `spans` grows as they come."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._started: Future[None] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    async def _run(self) -> None:
        async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=self._port)) as receiver:
            stream = receiver.stream_traces()
            collecting = asyncio.ensure_future(self._collect(stream))
            await asyncio.sleep(0)
            self._started.set_result(None)
            await self._stop.wait()
        await collecting

    async def _collect(self, stream: Any) -> None:
        async for span in stream:
            self.spans.append(span)

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def wait_for(self, name: str, count: int = 1) -> list[Span]:
        """The spans of that name, when there are `count`."""
        wait_until(lambda: len(self.named(name)) >= count, f"{count} spans {name!r} among {[span.name for span in self.spans]}")
        return self.named(name)

    def start(self) -> "OtelTap":
        self._thread.start()
        self._started.result(WAIT_S)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._loop.close()


@contextmanager
def otel_tap() -> Iterator[OtelTap]:
    tap = OtelTap(free_port()).start()
    try:
        yield tap
    finally:
        tap.stop()


class FaultyReceiver:
    """Answers POSTs with `status`, `headers` and `answer`; while `hold` is set, not at all. Everything may be changed under way."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer = b""
        self.hold = threading.Event()
        self.requests: list[tuple[float, str, dict[str, str], bytes]] = []  # monotonic time, path, headers, body
        self._released = threading.Event()
        self._connections: list[socket.socket] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def spans(self) -> list[Span]:
        """The spans of every request so far, also of those that were refused."""
        found: list[Span] = []
        for _, _, _, body in list(self.requests):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def close_connections(self) -> None:
        """Closes what is open and idle, as a receiver does after a while."""
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def close(self) -> None:
        self._released.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(WAIT_S)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver._connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((time.monotonic(), self.path, dict(self.headers), body))
                if receiver.hold.is_set():
                    receiver._released.wait(WAIT_S * 2)
                    return
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        return Handler


@contextmanager
def faulty_receiver() -> Iterator[FaultyReceiver]:
    receiver = FaultyReceiver()
    try:
        yield receiver
    finally:
        receiver.close()

"""Sends many prepared requests as fast as a server takes them; for filling a server, not for measuring it."""

import json
import select
import socket
from collections.abc import Iterable

from benchmarks.load.http import raw_post
from benchmarks.load.process import BenchmarkError

ANSWER_BYTES_MAX = 65536


def post_all(port: int, path: str, bodies: Iterable[str], api_key: str, connections: int = 64) -> int:
    """POSTs each body once, one in flight a connection → how many. Raises BenchmarkError on any answer but 200.

    Answers must be smaller than ANSWER_BYTES_MAX and have a Content-Length.
    """
    poll = select.epoll()
    sockets = {one.fileno(): one for one in (connect(port) for _ in range(connections))}
    pending = dict.fromkeys(sockets, b"")
    remaining = iter(bodies)
    answered = 0
    idle = list(sockets)
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    try:
        while True:
            while idle and (body := next(remaining, None)) is not None:
                sockets[idle.pop()].sendall(raw_post(path, body, api_key))
            if len(idle) == connections:
                return answered
            for number, _ in poll.poll(30):
                pending[number] += sockets[number].recv(ANSWER_BYTES_MAX)
                if complete(pending[number]):
                    check(pending[number])
                    pending[number] = b""
                    idle.append(number)
                    answered += 1
    finally:
        poll.close()
        for one in sockets.values():
            one.close()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def complete(answer: bytes) -> bool:
    if not answer:
        raise BenchmarkError("the server closed the connection")
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) >= int(lengths[0].split(b":")[1])


def check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200 "):
        text = answer.partition(b"\r\n\r\n")[2].decode(errors="replace")
        raise BenchmarkError(f"a prepared request was refused: {json.dumps(text[:500])}")

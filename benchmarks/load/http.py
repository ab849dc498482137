"""A small blocking HTTP client for setting up and checking servers; nothing is measured through it."""

import http.client
import json
import socket
from typing import Any


def request(port: int, method: str, path: str, api_key: str | None, body: object = None) -> tuple[int, bytes]:
    """One request on a connection of its own → status, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(port: int, path: str, body: object, api_key: str) -> tuple[int, Any]:
    status, text = request(port, "POST", path, api_key, body)
    return status, json.loads(text)


def raw_post(path: str, body: str, api_key: str) -> bytes:
    """The bytes of a request, as a client would send them."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def exchange(connection: socket.socket, message: bytes) -> bytes:
    """Sends one request and returns the whole answer, head included; the answer must have a Content-Length."""
    connection.sendall(message)
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += receive(connection)
    return head + b"\r\n\r\n" + body


def receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data

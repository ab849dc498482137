"""A body that comes slowly: accepted within the grace, refused when it stays below the minimum rate."""

import http.client
import json
import socket
import time

from tests.support.server import TokMeshProcess

BODY = json.dumps({"user_id": "slow"}).encode()


def begin(server: TokMeshProcess, length: int) -> socket.socket:
    """A connection that has sent a head and the first five bytes of a body."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = (
        f"POST /sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.admin_key}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + BODY[:5])
    return connection


def status_of(connection: socket.socket) -> int:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    connection.close()
    return answer.status


def test_a_pause_within_the_grace_is_no_offence(shared_server: TokMeshProcess) -> None:
    """The grace was once an unsigned constant, which made every unfinished body too slow at the first look."""
    connection = begin(shared_server, len(BODY))
    time.sleep(1.5)  # several looks of the server at its connections
    connection.sendall(BODY[5:])
    assert status_of(connection) == 200


def test_a_body_below_the_minimum_rate_is_refused_after_the_grace(shared_server: TokMeshProcess) -> None:
    started = time.monotonic()
    assert status_of(begin(shared_server, len(BODY))) == 408
    assert time.monotonic() - started >= 4.9

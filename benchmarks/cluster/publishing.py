"""Messages into JetStream as fast as it acknowledges them, past any client library: a socket, groups of frames, an answer a group.

Of a group the last message is acknowledged, and what was published before it on the same connection is stored by then.
"""

import secrets
import socket
from collections.abc import Sequence
from urllib.parse import urlparse

from benchmarks.load.process import BenchmarkError

TIMEOUT_S = 60.0


class Publisher:
    """A connection. Raises BenchmarkError where JetStream refuses a message or says nothing for a minute."""

    def __init__(self, url: str) -> None:
        where = urlparse(url)
        self._connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=TIMEOUT_S)
        self._received = self._connection.makefile("rb")
        self._received.readline()
        connect = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'
        self.reply = f"acknowledged.{secrets.token_hex(8)}".encode()  # where this connection hears what is acknowledged
        self._connection.sendall(connect + b"SUB " + self.reply + b" 1\r\n")
        self.under_way = 0

    def close(self) -> None:
        self._received.close()
        self._connection.close()

    def ask(self, message: bytes) -> None:
        """One message, and its answer."""
        self.send([message])
        self.wait()

    def send(self, frames: Sequence[bytes]) -> None:
        """A group, of which the last frame asks for an answer (`frame`)."""
        self._connection.sendall(b"".join(frames))
        self.under_way += 1

    def wait(self) -> None:
        """Until the next group is acknowledged."""
        while True:
            line = self._received.readline()
            if line.startswith(b"PING"):
                self._connection.sendall(b"PONG\r\n")
            elif line.startswith((b"MSG", b"HMSG")):
                break
            elif not line or line.startswith(b"-ERR"):
                raise BenchmarkError(f"NATS ended the connection: {line!r}")
        answer = self._received.read(int(line.split()[-1]) + 2)
        self.under_way -= 1
        if b'"error"' in answer or b"{" not in answer:
            raise BenchmarkError(f"JetStream refused a message: {answer!r}")


def frame(subject: str, payload: bytes, headers: dict[str, str], reply: bytes = b"") -> bytes:
    """One message as it is sent; reply: where it is to be acknowledged, if it is."""
    head = "".join(["NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]).encode()
    sizes = b" %d %d\r\n" % (len(head), len(head) + len(payload))
    return b"".join((f"HPUB {subject} ".encode(), reply, sizes, head, payload, b"\r\n"))

"""Fills a cluster's stream with sessions, as a node would have stated them, past any node: a million in a minute."""

import hashlib
import secrets
import socket
import time
from typing import BinaryIO
from urllib.parse import urlparse

from benchmarks.load.process import BenchmarkError
from tokmesh.cluster.subjects import Subjects
from tokmesh.log.record import SessionStated
from tokmesh.log.stream_record import Envelope

ACKNOWLEDGED_EVERY = 500  # messages; two such groups are under way
TIMEOUT_S = 60.0
LIFE_MS = 7_200_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0 Safari/537.36"


def fill(url: str, cluster: str, count: int) -> None:
    """Publishes `count` sessions. Raises BenchmarkError when the stream takes them no more."""
    subjects, now_ms = Subjects(cluster), time.time_ns() // 1_000_000
    where = urlparse(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=TIMEOUT_S) as connection:
        received = connection.makefile("rb")
        received.readline()
        connection.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB acknowledged 1\r\n')
        under_way, frames = 0, []
        for number in range(count):
            last = number % ACKNOWLEDGED_EVERY == ACKNOWLEDGED_EVERY - 1 or number == count - 1
            frames.append(_frame(subjects, number, now_ms, b"acknowledged " if last else b""))
            if last:
                connection.sendall(b"".join(frames))
                frames.clear()
                under_way += 1
                while under_way > (0 if number == count - 1 else 1):
                    under_way -= _is_acknowledgement(received.readline(), received, connection)


def token_of(number: int) -> str:
    """Of the session with that number; no secret."""
    return f"tmtk_{number:043d}"


def _is_acknowledgement(line: bytes, received: BinaryIO, connection: socket.socket) -> bool:
    if line.startswith(b"PING"):
        connection.sendall(b"PONG\r\n")
    if not line.startswith((b"MSG", b"HMSG")):
        if not line or line.startswith(b"-ERR"):
            raise BenchmarkError(f"NATS ended the filling: {line!r}")
        return False
    answer = received.read(int(line.split()[-1]) + 2)
    if b'"error"' in answer or b'"seq"' not in answer:
        raise BenchmarkError(f"the stream took a session not: {answer!r}")
    return True


def _frame(subjects: Subjects, number: int, now_ms: int, reply: bytes) -> bytes:
    session_id = (now_ms << 80 | number << 8 | secrets.randbelow(256)).to_bytes(16, "big")
    record = SessionStated(
        now_ms, session_id, hashlib.sha256(token_of(number).encode()).digest(), b"", 0, now_ms, now_ms + LIFE_MS, now_ms, 1, 0,
        f"user-{number}", f"device-{number % 1000}", "192.0.2.1", AGENT, "tmak-01hzy3v9k0abcdefghjkmnpqrs", b'{"plan":"gold"}',
    )  # fmt: skip
    payload = Envelope("tmnd-filling", 1, number, f"req-{number:016x}", record.encode()).encode()
    headers = (
        f"NATS/1.0\r\nNats-Msg-Id: tmnd-filling.1.{number}\r\nNats-TTL: {LIFE_MS // 1000 + 660}s\r\n"
        "Nats-Expected-Last-Subject-Sequence: 0\r\n\r\n"
    ).encode()
    head = f"HPUB {subjects.session(session_id)} ".encode() + reply + b"%d %d\r\n" % (len(headers), len(headers) + len(payload))
    return b"".join((head, headers, payload, b"\r\n"))

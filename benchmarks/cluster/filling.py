"""Sessions into a cluster's stream, as a node would have stated them, past any node: a million in a minute, or so many a second.

    python -m benchmarks.cluster.filling URL CLUSTER RATE

publishes at that rate until it is told to end (SIGTERM), then prints, as JSON, how many were acknowledged and in how many seconds.
"""

import hashlib
import itertools
import json
import secrets
import signal
import sys
import time
from collections.abc import Iterator

from benchmarks.cluster.publishing import Publisher, frame
from tokmesh.cluster.subjects import Subjects
from tokmesh.log.record import SessionStated
from tokmesh.log.stream_record import Envelope

GROUP = 500  # messages; two such groups are under way
TURNS_PER_S = 100  # of a filling at a rate: a group each
GROUPS_MAX = 8  # under way, of such a filling
ORIGIN = "tmnd-filling"
CLUSTER = "tokmesh"  # as configured by default
LIFE_MS = 7_200_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0 Safari/537.36"


def fill(url: str, cluster: str, count: int) -> None:
    """Publishes `count` sessions. Raises BenchmarkError when the stream takes them no more."""
    publisher, filling = Publisher(url), _Filling(cluster, 0)
    for begun in range(0, count, GROUP):
        publisher.send(filling.group(min(GROUP, count - begun), publisher.reply))
        while publisher.under_way > 1:
            publisher.wait()
    while publisher.under_way:
        publisher.wait()
    publisher.close()


def fill_at(url: str, cluster: str, rate_per_s: int) -> tuple[int, float]:
    """Publishes at that rate, or slower if the stream is; acknowledged sessions, seconds. Ends with SIGTERM."""
    publisher, filling = Publisher(url), _Filling(cluster, time.time_ns() // 1_000)  # not those of a filling before
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    size, count, begun_s = rate_per_s // TURNS_PER_S, 0, time.perf_counter()
    for turn in itertools.count(1):
        if ended:
            break
        publisher.send(filling.group(size, publisher.reply))
        while publisher.under_way >= GROUPS_MAX:
            publisher.wait()
            count += size
        time.sleep(max(0.0, begun_s + turn / TURNS_PER_S - time.perf_counter()))
    while publisher.under_way:
        publisher.wait()
        count += size
    return count, time.perf_counter() - begun_s


def token_of(number: int) -> str:
    """Of the session with that number; no secret."""
    return f"tmtk_{number:043d}"


class _Filling:
    """Sessions one after the other, from number `first`."""

    def __init__(self, cluster: str, first: int) -> None:
        self._subjects = Subjects(cluster)
        self._numbers = itertools.count(first)
        self._now_ms = time.time_ns() // 1_000_000

    def group(self, size: int, reply: bytes) -> list[bytes]:
        """So many messages, the last to be acknowledged to `reply`."""
        return list(self._frames(size, reply))

    def _frames(self, size: int, reply: bytes) -> Iterator[bytes]:
        now_ms = self._now_ms
        for left, number in zip(range(size - 1, -1, -1), self._numbers, strict=False):
            session_id = (now_ms << 80 | number << 8 | secrets.randbelow(256)).to_bytes(16, "big")
            record = SessionStated(
                now_ms, session_id, hashlib.sha256(token_of(number).encode()).digest(), b"", 0, now_ms, now_ms + LIFE_MS, now_ms,
                1, 0, f"user-{number}", f"device-{number % 1000}", "192.0.2.1", AGENT, "tmak-01hzy3v9k0abcdefghjkmnpqrs",
                b'{"plan":"gold"}',
            )  # fmt: skip
            payload = Envelope(ORIGIN, 1, number, f"req-{number:016x}", record.encode()).encode()
            headers = {
                "Nats-Msg-Id": f"{ORIGIN}.1.{number}",
                "Nats-TTL": f"{LIFE_MS // 1000 + 660}s",
                "Nats-Expected-Last-Subject-Sequence": "0",
            }
            yield frame(self._subjects.session(session_id), payload, headers, b"" if left else reply)


if __name__ == "__main__":
    print(json.dumps(fill_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))))

"""Data directories with millions of sessions, made without a server: a table filled here, and written as a snapshot."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.load.workload import session_input
from tokmesh import __version__
from tokmesh._core.clock import Clock
from tokmesh._core.table import Outcome, Table
from tokmesh.host import data_directory
from tokmesh.keyring import KeyRing
from tokmesh.snapshots import offline
from tokmesh.storage.segment import make_directory
from tokmesh.storage.snapshot_file import About

TOMBSTONE_TTL_MS = 600_000


class Group(NamedTuple):
    """So many `sessions` that end at `expires_at_ms`; their tokens are `token_of(name, number)`."""

    name: str
    sessions: int
    expires_at_ms: int


class Growth(NamedTuple):
    """How long single insertions took while a table grew from nothing: the slowest, and how many took more than a millisecond."""

    slowest_ms: float
    above_1_ms: int


def token_of(name: str, number: int) -> str:
    """Of the right form, and the same every time."""
    text = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
    return f"tmtk_{text[:43]}"


def make(directory: Path, groups: Iterable[Group]) -> Growth:
    """Fills a new data directory; a server started on it makes its first admin key, as ever."""
    directory.mkdir(mode=0o700)
    for name in ("snapshots", "log"):
        make_directory(directory / name)
    clock = Clock()
    now_ms = clock.now_ms()
    table = Table(tombstone_ttl_ms=TOMBSTONE_TTL_MS)
    slowest_ns = above = 0
    for arguments in _sessions(groups, now_ms):
        begun_ns = time.thread_time_ns()
        outcome = table.insert(*arguments)
        took_ns = time.thread_time_ns() - begun_ns
        assert outcome == Outcome.INSERTED
        slowest_ns = max(slowest_ns, took_ns)
        above += took_ns > 1_000_000
    state = offline.Restorable(table, KeyRing(), 1)
    about = About(data_directory.node_id(directory, clock), __version__)
    offline.restore(state, directory / "snapshots", directory / "log", about, now_ms, None)
    return Growth(slowest_ns / 1e6, above)


def _sessions(groups: Iterable[Group], now_ms: int) -> Iterator[tuple[bytes, bytes, str, str, str, str, str, int, int, int, bytes]]:
    first = 0
    for group in groups:
        for number in range(group.sessions):
            one = session_input(first + number, first + number)
            hashed = hashlib.sha256(token_of(group.name, number).encode()).digest()
            yield (
                (first + number + 1).to_bytes(16, "big"), hashed, one.user_id, one.device_id, one.ip_address, one.user_agent,
                "tmak-01jf8z6k4v3h9q2n7r5t1w0abc", now_ms, group.expires_at_ms, 0,
                json.dumps(one.data, separators=(",", ":")).encode(),
            )  # fmt: skip
        first += group.sessions

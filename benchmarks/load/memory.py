"""Bytes a session costs when it can be found by token, by id and by user: TokMesh and Redis filled alike, then weighed.

Both hold the same 400-byte JSON. Redis needs a string under the token's hash, a key from id to that hash, and a set per
user. The figure is the growth of resident memory (beside it: what each server itself counts) divided by the sessions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.load import redis_server, tokmesh_server
from benchmarks.load.measure import resident_bytes
from benchmarks.load.process import Processes
from benchmarks.load.subjects import Cores
from benchmarks.load.workload import session_input

SESSIONS_PER_USER = 1


@dataclass(frozen=True)
class MemoryResult:
    """Bytes per session."""

    sessions: int
    tokmesh_resident: float
    tokmesh_counted: float  # what the table says it touched; NaN when the server does not say
    redis_resident: float
    redis_counted: float  # used_memory


def measure(processes: Processes, cores: Cores, sessions: int) -> MemoryResult:
    """Fills one TokMesh and one Redis with `sessions` sessions, one after the other."""
    tokmesh_resident, tokmesh_counted = fill_tokmesh(processes, cores, sessions)
    redis_resident, redis_counted = fill_redis(processes, cores, sessions)
    return MemoryResult(sessions, tokmesh_resident, tokmesh_counted, redis_resident, redis_counted)


def fill_tokmesh(processes: Processes, cores: Cores, sessions: int) -> tuple[float, float]:
    server = tokmesh_server.start(processes, "tokmesh-memory", cores.server, ["--storage.wal.sync_mode=interval"])
    server.create_sessions(session_input(number, number).body(None) for number in range(1000))
    before = weigh_tokmesh(server)
    server.create_sessions(
        session_input(number, number // SESSIONS_PER_USER).body(None) for number in range(1000, 1000 + sessions)
    )
    after = weigh_tokmesh(server)
    server.process.stop()
    return (after[0] - before[0]) / sessions, (after[1] - before[1]) / sessions


def weigh_tokmesh(server: tokmesh_server.TokMeshServer) -> tuple[float, float]:
    counted = server.metrics().get("tokmesh_table_memory_bytes", float("nan"))
    return resident_bytes(server.process.pid), counted


def redis_commands(sessions: int) -> Iterator[tuple[bytes, ...]]:
    for number in range(sessions):
        one = session_input(number, number // SESSIONS_PER_USER)
        session_id = b"tmss-%026d" % number
        hash_bytes = number.to_bytes(32, "little")
        yield b"SET", b"token:" + hash_bytes, one.stored_json()
        yield b"SET", b"id:" + session_id, hash_bytes
        yield b"SADD", b"user:" + one.user_id.encode(), session_id


def fill_redis(processes: Processes, cores: Cores, sessions: int) -> tuple[float, float]:
    server = redis_server.start(processes, "redis-memory", cores.server, append_only=False)
    resident_before = resident_bytes(server.process.pid)
    counted_before = int(server.info("memory")["used_memory"])
    server.write(redis_commands(sessions))
    counted = int(server.info("memory")["used_memory"]) - counted_before
    resident = resident_bytes(server.process.pid) - resident_before
    server.process.stop()
    return resident / sessions, counted / sessions

"""What is measured, and how: each figure from real servers on cores of their own, medians of ROUNDS where a start is timed."""

import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import compiled
from benchmarks.load import openloop, redis_server, tokmesh_server
from benchmarks.load.http import post, raw_post
from benchmarks.load.measure import resident_bytes
from benchmarks.load.memory import redis_commands
from benchmarks.load.process import BenchmarkError, Processes, free_port
from benchmarks.load.rows import Limit, Outcome
from benchmarks.load.subjects import Cores
from benchmarks.storage.make import Group, make, token_of

ROUNDS = 3
PROBED = 10_000  # sessions that are validated meanwhile
RATE_PER_S = 20_000
HOUR_MS = 3_600_000
REDIS_TIMEOUT_S = 600.0

START = Limit("start", "start with all sessions", "Redis loading its RDB", "×", 0.25)
MEMORY = Limit("memory", "resident memory after the start", "Redis, the same sessions", "×", 0.45)
SNAPSHOT = Limit("snapshot", "P99 of validate while a snapshot is taken", "", "ms", 10)
EXPIRY = Limit("expiry", "P99 of validate around a million expiries in one second", "", "ms", 10)
GROWTH = Limit("growth", "slowest insertion from the first session to the last, processor time", "", "ms", 10)


class StorageRun:
    """One run. sessions: in the large server; expiring: that end in the same second."""

    def __init__(self, processes: Processes, cores: Cores, sessions: int, expiring: int, say: Callable[[str], None]) -> None:
        self._processes = processes
        self._cores = cores
        self._sessions = sessions
        self._expiring = expiring
        self._say = say
        self._pump = compiled.build(Path(openloop.__file__).with_name("pump.pyx"), processes.directory / "compiled")

    def measure(self) -> list[Outcome]:
        """Every row."""
        self._say(f"making {self._sessions:,} sessions")
        ends_at_ms = time.time_ns() // 1_000_000 + 24 * HOUR_MS
        directory = self._processes.directory / "large-data"
        growth = make(directory, (Group("probed", PROBED, ends_at_ms), Group("rest", self._sessions - PROBED, ends_at_ms)))
        starts, resident, server = self._start_tokmesh()
        snapshot = self._probe_snapshot(server)
        server.process.stop()
        redis_starts, redis_resident = self._start_redis()
        expiry = self._probe_expiry()
        ours, theirs = statistics.median(starts), statistics.median(redis_starts)
        note = f"{ours:.2f} s against {theirs:.2f} s, {theirs / ours:.1f} × faster, {self._sessions:,} sessions"
        weights = f"{resident / self._sessions:.0f} B against {redis_resident / self._sessions:.0f} B a session"
        return [
            START.outcome(ours / theirs, note),
            MEMORY.outcome(resident / redis_resident, weights),
            snapshot,
            expiry,
            GROWTH.outcome(growth.slowest_ms, f"{growth.above_1_ms} of {self._sessions:,} above 1 ms"),
        ]

    def _start_tokmesh(self) -> tuple[list[float], int, tokmesh_server.TokMeshServer]:
        starts: list[float] = []
        key = ""
        while True:  # ROUNDS times
            self._say(f"start {len(starts) + 1} of {ROUNDS}: TokMesh")
            begun = time.perf_counter()
            process, port = tokmesh_server.launch(self._processes, "large", self._cores.server)
            starts.append(time.perf_counter() - begun)
            found = tokmesh_server.ADMIN_KEY.search(process.log_text())  # of the first start alone
            key = found[0] if found is not None else key
            if len(starts) == ROUNDS:
                return starts, resident_bytes(process.pid), tokmesh_server.TokMeshServer(process, port, key)
            process.stop()

    def _start_redis(self) -> tuple[list[float], int]:
        self._say("filling Redis with the same sessions")
        server = redis_server.start(self._processes, "redis-large", self._cores.server, append_only=False)
        server.write(redis_commands(self._sessions))
        directory = self._processes.directory / "redis-large"
        save = ["redis-cli", "-p", str(server.port), "SAVE"]
        if subprocess.run(save, capture_output=True, text=True, timeout=REDIS_TIMEOUT_S, check=False).stdout != "OK\n":
            raise BenchmarkError("redis did not save")
        server.process.stop()
        starts, resident = [], 0
        for number in range(ROUNDS):
            self._say(f"start {number + 1} of {ROUNDS}: Redis")
            port = free_port()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
            begun = time.perf_counter()
            process = self._processes.start("redis-large-again", command, self._cores.server)
            while _ask(port) != "PONG\n":
                process.check_running()
                if time.perf_counter() - begun > REDIS_TIMEOUT_S:
                    raise BenchmarkError("redis does not load its RDB")
                time.sleep(0.02)
            starts.append(time.perf_counter() - begun)
            resident = resident_bytes(process.pid)
            process.stop()
        return starts, resident

    def _probe_snapshot(self, server: tokmesh_server.TokMeshServer) -> Outcome:
        self._say("validating beside a snapshot")
        quiet = self._validate(server, 8.0)
        taken: list[float] = []

        def take() -> None:
            time.sleep(openloop.WARM_UP_S + 1)
            begun = time.perf_counter()
            status, answer = post(server.port, "/admin/v1/backups/snapshots", {}, server.admin_key)
            if status != 200:
                raise BenchmarkError(f"no snapshot: {answer}")
            taken.append(time.perf_counter() - begun)

        taker = threading.Thread(target=take)
        taker.start()
        beside = self._validate(server, 8.0)
        taker.join()
        note = (
            f"P50 {beside.percentile_ms('validate', 0.5):.2f}, P99.9 {beside.percentile_ms('validate', 0.999):.2f} ms at "
            f"{RATE_PER_S:,}/s; without {quiet.percentile_ms('validate', 0.99):.2f} and "
            f"{quiet.percentile_ms('validate', 0.999):.2f} ms; taken in {taken[0]:.1f} s"
        )
        return SNAPSHOT.outcome(beside.percentile_ms("validate", 0.99), note)

    def _probe_expiry(self) -> Outcome:
        self._say(f"{self._expiring:,} sessions that end in the same second")
        now_ms = time.time_ns() // 1_000_000
        at_ms = now_ms + 12_000 + self._expiring * 30 // 1000
        groups = (Group("probed", PROBED, now_ms + 24 * HOUR_MS), Group("ending", self._expiring, at_ms))
        make(self._processes.directory / "ending-data", groups)
        server = tokmesh_server.start(self._processes, "ending", self._cores.server)
        before = server.metrics()["tokmesh_sessions_active_total"]
        time.sleep(max(0.0, at_ms / 1000 - 3 - time.time()))
        result = self._validate(server, 8.0)
        after = server.metrics()["tokmesh_sessions_active_total"]
        server.process.stop()
        if before - after < self._expiring:
            raise BenchmarkError(f"{before - after:,.0f} of {self._expiring:,} sessions ended while it was measured")
        note = f"P50 {result.percentile_ms('validate', 0.5):.2f}, P99.9 {result.percentile_ms('validate', 0.999):.2f} ms"
        return EXPIRY.outcome(result.percentile_ms("validate", 0.99), f"{note} at {RATE_PER_S:,}/s, {self._expiring:,} ended")

    def _validate(self, server: tokmesh_server.TokMeshServer, duration_s: float) -> openloop.OpenLoopResult:
        bodies = (f'{{"token":"{token_of("probed", number)}"}}' for number in range(PROBED))
        messages = [raw_post("/tokens/validate", body, server.validator_key) for body in bodies]
        return openloop.OpenLoop(self._pump, server.port, messages, RATE_PER_S, duration_s).run(None)


def _ask(port: int) -> str:
    done = subprocess.run(["redis-cli", "-p", str(port), "PING"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout

"""The servers under load. Each knows what load it takes and how a burst of it becomes a Sample."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.load import redis_benchmark, redis_server
from benchmarks.load.http import post
from benchmarks.load.measure import Sample, core_busy_s, cpu_time, sample
from benchmarks.load.process import BenchmarkError, Process, Processes, free_port
from benchmarks.load.workload import BATCH_TOKENS, SESSION_JSON_BYTES, TOKEN_COUNT, Workload, token_hash
from benchmarks.load.wrk import WrkLoad

YARDSTICKS = Path(__file__).resolve().parents[1] / "yardsticks"
PLACEHOLDER_KEY = "tmak-01jf8z6k4v3h9q2n7r5t1w0abc:tmas_" + "k" * 43


@dataclass(frozen=True)
class Cores:
    server: int
    generator: int


class Subject(ABC):
    """A server with one kind of load."""

    def __init__(self, name: str, what: str, processes: list[Process], cores: Cores) -> None:
        self.name = name
        self.what = what
        self._processes = processes
        self._cores = cores

    def burst(self, duration_s: float) -> Sample:
        """Runs the load once. Raises BenchmarkError on any error answer."""
        pids = [process.pid for process in self._processes]
        before, busy_before_s = cpu_time(pids), core_busy_s(self._cores.server)
        operations, elapsed_s, percentiles_ms = self._load(duration_s)
        used, busy_s = cpu_time(pids) - before, core_busy_s(self._cores.server) - busy_before_s
        for process in self._processes:
            process.check_running()
        return sample(operations, elapsed_s, used, busy_s, percentiles_ms)

    @abstractmethod
    def _load(self, duration_s: float) -> tuple[int, float, tuple[float, float, float]]:
        """→ operations, seconds, (P50, P99, P99.9) in ms."""


class HttpSubject(Subject):
    """A server driven by wrk. `operations_each` is how many operations one request carries."""

    def __init__(
        self, name: str, what: str, processes: list[Process], cores: Cores, load: WrkLoad, operations_each: int = 1
    ) -> None:
        super().__init__(name, what, processes, cores)
        self._wrk = load
        self._operations_each = operations_each

    @property
    def port(self) -> int:
        """Where the server listens on 127.0.0.1."""
        port = urlsplit(self._wrk.url).port
        assert port is not None
        return port

    def _load(self, duration_s: float) -> tuple[int, float, tuple[float, float, float]]:
        result = self._wrk.run(duration_s, self._cores.generator)
        return result.requests * self._operations_each, result.duration_s, result.percentiles_ms


class RedisSubject(Subject):
    """A Redis driven by redis-benchmark, which takes a number of requests: the time is aimed at from the last rate."""

    FIRST_REQUESTS = 5_000

    def __init__(
        self, name: str, what: str, server: redis_server.RedisServer, cores: Cores, command: list[str], keys: int
    ) -> None:
        super().__init__(name, what, [server.process], cores)
        self._server = server
        self._command = command
        self._keys = keys
        self._last_rate = 0.0

    def _load(self, duration_s: float) -> tuple[int, float, tuple[float, float, float]]:
        if not self._last_rate:
            self._run(self.FIRST_REQUESTS)
        result = self._run(max(self.FIRST_REQUESTS, int(self._last_rate * duration_s)))
        return result.requests, result.duration_s, result.percentiles_ms

    def _run(self, requests: int) -> redis_benchmark.RedisBenchmarkResult:
        misses_before = self._server.info("stats")["keyspace_misses"]
        result = redis_benchmark.run(
            self._server.port, self._command, requests=requests, keys=self._keys, cpu=self._cores.generator
        )
        if self._command[0] == "GET" and self._server.info("stats")["keyspace_misses"] != misses_before:
            raise BenchmarkError("redis-benchmark asked for keys that are not there")
        self._last_rate = result.requests / result.duration_s
        return result


def bare_uvloop(processes: Processes, cores: Cores, workload: Workload, answer: bytes) -> HttpSubject:
    port = free_port()
    path = processes.directory / "bare.answer"
    path.write_bytes(answer)
    process = processes.start(
        "bare", [sys.executable, str(YARDSTICKS / "bare_uvloop.py"), str(port), str(path)], cores.server
    )
    process.wait_for_port(port)
    load = WrkLoad(f"http://127.0.0.1:{port}/tokens/validate", workload.validate_bodies, PLACEHOLDER_KEY)
    return HttpSubject("bare", "bare uvloop protocol, constant answer", [process], cores, load)


def nginx(processes: Processes, cores: Cores, workload: Workload, answer: bytes) -> Subject:
    port = free_port()
    directory = processes.directory / "nginx"
    directory.mkdir()
    body = answer.partition(b"\r\n\r\n")[2].decode()
    assert not set(body) & set("'\\$"), "the text stands in single quotes in nginx's configuration"
    text = (YARDSTICKS / "nginx.conf.in").read_text()
    for name, value in (("PORT", str(port)), ("DIRECTORY", str(directory)), ("BODY", body)):
        text = text.replace(f"@{name}@", value)
    config = directory / "nginx.conf"
    config.write_text(text)
    process = processes.start("nginx-server", ["nginx", "-p", str(directory), "-c", str(config)], cores.server)
    process.wait_for_port(port)
    load = WrkLoad(f"http://127.0.0.1:{port}/tokens/validate", workload.validate_bodies, PLACEHOLDER_KEY)
    return HttpSubject("nginx", "nginx `return 200`, one worker", [process], cores, load)


def redis_get(processes: Processes, cores: Cores, workload: Workload) -> Subject:
    server = redis_server.start(processes, "redis-get", cores.server, append_only=False)
    server.write((b"SET", b"session:%012d" % number, one.stored_json()) for number, one in enumerate(workload.sessions))
    return RedisSubject(
        "redis-get", "Redis GET of the session", server, cores, ["GET", "session:__rand_int__"], TOKEN_COUNT
    )


def redis_set(processes: Processes, cores: Cores) -> Subject:
    server = redis_server.start(processes, "redis-set", cores.server, append_only=True)
    command = ["SET", "session:__rand_int__", "x" * SESSION_JSON_BYTES]
    return RedisSubject("redis-set", "Redis SET, appendfsync always", server, cores, command, 10**9)


def starlette(processes: Processes, cores: Cores, workload: Workload) -> Subject:
    store = redis_server.start(processes, "redis-starlette", cores.server, append_only=False)
    pairs = zip(workload.tokens, workload.sessions, strict=True)
    store.write((b"SET", b"token:" + token_hash(token), one.stored_json()) for token, one in pairs)
    port = free_port()
    command = [sys.executable, str(YARDSTICKS / "starlette_app.py"), str(port), str(store.port), PLACEHOLDER_KEY]
    process = processes.start("starlette", command, cores.server)
    process.wait_for_port(port)
    check_valid(port, PLACEHOLDER_KEY, workload)
    load = WrkLoad(f"http://127.0.0.1:{port}/tokens/validate", workload.validate_bodies, PLACEHOLDER_KEY)
    return HttpSubject("starlette", "Starlette + uvicorn + Redis, the same job", [process, store.process], cores, load)


def check_valid(port: int, api_key: str, workload: Workload) -> None:
    """Asks about a few tokens and one unknown one. Raises BenchmarkError when a verdict is wrong."""
    for token, expected in [(token, True) for token in workload.tokens[::1000]] + [("tmtk_" + "A" * 43, False)]:
        status, answer = post(port, "/tokens/validate", {"token": token}, api_key)
        if status != 200 or answer["data"]["valid"] is not expected:
            raise BenchmarkError(f"wrong verdict on port {port}: {status} {answer}")


TokMeshLoad = Callable[[Process, int, str, str, Cores, Workload], Subject]


def tokmesh_validate(
    process: Process, port: int, validator: str, issuer: str, cores: Cores, workload: Workload
) -> Subject:
    load = WrkLoad(f"http://127.0.0.1:{port}/tokens/validate", workload.validate_bodies, validator)
    return HttpSubject("validate", "TokMesh POST /tokens/validate", [process], cores, load)


def tokmesh_pipelined(
    process: Process, port: int, validator: str, issuer: str, cores: Cores, workload: Workload
) -> Subject:
    load = WrkLoad(f"http://127.0.0.1:{port}/tokens/validate", workload.validate_bodies, validator, depth=16)
    return HttpSubject("pipelined", "the same, 16 pipelined", [process], cores, load)


def tokmesh_batch(
    process: Process, port: int, validator: str, issuer: str, cores: Cores, workload: Workload
) -> Subject:
    url = f"http://127.0.0.1:{port}/tokens/validate/batch"
    load = WrkLoad(url, workload.batch_bodies, validator, connections=8)
    return HttpSubject("batch", "TokMesh batch of 1000 (per token)", [process], cores, load, BATCH_TOKENS)


def tokmesh_create(
    process: Process, port: int, validator: str, issuer: str, cores: Cores, workload: Workload
) -> Subject:
    load = WrkLoad(f"http://127.0.0.1:{port}/sessions", workload.create_bodies, issuer)
    return HttpSubject("create", "TokMesh durable POST /sessions", [process], cores, load)


TOKMESH_LOADS: dict[str, TokMeshLoad] = {
    "validate": tokmesh_validate,
    "pipelined": tokmesh_pipelined,
    "batch": tokmesh_batch,
    "create": tokmesh_create,
}

"""A fresh node beside a stream full of sessions: what it costs it to have them all, and how long it takes.

The measured node has a core of its own. NATS and the node that made the stream share the other; NATS is one server that does not
sync, as neither its replication nor how the stream was filled is asked here. Beside it, on the same core and not at the same time,
nats-py counts the same messages.
"""

import json
import sys
import time
from collections.abc import Callable

from benchmarks.cluster import nats_server
from benchmarks.cluster.filling import CLUSTER, fill
from benchmarks.load import tokmesh_server
from benchmarks.load.http import request
from benchmarks.load.process import BenchmarkError, Process, Processes
from benchmarks.load.rows import Limit, Outcome
from benchmarks.load.subjects import Cores
from tokmesh.cluster.subjects import Subjects

SESSIONS = 1_000_000
TIMEOUT_S = 600.0
POLL_S = 0.05

WORK = Limit("bootstrap", "processor time of a session, a fresh node", "nats-py that only counts the messages", "×", 1)
TIME = Limit("bootstrap_time", "a fresh node has a million sessions and is ready", "", "s", 15)


class BootstrapRun:
    """One run, with `scale` × SESSIONS."""

    def __init__(self, processes: Processes, cores: Cores, say: Callable[[str], None], scale: float) -> None:
        self._processes = processes
        self._cores = cores
        self._say = say
        self._count = max(1000, int(SESSIONS * scale))

    def measure(self) -> list[Outcome]:
        """Both rows."""
        [url] = nats_server.start(self._processes, self._cores.generator, "bootstrap-nats", servers=1, sync_interval="1m")
        options = ["--cluster.enabled=true", f"--cluster.nats.servers={url}", "--cluster.nats.replicas=1"]
        founder = tokmesh_server.start(self._processes, "founder", self._cores.generator, options)
        self._say(f"{self._count:,} sessions into the stream")
        fill(url, CLUSTER, self._count)
        self._say("nats-py counts them")
        counted = self._processes.start("counting", [
            sys.executable, "-m", "benchmarks.cluster.counting", url, Subjects(CLUSTER).stream, str(self._count),
        ], self._cores.server)  # fmt: skip
        while counted.running():
            time.sleep(POLL_S)
        messages, counting_s, counting_took_s = json.loads(counted.log_text())
        self._say("a fresh node")
        empty_cpu_s = self._empty_start_s()
        begun_s = time.perf_counter()
        process, port = self._start(options)
        took_s, cpu_s = time.perf_counter() - begun_s, process.cpu_s() - empty_cpu_s
        status, page = request(port, "GET", "/metrics", founder.metrics_key)
        if status != 200 or f"\ntokmesh_sessions_active_total {self._count}" not in page.decode():
            raise BenchmarkError(f"the fresh node has not all {self._count} sessions")
        node_us, counting_us = cpu_s * 1e6 / self._count, counting_s * 1e6 / messages
        note = f"{node_us:.2f} µs against {counting_us:.2f} µs, {self._count:,} sessions, one core each"
        whole = f"{self._count:,} in {took_s:.2f} s from the process's start, {self._count / took_s:,.0f}/s; "
        whole += f"nats-py counted them in {counting_took_s:.2f} s"
        return [WORK.outcome(node_us / counting_us, note), TIME.outcome(took_s * SESSIONS / self._count, whole)]

    def _empty_start_s(self) -> float:
        """Processor time of a start without any session, which is no part of what one costs."""
        process, _ = tokmesh_server.launch(self._processes, "empty", self._cores.server)
        spent_s = process.cpu_s()
        process.stop()
        return spent_s

    def _start(self, options: list[str]) -> tuple[Process, int]:
        process, port = tokmesh_server.begin(self._processes, "fresh", self._cores.server, options)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            process.check_running()
            try:
                if request(port, "GET", "/ready", None)[0] == 200:
                    return process, port
            except OSError:
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the fresh node is not ready after {TIMEOUT_S:.0f} s:\n{process.log_text()}")
            time.sleep(POLL_S)

"""What is measured: the processor time of a validate on a node of three beside one alone, and how fast a revocation is everywhere.

The measured node has a core of its own; NATS, the other nodes and the generator share the other. So what is said of latency under
writes holds for machines with more cores only if it holds here; what a node alone shows beside the same writes is the machine's and
the generator's part.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import compiled
from benchmarks.cluster import nats_server
from benchmarks.cluster.filling import CLUSTER
from benchmarks.load import openloop, tokmesh_server, workload
from benchmarks.load.http import post, raw_post
from benchmarks.load.process import BenchmarkError, Processes
from benchmarks.load.rows import Limit, Outcome
from benchmarks.load.subjects import Cores

BUSY_RATE_PER_S = 60_000  # near what a core can do: what a node spends on the cluster whatever it is asked counts little there
RATE_PER_S = 20_000
DURATION_S = 8.0
SESSIONS = 5_000
REVOCATIONS = 300
ROUNDS = 3
WRITES_PER_S = 2_000
MANY_WRITES_PER_S = 5_000
REACHED = 0.95  # of such a rate, or the row is missed

VALIDATE = Limit("cluster_validate", "validate, processor time on a node of three", "the same on a node alone", "×", 1 / 0.98)
LATENCY = Limit("cluster_p99", "P99 of validate on a node of three, no writes", "", "ms", 10)
BUSY = Limit("cluster_p99_writes", f"P99 of validate while {WRITES_PER_S:,} writes/s arrive from peers", "", "ms", 10)
REVOKE = Limit("cluster_revoke", "P99 of a revocation until no node says yes, no other load", "", "ms", 10)
REVOKE_BUSY = Limit("cluster_revoke_writes", f"the same while {MANY_WRITES_PER_S:,} writes/s arrive from peers", "", "ms", 50)


class ClusterRun:
    """One run."""

    def __init__(self, processes: Processes, cores: Cores, say: Callable[[str], None]) -> None:
        self._processes = processes
        self._cores = cores
        self._say = say
        self._pump = compiled.build(Path(openloop.__file__).with_name("pump.pyx"), processes.directory / "compiled")
        self._bodies = [workload.session_input(number, number) for number in range(SESSIONS)]

    def measure(self) -> list[Outcome]:
        """Every row."""
        alone = tokmesh_server.start(self._processes, "alone", self._cores.server)
        alone_tokens = self._fill(alone.port, alone.issuer_key)
        self._say("three NATS servers, three nodes")
        urls = nats_server.start(self._processes, self._cores.generator)
        first = tokmesh_server.start(self._processes, "node-0", self._cores.server, self._options(urls, 0))
        for number in (1, 2):
            tokmesh_server.launch(self._processes, f"node-{number}", self._cores.generator, self._options(urls, number))
        tokens = self._fill(first.port, first.issuer_key)
        ratios, notes, quiet_ms = [], [], []
        for number in range(ROUNDS):
            self._say(f"validate, round {number + 1} of {ROUNDS}")
            single_us, _ = self._validate(alone, alone_tokens, BUSY_RATE_PER_S)
            node_us, _ = self._validate(first, tokens, BUSY_RATE_PER_S)
            ratios.append(node_us / single_us)
            notes.append(f"{node_us:.2f}/{single_us:.2f}")
            _, result = self._validate(first, tokens, RATE_PER_S)
            quiet_ms.append(result.percentile_ms("validate", 0.99))
        self._say("revocations")
        revoked = self._revoke(first.port, first.issuer_key)
        with _Arriving(self._processes, urls[0], WRITES_PER_S, self._cores.generator) as some:
            _, busy = self._validate(first, tokens, RATE_PER_S)
            _, unconcerned = self._validate(alone, alone_tokens, RATE_PER_S)
        with _Arriving(self._processes, urls[0], MANY_WRITES_PER_S, self._cores.generator) as many:
            beside = self._revoke(first.port, first.issuer_key)
        return [
            VALIDATE.outcome(sorted(ratios)[ROUNDS // 2], f"at {BUSY_RATE_PER_S:,}/s, µs of the rounds " + ", ".join(notes)),
            LATENCY.outcome(sorted(quiet_ms)[ROUNDS // 2], f"at {RATE_PER_S:,}/s"),
            BUSY.outcome(
                busy.percentile_ms("validate", 0.99),
                f"at {RATE_PER_S:,}/s, {some.per_s:,.0f} writes/s; a node alone, beside the same "
                f"{unconcerned.percentile_ms('validate', 0.99):.3g} ms",
                valid=some.reached(),
            ),
            REVOKE.outcome(openloop.percentile(revoked, 0.99), f"P50 {openloop.percentile(revoked, 0.5):.2f} ms, with the request"),
            REVOKE_BUSY.outcome(
                openloop.percentile(beside, 0.99),
                f"P50 {openloop.percentile(beside, 0.5):.2f} ms, {many.per_s:,.0f} writes/s",
                valid=many.reached(),
            ),
        ]

    def _options(self, urls: list[str], number: int) -> list[str]:
        return ["--cluster.enabled=true", f"--cluster.nats.servers={','.join(urls)}", f"--cluster.node_id=tmnd-{number}"]

    def _fill(self, port: int, key: str) -> list[str]:
        tokens = [workload.new_token() for _ in self._bodies]
        for body, token in zip(self._bodies, tokens, strict=True):
            status, answer = post(port, "/sessions", json.loads(body.body(token)), key)
            if status != 200:
                raise BenchmarkError(f"no session: {answer}")
        return tokens

    def _validate(
        self, server: tokmesh_server.TokMeshServer, tokens: list[str], rate_per_s: int
    ) -> tuple[float, openloop.OpenLoopResult]:
        """Processor time of one validate in µs, and the latencies."""
        messages = [raw_post("/tokens/validate", f'{{"token":"{token}"}}', server.validator_key) for token in tokens]
        before_s, asked = server.process.cpu_s(), server.valid_answers()
        result = openloop.OpenLoop(self._pump, server.port, messages, rate_per_s, DURATION_S).run(None)
        return (server.process.cpu_s() - before_s) * 1e6 / (server.valid_answers() - asked), result

    def _revoke(self, port: int, key: str) -> list[float]:
        """Milliseconds of each `sync` revocation."""
        took_ms = []
        for number in range(REVOCATIONS):
            created = post(port, "/sessions", {"user_id": f"r{number}"}, key)[1]["data"]["session_id"]
            begun = time.perf_counter()
            status, answer = post(port, f"/sessions/{created}/revoke", {"sync": True}, key)
            took_ms.append((time.perf_counter() - begun) * 1e3)
            if status != 200 or len(answer["data"]["nodes_reached"]) != 3:
                raise BenchmarkError(f"not everywhere: {answer}")
        return took_ms


class _Arriving:
    """Writes of peers at a rate, within a `with` block: sessions put into the stream past any node. per_s: what it reached."""

    def __init__(self, processes: Processes, url: str, rate_per_s: int, cpu: int) -> None:
        self._rate_per_s = rate_per_s
        command = [sys.executable, "-m", "benchmarks.cluster.filling", url, CLUSTER, str(rate_per_s)]
        self._process = processes.start(f"filling-{rate_per_s}", command, cpu)
        self.per_s = 0.0

    def __enter__(self) -> "_Arriving":
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.check_running()
        self._process.stop()
        text = self._process.log_text()
        try:
            count, took_s = json.loads(text)
        except ValueError:
            raise BenchmarkError(f"the filling did not end in order:\n{text[-4000:]}") from None
        self.per_s = count / took_s

    def reached(self) -> bool:
        return self.per_s >= REACHED * self._rate_per_s

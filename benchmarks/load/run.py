"""One run: the servers it starts, the rounds it drives, the report it fills."""

import argparse
import os
import statistics
import time
from pathlib import Path

from benchmarks import compiled
from benchmarks.load import machine, memory, openloop, rows, startup, subjects, tokmesh_server
from benchmarks.load.fill import connect
from benchmarks.load.http import exchange, raw_post
from benchmarks.load.measure import Sample
from benchmarks.load.part import say
from benchmarks.load.process import BenchmarkError, Processes
from benchmarks.load.report import Report
from benchmarks.load.subjects import Cores, Subject
from benchmarks.load.tokmesh_server import TokMeshServer
from benchmarks.load.workload import Workload, make_workload, stand_in_answer

ALL_SUBJECTS = ("bare", "nginx", "redis-get", "starlette", "validate", "pipelined", "batch", "redis-set", "create")
CAPACITY_SHARE = 0.8
OVERLOAD = 1.3  # times what wrk reaches: more than can be served
OVERLOAD_S = 2.0


class Run:
    """One run: what was asked for, the processes it started, and the report it fills."""

    def __init__(self, chosen: argparse.Namespace, processes: Processes) -> None:
        self.chosen = chosen
        self.processes = processes
        self.cores = Cores(chosen.server_cpu, chosen.generator_cpu)
        self.workload = make_workload(processes.directory, seed=1)
        settings = {"rounds": chosen.rounds, "seconds": chosen.seconds, "sessions": chosen.sessions, "connections": 64}
        settings["load_before"] = os.getloadavg()[0]
        self.report = Report(machine.describe(processes.directory), settings)
        self.tokmesh: TokMeshServer | None = None

    def start(self) -> list[Subject]:
        """Every chosen server, ready and checked. TokMesh first: the others repeat the size of its answer."""
        wanted = [name for name in ALL_SUBJECTS if name in rows.subjects_needed(self.chosen.keys)]
        loads = [name for name in wanted if name in subjects.TOKMESH_LOADS]
        answer = stand_in_answer(self.workload.sessions[0].stored_json())
        if loads or "scrape" in self.chosen.keys:
            self.tokmesh = tokmesh_server.start(self.processes, "tokmesh", self.cores.server)
            fill(self.tokmesh, self.workload)
            answer = sample_answer(self.tokmesh, self.workload)
        self.report.settings["answer_bytes"] = len(answer)
        self.report.settings["answer_body_bytes"] = len(answer.partition(b"\r\n\r\n")[2])
        return [self._start_one(name, answer) for name in wanted]

    def _start_one(self, name: str, answer: bytes) -> Subject:
        if name in subjects.TOKMESH_LOADS:
            assert self.tokmesh is not None
            server = self.tokmesh
            keys = (server.validator_key, server.issuer_key)
            return subjects.TOKMESH_LOADS[name](server.process, server.port, *keys, self.cores, self.workload)
        if name == "bare":
            return subjects.bare_uvloop(self.processes, self.cores, self.workload, answer)
        if name == "nginx":
            return subjects.nginx(self.processes, self.cores, self.workload, answer)
        if name == "redis-get":
            return subjects.redis_get(self.processes, self.cores, self.workload)
        if name == "starlette":
            return subjects.starlette(self.processes, self.cores, self.workload)
        assert name == "redis-set"
        return subjects.redis_set(self.processes, self.cores)

    def measure_rounds(self, started: list[Subject]) -> None:
        """Interleaved: every subject once a round, each burst after a warm-up of a second."""
        for subject in started:
            self.report.names[subject.name] = subject.what
            self.report.rounds[subject.name] = []
        for number in range(self.chosen.rounds):
            for subject in started:
                say(f"round {number + 1} of {self.chosen.rounds}: {subject.what}")
                if number == 0 or not self.chosen.quick:
                    subject.burst(1)
                self.report.rounds[subject.name].append(self._checked_burst(subject))
        medians = self.report.medians()
        self.report.outcomes += [row.outcome(medians) for row in rows.rows_possible(set(medians))]

    def _checked_burst(self, subject: Subject) -> Sample:
        if subject.name not in ("validate", "pipelined", "batch"):
            return subject.burst(self.chosen.seconds)
        assert self.tokmesh is not None
        before = self.tokmesh.valid_answers()
        sample = subject.burst(self.chosen.seconds)
        valid = self.tokmesh.valid_answers() - before
        if valid < sample.operations:
            raise BenchmarkError(
                f"{subject.what}: {sample.operations:.0f} answers, but only {valid} found a valid session"
            )
        return sample

    def measure_open_loop(self, started: list[Subject]) -> None:
        """Each round finds the capacity under this very load, by offering too much of it, and then offers a share of that, to the
        bare server and to TokMesh. What stops the machine stops both: the bare server's P99 is the part that is not TokMesh's."""
        assert self.tokmesh is not None
        server = self.tokmesh
        bodies = [f'{{"token":"{token}"}}' for token in self.workload.tokens]
        messages = [raw_post("/tokens/validate", body, server.validator_key) for body in bodies]
        beside = openloop.SideLoad(
            server.issuer_key, server.metrics_key, self.workload.create_bodies.read_text().splitlines()
        )
        pump = compiled.build(Path(openloop.__file__).with_name("pump.pyx"), self.processes.directory / "compiled")
        duration_s = 2.0 if self.chosen.quick else 10.0
        too_much = self.report.medians()["validate"].operations_per_s * OVERLOAD
        bare = next(one for one in started if one.name == "bare")
        assert isinstance(bare, subjects.HttpSubject)
        results, bare_p99_ms = [], []
        for _ in range(rows.OPEN_LOOP_ROUNDS):
            capacity = openloop.OpenLoop(pump, server.port, messages, too_much, OVERLOAD_S).capacity_per_s(beside)
            rate = capacity * CAPACITY_SHARE
            say(f"open loop: {rate:,.0f} validates a second with {openloop.CREATES_PER_S} creates and revokes, one scrape")
            yardstick = openloop.OpenLoop(pump, bare.port, messages, rate, duration_s).run(None)
            bare_p99_ms.append(yardstick.percentile_ms("validate", 0.99))
            results.append(openloop.OpenLoop(pump, server.port, messages, rate, duration_s).run(beside))
        self._report_open_loop(results, bare_p99_ms)

    def _report_open_loop(self, results: list[openloop.OpenLoopResult], bare_p99_ms: list[float]) -> None:
        """Medians of the rounds."""
        figures = self.report.figures
        for kind in ("validate", "create", "revoke", "scrape"):
            for name, part in (("P50", 0.5), ("P99", 0.99), ("P99.9", 0.999)):
                figures[f"open loop {kind} {name} ms"] = statistics.median(
                    one.percentile_ms(kind, part) for one in results
                )
        scrapes = [one.scrape_p99_ms() for one in results]
        figures["open loop validate P99 ms, just after a scrape"] = statistics.median(near for near, _ in scrapes)
        figures["open loop validate P99 ms, otherwise"] = statistics.median(far for _, far in scrapes)
        figures["open loop bare uvloop P99 ms, the same schedule"] = statistics.median(bare_p99_ms)
        share = figures["open loop reached, share of what was offered"] = min(
            one.achieved_per_s / one.offered_per_s for one in results
        )
        offered = ", ".join(f"{one.offered_per_s:,.0f}/s" for one in results)
        p99s = ", ".join(f"{one.percentile_ms('validate', 0.99):.2f}" for one in results)
        bares = ", ".join(f"{one:.2f}" for one in bare_p99_ms)
        note = (
            f"offered {offered}; P50 {figures['open loop validate P50 ms']:.2f} ms; "
            f"P99 of the rounds {p99s}; bare uvloop under the same schedules {bares}"
        )
        p99_ms = figures["open loop validate P99 ms"]
        self.report.outcomes.append(rows.OPEN_LOOP.outcome(p99_ms, note, valid=share >= 0.99))

    def measure_scrape(self) -> None:
        assert self.tokmesh is not None
        head = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.tokmesh.metrics_key}\r\n\r\n"
        times_ms = []
        answer = b""
        with connect(self.tokmesh.port) as connection:
            for _ in range(30):
                begun = time.perf_counter()
                answer = exchange(connection, head.encode())
                times_ms.append((time.perf_counter() - begun) * 1e3)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"/metrics answers {answer[:100]!r}")
        note = f"{len(answer):,} bytes, request to last byte"
        self.report.outcomes.append(rows.SCRAPE.outcome(statistics.median(times_ms), note))

    def measure_startup(self) -> None:
        self.report.outcomes.append(rows.IMPORT.outcome(startup.import_s(), "in a fresh interpreter"))
        self.report.outcomes.append(
            rows.READY.outcome(startup.ready_s(self.processes, self.cores), "first admin key included")
        )

    def measure_memory(self) -> None:
        say(f"memory: {self.chosen.sessions:,} sessions into TokMesh, then into Redis")
        weighed = memory.measure(self.processes, self.cores, self.chosen.sessions)
        self.report.figures |= {
            "TokMesh bytes per session": weighed.tokmesh_resident,
            "TokMesh bytes per session, counted by its table": weighed.tokmesh_counted,
            "Redis bytes per session": weighed.redis_resident,
            "Redis bytes per session, counted as used_memory": weighed.redis_counted,
        }
        ours, theirs = weighed.tokmesh_resident, weighed.redis_resident
        note = f"{ours:.0f} B against {theirs:.0f} B resident, {weighed.sessions:,} sessions"
        self.report.outcomes.append(rows.MEMORY.outcome(ours / theirs, note))


def fill(server: TokMeshServer, workload: Workload) -> None:
    pairs = zip(workload.tokens, workload.sessions, strict=True)
    server.create_sessions(one.body(token) for token, one in pairs)
    subjects.check_valid(server.port, server.validator_key, workload)


def sample_answer(server: TokMeshServer, workload: Workload) -> bytes:
    """The bytes of one validate answer, as sent on a kept-alive connection."""
    with connect(server.port) as connection:
        body = f'{{"token":"{workload.tokens[0]}"}}'
        exchange(connection, raw_post("/tokens/validate", body, server.validator_key))
        return exchange(connection, raw_post("/tokens/validate", body, server.validator_key))

"""What it costs to be observed: tracing, native histograms and a storm of scrapes, each against the same load without it.

Tracing and histograms are judged by processor time per validate, of servers that differ in one setting: each burst against one of
the plain server just before it; the median of the rounds' ratios counts. One of them differs in nothing: how far its ratio is from
1 is what the machine adds. The storm is judged by the P99 of validates that leave on a schedule at half of the capacity, with and
without it in turn.
"""

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import compiled
from benchmarks.load import openloop, subjects, tokmesh_server
from benchmarks.load.http import raw_post
from benchmarks.load.measure import resident_bytes
from benchmarks.load.process import BenchmarkError, free_port
from benchmarks.load.rows import Limit

if TYPE_CHECKING:
    from benchmarks.load.run import Run

YARDSTICKS = Path(__file__).resolve().parents[1] / "yardsticks"
STORM_LOAD = 0.5  # of the capacity
TRACING = "--telemetry.tracing."
# The cap on traces is lifted, so that the ratio is what is sampled.
TRACED = (f"{TRACING}enabled=true", f"{TRACING}max_traces_per_second=100000", f"{TRACING}queue_size=65536")
COST = "the same load, tracing off"


@dataclass(frozen=True)
class Variant:
    """A server that differs from the plain one in `options`."""

    row: Limit
    options: tuple[str, ...]
    traced: bool = False


VARIANTS = (
    Variant(Limit("observed", "validate, server CPU, nothing switched on", COST, "×", 1.03), ()),
    Variant(
        Limit("observed", "validate, server CPU, tracing at 0", COST, "×", 1.03), (*TRACED, f"{TRACING}sampling_ratio=0"), True
    ),
    Variant(
        Limit("observed", "validate, server CPU, tracing at 1 %", COST, "×", 1.03),
        (*TRACED, f"{TRACING}sampling_ratio=0.01"),
        True,
    ),
    Variant(
        Limit("observed", "validate, server CPU, native histograms", COST, "×", 1.03),
        ("--telemetry.metrics.native_histograms=true",),
    ),
)
STORM = Limit("observed", "P99 of validate, 50 scrapers at once", "the same schedule without them", "×", 1.5)


def measure(run: "Run") -> None:
    """Adds the rows. run: with what to drive and where to report."""
    plain = _validate_subject(run, "plain", ())
    port = free_port()
    sink = run.processes.start("otlp-sink", [sys.executable, str(YARDSTICKS / "otlp_sink.py"), str(port)], run.cores.generator)
    sink.wait_for_port(port)
    endpoint = (f"{TRACING}endpoint=http://127.0.0.1:{port}",)
    others = [
        _validate_subject(run, f"variant-{number}", (*variant.options, *(endpoint if variant.traced else ())))
        for number, variant in enumerate(VARIANTS)
    ]
    ratios: list[list[float]] = [[] for _ in VARIANTS]
    capacities = []
    for _, subject in (plain, *others):
        subject.burst(1)
    for _ in range(run.chosen.rounds):
        for found, (_, subject) in zip(ratios, others, strict=True):
            bare = plain[1].burst(run.chosen.seconds)
            capacities.append(bare.operations_per_s)
            found.append(subject.burst(run.chosen.seconds).cpu_us / bare.cpu_us)
    for variant, found in zip(VARIANTS, ratios, strict=True):
        note = "rounds " + ", ".join(f"{ratio:.3f}" for ratio in found)
        run.report.outcomes.append(variant.row.outcome(statistics.median(found), note))
    _check_traces(others)
    _measure_storm(run, plain[0], statistics.median(capacities) * STORM_LOAD)


def _validate_subject(
    run: "Run", name: str, options: tuple[str, ...]
) -> tuple[tokmesh_server.TokMeshServer, subjects.Subject]:
    server = tokmesh_server.start(run.processes, name, run.cores.server, options)
    pairs = zip(run.workload.tokens, run.workload.sessions, strict=True)
    server.create_sessions(one.body(token) for token, one in pairs)
    keys = (server.validator_key, server.issuer_key)
    return server, subjects.tokmesh_validate(server.process, server.port, *keys, run.cores, run.workload)


def _check_traces(servers: list[tuple[tokmesh_server.TokMeshServer, subjects.Subject]]) -> None:
    """Raises BenchmarkError when a server did not trace what its row says."""
    for variant, (server, _) in zip(VARIANTS, servers, strict=True):
        figures = server.metrics()
        sampled = figures['tokmesh_trace_requests_total{outcome="sampled"}']
        lost = sum(count for name, count in figures.items() if name.startswith("tokmesh_trace_spans_dropped_total"))
        answered = figures['tokmesh_token_validate_calls_total{result="valid"}']
        share = sampled / answered
        wanted = 0.01 if f"{TRACING}sampling_ratio=0.01" in variant.options else 0.0
        if abs(share - wanted) > wanted / 10 or lost:
            raise BenchmarkError(f"{variant.row.what}: {share:.2%} were traced, {lost:.0f} spans lost")


def _measure_storm(run: "Run", server: tokmesh_server.TokMeshServer, rate_per_s: float) -> None:
    bodies = [f'{{"token":"{token}"}}' for token in run.workload.tokens]
    messages = [raw_post("/tokens/validate", body, server.validator_key) for body in bodies]
    pump = compiled.build(Path(openloop.__file__).with_name("pump.pyx"), run.processes.directory / "compiled")
    load = openloop.OpenLoop(pump, server.port, messages, rate_per_s, run.chosen.seconds)
    calm, stormy, grown, pages = [], [], [], 0
    for _ in range(run.chosen.rounds):
        calm.append(load.run(None).percentile_ms("validate", 0.99))
        resident = resident_bytes(server.process.pid)
        command = [sys.executable, "-m", "benchmarks.load.scrapers", str(server.port), server.metrics_key]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as scrapers:
            try:
                stormy.append(load.run(None).percentile_ms("validate", 0.99))
                grown.append(resident_bytes(server.process.pid) - resident)
            finally:
                scrapers.terminate()
            told = scrapers.communicate(timeout=30)[0]
        if scrapers.returncode != 0:
            raise BenchmarkError(f"the scrapers failed: {told}")
        pages += int(told)
    ratio = statistics.median(with_it / without for with_it, without in zip(stormy, calm, strict=True))
    run.report.figures["memory that a storm of scrapes took at most, MB"] = max(grown) / 1e6
    rounds = ", ".join(f"{with_it:.2f}/{without:.2f}" for with_it, without in zip(stormy, calm, strict=True))
    note = f"{rate_per_s:,.0f}/s, {pages} pages, P99 ms with/without {rounds}"
    run.report.outcomes.append(STORM.outcome(ratio, note))

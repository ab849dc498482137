"""Runs redis-benchmark with one command over random keys and reads its text report (its CSV has no P99.9)."""

import re
import subprocess
from dataclasses import dataclass

from benchmarks.load.process import BenchmarkError


@dataclass(frozen=True)
class RedisBenchmarkResult:
    requests: int
    duration_s: float
    percentiles_ms: tuple[float, float, float]


def run(
    port: int, command: list[str], *, requests: int, keys: int, cpu: int, connections: int = 64
) -> RedisBenchmarkResult:
    """`command` may hold __rand_int__: a 12-digit number below `keys`. Raises BenchmarkError on any error answer."""
    arguments = ["taskset", "-c", str(cpu), "redis-benchmark", "-p", str(port), "-c", str(connections)]
    arguments += ["-n", str(requests), "-r", str(keys), *command]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    text = finished.stdout.replace("\r", "\n")
    completed = re.search(r"(\d+) requests completed in ([0-9.]+) seconds", text)
    if finished.returncode != 0 or completed is None or "rror" in finished.stderr + text:
        raise BenchmarkError(f"redis-benchmark failed: {text[-2000:]}{finished.stderr[-2000:]}")
    steps = [(float(share), float(ms)) for share, ms in re.findall(r"([0-9.]+)% <= ([0-9.]+) milliseconds", text)]
    return RedisBenchmarkResult(
        requests=int(completed[1]),
        duration_s=float(completed[2]),
        percentiles_ms=(percentile(steps, 50.0), percentile(steps, 99.0), percentile(steps, 99.9)),
    )


def percentile(steps: list[tuple[float, float]], wanted: float) -> float:
    """The first latency whose cumulative share reaches the one wanted."""
    return next((ms for share, ms in steps if share >= wanted), steps[-1][1])

"""Runs wrk with replay.lua and reads its result. Any error fails the run: a fast wrong answer is no result."""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.process import BenchmarkError

SCRIPT = Path(__file__).with_name("replay.lua")
ERROR_KINDS = ("connect_errors", "read_errors", "write_errors", "status_errors", "timeouts")


@dataclass(frozen=True)
class WrkResult:
    requests: int
    duration_s: float
    percentiles_ms: tuple[float, float, float]  # P50, P99, P99.9; NaN when pipelined


@dataclass(frozen=True)
class WrkLoad:
    """What to send: `bodies` has one JSON body a line; `depth` requests leave in one write."""

    url: str
    bodies: Path
    api_key: str
    connections: int = 64
    depth: int = 1

    def run(self, duration_s: float, cpu: int) -> WrkResult:
        """Blocks for `duration_s`. Raises BenchmarkError on any socket error, timeout or status other than 2xx/3xx."""
        seconds = max(1, round(duration_s))
        result_path = self.bodies.with_suffix(".result")
        result_path.unlink(missing_ok=True)
        command = ["taskset", "-c", str(cpu), "wrk", "-t", "1", "-c", str(self.connections), "-d", f"{seconds}s"]
        command += ["--timeout", "10s", "-s", str(SCRIPT), self.url]
        command += ["--", str(self.bodies), str(self.depth), self.api_key, str(result_path)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        if finished.returncode != 0 or not result_path.exists():
            raise BenchmarkError(f"wrk failed on {self.url}: {finished.stdout}{finished.stderr}")
        result = json.loads(result_path.read_text())
        errors = {kind: result[kind] for kind in ERROR_KINDS if result[kind]}
        if errors or result["requests"] == 0:
            raise BenchmarkError(f"{self.url}: {result['requests']} requests with errors {errors}")
        # wrk corrects its latencies by the mean time between answers, which pipelining makes sixteen times too short.
        usable = self.depth == 1
        percentiles = [result[name] / 1e3 if usable else math.nan for name in ("p50_us", "p99_us", "p999_us")]
        return WrkResult(
            result["requests"], result["duration_us"] / 1e6, (percentiles[0], percentiles[1], percentiles[2])
        )

"""`python -m benchmarks.cluster`: the rows of run.py and bootstrap.py as a table and as JSON.

`--publish` writes them into docs/performance.md.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.cluster.bootstrap import BootstrapRun
from benchmarks.cluster.run import ClusterRun
from benchmarks.load import machine, report
from benchmarks.load.process import BenchmarkError, Processes, require_tools
from benchmarks.load.report import Report
from benchmarks.load.subjects import Cores

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "out"
MARKS = ("<!-- measured cluster: begin -->", "<!-- measured cluster: end -->")


def main(arguments: list[str]) -> int:
    """Exit code 0 when it ran to its end, whatever was met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--generator-cpu", type=int, default=1)
    parser.add_argument("--only", choices=("serving", "bootstrap"), help="one part of the rows")
    parser.add_argument("--scale", type=float, default=1.0, help="times a million sessions, of the bootstrap")
    parser.add_argument("--publish", action="store_true", help="write the table into docs/performance.md")
    chosen = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        require_tools("taskset")
        os.sched_setaffinity(0, {chosen.generator_cpu})
        with tempfile.TemporaryDirectory(prefix="cluster-", dir=OUT) as folder, Processes(Path(folder)) as processes:
            cores = Cores(chosen.server_cpu, chosen.generator_cpu)
            result = Report(machine.describe(Path(folder)), {"nodes": 3, "nats_servers": 3})
            if chosen.only != "bootstrap":
                result.outcomes += ClusterRun(processes, cores, say).measure()
            if chosen.only != "serving":
                result.outcomes += BootstrapRun(processes, cores, say, chosen.scale).measure()
    except (BenchmarkError, OSError) as error:
        say(f"benchmark failed: {error}")
        return 1
    print(report.plain(result))
    (OUT / "cluster.json").write_text(result.to_json())
    if chosen.publish:
        report.publish(ROOT / "docs" / "performance.md", report.markdown(result), *MARKS)
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A part of the benchmarks that is a command of its own: what all of them take, and where table and JSON of each go."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.load import machine, report
from benchmarks.load.process import BenchmarkError, Processes, require_tools
from benchmarks.load.report import Report
from benchmarks.load.rows import Outcome
from benchmarks.load.subjects import Cores

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "out"


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that every part has; name: of its folder."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--generator-cpu", type=int, default=1)
    parser.add_argument("--publish", action="store_true", help="write the table into docs/performance.md")
    return parser


def run(
    name: str,
    chosen: argparse.Namespace,
    tools: Sequence[str],
    settings: Mapping[str, object],
    measure: Callable[[Processes, Cores], list[Outcome]],
) -> int:
    """Prints the rows that `measure` gives, and writes them to out/NAME.json. 0 when it ran to its end, whatever was met."""
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        require_tools(*tools, "taskset")
        os.sched_setaffinity(0, {chosen.generator_cpu})
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=OUT) as folder, Processes(Path(folder)) as processes:
            result = Report(machine.describe(Path(folder)), dict(settings))
            result.outcomes += measure(processes, Cores(chosen.server_cpu, chosen.generator_cpu))
    except (BenchmarkError, OSError) as error:
        say(f"benchmark failed: {error}")
        return 1
    print(report.plain(result))
    (OUT / f"{name}.json").write_text(result.to_json())
    if chosen.publish:
        marks = (f"<!-- measured {name}: begin -->", f"<!-- measured {name}: end -->")
        report.publish(ROOT / "docs" / "performance.md", report.markdown(result), *marks)
    return 0


def say(text: str) -> None:
    """To those who wait."""
    print(text, file=sys.stderr, flush=True)

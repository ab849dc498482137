"""`python -m benchmarks.load`: starts every server, drives them in turn, prints a table, writes JSON and a picture."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from benchmarks.load import observed, picture, report, rows
from benchmarks.load.part import say
from benchmarks.load.process import BenchmarkError, Processes, require_tools
from benchmarks.load.report import Report
from benchmarks.load.run import ALL_SUBJECTS, Run

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "out"
IDLE_LOAD_MAX = 0.5
DOCS = ROOT / "docs"


def parse(arguments: list[str]) -> argparse.Namespace:
    names = sorted({*ALL_SUBJECTS, *rows.EXTRAS})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short bursts and fewer sessions: about a minute, rough figures"
    )
    parser.add_argument("--only", default="", help=f"comma-separated rows or subjects out of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, the median counts (3)")
    parser.add_argument("--seconds", type=float, default=0, help="length of one burst (5; quick: 1)")
    parser.add_argument(
        "--sessions", type=int, default=0, help="sessions to weigh memory with (1,000,000; quick: 50,000)"
    )
    parser.add_argument("--server-cpu", type=int, default=0, help="core of the servers (0)")
    parser.add_argument("--generator-cpu", type=int, default=1, help="core of the generator (1)")
    parser.add_argument(
        "--publish", action="store_true", help="also write docs/benchmark.json, .svg and docs/performance.md"
    )
    chosen = parser.parse_args(arguments)
    chosen.keys = set(chosen.only.split(",")) if chosen.only else set(names)
    if unknown := chosen.keys - set(names):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}; it knows {', '.join(names)}")
    chosen.seconds = chosen.seconds or (1.0 if chosen.quick else 5.0)
    chosen.sessions = chosen.sessions or (50_000 if chosen.quick else 1_000_000)
    return chosen


def run(chosen: argparse.Namespace, directory: Path) -> Report:
    with Processes(directory) as processes:
        one = Run(chosen, processes)
        say("starting servers")
        started = one.start()
        one.measure_rounds(started)
        if "openloop" in chosen.keys:
            one.measure_open_loop(started)
        if "scrape" in chosen.keys:
            one.measure_scrape()
        if "observed" in chosen.keys:
            observed.measure(one)
        if "startup" in chosen.keys:
            one.measure_startup()
        if "memory" in chosen.keys:
            one.measure_memory()
        return one.report


def end(number: int, frame: FrameType | None) -> None:
    """SIGTERM becomes an exception, so that every `with` block ends its servers."""
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    signal.signal(signal.SIGTERM, end)
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        require_tools("wrk", "nginx", "redis-server", "redis-benchmark", "taskset")
        if (load := os.getloadavg()[0]) > IDLE_LOAD_MAX:
            say(f"warning: the machine is not idle (load {load:.1f}); whatever shares the two cores is in the figures")
        os.sched_setaffinity(0, {chosen.generator_cpu})
        with tempfile.TemporaryDirectory(prefix="run-", dir=OUT) as directory:
            result = run(chosen, Path(directory))
    except (BenchmarkError, OSError) as error:
        say(f"benchmark failed: {error}")
        return 1
    print(report.plain(result))
    (OUT / "benchmark.json").write_text(result.to_json())
    picture.draw(result, OUT / "benchmark.svg")
    if chosen.publish:
        (DOCS / "benchmark.json").write_text(result.to_json())
        picture.draw(result, DOCS / "benchmark.svg")
        report.publish(DOCS / "performance.md", report.markdown(result))
    say(f"written: {OUT / 'benchmark.json'}, {OUT / 'benchmark.svg'}" + (" and docs/" if chosen.publish else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The benchmarks as programs: the micro ones run, the load's arithmetic and refusals are right. Nothing is timed."""

import json
import math
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from benchmarks.load import openloop, redis_benchmark, report, rows
from benchmarks.load.measure import CpuTime, Sample, median, sample
from benchmarks.load.process import BenchmarkError, Processes, require_tools
from benchmarks.load.run import ALL_SUBJECTS
from benchmarks.load.workload import SESSION_JSON_BYTES, session_input, stand_in_answer

ROOT = Path(__file__).resolve().parents[2]


def rate(per_s: float, cpu_us: float, busy: float = 1.0) -> Sample:
    return Sample(per_s, per_s, cpu_us / 2, cpu_us / 2, busy, 1.0, 2.0, 3.0)


def test_every_micro_benchmark_runs_once() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "python_files=bench_*.py", "--benchmark-disable"]
    finished = subprocess.run(
        [*command, "benchmarks/micro"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_sample_divides_processor_time_by_operations() -> None:
    one = sample(1_000_000, 2.0, CpuTime(1.0, 0.5), 1.8, (0.1, 0.2, 0.3))
    assert (one.operations_per_s, one.user_us, one.system_us, one.cpu_busy) == (500_000, 1.0, 0.5, 0.9)
    assert median([rate(1, 1), rate(9, 9), rate(5, 4)]).operations_per_s == 5


def test_rows_judge_by_the_right_side_of_the_goal() -> None:
    samples = dict.fromkeys(ALL_SUBJECTS, rate(100_000, 10)) | {
        "batch": rate(999_999, 1),
        "pipelined": rate(300_000, 3),
    }
    met = {row.key: row.outcome(samples).met for row in rows.rows_possible(set(samples))}
    assert met == {
        "bare": True,
        "nginx": True,
        "redis-get": True,
        "starlette": False,
        "pipelined": True,
        "batch": False,
        "create": True,
    }


def test_row_set_by_the_generator_says_so() -> None:
    samples = {"validate": rate(100, 10, busy=0.5), "bare": rate(100, 9)}
    [row] = [row for row in rows.COMPARISONS if row.key == "bare"]
    assert "per processor second 0.90" in row.outcome(samples).note
    assert "per processor" not in row.outcome({"validate": rate(100, 10), "bare": rate(100, 9)}).note


def test_open_loop_below_its_rate_is_missed_however_quick() -> None:
    assert rows.OPEN_LOOP.outcome(1.0, "", valid=True).met
    assert not rows.OPEN_LOOP.outcome(1.0, "", valid=False).met
    assert not rows.OPEN_LOOP.outcome(5.1, "", valid=True).met


def test_selection_brings_what_a_row_compares() -> None:
    assert rows.subjects_needed({"nginx"}) == {"nginx", "validate"}
    assert rows.subjects_needed({"openloop", "memory"}) == {"validate", "bare"}
    assert rows.subjects_needed({"create"}) == {"create", "redis-set"}


def test_every_session_and_answer_has_one_size() -> None:
    sizes = {len(session_input(number, number).stored_json()) for number in (0, 1, 99, 100, 9_999, 999_999)}
    assert sizes == {SESSION_JSON_BYTES}
    head, _, body = stand_in_answer(b"{}").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_redis_benchmark_percentile_is_the_first_step_that_reaches_it() -> None:
    steps = [(0.0, 0.1), (50.0, 0.2), (98.9, 0.4), (99.2, 0.5), (100.0, 0.9)]
    assert [redis_benchmark.percentile(steps, wanted) for wanted in (50.0, 99.0, 99.9)] == [0.2, 0.5, 0.9]


def test_open_loop_percentiles_are_in_milliseconds() -> None:
    latencies = {"validate": array("d", [1.0] + [0.001] * 99)}
    due_s = array("d", [number + (0.01 if number < 1 else 0.5) for number in range(100)])
    result = openloop.OpenLoopResult(100.0, 100.0, latencies, due_s)
    assert result.scrape_p99_ms() == (1000.0, 1.0)
    assert (result.percentile_ms("validate", 0.5), result.percentile_ms("validate", 0.999)) == (1.0, 1000.0)


def test_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(BenchmarkError, match=r"no-such-server \(apt-get install no-such-server\)"):
        require_tools("sh", "no-such-server")


def test_children_end_with_the_run(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Processes(tmp_path) as processes:
        child = processes.start("sleeper", ["sleep", "60"], 0)
        assert child.running()
        raise ZeroDivisionError
    assert not child.running()


def test_latency_that_is_not_known_is_left_out() -> None:
    unknown = Sample(1.0, 1.0, 1.0, 1.0, 1.0, math.nan, math.nan, math.nan)
    result = report.Report({}, {}, {"pipelined": "pipelined"}, {"pipelined": [unknown]})
    assert json.loads(result.to_json())["subjects"]["pipelined"]["median"]["p99_ms"] is None
    assert "nan" not in report.plain(result) + report.markdown(result)


def test_published_page_keeps_what_is_around_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.publish(page, "| new |")
    assert page.read_text() == f"before\n{report.BEGIN}\n\n| new |\n\n{report.END}\nafter\n"
    assert report.BEGIN in (ROOT / "docs" / "performance.md").read_text()

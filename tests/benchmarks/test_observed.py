"""The helpers of `--only observed`: the scrapers scrape, the receiver takes spans, and what went wrong is no result."""

import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.load import observed, rows
from benchmarks.load.process import Processes, free_port
from benchmarks.load.scrapers import SCRAPERS
from tests.observability.test_server import value
from tests.support.server import ROOT, TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.telemetry.tracing.otlp import rejected_spans
from tokmesh.telemetry.tracing.receiver import Outcome, Receiver


def scrapes(server: TokMeshProcess) -> float:
    return sum(value(server, "tokmesh_metrics_scrapes_total", outcome=outcome) for outcome in ("rendered", "shared"))


def test_scrapers_come_all_at_once_and_tell_how_many_pages_they_got(shared_server: TokMeshProcess) -> None:
    command = [sys.executable, "-m", "benchmarks.load.scrapers", str(shared_server.port), shared_server.create_key("metrics")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as scrapers:
        wait_until(lambda: scrapes(shared_server) > 2 * SCRAPERS, "two rounds")
        scrapers.send_signal(signal.SIGTERM)
        told = int(scrapers.communicate(timeout=60)[0])
    assert scrapers.returncode == 0 and told >= 2 * SCRAPERS and told % SCRAPERS == 0


def test_scrapers_that_are_refused_fail(shared_server: TokMeshProcess) -> None:
    command = [sys.executable, "-m", "benchmarks.load.scrapers", str(shared_server.port), shared_server.create_key("issuer")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "403" in done.stderr


def test_the_receiver_of_the_benchmark_takes_spans_on_one_connection(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        port = free_port()
        command = [sys.executable, str(observed.YARDSTICKS / "otlp_sink.py"), str(port)]
        processes.start("otlp-sink", command, 0).wait_for_port(port)
        receiver = Receiver(f"http://127.0.0.1:{port}", {}, 10.0, rejected_spans)
        assert [receiver.post(b"x" * size) for size in (1, 200_000, 7)] == [Outcome()] * 3
        receiver.close()


def test_being_observed_needs_no_other_subject() -> None:
    assert rows.subjects_needed({"observed"}) == set()

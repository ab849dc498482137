"""`make cluster` as a user has it: it starts, its lines work to the letter, and Ctrl-C leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ROOT, clean_environment
from tests.support.waiting import wait_until

START_TIMEOUT_S = 90


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with (tmp_path / "output").open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.trial", "--port=0"], cwd=ROOT, stdout=output, stderr=output,
            env=clean_environment({"TMPDIR": str(folder)}), start_new_session=True,
        )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGINT)
            started.wait(60)


def descendants(pid: int) -> list[int]:
    """Processes below it, by the kernel's word."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for each in found for below in descendants(each)]


def test_it_starts_its_lines_work_and_ctrl_c_ends_everything(trial: subprocess.Popen[bytes], tmp_path: Path) -> None:
    output = tmp_path / "output"
    deadline = time.monotonic() + START_TIMEOUT_S
    while "Ctrl-C ends" not in output.read_text():
        assert trial.poll() is None and time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    lines = [line for line in output.read_text().splitlines() if re.match(r"(export |SESSION=|TOKEN=|curl |/)", line)]
    assert len(lines) == 7
    script = "\necho\n".join(lines)
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, timeout=60, check=True)
    created, good, revoked, bad = (json.loads(line)["data"] for line in done.stdout.splitlines() if line.startswith("{"))
    assert created["token"].startswith("tmtk_") and good["valid"] is True
    assert (revoked["nodes_reached"], revoked["nodes_fenced"]) == (["tmnd-0", "tmnd-1", "tmnd-2"], [])
    assert (bad["valid"], bad["error"]["code"]) == (False, "TM-TOKN-4012")
    assert re.findall(r"^(tmnd-\d)", done.stdout, re.MULTILINE) == ["tmnd-0", "tmnd-1", "tmnd-2"]
    pids = descendants(trial.pid)
    assert len(pids) == 6
    os.killpg(trial.pid, signal.SIGINT)
    assert trial.wait(60) == 0, output.read_text()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all six processes are gone", 10)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_make_runs_it() -> None:
    done = subprocess.run(["make", "-n", "cluster", "ARGS=--port=6081"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"python -m tests\.cluster\.trial --port=6081$", done.stdout, re.MULTILINE)

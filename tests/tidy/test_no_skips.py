"""The plugin that fails a run with tests left out, in runs of its own: in one process, and with workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.no_skips import not_run_counts

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "def test_passes(): pass\n"
LEFT_OUT = f"""
import pytest
{WHOLE}
def test_deselected(): pass
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.xfail
def test_xfailed(): assert False
@pytest.mark.xfail
def test_xpassed(): pass
"""


def run(folder: Path, source: str, workers: str) -> tuple[int, str]:
    """(exit code, output) of a run over one file of tests, with no plugin but those in question."""
    (folder / "test_case.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "xdist", "-n", workers, "-p", "tests.tidy.no_skips", "-p", "no:cacheprovider", "-k", "not deselected"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_run_that_left_tests_out_fails_and_a_whole_one_does_not(tmp_path: Path, workers: str) -> None:
    code, output = run(tmp_path, LEFT_OUT, workers)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "Tests left out fail this run: 1 skipped, 1 xfailed, 1 xpassed, 1 deselected" in output
    code, output = run(tmp_path, WHOLE, workers)
    assert code == pytest.ExitCode.OK, output


@pytest.mark.parametrize("outcome", ["skipped", "xfailed", "xpassed"])
def test_one_outcome_alone_is_noticed(outcome: str) -> None:
    assert not_run_counts({"passed": [1, 2], outcome: [1]}, 0) == {outcome: 1}


def test_what_was_deselected_is_noticed_and_a_whole_run_left_alone() -> None:
    assert not_run_counts({"passed": [1, 2]}, 3) == {"deselected": 3}
    assert not_run_counts({"passed": [1, 2], "": [3]}, 0) == {}

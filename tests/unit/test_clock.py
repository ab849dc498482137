"""The clock goes on while the machine is suspended: in a time namespace, whose clocks tell of a suspension that never was."""

import subprocess
import sys

SUSPENDED_S = 100_000
CLOCKS = """
import time
from tokmesh._core.clock import Clock, monotonic_ns
awake_s = time.clock_gettime(time.CLOCK_MONOTONIC)
print(Clock().monotonic_ns() / 1e9 - awake_s, monotonic_ns() / 1e9 - awake_s)
"""
WAIT = """
from tokmesh._core.commits import Commits
Commits(1 << 20).wait(1_000_000)
"""


def resumed(script: str) -> str:
    """What that prints on a machine that was suspended for SUSPENDED_S since its start."""
    command = ["unshare", "--map-root-user", "--time", "--boottime", str(SUSPENDED_S), "--fork", sys.executable, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_proof_is_older_by_the_time_for_which_the_machine_was_suspended() -> None:
    assert [SUSPENDED_S <= float(each) < SUSPENDED_S + 60 for each in resumed(CLOCKS).split()] == [True, True]


def test_the_log_waits_no_longer_because_the_machine_was_suspended() -> None:
    assert resumed(WAIT) == ""

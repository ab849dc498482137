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


class Shell:
    """What its user reads, and runs in another terminal, elsewhere and with the variable that the first line exports."""

    def __init__(self, trial: subprocess.Popen[bytes], folder: Path) -> None:
        self.trial = trial
        self._folder = folder

    def output(self) -> str:
        return (self._folder / "output").read_text()

    def wait_output(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.output(), re.MULTILINE)):
            assert self.trial.poll() is None and time.monotonic() < deadline, f"{pattern}\n{self.output()}"
            time.sleep(0.05)
        return found

    def blocks(self) -> list[list[str]]:
        """The lines for the shell, by paragraph."""
        line = re.compile(r"^(?:export |SESSION=|TOKEN=|curl |kill |/).*", re.MULTILINE)
        told = [line.findall(each) for each in self.output().split("\n\n")]
        return [each for each in told if each]

    def run(self, *lines: str) -> subprocess.CompletedProcess[str]:
        key = re.search(r"^export TOKMESH_KEY='(.*)'$", self.output(), re.MULTILINE)
        assert key
        return subprocess.run(
            ["sh", "-uc", "\necho\n".join(lines)], capture_output=True, text=True, timeout=60, check=False, cwd=self._folder,
            env=clean_environment({"TOKMESH_KEY": key[1], "PYTHONPATH": ""}),
        )  # fmt: skip

    def wait_status(self, line: str, said: str) -> None:
        wait_until(lambda: self.run(line).stdout.startswith(said), f"{line}: {said}", 30)

    def start_again(self, name: str) -> int:
        """Runs the line that was told when it ended, once that is told; its process id."""
        line = self.wait_output(rf"^{name} has ended: .*\n\n(/.* &)$")[1]
        assert self.run(line).returncode == 0
        return int(self.wait_output(rf"^{name} runs again: pid (\d+)$")[1])


@pytest.fixture
def shell(trial: subprocess.Popen[bytes], tmp_path: Path) -> Shell:
    shell = Shell(trial, tmp_path)
    shell.wait_output("^Ctrl-C ends", START_TIMEOUT_S)
    return shell


def runs(pid: int) -> bool:
    """Does it, by the kernel's word? One that has ended and that nobody asked for yet has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def options(pid: int, name: str) -> list[str]:
    """What follows that in the words of its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [word.removeprefix(name) for word in words if word.startswith(name)]


def test_it_starts_its_lines_work_and_ctrl_c_ends_everything(shell: Shell, tmp_path: Path) -> None:
    lines, status, kill = shell.blocks()
    assert (len(lines), len(status), len(kill)) == (7, 3, 3)
    done = shell.run(*lines)
    assert done.returncode == 0, done.stderr
    created, good, revoked, bad = (json.loads(line)["data"] for line in done.stdout.splitlines() if line.startswith("{"))
    assert created["token"].startswith("tmtk_") and good["valid"] is True
    assert (revoked["nodes_reached"], revoked["nodes_fenced"]) == (["tmnd-0", "tmnd-1", "tmnd-2"], [])
    assert (bad["valid"], bad["error"]["code"]) == (False, "TM-TOKN-4012")
    assert re.findall(r"^(tmnd-\d)", done.stdout, re.MULTILINE) == ["tmnd-0", "tmnd-1", "tmnd-2"]
    for line in status:
        shell.wait_status(line, "OK: 3 active, 0 down")

    told = re.findall(r"^(\w+-\d): (\w+://\S+), pid (\d+), log ([^,\n]+)(?:, data (\S+))?$", shell.output(), re.MULTILINE)
    names, urls, numbers, logs, directories = zip(*told, strict=True)
    assert names == ("tmnd-0", "tmnd-1", "tmnd-2", "nats-0", "nats-1", "nats-2")
    pids = [int(number) for number in numbers]
    for pid, directory in zip(pids[:3], directories, strict=False):
        assert options(pid, "--storage.dir=") == [directory] and len(options(pid, "--server.http.address=")) == 1
    assert all(Path(log).stat().st_size for log in logs)

    assert kill[0] == f"kill -9 {pids[2]}"
    answered = shell.run(*kill[:2])
    assert json.loads(answered.stdout.splitlines()[-1])["data"]["token"].startswith("tmtk_"), answered
    shell.wait_output(r"^tmnd-2 has ended: exit code 137 \(SIGKILL\)\.")
    shell.wait_status(status[0], "DEGRADED: 2 active, 1 down")
    pids.append(shell.start_again("tmnd-2"))
    assert options(pids[-1], "--server.http.address=") == [urls[2].removeprefix("http://")]
    for line in status:
        shell.wait_status(line, "OK: 3 active, 0 down")
    asked = shell.run(lines[3].replace(urls[1], urls[2]).replace("$TOKEN", created["token"]))
    assert json.loads(asked.stdout)["data"]["valid"] is False

    assert shell.run(status[1].replace(" status ", " leave ")).returncode == 0
    shell.wait_output(r"^tmnd-1 has ended: exit code 0\.")
    os.kill(pids[3], signal.SIGKILL)
    pids.append(shell.start_again("nats-0"))

    assert [runs(pid) for pid in pids] == [True, False, False, False, True, True, True, True]
    os.killpg(shell.trial.pid, signal.SIGINT)
    assert shell.trial.wait(60) == 0, shell.output()
    wait_until(lambda: not any(map(runs, pids)), "all processes are gone", 10)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_it_ends_when_no_node_is_left(shell: Shell, tmp_path: Path) -> None:
    pids = [int(pid) for pid in re.findall(r"^\S+: .*, pid (\d+),", shell.output(), re.MULTILINE)]
    assert len(pids) == 6
    os.kill(pids[0], signal.SIGKILL)
    again = shell.start_again("tmnd-0")
    for pid in pids[1:3]:
        os.kill(pid, signal.SIGKILL)
    shell.wait_output("^tmnd-2 has ended")
    time.sleep(1)  # it looks twice meanwhile
    assert shell.trial.poll() is None, "the one that was started by hand is left"
    os.kill(again, signal.SIGKILL)
    wait_until(lambda: shell.output().endswith("No node is left\n"), "it says so")
    os.killpg(shell.trial.pid, signal.SIGINT)  # a Ctrl-C while it ends
    assert shell.trial.wait(60) == 1
    assert not any(map(runs, [*pids, again])) and list((tmp_path / "tmp").iterdir()) == []


def test_make_runs_it() -> None:
    done = subprocess.run(["make", "-n", "cluster", "ARGS=--port=6081"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"python -m tests\.cluster\.trial --port=6081$", done.stdout, re.MULTILINE)

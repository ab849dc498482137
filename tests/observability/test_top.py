"""`tokmesh top`: the summary's figures on one screen, again and again, until interrupted; also when the server goes away."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import TokMeshProcess, clean_environment, run_command
from tests.support.waiting import TIMEOUT_S, wait_until
from tokmesh.cli import main

UNIGNORED = ("env", "--default-signal=INT")  # whoever runs the tests may ignore it, as a shell does in the background
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path) as running:
        yield running


class Terminal:
    """`tokmesh top` on a terminal of 30 lines by 120 columns; what it has drawn so far, without colours and movements."""

    def __init__(self, *args: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.process = subprocess.Popen(
            [*UNIGNORED, sys.executable, "-m", "tokmesh", "top", *args],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**clean_environment(), "TERM": "xterm"},
        )  # fmt: skip
        os.close(slave)
        self._drawn = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while more := os.read(self._master, 65536):
                self._drawn += more
        except OSError:  # EIO: nobody has the other side open any more
            return

    @property
    def drawn(self) -> str:
        return _CONTROL.sub("", self._drawn.decode(errors="replace"))

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.drawn, f"{words!r} on the terminal, which had {self.drawn[-2000:]!r}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        os.close(self._master)


@pytest.fixture
def terminal(server: TokMeshProcess) -> Iterator[Terminal]:
    opened = Terminal(f"--dir={server.directory}", "--interval=0.2")
    yield opened
    opened.close()


def test_one_look_has_the_figures_of_the_summary(server: TokMeshProcess) -> None:
    for _ in range(3):
        server.create_session()
    done = server.command_line("top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    summary = server.data("GET", "/admin/v1/status/summary")
    assert summary["node"]["id"] in done.stdout and " ready" in done.stdout
    assert "3 active" in done.stdout
    rows = "sessions requests validations latency log disk memory CPU connections nodes"
    for row in rows.split():
        assert re.search(rf"^{row} ", done.stdout, re.MULTILINE), row
    assert "open, always" in done.stdout
    assert server.admin_key not in done.stdout


def test_the_screen_follows_the_server(server: TokMeshProcess, terminal: Terminal) -> None:
    terminal.wait_for("0 active")
    server.create_session()
    terminal.wait_for("1 active")
    assert terminal.interrupt() == 130


def test_a_server_that_goes_away_leaves_its_last_figures_and_comes_back(server: TokMeshProcess, terminal: Terminal) -> None:
    server.create_session()
    terminal.wait_for("1 active")
    server.kill()
    terminal.wait_for("no answer: ")
    after = terminal.drawn.rpartition("no answer: ")[0]
    assert "1 active" in after
    server.start()
    server.create_session()
    terminal.wait_for("2 active")
    assert terminal.interrupt() == 130


def test_without_a_server_there_is_nothing_to_see(tmp_path: Path) -> None:
    done = run_command("top", f"--dir={tmp_path}")
    assert (done.returncode, done.stdout) == (69, "")
    assert "TM-SYS-5030" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("seconds", "code"), [("0.19", 64), ("nan", 64), ("60.1", 64), ("0.2", 0), ("60", 0)])
def test_the_interval_has_limits(server: TokMeshProcess, seconds: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", f"--dir={server.directory}", f"--interval={seconds}"]) == code
    assert ("TM-ARG-1001" in capsys.readouterr().err) == (code == 64)


def test_without_rich_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "tokmesh.cli.top", raising=False)
    for name in ("rich", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["top"]) == 78
    assert "pip install 'tokmesh[top]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "tokmesh.cli.top", raising=False)

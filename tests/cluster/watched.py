"""A process of `make cluster` that its user may kill, and start again by hand from another terminal.

Started by hand it is no child of this process, so it is found by a word of its command line that no other process has: the path of
its own data directory or configuration, which lie in a folder of this run alone.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.support.waiting import wait_until

STOP_TIMEOUT_S: Final = 60.0


class Watched:
    """name: for the user. command: its command line. mark: the one of its words that is its own. log: where its output goes."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], command: Sequence[str], mark: str, log: Path) -> None:
        assert mark in command
        self.name = name
        self.log = log
        self.start_line = f"{shlex.join(command)} >>{shlex.quote(str(log))} 2>&1 &"
        self._process = process
        self._mark = mark
        self._pid: int | None = process.pid

    def news(self) -> str:
        """What happened to it since the last call, in a line or two; empty: nothing."""
        pids = self.pids()
        if self._pid is not None and self._pid not in pids:
            ended, self._pid = self._pid, None
            is_child = ended == self._process.pid
            how = _exit_text(self._process.returncode) if is_child else "its exit code is known to the shell that started it"
            return f"{self.name} has ended: {how}. The others go on; this starts it again:\n\n{self.start_line}\n"
        if self._pid is None and pids:
            self._pid = pids[0]
            return f"{self.name} runs again: pid {self._pid}"
        return ""

    def pids(self) -> list[int]:
        """The processes that run with its command line: one, or none; a second one for the moment in which it is refused."""
        if self._process.poll() is None:
            return [self._process.pid]
        return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal() and self._mark in _words(each)]

    def stop(self) -> None:
        """SIGTERM, and waits for the end; SIGKILL when that takes too long."""
        self._send(signal.SIGTERM)
        with suppress(AssertionError):
            wait_until(lambda: not self.pids(), self.name, STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._send(signal.SIGKILL)
        wait_until(lambda: not self.pids(), self.name, STOP_TIMEOUT_S)

    def _send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _words(process: Path) -> list[str]:
    """The command line of a process of /proc; of one that has ended, none."""
    try:
        return (process / "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _exit_text(code: int) -> str:
    """As a shell has it."""
    return f"exit code {code}" if code >= 0 else f"exit code {128 - code} ({signal.Signals(-code).name})"

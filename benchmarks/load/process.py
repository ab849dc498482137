"""Child processes of a run: pinned to a core, waited for, always ended with their children.

Invariant: everything started through a `Processes` is dead when its `with` block ends, whatever ended the block.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


class BenchmarkError(Exception):
    """The run cannot go on; the text says why, for the person who started it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_tools(*names: str) -> None:
    """Raises BenchmarkError naming every missing program and the Debian package that has it."""
    packages = {"redis-benchmark": "redis-tools", "redis-cli": "redis-tools", "taskset": "util-linux"}
    search_path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=search_path) is None]
    if missing:
        listed = " ".join(sorted({packages.get(name, name) for name in missing}))
        raise BenchmarkError(f"missing programs: {', '.join(missing)} (apt-get install {listed})")


class Process:
    """One running child, its log file, and the processor time of it and its children."""

    def __init__(self, name: str, command: list[str], cpu: int, directory: Path) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        environment = dict(os.environ, PATH=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        with self.log_path.open("wb") as log:
            self._child = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def cpu_s(self) -> float:
        """Processor time that the process has had."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self.check_running()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise BenchmarkError(
            f"{self.name} does not listen on port {port} after {START_TIMEOUT_S:.0f} s:\n{self.log_text()}"
        )

    def check_running(self) -> None:
        if not self.running():
            raise BenchmarkError(f"{self.name} ended with code {self._child.returncode}:\n{self.log_text()[-4000:]}")

    def stop(self) -> None:
        if self.running():
            self._child.terminate()
            try:
                self._child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._child.wait(STOP_TIMEOUT_S)


class Processes:
    """The children of a run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[Process] = []

    def start(self, name: str, command: list[str], cpu: int) -> Process:
        process = Process(name, command, cpu, self.directory)
        self._running.append(process)
        return process

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            process.stop()

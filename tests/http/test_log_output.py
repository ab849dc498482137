"""Where the log goes may be closed, full, or read by nobody: the server goes on, ends in time, and counts what was lost."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.ports import free_port
from tests.support.server import TokMeshProcess, clean_environment
from tokmesh.config.keys import KEYS


class Unheard(TokMeshProcess):
    """A server whose standard output is the test's: its port cannot be read from there, so it is chosen before."""

    def __init__(self, folder: Path, stdout: int | IO[Any], *args: str, close_stdout: bool = False) -> None:
        super().__init__(folder, f"--server.http.address=127.0.0.1:{free_port()}", *args)
        self._output, self._close_stdout = stdout, close_stdout

    def spawn(self) -> "Unheard":
        self._stderr = Path(tempfile.mkdtemp(dir=self.directory.parent)) / "stderr"
        command = self.command()
        if self._close_stdout:
            command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command]
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=stderr, env=clean_environment(),
                start_new_session=True,
            )  # fmt: skip
        return self

    def _find_ports(self) -> bool:
        self.port = int(self.args[0].rpartition(":")[2])
        return True

    def _has_told_all(self) -> bool:
        return True


def dropped(server: TokMeshProcess) -> float:
    lines = str(server.request("GET", "/metrics")[1]).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("tokmesh_log_lines_dropped_total ")))


@contextmanager
def pipe_without_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def pipe_that_nobody_reads() -> Iterator[int]:
    reader, writer = os.pipe()
    yield writer
    os.close(writer)
    os.close(reader)


@contextmanager
def full_device() -> Iterator[int]:
    writer = os.open("/dev/full", os.O_WRONLY)
    yield writer
    os.close(writer)


@contextmanager
def nothing() -> Iterator[int]:
    yield subprocess.DEVNULL


@pytest.mark.parametrize("output", [pipe_without_reader, full_device, nothing], ids=["no reader", "full", "closed"])
def test_lost_lines_are_counted_and_cost_nothing_else(tmp_path: Path, output: Any) -> None:
    with output() as stdout, Unheard(tmp_path, stdout, close_stdout=output is nothing) as server:
        token = server.create_session("alice")["token"]
        assert server.validate(token)["valid"] is True
        before = dropped(server)
        assert before >= 2, "listening, serving"
        server.data("POST", "/admin/v1/config/reload")
        deadline = time.monotonic() + 20
        while dropped(server) < before + 2:  # the reload and its audit line
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(server.data("GET", "/admin/v1/audit/logs")["items"]) == 2, "the trail does not need the output"
        assert server.stop() == 0
        for path in server.directory.rglob("*"):
            assert not path.is_file() or b'"logger"' not in path.read_bytes(), "the log went into a file of ours"


def test_a_pipe_that_nobody_reads_holds_up_neither_service_nor_stop(tmp_path: Path) -> None:
    """64 KB fit the pipe and 4 MB the queue: each refused reload logs a problem of every key."""
    config = tmp_path / "tokmesh.yaml"
    config.write_text("")
    options = ("--telemetry.logging.repeat.max=0", f"--config={config}")
    with pipe_that_nobody_reads() as stdout, Unheard(tmp_path, stdout, *options) as server:
        config.write_text("".join(f"{key.name}: [{{}}]\n" for key in KEYS))
        slowest_s = 0.0
        deadline = time.monotonic() + 120
        while dropped(server) == 0:
            assert time.monotonic() < deadline
            for _ in range(20):
                before = time.monotonic()
                assert server.data("POST", "/admin/v1/config/reload")["problems"]
                slowest_s = max(slowest_s, time.monotonic() - before)
        assert slowest_s < 5
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started < 20

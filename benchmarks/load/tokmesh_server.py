"""A TokMesh of the run's own: on a free port with an empty directory, given keys, filled over its own HTTP API."""

import re
import sys
import time
from collections.abc import Iterable

from benchmarks.load.fill import post_all
from benchmarks.load.http import post, request
from benchmarks.load.process import START_TIMEOUT_S, BenchmarkError, Process, Processes, free_port

START = "import sys; from tokmesh.cli import main; sys.exit(main(sys.argv[1:]))"
ADMIN_KEY = re.compile(r"tmak-[0-9a-z]{26}:tmas_[0-9A-Za-z]{43}")


class TokMeshServer:
    """`validator_key` and `issuer_key` are credentials as presented: id:secret."""

    def __init__(self, process: Process, port: int, admin_key: str) -> None:
        self.process = process
        self.port = port
        self.admin_key = admin_key
        self.validator_key = self._create_key("validator")
        self.issuer_key = self._create_key("issuer")
        self.metrics_key = self._create_key("metrics")

    def _create_key(self, role: str) -> str:
        status, answer = post(self.port, "/admin/v1/keys", {"role": role, "description": "benchmark"}, self.admin_key)
        if status != 200:
            raise BenchmarkError(f"cannot create a {role} key: {status} {answer}")
        return f"{answer['data']['key_id']}:{answer['data']['key_secret']}"

    def create_sessions(self, bodies: Iterable[str]) -> int:
        return post_all(self.port, "/sessions", bodies, self.issuer_key)

    def metrics(self) -> dict[str, float]:
        """One scrape: series as written (name and labels) → value."""
        status, text = request(self.port, "GET", "/metrics", self.metrics_key)
        if status != 200:
            raise BenchmarkError(f"/metrics answers {status}")
        lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}

    def valid_answers(self) -> int:
        return int(self.metrics()['tokmesh_token_validate_calls_total{result="valid"}'])


def begin(processes: Processes, name: str, cpu: int, options: Iterable[str] = ()) -> tuple[Process, int]:
    """Starts with an empty data directory → process, port; neither may be there yet."""
    port = free_port()
    directory = processes.directory / f"{name}-data"
    command = [
        sys.executable,
        "-c",
        START,
        "serve",
        f"--server.http.address=127.0.0.1:{port}",
        f"--storage.dir={directory}",
    ]
    return processes.start(name, [*command, "--telemetry.logging.level=warn", *options], cpu), port


def launch(processes: Processes, name: str, cpu: int, options: Iterable[str] = ()) -> tuple[Process, int]:
    """The same, once ready. Raises BenchmarkError when it never is."""
    process, port = begin(processes, name, cpu, options)
    process.wait_for_port(port)
    deadline = time.monotonic() + START_TIMEOUT_S
    while request(port, "GET", "/ready", None)[0] != 200:
        process.check_running()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{name} is not ready after {START_TIMEOUT_S:.0f} s:\n{process.log_text()}")
        time.sleep(0.01)
    return process, port


def start(processes: Processes, name: str, cpu: int, options: Iterable[str] = ()) -> TokMeshServer:
    """The same, with keys made."""
    process, port = launch(processes, name, cpu, options)
    found = ADMIN_KEY.search(process.log_text())
    if found is None:
        raise BenchmarkError(f"{name} printed no admin key:\n{process.log_text()}")
    return TokMeshServer(process, port, found[0])

"""A real server process for tests: started, asked, stopped and killed like a user's.

The process is `sys.executable -m tokmesh serve` on ports of 127.0.0.1 that the kernel chooses, with its own data
directory and an environment without TOKMESH_* variables. Every wait has a deadline; a deadline missed fails the test
with all the process wrote.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.places import LOOPBACK, Place

ROOT: Final = Path(__file__).resolve().parents[2]
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
REQUEST_TIMEOUT_S: Final = 60.0

_ADDRESS: Final = "--server.http.address="
_KEY_LINE: Final = re.compile(r"^(tmak-[0-9a-z]{26}:tmas_[0-9A-Za-z]{43})$", re.MULTILINE)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of TokMesh, able to import the package under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKMESH_")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


class TokMeshProcess:
    """One server process, possibly started several times on one data directory.

    tmp_path: where the data directory `data` and the output files go. args: further options of `tokmesh serve`.
    env: further environment variables. wrapper: a command put before the server's (("strace", "-f", …)). place: where it runs.
    The ports are chosen by the kernel and read from the server's log, so a restart may get another one.
    """

    def __init__(
        self,
        tmp_path: Path | str,
        *args: str,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        place: Place = LOOPBACK,
    ) -> None:
        self.directory = Path(tmp_path) / "data"
        self.args = list(args)
        self.env = dict(env or {})
        self.wrapper = list(wrapper)
        self.place = place
        self.port = 0
        self.https_port = 0
        self._admin_key = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="output-", dir=tmp_path))
        self._starts = 0
        self._stdout = self._stderr = Path(os.devnull)

    # What the process is and said.

    @property
    def url(self) -> str:
        """The server's address, "http://127.0.0.1:PORT"."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        """The key that the first start printed, "tmak-…:tmas_…"."""
        assert self._admin_key, f"no admin key was printed\n{self.output}"
        return self._admin_key

    @property
    def pid(self) -> int:
        """Process id of the server; of the wrapper when there is one."""
        assert self.process is not None, "not started"
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What the latest start wrote to standard output: the log."""
        return self._stdout.read_text(errors="replace")

    @property
    def stdout_file(self) -> Path:
        """Where the latest start's standard output goes."""
        return self._stdout

    @property
    def stderr(self) -> str:
        """What the latest start wrote to standard error."""
        return self._stderr.read_text(errors="replace")

    @property
    def output(self) -> str:
        """Both streams and the exit code, for the message of a failed test."""
        code = self.process.poll() if self.process is not None else None
        return f"exit code {code}\n--- stdout ---\n{self.stdout[-8000:]}\n--- stderr ---\n{self.stderr[-8000:]}"

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as objects; a line still being written is left out."""
        lines = self.stdout.split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def has_logged(self, message: str) -> bool:
        """Whether a line with just this message stands in the log. Lines come a little after what they tell of."""
        return any(line.get("message") == message for line in self.log_lines())

    # Start and stop.

    @property
    def _has_address(self) -> bool:
        return any(each.startswith(_ADDRESS) for each in self.args)

    def keep_port(self) -> None:
        """Later starts listen where this one does."""
        if not self._has_address:
            self.args.append(f"{_ADDRESS}127.0.0.1:{self.port}")

    def command(self) -> list[str]:
        """The command line of the server."""
        command = [
            *self.wrapper, sys.executable, "-m", "tokmesh", "serve", f"--storage.dir={self.directory}",
            *([] if self._has_address else [f"{_ADDRESS}127.0.0.1:0"]), *self.args,
        ]  # fmt: skip
        return self.place.command(command)

    def spawn(self) -> "TokMeshProcess":
        """Starts the process without waiting for it."""
        assert self.process is None or self.process.poll() is not None, "already running"
        self._starts += 1
        self._stdout = self._folder / f"stdout-{self._starts}"
        self._stderr = self._folder / f"stderr-{self._starts}"
        self.port = self.https_port = 0
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                env=clean_environment(self.env), start_new_session=True,
            )  # fmt: skip
        return self

    def start(self, timeout_s: float = START_TIMEOUT_S) -> "TokMeshProcess":
        """Starts the process and waits until it is ready."""
        self.spawn()
        try:
            self.wait_ready(timeout_s)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Waits until /ready answers 200 and the log, written by a thread of its own, has all lines of the start; fails when the
        process ends or the time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            assert self.process is not None and self.process.poll() is None, f"the server ended\n{self.output}"
            if self._find_ports() and self._is_ready() and self._has_told_all():
                break
            assert time.monotonic() < deadline, f"not ready within {timeout_s} s\n{self.output}"
            time.sleep(0.02)
        found = _KEY_LINE.search(self.stderr)
        if found:
            self._admin_key = found[1]

    def _find_ports(self) -> bool:
        for line in self.log_lines():
            if line.get("message") == "listening":
                name = "https_port" if line.get("scheme") == "https" else "port"
                setattr(self, name, line["port"])
        return self.port != 0

    def _has_told_all(self) -> bool:
        return self.has_logged("serving")

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/ready", key=None)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for the end; returns the exit code (negative: the signal's number)."""
        assert self.process is not None, "not started"
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)
            raise AssertionError(f"did not end within {timeout_s} s\n{self.output}") from None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM to the server, then waits; returns the exit code. Nothing happens to a process that has ended."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self._signal_group(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to the server and its wrapper."""
        if self.process is not None and self.process.poll() is None:
            self._signal_group(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server and its wrapper."""
        assert self.process is not None and self.process.poll() is None, f"the server ended\n{self.output}"
        self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def __enter__(self) -> Self:
        if self.process is None:
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    # Requests.

    def request(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """As `exchange`; (status, JSON of the answer, or its text where it is not JSON)."""
        status, _, content = self.exchange(method, path, body, **options)
        return status, _decoded(content)

    def exchange(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        json: object = None,
        key: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own; (status, headers with names in lower case, body).

        json: sent as JSON; body: bytes or text sent as they are. key: a credential "tmak-…:tmas_…", "admin" for the
        printed one, None for none.
        """
        sent = dict(headers or {})
        if json is not None:
            body = _encoded(json)
            sent.setdefault("Content-Type", "application/json")
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {self.admin_key if key == 'admin' else key}")
        connection = self.connect(timeout_s)
        try:
            connection.request(method, path, body, sent)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def connect(self, timeout_s: float = REQUEST_TIMEOUT_S) -> http.client.HTTPConnection:
        """A connection to the server, which is not made again when it is lost. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        self.place.call(connection.connect)
        connection.auto_open = 0
        return connection

    def data(self, method: str, path: str, json: object = None, *, key: str | None = "admin") -> Any:
        """The `data` of an answer that must be 200."""
        status, answer = self.request(method, path, json=json, key=key)
        assert status == 200, f"{method} {path}: {status} {answer}\n{self.output}"
        return answer["data"]

    def create_key(self, role: str, **fields: object) -> str:
        """Makes an API key over HTTP; its credential "tmak-…:tmas_…"."""
        made = self.data("POST", "/admin/v1/keys", {"role": role, **fields})
        return f"{made['key_id']}:{made['key_secret']}"

    def create_session(self, user_id: str = "user", *, key: str | None = "admin", **fields: object) -> dict[str, Any]:
        """Makes a session; its session_id, token and expires_at."""
        made: dict[str, Any] = self.data("POST", "/sessions", {"user_id": user_id, **fields}, key=key)
        return made

    def validate(self, token: str, *, key: str | None = "admin") -> dict[str, Any]:
        """The verdict on a token."""
        verdict: dict[str, Any] = self.data("POST", "/tokens/validate", {"token": token}, key=key)
        return verdict

    def command_line(self, *args: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs `tokmesh ARGS --storage.dir=…` beside the server."""
        return run_command(*args, f"--storage.dir={self.directory}", env=self.env, timeout_s=timeout_s)


def run_command(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs `tokmesh ARGS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tokmesh", *args], env=clean_environment(env), cwd=cwd, timeout=timeout_s,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def in_background(work: Any, *args: object) -> threading.Thread:
    """A thread that is already running; join it with a deadline."""
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")

"""smoke.py TOKMESH [ARGUMENTS]: starts an installed `tokmesh serve` and takes one session through its life, across a SIGKILL.

Uses the standard library alone, so that it runs where the server is all that was installed. ARGUMENTS go to `serve`.
Ends with exit code 0, or with the first thing that is not as it should be. Waits are bounded (DEADLINE_S).
"""

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

DEADLINE_S = 30
ADMIN_KEY = re.compile(r"tmak-\w+:tmas_\w+")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One `tokmesh serve` in `directory`; its standard error goes to a file there."""

    def __init__(self, tokmesh: str, directory: Path, arguments: list[str]) -> None:
        self.port = free_port()
        self._errors = directory / "stderr"
        with self._errors.open("w") as errors, (directory / "stdout").open("w") as output:
            self.process = subprocess.Popen(
                [tokmesh, "serve", f"--server.http.address=127.0.0.1:{self.port}", f"--storage.dir={directory}/data", *arguments],
                stdout=output,
                stderr=errors,
            )

    def wait_ready(self) -> None:
        """Returns when /ready answers 200; ends the program at the deadline or when the server ends."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.call("GET", "/ready", None, "")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"not ready within {DEADLINE_S} s; standard error:\n{self._errors.read_text()}")

    def admin_key(self) -> str:
        """The key that the first start printed."""
        match = ADMIN_KEY.search(self._errors.read_text())
        if match is None:
            sys.exit(f"no admin key on standard error:\n{self._errors.read_text()}")
        return match[0]

    def call(self, method: str, path: str, body: object, key: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"} if key else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stop(self, number: signal.Signals) -> int:
        """Sends the signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def expect(what: str, got: object, wanted: object) -> None:
    """Ends the program when the two differ."""
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def main() -> int:
    """The session's life: created, validated, kept over a SIGKILL, revoked, refused; and a graceful stop."""
    tokmesh, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = Server(tokmesh, directory, arguments)
        try:
            server.wait_ready()
            key = server.admin_key()
            status, answer = server.call("POST", "/sessions", {"user_id": "u1"}, key)
            expect("create", status, 200)
            token, session_id = answer["data"]["token"], answer["data"]["session_id"]
            expect("kill", server.stop(signal.SIGKILL), -signal.SIGKILL)

            server = Server(tokmesh, directory, arguments)
            server.wait_ready()
            status, answer = server.call("POST", "/tokens/validate", {"token": token}, key)
            expect("validate", (status, answer["data"]["valid"]), (200, True))
            expect("revoke", server.call("POST", f"/sessions/{session_id}/revoke", {}, key)[0], 200)
            status, answer = server.call("POST", "/tokens/validate", {"token": token}, key)
            expect("validate revoked", (status, answer["data"]["valid"]), (200, False))
            expect("without a key", server.call("POST", "/sessions", {"user_id": "u1"}, "")[0], 401)
            expect("stop", server.stop(signal.SIGTERM), 0)
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait(DEADLINE_S)
    print("smoke: created, validated after SIGKILL, revoked, refused, stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""SIGKILL of a server at every call it makes while it takes a snapshot and drops what that makes superfluous.

    python -m tests.crash.snapshot_kills --count 60 [--seed S] [--directory D] [--encrypted]

Each round starts the server on what the round before left, compares everything that was ever acknowledged, writes enough for the
log to rotate, and asks for a snapshot while strace kills the process at the N-th call of the thread that makes it. N goes up by one
from round to round until the snapshot was done before it; then a new directory begins. No start may meet a snapshot that cannot be
used or leave a draft behind, and none may need more of the log than there is.
"""

import argparse
import contextlib
import http.client
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.support.encryption import encryption
from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess
from tests.support.tracing_calls import traced

CALLS: Final = "openat,mkdir,pwrite64,fsync,rename,unlink"
OPTIONS: Final = (
    "--storage.wal.segment_size=1MB",
    "--storage.snapshot.retention_count=2",
    "--session.quota.max_per_user=100000",
    "--session.tombstone_ttl=24h",
)
SNAPSHOTS: Final = "/admin/v1/backups/snapshots"
SESSIONS_A_ROUND: Final = 20
UPDATES_A_ROUND: Final = 270  # at 4 KB each: more than a segment
DATA: Final = {name: name * 950 for name in "abcd"}
VALID: Final = "valid"
REVOKED: Final = "TM-TOKN-4012"


class Ledger:
    """Verdict and version due for every token that was acknowledged."""

    def __init__(self, server: TokMeshProcess) -> None:
        self._server = server
        self.due: dict[str, tuple[str, int]] = {}

    def write(self) -> None:
        """Sessions, of which some are revoked and one is updated over and over: a long log of a small table."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        made = []
        for _ in range(SESSIONS_A_ROUND):
            made.append(ask(self._server, connection, "/sessions", {"user_id": "u"}))
            self.due[made[-1]["token"]] = VALID, 1
        for session in made[1::5]:
            ask(self._server, connection, f"/sessions/{session['session_id']}/revoke", {})
            self.due[session["token"]] = REVOKED, 0
        for _ in range(UPDATES_A_ROUND):
            changed = ask(self._server, connection, f"/sessions/{made[0]['session_id']}/update", {"data": DATA})
            self.due[made[0]["token"]] = VALID, changed["version"]
        connection.close()

    def check(self) -> int:
        """How many were compared. Lost."""
        tokens = list(self.due)
        for start in range(0, len(tokens), 1000):
            batch = tokens[start : start + 1000]
            results = self._server.data("POST", "/tokens/validate/batch", {"tokens": batch})["results"]
            for token, verdict in zip(batch, results, strict=True):
                found = (VALID, verdict["session"]["version"]) if verdict["valid"] else (verdict["error"]["code"], 0)
                if found != self.due[token]:
                    raise Lost(f"a session is {found} instead of {self.due[token]}")
        return len(tokens)


def ask(server: TokMeshProcess, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The data of an answer that must be 200."""
    connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {server.admin_key}"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    assert answer.status == 200, content
    found: dict[str, Any] = content["data"]
    return found


def run(count: int, seed: int, directory: Path, encrypted: bool = False, first: int = 1, step: int = 1) -> Counter[str]:
    """Rounds "killed", "done" (the snapshot was, before the call), "dropped" (segments were gone); "compared" sessions. first,
    step: of N. Lost."""
    totals: Counter[str] = Counter()
    when = first + random.Random(seed).randrange(step)
    index = 0
    while index < count:
        folder = directory / f"from-{index}"
        folder.mkdir()
        with TokMeshProcess(folder, *OPTIONS, *(encryption(folder) if encrypted else ())) as server:
            ledger = Ledger(server)
            ledger.write()
            for _ in range(2):  # from here on each further one drops something
                server.data("POST", SNAPSHOTS)
                ledger.write()
            while index < count:
                index += 1
                try:
                    done = _round(server, ledger, when, totals)
                except (Lost, AssertionError) as error:
                    raise Lost(f"seed {seed}, killed at call {when}: {error}") from error
                if done:
                    when = first + random.Random(seed).randrange(step)
                    break
                when += step
    return totals


def _round(server: TokMeshProcess, ledger: Ledger, when: int, totals: Counter[str]) -> bool:
    """Whether the snapshot was done."""
    ledger.write()
    segments = _segments(server)
    done = False
    with traced(server.pid, server.directory.parent / "trace", CALLS, f"inject={CALLS}:signal=SIGKILL:when={when}"):
        with contextlib.suppress(OSError, http.client.HTTPException):
            done = server.request("POST", SNAPSHOTS)[0] == 200
        server.kill()
    totals["done" if done else "killed"] += 1
    totals["dropped"] += _segments(server)[0] != segments[0]
    server.start()
    if any("cannot be used" in line["message"] for line in server.log_lines()):
        raise Lost("a snapshot that has a name cannot be used")
    if drafts := list(server.directory.rglob("snapshots/*.tmp")):
        raise Lost(f"left behind: {drafts}")
    totals["compared"] += ledger.check()
    return done


def _segments(server: TokMeshProcess) -> list[str]:
    return sorted(path.name for path in (server.directory / "log").glob("wal-*.log"))


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        totals = run(arguments.count, arguments.seed, directory, arguments.encrypted)
        return f"{arguments.count} rounds: {dict(totals)}, 0 lost"

    return long_form(__doc__, 60, long_run, {"--encrypted": "with encryption at rest"})


if __name__ == "__main__":
    sys.exit(main())

"""Random histories of a real server against a dictionary: changes, snapshots, restores, kills, stops, and damage to snapshots.

    python -m tests.crash.histories --count 20 [--seed S] [--directory D]

Each history has a directory, a seed and one client, which does one thing after the other and knows what is due for every session it
ever made: so a difference is certain, and its seed repeats it. (What many clients at once are promised is `server_kills`' affair.)
A snapshot is remembered with a copy of the dictionary; a restore makes that copy the truth, and every later token unknown.
"""

import argparse
import copy
import http.client
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.crash.server_load import Client, Load, Session
from tests.support.encryption import encryption
from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until

STEPS: Final = 40
OPTIONS: Final = ("--storage.wal.segment_size=1MB", "--session.tombstone_ttl=24h", "--storage.snapshot.retention_count=3")
WEIGHTS: Final = {"write": 16, "snapshot": 6, "kill": 3, "kill in a change": 3, "stop": 1, "restore": 2, "flip": 2, "compare": 3}
WRITES_MAX: Final = 30
SNAPSHOTS: Final = "/admin/v1/backups/snapshots"
RESTORES: Final = "/admin/v1/backups/restores"


class History:
    """One server, its client, and what is due."""

    def __init__(self, server: TokMeshProcess, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._load = Load(server, seed)
        self._client = Client(server, "u", seed)
        self._client.connect()
        self._then: dict[str, list[Session]] = {}  # what was due when a snapshot was taken
        self._tokens: set[str] = set()  # every one that was ever told
        self._doubtful: set[str] = set()  # of sessions of which nothing is due, because an answer got lost
        self.totals: Counter[str] = Counter()

    def run(self) -> None:
        """STEPS steps, and a comparison. Lost."""
        try:
            for _ in range(STEPS):
                step = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                self.totals[step] += 1
                getattr(self, "_" + step.replace(" ", "_"))()
            self._compare()
        finally:
            self._client.close()

    def _write(self) -> None:
        for _ in range(self._random.randrange(1, WRITES_MAX)):
            self._client.step()
            self.totals["changes"] += 1
        self._note_tokens()

    def _snapshot(self) -> None:
        taken = self._server.data("POST", SNAPSHOTS)
        self._then[taken["id"]] = copy.deepcopy(self._client.sessions)

    def _kill(self) -> None:
        ended_at_ms = time.monotonic_ns() // 1_000_000
        self._server.kill()
        self._start(ended_at_ms)

    def _kill_in_a_change(self) -> None:
        killer = threading.Timer(self._random.uniform(0, 0.004), self._server.kill)
        killer.start()
        try:
            while True:  # ends with the server
                self._client.step()
                self.totals["changes"] += 1
        except (OSError, http.client.HTTPException):
            killer.join()
        self._note_tokens()
        self._start(0)

    def _stop(self) -> None:
        if self._server.stop() != 0:
            raise Lost("a stop failed")
        self._start(None)

    def _flip(self) -> None:
        """One bit of the newest snapshot, where another one leads to now as well."""
        listed = self._listed()
        if len(listed) < 2 or listed[0]["restored"]:
            self.totals["flip"] -= 1
            return
        path = self._server.directory / "snapshots" / f"{listed[0]['id']}.tms"
        ended_at_ms = time.monotonic_ns() // 1_000_000
        self._server.kill()
        data = bytearray(path.read_bytes())
        data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        path.write_bytes(data)
        self._then.pop(listed[0]["id"], None)
        self._start(ended_at_ms)
        if not any("cannot be used" in line["message"] for line in self._server.log_lines()):
            raise Lost(f"nothing was told of {path.name}, which is damaged")
        path.unlink()

    def _restore(self) -> None:
        known = [one["id"] for one in self._listed() if one["id"] in self._then]
        if not known:
            self.totals["restore"] -= 1
            return
        chosen = self._random.choice(known)
        job = self._server.data("POST", RESTORES, {"snapshot_id": chosen})
        wait_until(lambda: self._server.data("GET", f"{RESTORES}/{job['job_id']}")["state"] != "running", "the restore")
        ended = self._server.data("GET", f"{RESTORES}/{job['job_id']}")
        if ended["state"] != "done":
            raise Lost(f"the restore failed: {ended}")
        self._client.sessions = copy.deepcopy(self._then[chosen])
        self._compare()

    def _compare(self) -> None:
        self._check(None)

    def _start(self, ended_at_ms: int | None) -> None:
        self._client.close()
        self._server.start()
        self._client.connect()
        if drafts := list((self._server.directory / "snapshots").glob("*.tmp")):
            raise Lost(f"left behind: {drafts}")
        self._check(ended_at_ms)

    def _check(self, ended_at_ms: int | None) -> None:
        self._load.sessions = self._client.sessions
        asked = [session for session in self._client.sessions if session.asked is not None]
        in_doubt = {token for session in asked for token in (session.token, *session.ended_tokens)}
        self.totals["compared"] += self._load.check(ended_at_ms)
        self._client.sessions = self._load.sessions
        known = {token for session in self._client.sessions for token in (session.token, *session.ended_tokens)}
        self._doubtful |= in_doubt - known
        for token in self._tokens - known - self._doubtful:
            code = self._server.validate(token).get("error", {}).get("code")
            if code != "TM-TOKN-4010":
                raise Lost(f"a token that a restore took back is {code or 'valid'}")

    def _note_tokens(self) -> None:
        self._tokens |= {session.token for session in self._client.sessions}

    def _listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._server.data("GET", SNAPSHOTS)["items"]
        return listed


def run(count: int, seed: int, directory: Path, report_every: int = 0) -> Counter[str]:
    """What was done, by kind, and "changes" and "compared" sessions. Lost, with the seed of its history."""
    totals: Counter[str] = Counter()
    for index in range(count):
        folder = directory / f"history-{index}"
        folder.mkdir()
        options = (*OPTIONS, *(encryption(folder) if (seed + index) % 3 == 0 else ()))
        with TokMeshProcess(folder, *options) as server:
            history = History(server, seed + index)
            try:
                history.run()
            except (Lost, AssertionError, OSError, http.client.HTTPException) as error:
                raise Lost(f"seed {seed + index}: {type(error).__name__}: {error}\n{dict(history.totals)}") from error
        totals += history.totals
        if report_every and (index + 1) % report_every == 0:
            print(f"{index + 1} histories: {dict(totals)}, 0 differences", flush=True)
    return totals


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        totals = run(arguments.count, arguments.seed, directory, 10)
        return f"{arguments.count} histories: {dict(totals)}, 0 differences"

    return long_form(__doc__, 20, long_run)


if __name__ == "__main__":
    sys.exit(main())

"""SIGKILL of a real server during a write load: nothing it acknowledged is lost, no revocation is undone.

    python -m tests.crash.server_kills --count 200 [--seed S] [--directory D] [--encrypted] [--snapshots]

Each round starts the server on what the round before left, compares every session that any round of this data directory
was told about, writes from four connections (create, renew, update, rotate, touch, revoke) and kills after a random
time. Every fifth round is long enough for touches to be flushed. With --snapshots one is taken after the other meanwhile, so that
starts begin from them and the log behind them is dropped; no start may meet one that cannot be used, or leave a draft.
"""

import argparse
import contextlib
import http.client
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.crash.server_load import WEIGHTS, Load
from tests.support.encryption import encryption
from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess, in_background

ROUNDS_PER_DIRECTORY: Final = 20
LONG_ROUND_EVERY: Final = 5
OPTIONS: Final = ("--storage.wal.segment_size=1MB", "--session.tombstone_ttl=24h")
SNAPSHOTS: Final = ("--storage.snapshot.threshold=1MB", "--storage.snapshot.retention_count=2")


def run(
    count: int, seed: int, directory: Path, report_every: int = 0, encrypted: bool = False, snapshots: bool = False
) -> Counter[str]:
    """Acknowledged operations by kind, "checked" sessions, "torn" tails, starts from "snapshots". Lost, with the seed."""
    randomness = random.Random(seed)
    totals: Counter[str] = Counter()
    for first in range(0, count, ROUNDS_PER_DIRECTORY):
        folder = directory / f"from-{first}"
        folder.mkdir()
        options = (*OPTIONS, *(SNAPSHOTS if snapshots else ()), *(encryption(folder) if encrypted else ()))
        with TokMeshProcess(folder, *options) as server:
            load = Load(server, seed + first)
            for index in range(first, min(first + ROUNDS_PER_DIRECTORY, count)):
                try:
                    _round(server, load, randomness, index, totals)
                except Lost as error:
                    raise Lost(f"seed {seed}, round {index}: {error}") from error
                if report_every and ((index + 1) % report_every == 0 or index + 1 == count):
                    print(row(index + 1, totals), flush=True)
    return totals


def _round(server: TokMeshProcess, load: Load, randomness: random.Random, index: int, totals: Counter[str]) -> None:
    load.start()
    load.wait_for(1)
    asking = in_background(_take_snapshots, server) if SNAPSHOTS[0] in server.args else None
    time.sleep(randomness.uniform(3.0, 3.5) if index % LONG_ROUND_EVERY == LONG_ROUND_EVERY - 1 else randomness.uniform(0, 0.5))
    ended_at_ms = time.monotonic_ns() // 1_000_000
    server.kill()
    totals += load.finish()
    if asking is not None:
        asking.join(60)
    if load.refused:
        raise Lost(f"refusals: {dict(load.refused)}")
    server.start()
    totals["torn"] += any(line["message"] == "log replayed" and line["torn_tail"] for line in server.log_lines())
    totals["snapshots"] += any(line["message"] == "snapshot loaded" for line in server.log_lines())
    if any("cannot be used" in line["message"] for line in server.log_lines()):
        raise Lost("a snapshot that has a name cannot be used")
    if drafts := list((server.directory / "snapshots").glob("*.tmp")):
        raise Lost(f"left behind: {drafts}")
    totals["checked"] += load.check(ended_at_ms)


def _take_snapshots(server: TokMeshProcess) -> None:
    """One after the other, until the server is gone."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:  # ends with the server
            server.request("POST", "/admin/v1/backups/snapshots")


def row(count: int, totals: Counter[str]) -> str:
    """A line of the table."""
    names = (*WEIGHTS, "checked", "torn", "snapshots")
    return f"{count:6} kills  " + "  ".join(f"{name} {totals[name]}" for name in names) + "  lost 0"


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        totals = run(arguments.count, arguments.seed, directory, 20, arguments.encrypted, arguments.snapshots)
        acknowledged = sum(totals[name] for name in WEIGHTS)
        return f"{arguments.count} kills, {acknowledged} acknowledged, {totals['checked']} compared, 0 lost"

    flags = {"--encrypted": "with encryption at rest", "--snapshots": "while snapshots are taken"}
    return long_form(__doc__, 200, long_run, flags)


if __name__ == "__main__":
    sys.exit(main())

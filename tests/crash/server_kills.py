"""SIGKILL of a real server during a write load: nothing it acknowledged is lost, no revocation is undone.

    python -m tests.crash.server_kills --count 200 [--seed S] [--directory D] [--encrypted]

Each round starts the server on what the round before left, compares every session that any round of this data directory
was told about, writes from four connections (create, renew, update, rotate, touch, revoke) and kills after a random
time. Every fifth round is long enough for touches to be flushed.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.crash.server_load import WEIGHTS, Load
from tests.support.encryption import encryption
from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess

ROUNDS_PER_DIRECTORY: Final = 20
LONG_ROUND_EVERY: Final = 5
OPTIONS: Final = ("--storage.wal.segment_size=1MB", "--session.tombstone_ttl=24h")


def run(count: int, seed: int, directory: Path, report_every: int = 0, encrypted: bool = False) -> Counter[str]:
    """Acknowledged operations by kind, "checked" sessions and "torn" tails. Lost, with the seed in its text."""
    randomness = random.Random(seed)
    totals: Counter[str] = Counter()
    for first in range(0, count, ROUNDS_PER_DIRECTORY):
        folder = directory / f"from-{first}"
        folder.mkdir()
        with TokMeshProcess(folder, *OPTIONS, *(encryption(folder) if encrypted else ())) as server:
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
    time.sleep(randomness.uniform(3.0, 3.5) if index % LONG_ROUND_EVERY == LONG_ROUND_EVERY - 1 else randomness.uniform(0, 0.5))
    ended_at_ms = time.monotonic_ns() // 1_000_000
    server.kill()
    totals += load.finish()
    if load.refused:
        raise Lost(f"refusals: {dict(load.refused)}")
    server.start()
    totals["torn"] += any(line["message"] == "log replayed" and line["torn_tail"] for line in server.log_lines())
    totals["checked"] += load.check(ended_at_ms)


def row(count: int, totals: Counter[str]) -> str:
    """A line of the table."""
    names = (*WEIGHTS, "checked", "torn")
    return f"{count:6} kills  " + "  ".join(f"{name} {totals[name]}" for name in names) + "  lost 0"


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        totals = run(arguments.count, arguments.seed, directory, 20, arguments.encrypted)
        acknowledged = sum(totals[name] for name in WEIGHTS)
        return f"{arguments.count} kills, {acknowledged} acknowledged, {totals['checked']} compared, 0 lost"

    return long_form(__doc__, 200, long_run, {"--encrypted": "with encryption at rest"})


if __name__ == "__main__":
    sys.exit(main())

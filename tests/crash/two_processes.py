"""Servers that want one data directory at once: one has it, the others are refused in one line and change nothing.

    python -m tests.crash.two_processes --count 20 [--seed S] [--directory D]

Each round starts several at the same moment. The one that serves is written to and killed; the next round begins with what it left.
"""

import argparse
import random
import sys
from pathlib import Path

from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.errors import EX_UNAVAILABLE

RIVALS = 3


def run(count: int, seed: int, directory: Path) -> tuple[int, int]:
    """(rivals refused, sessions found again). Lost when two served, when none did, or when something is missing."""
    randomness = random.Random(seed)
    rivals = [TokMeshProcess(directory) for _ in range(RIVALS)]
    rivals[0].start()
    key = rivals[0].admin_key
    rivals[0].kill()
    tokens: list[str] = []
    refused = 0
    try:
        for index in range(count):
            randomness.shuffle(rivals)
            for rival in rivals:
                rival.spawn()
            wait_until(lambda: sum(_has_ended(rival) for rival in rivals) >= RIVALS - 1, "all but one have ended")
            serving = [rival for rival in rivals if not _has_ended(rival)]
            for rival in rivals:
                if rival in serving:
                    continue
                told = rival.stderr.strip()
                if rival.wait() != EX_UNAVAILABLE or "in use by another process" not in told or "\n" in told:
                    raise Lost(f"seed {seed}, round {index}: not refused in one line: {rival.output}")
                refused += 1
            if len(serving) != 1:
                raise Lost(f"seed {seed}, round {index}: {len(serving)} serve")
            serving[0].wait_ready()
            for token in tokens[-50:]:
                verdict = serving[0].data("POST", "/tokens/validate", {"token": token}, key=key)
                if not verdict["valid"]:
                    raise Lost(f"seed {seed}, round {index}: {verdict}")
            tokens += [serving[0].create_session(f"u{index}", key=key)["token"] for _ in range(5)]
            serving[0].kill()
    finally:
        for rival in rivals:
            rival.kill()
    return refused, len(tokens)


def _has_ended(server: TokMeshProcess) -> bool:
    return server.process is None or server.process.poll() is not None


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        refused, tokens = run(arguments.count, arguments.seed, directory)
        return f"{arguments.count} rounds, {refused} refused, {tokens} sessions, 0 lost"

    return long_form(__doc__, 20, long_run)


if __name__ == "__main__":
    sys.exit(main())

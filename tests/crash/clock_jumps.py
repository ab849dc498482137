"""The wall clock jumps by ten years, both ways, while sessions come to their end: each ends when its time has passed.

    python -m tests.crash.clock_jumps --count 10 [--seed S] [--directory D]

A real server runs under libfaketime, whose offset is changed while it serves; the monotonic clock is left alone. Each round makes
sessions of a few seconds, at random moments between jumps, and asks for each of them until it has ended.
"""

import argparse
import http.client
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess

JUMPS: Final = ("+10y", "-10y", "+0", "+3650d", "-1d", "+1h")
SESSIONS_A_ROUND: Final = 60
TTL_MAX_S: Final = 4
OFF_MAX_S: Final = 1.0
LOOK_EVERY_S: Final = 0.05


@dataclass
class Due:
    """A session, and between which of our monotonic times it was made."""

    token: str
    ttl_s: int
    asked_s: float
    made_s: float


def library() -> Path:
    """libfaketime's. RuntimeError."""
    for path in (Path("/usr/lib"), Path("/usr/local/lib")):
        for found in path.glob("**/faketime/libfaketime.so.1"):
            return found
    raise RuntimeError("libfaketime is not installed: this test cannot run without it")


def environment(offset: Path) -> dict[str, str]:
    """Of a server whose wall clock follows the file."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def jump(offset: Path, to: str) -> None:
    """Moves the wall clock of the servers that follow the file."""
    draft = offset.with_suffix(".new")
    draft.write_text(f"{to}\n")
    draft.rename(offset)


def run(count: int, seed: int, directory: Path) -> tuple[int, int]:
    """(sessions that ended when they had to, jumps). Lost for one that did not."""
    randomness = random.Random(seed)
    offset = directory / "offset"
    jump(offset, "+0")
    jumps = ended = 0
    with TokMeshProcess(directory, env=environment(offset)) as server:
        for index in range(count):
            waiting: list[Due] = []
            for number in range(SESSIONS_A_ROUND):
                if number % 10 == 5:
                    jump(offset, randomness.choice(JUMPS))
                    jumps += 1
                ttl_s = randomness.randrange(1, TTL_MAX_S + 1)
                asked_s = time.monotonic()
                made = server.create_session(f"u{number}", ttl_seconds=ttl_s)
                waiting.append(Due(made["token"], ttl_s, asked_s, time.monotonic()))
                if randomness.random() < 0.2:
                    time.sleep(randomness.uniform(0, 0.1))
            while waiting:  # each session ends, or is found not to have
                jump(offset, randomness.choice(JUMPS))
                jumps += 1
                try:
                    waiting = [due for due in waiting if not has_ended(server, due)]
                except (Lost, OSError, http.client.HTTPException) as error:
                    raise Lost(f"seed {seed}, round {index}: {error}") from error
                time.sleep(LOOK_EVERY_S)
            ended += SESSIONS_A_ROUND
    return ended, jumps


def has_ended(server: TokMeshProcess, due: Due) -> bool:
    """Lost when it ended, or goes on, more than OFF_MAX_S away from when it has to."""
    before_s = time.monotonic()
    verdict = server.validate(due.token)
    after_s = time.monotonic()
    if verdict["valid"]:
        if before_s > due.made_s + due.ttl_s + OFF_MAX_S:
            raise Lost(f"a session of {due.ttl_s} s goes on after {before_s - due.made_s:.2f} s")
        return False
    if verdict["error"]["code"] != "TM-TOKN-4011":
        raise Lost(f"a session of {due.ttl_s} s is {verdict['error']['code']}")
    if after_s < due.asked_s + due.ttl_s - OFF_MAX_S:
        raise Lost(f"a session of {due.ttl_s} s ended after {after_s - due.asked_s:.2f} s")
    return True


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        ended, jumps = run(arguments.count, arguments.seed, directory)
        return f"{ended} sessions ended in time, {jumps} jumps, 0 off by more than {OFF_MAX_S} s"

    return long_form(__doc__, 10, long_run)


if __name__ == "__main__":
    sys.exit(main())

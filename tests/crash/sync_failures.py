"""fdatasync fails with EIO at its N-th call, for every N: nothing is acknowledged from then on, and nothing written or synced.

    python -m tests.crash.sync_failures --count 200 [--seed S] [--directory D]

N is counted in the writer's thread, which syncs once a record, since a single client waits for each; each N has a log of its own,
every third one is encrypted.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.crash.kills import acknowledged, run_driver, strace
from tests.crash.records import FORMS, read_log
from tests.support.rounds import Lost, long_form


def run(first: int, last: int, step: int, directory: Path) -> tuple[int, int]:
    """(N that struck, acknowledgements before them). Lost."""
    struck = total = 0
    for when in range(first, last + 1, step):
        log, form = directory / f"wal-{when}", "encrypted" if when % 3 == 0 else "plain"
        inject = f"inject=fdatasync:error=EIO:when={when}"
        wrapper = strace(["-o", str(directory / "trace"), "-e", "trace=fdatasync,pwrite64,rename", "-e", inject])
        _, lines = run_driver(wrapper, log, "--records", str(last + 100), "--clients", "1", "--form", form, "--retry", "3")
        try:
            total += check(lines, (directory / "trace").read_text())
            notes, _ = read_log(log, 4096, FORMS[form])
            if any(notes[sequence - 1 : sequence] != [note] for sequence, note in acknowledged(lines).items()):
                raise Lost("an acknowledged record is not in the log")
        except Lost as error:
            raise Lost(f"fdatasync {when}: {error}") from error
        struck += 1
    return struck, total


def check(lines: list[str], trace: str) -> int:
    """Acknowledgements before the failure. Lost for one behind it, and when the log was touched again."""
    _, _, after = trace.partition("(INJECTED)")
    if not after or not lines or not lines[-1].startswith("S "):
        raise Lost(f"the failure did not strike: {lines[-1:]}")
    stats = json.loads(lines[-1][2:])
    if any(call in after for call in ("fdatasync(", "pwrite64(", "rename(")):
        raise Lost("the log was touched after a failed sync")
    if stats["state"] != "failed" or stats["fsync_failed_total"] != 1:
        raise Lost(f"the failure was not told: {stats}")
    first = next(index for index, line in enumerate(lines) if line.startswith("F "))
    if any(line.startswith("A ") for line in lines[first:]):
        raise Lost("a change was acknowledged after a failed sync")
    return len(acknowledged(lines))


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        struck, total = run(1, arguments.count, 1, directory)
        return f"EIO at {struck} places, {total} acknowledged before, 0 after, 0 lost"

    return long_form(__doc__, 200, long_run)


if __name__ == "__main__":
    sys.exit(main())

"""Every bit of a snapshot file flipped, and the file cut to every length: each is refused with its place.

    python -m tests.crash.snapshot_flips [--count 1] [--seed S] [--directory D]

A larger file than tests/unit/test_snapshot_file.py's, plain and encrypted. --count: one bit, and one length, in so many.
"""

import argparse
import sys
from pathlib import Path

from tests.crash.records import FORMS
from tests.support.rounds import Lost, long_form
from tests.support.snapshots import NODE, Made, new_table, write_snapshot
from tokmesh.snapshots.loading import load
from tokmesh.storage.recovery import Progress
from tokmesh.storage.snapshot_file import SnapshotDamaged

SESSIONS = 900


def run(first: int, step: int, directory: Path, form: str, sessions: int = SESSIONS) -> tuple[int, int]:
    """(bits, lengths) that were refused. Lost."""
    keys = FORMS[form].keys
    directory.mkdir(mode=0o700)
    path = write_snapshot(directory, Made(keys, sessions), 1)
    original = path.read_bytes()

    def refuse(what: str, position: int) -> None:
        try:
            load(path, new_table, keys, NODE, Progress())
        except SnapshotDamaged as damage:
            if damage.path != path or damage.offset > position:
                raise Lost(f"{form}, {what}: refused at offset {damage.offset}") from damage
            return
        raise Lost(f"{form}, {what}: loaded")

    bits = range(first, len(original) * 8, step)
    with path.open("r+b") as file:
        for bit in bits:
            position = bit // 8
            for value in (original[position] ^ 1 << bit % 8, original[position]):
                file.seek(position)
                file.write(bytes([value]))
                file.flush()
                if value != original[position]:
                    refuse(f"bit {bit}", position)
    lengths = range(len(original) - 1 - first, -1, -step)
    for length in lengths:
        with path.open("r+b") as file:
            file.truncate(length)
        refuse(f"length {length}", length)
    path.write_bytes(original)
    load(path, new_table, keys, NODE, Progress())
    return len(bits), len(lengths)


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        done = {form: run(0, arguments.count, directory / form, form) for form in ("plain", "encrypted")}
        return "; ".join(f"{form}: {bits} bits, {lengths} lengths refused, 0 wrong" for form, (bits, lengths) in done.items())

    return long_form(__doc__, 1, long_run)


if __name__ == "__main__":
    sys.exit(main())

"""Every bit of a log flipped: refused with its place, or, at the very end, cut to the records before it.

    python -m tests.crash.flips [--bytes 65536] [--step 1] [--directory /dev/shm]

The long form of tests/unit/test_wal_recovery.py: one segment filled with frames, sealed or not, one bit changed at a time.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.crash.records import Note, read_log, write_groups
from tokmesh._core import wal
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments

RECORD_PADDING = 900


class Wrong(AssertionError):
    """A flip changed what was read, lost something silently, or was refused without its place."""


def outcome_of(directory: Path, path: Path, notes: list[Note], segment_bytes: int, position: int) -> tuple[str, int]:
    """("refused", 0) or ("cut", records kept). Wrong."""
    try:
        found, report = read_log(directory, segment_bytes)
    except LogDamaged as damage:
        if damage.path != path or damage.offset > position:
            raise Wrong(f"byte {position}: refused at offset {damage.offset}") from damage
        return "refused", 0
    if found != notes[: len(found)] or not report.torn_tail:
        raise Wrong(f"byte {position}: {len(found)} records, of {len(notes)}, went unnoticed")
    return "cut", len(found)


def run(segment_bytes: int, step: int, seal: bool, directory: Path) -> Counter[str]:
    """How many flips had which outcome: "refused", "cut: nothing lost", "cut: last frame lost". Wrong."""
    reserve = min(256 << 10, segment_bytes // 8) + 2 * wal.FRAME_HEADER_BYTES + wal.SEGMENT_HEADER_BYTES
    frame_count = (segment_bytes - reserve) // (2 * RECORD_PADDING + 150)
    groups = [[Note(f"{group}.{index}", RECORD_PADDING) for index in range(2)] for group in range(frame_count)]
    notes = [note for group in groups for note in group]
    offsets = write_groups(directory, groups, segment_bytes, seal)
    path = list_segments(directory)[0][1]
    original = path.read_bytes()
    end = len(original.rstrip(b"\0"))
    tail = end - wal.FRAME_HEADER_BYTES if seal else offsets[-1]  # where a flip may pass for a torn write
    outcomes: Counter[str] = Counter()
    for bit in range(0, len(original) * 8, step):
        position = bit // 8
        changed = original[position] ^ 1 << bit % 8
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([changed]))
        outcome, kept = outcome_of(directory, path, notes, segment_bytes, position)
        if (outcome == "refused") != (position < tail):
            raise Wrong(f"byte {position}: {outcome}")
        lost = len(notes) - kept if outcome == "cut" else 0
        if lost not in (0, len(groups[-1])) or (lost and (seal or position >= end)):
            raise Wrong(f"byte {position}: {lost} records lost")
        outcomes[outcome if outcome == "refused" else "cut: last frame lost" if lost else "cut: nothing lost"] += 1
        if outcome == "cut":
            for other in directory.iterdir():
                other.unlink()
            path.write_bytes(original)
        else:
            with path.open("r+b") as file:
                file.seek(position)
                file.write(original[position : position + 1])
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=64 << 10)
    parser.add_argument("--step", type=int, default=1, help="flip every so many bits")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary one when left out")
    arguments = parser.parse_args()
    for seal in (False, True):
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            outcomes = run(arguments.bytes, arguments.step, seal, Path(directory) / "wal")
        print(f"{'sealed' if seal else 'not sealed'}: {dict(outcomes)}, 0 wrong", flush=True)


if __name__ == "__main__":
    main()

"""Every bit of a log flipped: refused with its place, or, at the very end, cut to the records before it.

    python -m tests.crash.flips [--bytes 65536] [--step 1] [--directory /dev/shm] [--form plain|encrypted]

The long form of tests/unit/test_wal_recovery.py: one segment filled with frames, sealed or not, plain or
encrypted, one bit changed at a time; and cut to every length, which is always refused.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.crash.records import FORMS, Note, end_of, read_log, write_groups
from tokmesh._core import wal
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

RECORD_PADDING = 900
FORM_NAMES = ("plain", "encrypted")


class Wrong(AssertionError):
    """A flip changed what was read, lost something silently, or was refused without its place."""


def outcome_of(
    directory: Path, path: Path, notes: list[Note], segment_bytes: int, position: int, keys: SegmentKeys
) -> tuple[str, int]:
    """("refused", 0) or ("cut", records kept). Wrong."""
    try:
        found, report = read_log(directory, segment_bytes, keys)
    except LogDamaged as damage:
        if damage.path != path or damage.offset > position:
            raise Wrong(f"byte {position}: refused at offset {damage.offset}") from damage
        return "refused", 0
    if found != notes[: len(found)] or not report.torn_tail:
        raise Wrong(f"byte {position}: {len(found)} records, of {len(notes)}, went unnoticed")
    return "cut", len(found)


class Original:
    """A log of one segment filled with frames, and where a flip in it may pass for a torn write."""

    def __init__(self, segment_bytes: int, seal: bool, directory: Path, keys: SegmentKeys) -> None:
        reserve = min(256 << 10, segment_bytes // 8) + 2 * wal.FRAME_HEADER_BYTES + wal.SEGMENT_HEADER_BYTES
        frame_count = (segment_bytes - reserve) // (2 * RECORD_PADDING + 150)
        self.groups = [[Note(f"{group}.{index}", RECORD_PADDING) for index in range(2)] for group in range(frame_count)]
        self.notes = [note for group in self.groups for note in group]
        offsets = write_groups(directory, self.groups, segment_bytes, seal, keys)
        self.path = list_segments(directory)[0][1]
        self.bytes = self.path.read_bytes()
        self.end = end_of(self.bytes)
        seal_bytes = wal.FRAME_HEADER_BYTES + (wal.TAG_BYTES if keys.sealing else 0)
        self.tail = self.end - seal_bytes if seal else offsets[-1]

    def restore(self) -> None:
        """Makes it again what it was, in files of its own: a recovery that repaired has changed them."""
        for other in self.path.parent.iterdir():
            other.unlink()
        self.path.write_bytes(self.bytes)


def run(segment_bytes: int, step: int, seal: bool, directory: Path, keys: SegmentKeys = PLAIN) -> Counter[str]:
    """How many flips had which outcome: "refused", "cut: nothing lost", "cut: last frame lost". Wrong."""
    log = Original(segment_bytes, seal, directory, keys)
    path, original, notes = log.path, log.bytes, log.notes
    outcomes: Counter[str] = Counter()
    for bit in range(0, len(original) * 8, step):
        position = bit // 8
        changed = original[position] ^ 1 << bit % 8
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([changed]))
        outcome, kept = outcome_of(directory, path, notes, segment_bytes, position, keys)
        if (outcome == "refused") != (position < log.tail):
            raise Wrong(f"byte {position}: {outcome}")
        lost = len(notes) - kept if outcome == "cut" else 0
        if lost not in (0, len(log.groups[-1])) or (lost and (seal or position >= log.end)):
            raise Wrong(f"byte {position}: {lost} records lost")
        outcomes[outcome if outcome == "refused" else "cut: last frame lost" if lost else "cut: nothing lost"] += 1
        if outcome == "cut":
            log.restore()
        else:
            with path.open("r+b") as file:
                file.seek(position)
                file.write(original[position : position + 1])
    return outcomes


def run_lengths(segment_bytes: int, step: int, directory: Path, keys: SegmentKeys = PLAIN) -> int:
    """How many lengths the segment was cut to, each of which was refused at its end and changed nothing. Wrong."""
    log = Original(segment_bytes, True, directory, keys)
    lengths = range(0, len(log.bytes), step)
    for length in lengths:
        data = log.bytes[:length]
        log.path.write_bytes(data)
        if (
            outcome_of(directory, log.path, log.notes, segment_bytes, length, keys) != ("refused", 0)
            or log.path.read_bytes() != data
        ):
            raise Wrong(f"length {length} was not refused, or not left alone")
    return len(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=64 << 10)
    parser.add_argument("--step", type=int, default=1, help="flip every so many bits")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary one when left out")
    parser.add_argument("--form", choices=FORM_NAMES, help="only this one")
    arguments = parser.parse_args()
    for form in [arguments.form] if arguments.form else FORM_NAMES:
        for seal in (False, True):
            with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
                outcomes = run(arguments.bytes, arguments.step, seal, Path(directory) / "wal", FORMS[form])
            print(f"{form}, {'sealed' if seal else 'not sealed'}: {dict(outcomes)}, 0 wrong", flush=True)
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            count = run_lengths(arguments.bytes, arguments.step, Path(directory) / "wal", FORMS[form])
        print(f"{form}: {count} lengths refused, 0 wrong", flush=True)


if __name__ == "__main__":
    main()

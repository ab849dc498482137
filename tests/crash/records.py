"""A record whose bytes say which they are, and helpers to make and read small logs without a server."""

import hashlib
import logging
from pathlib import Path

from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh.log.appender import Appender
from tokmesh.log.file_log import FileLog
from tokmesh.storage import recovery
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

QUIET = logging.getLogger("tests.quiet")
QUIET.disabled = True


class Note:
    """`text` padded with bytes that depend on it, so that a mixed-up or altered record cannot pass for another."""

    __slots__ = ("padding", "reserved", "text")

    def __init__(self, text: str, padding: int = 0, reserved: bool = False) -> None:
        self.text = text
        self.padding = padding
        self.reserved = reserved

    def encode(self) -> bytes:
        name = self.text.encode()
        digest = hashlib.blake2b(name, digest_size=8).digest()
        filler = (digest * (self.padding // 8 + 1))[: self.padding]
        return digest + len(name).to_bytes(2, "little") + name + filler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Note) and (self.text, self.padding) == (other.text, other.padding)

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Note({self.text!r}, {self.padding})"


def decode_note(data: bytes) -> Note:
    """ValueError unless the bytes are exactly those of a Note."""
    size = int.from_bytes(data[8:10], "little")
    note = Note(data[10 : 10 + size].decode(), len(data) - 10 - size)
    if note.encode() != data:
        raise ValueError("not a note")
    return note


ENCRYPTED = SegmentKeys(KeySet([bytes(range(32))]), True)
# How a log is written; "unsealed": what was encrypted is read, and what is written is plain.
FORMS = {"plain": PLAIN, "encrypted": ENCRYPTED, "unsealed": ENCRYPTED._replace(sealing=False)}


def make_log(
    directory: Path,
    segment_bytes: int = 4096,
    sync_mode: str = "always",
    sync_interval_ms: int = 20,
    keys: SegmentKeys = PLAIN,
) -> FileLog[Note]:
    return FileLog(
        directory,
        sync_mode=sync_mode,
        sync_interval_ms=sync_interval_ms,
        segment_bytes_max=segment_bytes,
        decode=decode_note,
        clock=Clock(),
        logger=QUIET,
        keys=keys,
    )


def write_groups(
    directory: Path, groups: list[list[Note]], segment_bytes: int, seal: bool = False, keys: SegmentKeys = PLAIN
) -> list[int]:
    """Appends each group as a frame, synced like `always`; returns the offset of each frame in its segment."""
    directory.mkdir(exist_ok=True)
    end, _ = recovery.replay(directory, segment_bytes, decode_note, lambda sequence, note: None, keys=keys)
    appender = Appender(directory, end, segment_bytes, Clock(), QUIET, keys)
    offsets = []
    for group in groups:
        records = [note.encode() for note in group]
        size = appender.frame_bytes(records)
        assert appender.make_room(size, False)
        assert appender.write(records) == size
        offsets.append(appender.offset - size)
        appender.sync()
    appender.close(seal)
    return offsets


def end_of(segment: bytes) -> int:
    """Where the frames of an undamaged segment end. Its last byte that is not zero says so of a plain one only."""
    offset = wal.SEGMENT_HEADER_BYTES
    while segment[offset : offset + 4] == b"TMFR":  # ends: each frame takes bytes
        offset += wal.FRAME_HEADER_BYTES + int.from_bytes(segment[offset + 36 : offset + 40], "little")
    return offset


def read_log(directory: Path, segment_bytes: int, keys: SegmentKeys = PLAIN) -> tuple[list[Note], recovery.RecoveryReport]:
    """Recovers the log (repairing it) and gives its records in order. Raises what recovery raises."""
    notes: list[Note] = []

    def apply(sequence: int, note: Note) -> None:
        assert sequence == len(notes) + 1
        notes.append(note)

    end, report = recovery.replay(directory, segment_bytes, decode_note, apply, keys=keys)
    Appender(directory, end, segment_bytes, Clock(), QUIET, keys).close(seal=False)
    return notes, report

"""Writing a stopped log anew: under the first key, whatever key it was under, or none; or without encryption.

Each segment becomes one of the same name and the same frames, in `rekey.tmp` beside them. That all records are there, in order,
is read back from the disk. Then one rename, to `rekey.ready`, decides: what is there takes the place of what it was made of, file
by file, and a process killed in between leaves the rest to the next one that opens the log (`finish`), which asks for no key. A
chain of CRCs runs over all segments, so that a log half new and half old could not be read.

Invariants: before the rename nothing that belongs to the log has changed; after it no record can be missed. The caller holds the
directory's lock.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tokmesh._core import wal
from tokmesh._core.tail import Tail
from tokmesh.errors import ApiError
from tokmesh.storage.scan import Found, Position, closed_segment, header_of, last_segment, read_file
from tokmesh.storage.segment import BROKEN_SUFFIX, list_segments, new_header, remove_spare, sync, sync_directory
from tokmesh.storage.segment_keys import SegmentKeys

UNFINISHED: Final = "rekey.tmp"
READY: Final = "rekey.ready"


class RekeyReport(NamedTuple):
    """segments: written anew; records: in them; key_id: of the key they are under now, empty without encryption; broken: copies of
    torn tails, which are left as they were."""

    segments: int
    records: int
    key_id: bytes
    broken: list[Path]


def rekey(directory: Path, keys: SegmentKeys) -> RekeyReport:
    """Brings all segments of a log into the form that `keys` give to new ones; none, when all have it.

    Raises KeyMissing, LogDamaged, ApiError TM-SYS-5001 (a torn tail, what the disk says); nothing has changed then."""
    finish(directory)
    segments = list_segments(directory)
    keys.refuse_unknown(path for _, path in segments)
    key_id = keys.keys.first_id if keys.sealing and keys.keys is not None else b""
    broken = sorted(directory.glob(f"*{BROKEN_SUFFIX}"))
    if all(_header(path).key_id == key_id for _, path in segments):
        return RekeyReport(0, 0, key_id, broken)
    made = directory / UNFINISHED
    try:
        made.mkdir(mode=0o700)
        records, digest = _write_anew(directory, made, keys)
        if _read_back(made, keys) != (records, digest):
            raise ApiError("TM-SYS-5001", {"reason": "what was written does not read back as it was: the disk, or a bug"})
        remove_spare(directory)
        os.rename(made, directory / READY)
    except OSError as error:
        raise ApiError("TM-SYS-5001", {"reason": f"the log cannot be written anew: {error.strerror}"}) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    finish(directory)
    return RekeyReport(len(segments), records, key_id, broken)


def finish(directory: Path) -> None:
    """Brings to its end what a killed `rekey` had decided, and forgets what it had not. OSError."""
    ready = directory / READY
    if ready.is_dir():
        sync_directory(directory)  # the name that decides may be seen and not durable
        for path in sorted(ready.iterdir()):
            os.rename(path, directory / path.name)
        sync_directory(directory)
        sync_directory(ready)
        ready.rmdir()
        sync_directory(directory)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory / UNFINISHED)


def _header(path: Path) -> wal.SegmentHeader:
    with path.open("rb") as file:
        return header_of(path, file.read(wal.SEGMENT_HEADER_BYTES))


def _frames(directory: Path, keys: SegmentKeys) -> Iterator[tuple[Path, Iterator[Found]]]:
    """Each segment of a log with its frames, all of which must be taken before the next. LogDamaged, OSError, ApiError."""
    segments = list_segments(directory)
    first = _header(segments[0][1])
    position = Position(first.first_sequence, first.chain, keys, over_restores=True)
    for (name_sequence, path), successor in itertools.pairwise(segments):
        yield path, closed_segment(path, name_sequence, successor, position)
    name_sequence, path = segments[-1]
    yield path, last_segment(path, name_sequence, read_file(path), position)
    if position.torn:
        reason = "the log ends in a write that a crash cut short: start the server and stop it again, which repairs that"
        raise ApiError("TM-SYS-5001", {"file": path.name, "reason": reason})


class _Digest:
    """Of all records in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b()
        self.records = 0

    def add(self, frame: wal.Frame) -> None:
        for sequence, record in enumerate(frame.records, frame.first_sequence):
            self._hash.update(b"%d %d " % (sequence, len(record)))
            self._hash.update(record)
            self.records += 1

    @property
    def outcome(self) -> tuple[int, bytes]:
        return self.records, self._hash.digest()


def _write_anew(directory: Path, made: Path, keys: SegmentKeys) -> tuple[int, bytes]:
    """Fills `made`, durably. (records, digest of them). LogDamaged, OSError, ApiError."""
    digest = _Digest()
    tail = Tail()
    segments = list_segments(directory)
    tail.chain = _header(segments[0][1]).chain
    for path, frames in _frames(directory, keys):
        old = _header(path)
        fd = os.open(made / path.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            sealer = keys.new_sealer()
            header = new_header(old.first_sequence, 0, tail.chain, sealer)
            tail.sequence_due = old.first_sequence
            tail.enter(fd, header.segment_id, 0, wal.SEGMENT_HEADER_BYTES, sealer)
            sealed = False
            for _, frame in frames:
                digest.add(frame)
                _write(tail, frame.records)
                sealed = not frame.records
            if path == segments[-1][1] and not sealed:
                _write(tail, [])  # proves that the last frame is no torn write
            _check(wal.write_at(fd, wal.encode_segment_header(header._replace(size_bytes=tail.offset)), 0))
            sync(fd)
        finally:
            os.close(fd)
    sync_directory(made)
    return digest.outcome


def _write(tail: Tail, records: list[bytes]) -> None:
    tail.durable_sequence = tail.sequence_due - 1  # as it will be when this is the log
    _check(tail.write_group(records))


def _check(status: int) -> None:
    if status != 0:
        raise OSError(status, os.strerror(status))


def _read_back(made: Path, keys: SegmentKeys) -> tuple[int, bytes]:
    for _, path in list_segments(made):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, not from what was meant for it
        os.close(fd)
    digest = _Digest()
    for _, frames in _frames(made, keys):
        for _, frame in frames:
            digest.add(frame)
    return digest.outcome

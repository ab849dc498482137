"""Backups of a stopped server: reading a snapshot through, and restoring one, or any moment that snapshots and log still tell of.

A restore of a stopped directory is what one of a running server is (restoring.py): one rename, of a snapshot marked as restored,
whose sequence is beyond all that the log can hold. Nothing that was there is removed. Invariant: the caller holds the log's lock.
"""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tokmesh._core import wal
from tokmesh._core.table import Table
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS
from tokmesh.keyring import KeyRing
from tokmesh.log.record import decode
from tokmesh.snapshots.loading import Loaded, load, opener_of
from tokmesh.snapshots.restoring import copy_contents
from tokmesh.storage.recovery import Progress
from tokmesh.storage.scan import Position, closed_segment, header_of, last_segment, read_file, undecodable
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import SegmentKeys
from tokmesh.storage.snapshot_directory import Draft, SnapshotFile, list_snapshots
from tokmesh.storage.snapshot_file import PURPOSE, About, SnapshotDamaged, SnapshotHeader, SnapshotReader, SnapshotWriter
from tokmesh.store import Store

if TYPE_CHECKING:
    from tokmesh.storage.encryption import KeySet, Sealer

STEP_ENTRIES: Final = 16_384
NewTable = Callable[[], Table]


class Moment(NamedTuple):
    """What to go back to: after this record, or after the last one proposed by this time (Unix ms). One of both."""

    sequence: int | None = None
    time_ms: int | None = None

    def is_past(self, sequence: int, time_ms: int) -> bool:
        """Whether a record came after it."""
        return sequence > self.sequence if self.sequence is not None else time_ms > (self.time_ms or 0)

    def covers(self, header: SnapshotHeader) -> bool:
        """Whether a snapshot was taken by then, and so leads there."""
        return not self.is_past(header.sequence, header.time_ms)


class Restorable(NamedTuple):
    """Table and keys as of a record. sequence 0: before the first; held: the shards (bits) whose sessions it has, which are all but
    of a node of a cluster that holds a part."""

    table: Table
    keyring: KeyRing
    sequence: int
    held: int = ALL_SHARDS


def of_snapshot(path: Path, new_table: NewTable, keys: "KeySet | None", progress: Progress) -> Restorable:
    """Raises SnapshotDamaged, KeyMissing, OSError."""
    loaded = load(path, new_table, keys, None, progress)
    store = Store(loaded.table, loaded.keyring)
    for record in loaded.cluster:  # what the node was loading or forgetting is not whole
        store.take_place(record)
    return Restorable(loaded.table, loaded.keyring, loaded.header.sequence, store.following.held)


def of_moment(
    moment: Moment, snapshots: Path, log: Path, new_table: NewTable, keys: "KeySet | None", progress: Progress
) -> Restorable:
    """From the newest snapshot that was taken by then, and the log behind it.

    Raises ApiError TM-ARG-1001 (nothing that is kept tells of that moment), LogDamaged, KeyMissing, OSError."""
    base = _base(moment, snapshots, new_table, keys, progress)
    table, keyring = (base.table, base.keyring) if base is not None else (new_table(), KeyRing())
    store = Store(table, keyring)
    store.applied_sequence = base.header.sequence if base is not None else 0
    _replay(moment, snapshots, log, store, SegmentKeys(keys, False), progress)
    sequence = store.applied_sequence
    if moment.sequence is not None and sequence != moment.sequence:
        raise ApiError("TM-ARG-1001", {"--to-sequence": f"what is kept ends with record {sequence}"})
    if sequence == 0:
        raise ApiError("TM-ARG-1001", {"--to-time": "nothing was recorded by then, or it is no longer kept"})
    return Restorable(table, keyring, sequence)


def restore(state: Restorable, snapshots: Path, log: Path, about: About, time_ms: int, sealer: "Sealer | None") -> SnapshotFile:
    """Makes the next start begin with `state`. time_ms: now. Raises OSError; nothing has changed then."""
    draft = Draft(snapshots, "restored")
    try:
        sequence = _beyond(snapshots, log)
        sessions, users, devices = state.table.begin_image()
        header = SnapshotHeader(sequence, time_ms, sessions, users, devices, restored=True)
        writer = SnapshotWriter(draft.fd, header, about, sealer)
        writer.add_keys([record.encode() for record in state.keyring.records()])
        last = False
        while not last:  # each step looks at more entries
            images, last = state.table.image.step(STEP_ENTRIES)
            writer.add_sessions(images)
        writer.finish(state.table.image.count)
        return draft.publish(sequence)
    except BaseException:
        draft.discard()
        raise


def rekey(snapshots: Path, keys: "KeySet | None", sealing: bool) -> int:
    """Writes every snapshot anew that is not under the first key, or not plain where `sealing` is not; how many. One is replaced
    after the other, each by a rename. Raises SnapshotDamaged, KeyMissing, OSError."""
    wanted = keys.first_id if sealing and keys is not None else b""
    count = 0
    for file in list_snapshots(snapshots):
        with SnapshotReader(file.path) as reader:
            if reader.header.key_id == wanted:
                continue
            reader.verify()
            opener = opener_of(reader, keys)
            draft = Draft(snapshots, "rekeyed")
            try:
                header = reader.header._replace(key_id=b"", salt=b"")
                sealer = keys.new_sealer(PURPOSE) if wanted and keys is not None else None
                writer = SnapshotWriter(draft.fd, header, reader.about(opener), sealer)
                copy_contents(reader, opener, writer, with_cluster=True)
                draft.publish(file.sequence)
            except BaseException:
                draft.discard()
                raise
        count += 1
    return count


def _base(
    moment: Moment, snapshots: Path, new_table: NewTable, keys: "KeySet | None", progress: Progress
) -> Loaded | None:
    for file in list_snapshots(snapshots):
        try:
            with SnapshotReader(file.path) as reader:
                if not moment.covers(reader.header):
                    continue
            return load(file.path, new_table, keys, None, progress)
        except SnapshotDamaged:
            continue  # an older one leads there as well
    return None


def _replay(moment: Moment, snapshots: Path, log: Path, store: Store, keys: SegmentKeys, progress: Progress) -> None:
    """Applies what came by then; `store` tells how far that is. Raises ApiError TM-ARG-1001, LogDamaged, KeyMissing, OSError."""
    base = store.applied_sequence
    segments = _one_history(list_segments(log) if log.is_dir() else [], base, _begun_by_restores(snapshots))
    if not segments:
        return
    progress.begin(segments)
    with segments[0][1].open("rb") as file:
        header = header_of(segments[0][1], file.read(wal.SEGMENT_HEADER_BYTES))
    position = Position(header.first_sequence, header.chain, keys)
    for (name_sequence, path), successor in itertools.zip_longest(segments, segments[1:]):
        if successor is not None:
            frames = closed_segment(path, name_sequence, successor, position)
        else:
            frames = last_segment(path, name_sequence, read_file(path), position)
        for offset, frame in frames:
            for sequence, data in enumerate(frame.records, frame.first_sequence):
                if sequence <= base:
                    continue
                try:
                    record = decode(data)
                except Exception as error:
                    raise undecodable(path, offset, sequence) from error
                if moment.is_past(sequence, record.time_ms):
                    return
                store.replay(sequence, record)
            progress.advance(store.applied_sequence, frame.end)
        progress.end_segment(path.stat().st_size)


def _begun_by_restores(snapshots: Path) -> frozenset[int]:
    """First sequences of what the log holds behind each restore that is still kept."""
    found = set()
    for file in list_snapshots(snapshots):
        with contextlib.suppress(SnapshotDamaged), SnapshotReader(file.path) as reader:
            if reader.header.restored:
                found.add(file.sequence + 1)
    return frozenset(found)


def _one_history(segments: list[tuple[int, Path]], base: int, begun: frozenset[int]) -> list[tuple[int, Path]]:
    """The segments that lead on from record `base`, up to where a restore began another history."""
    before = [segment for segment in segments if segment[0] <= base + 1]
    if segments and not before:
        missing = f"records {base + 1} to {segments[0][0] - 1}, which lead there, are no longer kept"
        raise ApiError("TM-ARG-1001", {"reason": missing})
    leading = segments[max(len(before) - 1, 0) :]
    return leading[:1] + list(itertools.takewhile(lambda segment: segment[0] not in begun, leading[1:]))


def _beyond(snapshots: Path, log: Path) -> int:
    """A sequence that no record and no snapshot can have: a segment holds fewer records than bytes."""
    highest = max((file.sequence for file in list_snapshots(snapshots)), default=0)
    if log.is_dir():
        highest = max(highest, *(first + path.stat().st_size for first, path in list_segments(log)), 0)
    return highest + 1

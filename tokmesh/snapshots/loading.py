"""From a snapshot file to a table and a key ring.

Invariants: the whole file is verified before anything of it is used; what is loaded is new, so that a file which cannot be used
leaves nothing behind. The next chunk is decompressed while one is loaded: both are C without the GIL.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokmesh._core.loader import Loader
from tokmesh._core.table import Table
from tokmesh.errors import ApiError
from tokmesh.following import FollowingRecord
from tokmesh.keyring import KeyRing
from tokmesh.log.record import KeyCreated, KeyStatusChanged, RecordError, decode
from tokmesh.storage.recovery import Progress
from tokmesh.storage.segment_keys import KeyMissing
from tokmesh.storage.snapshot_directory import SnapshotFile
from tokmesh.storage.snapshot_file import NOTHING, PURPOSE, Kind, SnapshotDamaged, SnapshotHeader, SnapshotReader, split_records

if TYPE_CHECKING:
    from tokmesh.storage.encryption import KeySet, Opener

logger = logging.getLogger("tokmesh.snapshots")


class SnapshotForeign(ApiError):
    """A snapshot of another node lies among this one's (TM-SYS-5001)."""

    def __init__(self, path: Path, node_id: str) -> None:
        super().__init__("TM-SYS-5001", {"file": path.name, "reason": f"a snapshot of node {node_id}"})
        self.path = path
        self.node_id = node_id

    def __str__(self) -> str:
        return (
            f"{self.code}: {self.path} is a snapshot of node {self.node_id}, not of this one. Take it away, or make it this node's "
            "with `tokmesh backup restore`. Nothing was changed"
        )


class Loaded(NamedTuple):
    """What a snapshot held."""

    header: SnapshotHeader
    path: Path
    table: Table
    keyring: KeyRing
    cluster: list[FollowingRecord]


def load_newest(
    found: list[SnapshotFile], new_table: Callable[[], Table], keys: "KeySet | None", node_id: str, progress: Progress
) -> tuple[Loaded | None, list[Path]]:
    """The newest of `found` (newest first) that can be used, and the newer ones that cannot, of which each is told.

    Raises KeyMissing, SnapshotForeign: those are for an operator to put right, and no older snapshot is taken instead. Raises
    RecoveryCancelled."""
    unusable: list[Path] = []
    for file in found:
        try:
            return load(file.path, new_table, keys, node_id, progress), unusable
        except (SnapshotDamaged, OSError) as error:
            unusable.append(file.path)
            logger.error("a snapshot cannot be used; the one before it is tried", extra={"snapshot": file.id, "reason": str(error)})
    return None, unusable


def load(
    path: Path, new_table: Callable[[], Table], keys: "KeySet | None", node_id: str | None, progress: Progress
) -> Loaded:
    """Verifies and loads one file. node_id: whose it must be, unless a restore made it; None: anybody's.

    Raises SnapshotDamaged, KeyMissing, SnapshotForeign, OSError, RecoveryCancelled."""
    with SnapshotReader(path) as reader:
        progress.begin_snapshot(path.name, reader.size_bytes)
        reader.verify()
        opener = opener_of(reader, keys)
        maker = reader.about(opener).node_id
        if node_id is not None and not reader.header.restored and maker != node_id:
            raise SnapshotForeign(path, maker)
        header, table, keyring, totals = reader.header, new_table(), KeyRing(), NOTHING
        keys_loaded = 0
        cluster: list[FollowingRecord] = []
        loader = Loader(table, time_ms=header.time_ms, sessions=header.sessions, users=header.users, devices=header.devices)
        try:
            for kind, raw in _ahead(reader.contents(opener)):
                progress.advance(loader.count, reader.bytes_read)
                if kind == Kind.SESSIONS:
                    loader.load(raw)
                elif kind == Kind.KEYS:
                    keys_loaded += _load_keys(raw, keyring)
                elif kind == Kind.CLUSTER:
                    cluster += _cluster_records(raw)
                elif kind == Kind.END:
                    totals = reader.totals_of(raw)
        except (ValueError, RecordError) as error:
            raise SnapshotDamaged(path, 0, f"its contents mean nothing: {error}") from error
        if (totals.images, totals.keys) != (loader.count, keys_loaded):
            raise SnapshotDamaged(path, reader.size_bytes, "it does not hold what its end says")
    return Loaded(header, path, table, keyring, cluster)


def refuse_unknown(path: Path, keys: "KeySet | None") -> None:
    """KeyMissing for a snapshot whose key is not at hand; OSError. A file that is none is nothing to this, nor is one that was
    removed meanwhile."""
    try:
        with SnapshotReader(path) as reader:
            opener_of(reader, keys)
    except (SnapshotDamaged, FileNotFoundError):
        return


def opener_of(reader: SnapshotReader, keys: "KeySet | None") -> "Opener | None":
    """What opens a sealed file; None for a plain one. Raises KeyMissing."""
    header = reader.header
    if not header.sealed:
        return None
    if keys is None or header.key_id not in keys.key_ids:
        raise KeyMissing(reader.path, header.key_id, keys)
    return keys.opener(header.key_id, header.salt, PURPOSE)


def _ahead(contents: Iterator[tuple[Kind, bytes]]) -> Iterator[tuple[Kind, bytes]]:
    """The same, each got by another thread while the one before is used."""
    with ThreadPoolExecutor(1, "tokmesh-snapshot") as pool:
        due = pool.submit(next, contents, None)
        while (found := due.result()) is not None:
            due = pool.submit(next, contents, None)
            yield found


def _load_keys(raw: bytes, keyring: KeyRing) -> int:
    """How many records there were. Raises RecordError."""
    records = split_records(raw)
    for each in records:
        record = decode(each)
        if isinstance(record, KeyCreated):
            keyring.apply_created(record)
        elif isinstance(record, KeyStatusChanged):
            keyring.apply_status(record)
        else:
            raise RecordError("a record that is not a key's")
    return len(records)


def _cluster_records(raw: bytes) -> list[FollowingRecord]:
    """Raises RecordError."""
    records: list[FollowingRecord] = []
    for each in split_records(raw):
        record = decode(each)
        if not isinstance(record, FollowingRecord):
            raise RecordError("a record that is not of a cluster")
        records.append(record)
    return records

"""Snapshot files made in this process, from a table and keys of the test's."""

from collections.abc import Sequence
from pathlib import Path

from tests.model.table_pair import TablePair
from tokmesh._core.table import Table
from tokmesh.keyring import KeyRing
from tokmesh.log.record import AnyRecord, KeyCreated
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.snapshot_directory import Draft
from tokmesh.storage.snapshot_file import PURPOSE, About, SnapshotHeader, SnapshotWriter

NODE = "tmnd-made"
STEP_ENTRIES = 10  # a chunk


class Made:
    """What is in the file. sessions: how many; every fifth is revoked, every seventh was rotated."""

    def __init__(self, keys: KeySet | None, sessions: int) -> None:
        self.keys = keys
        self.pair = TablePair()
        self.keyring = KeyRing()
        for number in range(5):
            secret = (f"$argon2id${number}", bytes([number] * 16), bytes([number] * 32))
            self.keyring.apply_created(KeyCreated(1, bytes([number] * 16), "issuer", f"key {number}", (), 0.0, 0, *secret))
        for number in range(sessions):
            # Each is unlike the one before, so that compression leaves something to damage.
            agent, data = f"agent {number * 7919 % 1009}", b'{"n":"%d"}' % (number * 104729 % 99991)
            self.pair.insert(number, number, f"user{number % 9}", "device", "192.0.2.1", agent, 60_000, 0, data)
            if number % 5 == 4:
                self.pair.revoke(number)
            elif number % 7 == 6:
                self.pair.rotate(number, 100_000 + number, 20_000)


def new_table() -> Table:
    """What such a file is loaded into."""
    return Table(tombstone_ttl_ms=30_000, seed=bytes(16), entries_max=1 << 16, arena_bytes_max=1 << 26)


def write_snapshot(directory: Path, made: Made, sequence: int, cluster: Sequence[AnyRecord] = ()) -> Path:
    """A snapshot file in the directory; cluster: records of a node of one. OSError; then nothing is left of it."""
    draft = Draft(directory)
    image = made.pair.table.image
    try:
        header = SnapshotHeader(sequence, made.pair.now_ms, *made.pair.table.begin_image())
        writer = SnapshotWriter(draft.fd, header, About(NODE, "0.1.0"), made.keys.new_sealer(PURPOSE) if made.keys else None)
        writer.add_keys([record.encode() for record in made.keyring.records()])
        done = False
        while not done:
            images, done = image.step(STEP_ENTRIES)
            writer.add_sessions(images)
        if cluster:
            writer.add_cluster([record.encode() for record in cluster])
        writer.finish(image.count)
        return draft.publish(sequence).path
    finally:
        image.abandon()
        draft.discard()

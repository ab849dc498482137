"""Makes the golden snapshots of the current format: python -m tests.golden.make_snapshots

Writes tests/golden/snapshot-v<format>/{plain,encrypted}.tms, with what they hold and mean beside them, once: see make.py. The state
is what the golden log's records make, and MORE; what is random in a snapshot, the salt of an encrypted one, is fixed.
They have live, revoked and expired sessions, a token that a rotation replaced and one that a second rotation ended, texts that need
escaping, keys that are enabled and disabled, and several chunks. The encrypted one is marked as made by a restore.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.golden import make
from tests.golden.plain_snapshot_reader import read_snapshot
from tokmesh._core.table import Table
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.snapshots.loading import load
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.recovery import Progress
from tokmesh.storage.snapshot_file import PURPOSE, VERSION, About, SnapshotHeader, SnapshotWriter
from tokmesh.store import Store

NODE_ID: Final = "tmnd-golden"
SOFTWARE: Final = "0.1.0"
KEY: Final = make.golden_keys()[0]
SALT: Final = make.hash32("the golden salt")[:16]
STEP_ENTRIES: Final = 4
MORE: Final[list[r.AnyRecord]] = [
    r.TokenRotated(make.T0 + 80, make.id16(11), make.hash32("token 11, second"), make.T0 + 90_000),
    r.TokenRotated(make.T0 + 81, make.id16(11), make.hash32("token 11, third"), make.T0 + 90_000),
    make.created(82, 'quote " and \\ and \u0001', device_id="\N{SNOWMAN}", ip_address="203.0.113.5"),
    r.KeyStatusChanged(make.T0 + 83, make.id16(902), False),
]
RECORDS: Final = [record for group in (*make.BEFORE_SEAL, *make.AFTER_SEAL) for record in group] + MORE
TOKENS: Final = {f"token {number}" for number in (*range(10, 14), *range(40, 43), 50, 51, 82)} | {
    "token 10, second", "token 11, second", "token 11, third",
}  # fmt: skip


def write_snapshot(path: Path, *, keys: KeySet | None, restored: bool = False) -> None:
    """One golden snapshot; its content is the same each time, its bytes as long as zstandard compresses alike."""
    table, keyring = Table(tombstone_ttl_ms=make.HOUR_MS, seed=bytes(16)), KeyRing()
    store = Store(table, keyring)
    for sequence, record in enumerate(RECORDS, 1):
        store.apply(sequence, record)
    table.advance(make.READ_AT_MS, 1000)  # "brief" is cleared
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        sessions, users, devices = table.begin_image()
        header = SnapshotHeader(store.applied_sequence, make.READ_AT_MS, sessions, users, devices, restored)
        writer = SnapshotWriter(fd, header, About(NODE_ID, SOFTWARE), keys.new_sealer(PURPOSE) if keys is not None else None)
        writer.add_keys([record.encode() for record in keyring.records()])
        last = False
        while not last:
            images, last = table.image.step(STEP_ENTRIES)
            writer.add_sessions(images)
        writer.finish(table.image.count)
    finally:
        os.close(fd)


def write_both(directory: Path) -> None:
    """plain.tms and encrypted.tms."""
    write_snapshot(directory / "plain.tms", keys=None)
    write_snapshot(directory / "encrypted.tms", keys=KeySet([KEY], random=lambda size: SALT[:size]), restored=True)


def read_state(path: Path) -> dict[str, Any]:
    """What a start makes of a snapshot: sessions, verdicts and keys, as of READ_AT_MS."""
    loaded = load(path, lambda: Table(tombstone_ttl_ms=make.HOUR_MS, seed=bytes(16)), KeySet([KEY]), NODE_ID, Progress())
    return {"sequence": loaded.header.sequence, **make.told(loaded.table, loaded.keyring, TOKENS)}


def main() -> None:
    folder = make.FOLDER / f"snapshot-v{VERSION}"
    folder.mkdir()  # FileExistsError: golden files are made once
    write_both(folder)
    expected = {"content": read_snapshot(folder / "plain.tms"), "state": read_state(folder / "plain.tms")}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

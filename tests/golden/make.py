"""Makes the golden log of the current format: python -m tests.golden.make

Writes tests/golden/v<format>/log and expected.json beside it, once: what is there is never written again, since a golden
file is what an old release wrote. A new format gets a new directory by running this, and its SHA-256 a line in
test_golden.py. The log is written by the server's own writer; the only thing that is random in a log, the ids of its
segments, comes from a fixed seed. It has:

- every kind of record, with empty and with non-ASCII texts, unchanged and changed touches, an eviction;
- several segments, and the seal of an orderly stop in the middle, after which a second start goes on;
- a torn tail: the first half of a frame that a crash cut short.
"""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any, Final
from unittest import mock

from tests.crash.records import QUIET
from tests.golden.plain_reader import read_log
from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.ids import format_key_id, format_session_id
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.log.appender import Appender
from tokmesh.log.record import decode
from tokmesh.log.stream_record import Envelope
from tokmesh.storage import recovery
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys
from tokmesh.store import Store

FOLDER: Final = Path(__file__).parent
SEGMENT_BYTES: Final = 2048
T0: Final = 1_734_567_890_000
HOUR_MS: Final = 3_600_000
READ_AT_MS: Final = T0 + 60_000  # the state is told as of this moment
SEED: Final = 20_241_219


def id16(number: int) -> bytes:
    """A ULID of T0."""
    return (T0 + number).to_bytes(6, "big") + hashlib.sha256(b"id %d" % number).digest()[:10]


def hash32(name: str) -> bytes:
    """What stands for the SHA-256 of a token."""
    return hashlib.sha256(name.encode()).digest()


def created(number: int, user_id: str, *, evicts: tuple[bytes, ...] = (), **fields: Any) -> r.SessionCreated:
    """A session that lives for an hour, unless `fields` say otherwise."""
    values: dict[str, Any] = {
        "device_id": "", "ip_address": "", "user_agent": "", "created_by": "", "idle_seconds": 0, "data": b"{}",
        "expires_at_ms": T0 + HOUR_MS,
    }  # fmt: skip
    return r.SessionCreated(
        time_ms=T0 + number, session_id=id16(number), token_hash=hash32(f"token {number}"), user_id=user_id, evicts=evicts,
        **{**values, **fields},
    )  # fmt: skip


ADMIN_KEY: Final = id16(900)
# Groups before and after the seal, each a frame; then the frame that is cut.
BEFORE_SEAL: Final[list[list[r.AnyRecord]]] = [
    [
        r.KeyCreated(
            T0, ADMIN_KEY, "admin", "first key", (), 0.0, 0, "$argon2id$v=19$m=16384,t=2,p=1$c2FsdHNhbHQ$Z29sZGVu", id16(901),
            hash32("tag 1"),
        )
    ],
    [
        r.KeyCreated(
            T0 + 1, id16(902), "validator", "Prüfer 検証", ("10.0.0.0/8", "2001:db8::/32"), 12.5, T0 + HOUR_MS,
            "$argon2id$v=19$m=16384,t=2,p=1$c2FsdHNhbHQ$dHdv", id16(903), hash32("tag 2"),
        ),
        r.KeyStatusChanged(T0 + 2, id16(902), False),
    ],
    [
        created(
            10, "alice", device_id="phone", ip_address="192.0.2.1", user_agent="curl/8.5 \N{SNOWMAN}",
            created_by=format_key_id(ADMIN_KEY), idle_seconds=1800, data='{"cart":"42","näme":"Ünï"}'.encode(),
        )
    ],
    [created(11, "bob", ip_address="2001:db8::7"), created(12, "bob"), created(13, "Зоя", device_id="x" * 20)],
    [r.SessionRenewed(T0 + 20, id16(11), T0 + 2 * HOUR_MS)],
    [r.SessionUpdated(T0 + 21, id16(10), b'{"cart":"43"}'), r.SessionUpdated(T0 + 22, id16(11), b"{}")],
    [r.TokenRotated(T0 + 23, id16(10), hash32("token 10, second"), T0 + 30_000)],
    [
        r.SessionsTouched(
            T0 + 24,
            [
                (id16(10), T0 + 5_000, "198.51.100.9", "Mozilla/5.0"),
                (id16(11), T0 + 6_000, None, None),
                (id16(12), T0 + 7_000, "", ""),
            ],
        )
    ],
    [r.SessionsTouched(T0 + 25, [])],
]  # fmt: skip
AFTER_SEAL: Final[list[list[r.AnyRecord]]] = [
    [r.SessionsRevoked(T0 + 30, [id16(13)])],
    [created(40 + number, f"user {number}", user_agent="agent " * 20, data=b'{"k":"' + b"v" * 300 + b'"}') for number in range(3)],
    [created(50, "bob", evicts=(id16(12),))],
    [created(51, "brief", expires_at_ms=T0 + 50_000)],
    [r.KeyStatusChanged(T0 + 60, id16(902), True), r.SessionsRevoked(T0 + 61, [id16(40), id16(41)])],
]
CUT: Final[list[r.AnyRecord]] = [r.SessionsRevoked(T0 + 70, [id16(10), id16(11)])]


def write_log(directory: Path) -> None:
    """The golden log, byte for byte the same each time. The directory must not exist yet."""
    source = random.Random(SEED)
    directory.mkdir(mode=0o700)
    with mock.patch("tokmesh.storage.segment.secrets.randbits", source.getrandbits):
        append(directory, BEFORE_SEAL, seal=True)
        tail = append(directory, AFTER_SEAL, seal=False)
    path = sorted(directory.glob("wal-*"))[-1]
    encoded = [record.encode() for record in CUT]
    frame, _ = wal.encode_frame(tail.segment_id, tail.sequence_due, tail.durable_sequence, tail.chain, encoded)
    with path.open("r+b") as file:
        file.seek(tail.offset)
        file.write(frame[: len(frame) // 2])


def append(directory: Path, groups: list[list[r.AnyRecord]], *, seal: bool, keys: SegmentKeys = PLAIN) -> Appender:
    """Adds groups to a log, each as a frame of its own, as a server does; what is returned is closed and tells the end."""
    end, _ = recovery.replay(directory, SEGMENT_BYTES, decode, lambda sequence, record: None, keys=keys)
    appender = Appender(directory, end, SEGMENT_BYTES, Clock(T0), QUIET, keys)
    for group in groups:
        records = [record.encode() for record in group]
        size = appender.frame_bytes(records)
        assert appender.make_room(size, False) and appender.write(records) == size
        appender.sync()
    appender.close(seal)
    return appender


def read_state(directory: Path) -> dict[str, Any]:
    """What a start makes of the log, repairing it: sessions and keys as plain values, as of READ_AT_MS."""
    table, keyring = Table(tombstone_ttl_ms=HOUR_MS, seed=bytes(16)), KeyRing()
    store = Store(table, keyring, replay_until_ms=READ_AT_MS)
    end, report = recovery.replay(directory, SEGMENT_BYTES, decode, store.replay)
    Appender(directory, end, SEGMENT_BYTES, Clock(T0), QUIET).close(seal=False)
    tokens = {f"token {number}" for number in (*range(10, 14), *range(40, 43), 50, 51)} | {"token 10, second"}
    return {"torn_tail": report.torn_tail, "last_sequence": report.last_sequence, **told(table, keyring, tokens)}


def told(table: Table, keyring: KeyRing, tokens: set[str]) -> dict[str, Any]:
    """Sessions, what is said of `tokens`, and keys as plain values, as of READ_AT_MS."""
    return {
        "sessions": _sessions(table),
        "verdicts": {name: table.check(hash32(name), READ_AT_MS)[0] for name in sorted(tokens)},
        "keys": [
            {
                "key_id": stored.api_key.key_id, "role": stored.api_key.role_name, "active": stored.api_key.active,
                "expires_at_ms": stored.api_key.expires_at_ms, "rate": stored.api_key.rate_per_second,
                "description": stored.description, "allowedlist": list(stored.allowedlist),
                "created_at_ms": stored.created_at_ms, "argon2_hash": stored.argon2_hash, "salt": stored.salt.hex(),
                "tag": stored.tag.hex(),
            }
            for stored in keyring.all()
        ],
    }  # fmt: skip


def _sessions(table: Table) -> list[dict[str, Any]]:
    entries, _ = table.scan(0, 1000)
    told = []
    for entry in entries:
        view = table.session(entry)
        values = {**view._asdict(), "id": format_session_id(view.id), "data": view.data.decode()}
        told.append({"status": int(table.status(entry, READ_AT_MS)), **values})
    return sorted(told, key=lambda session: str(session["id"]))


def golden_keys() -> list[bytes]:
    """The keys of the encrypted golden log; the first seals its end."""
    return [hash32("the second golden key"), hash32("the first golden key")]


def write_encrypted_log(directory: Path) -> None:
    """A log that began plain, was encrypted then, and was given another key at last."""
    directory.mkdir(parents=True)
    second, first = golden_keys()
    append(directory, BEFORE_SEAL[:3], seal=True)
    append(directory, BEFORE_SEAL[3:], seal=False, keys=SegmentKeys(KeySet([first]), True))
    append(directory, AFTER_SEAL, seal=True, keys=SegmentKeys(KeySet([second, first]), True))
    (directory / "lock").unlink(missing_ok=True)


CLUSTER_ID: Final = hash32("cluster")[:16]


def stated(number: int, **fields: Any) -> r.SessionStated:
    """A session of a cluster as it is."""
    values: dict[str, Any] = {
        "time_ms": T0 + number, "token_hash": hash32(f"token {number}"), "old_token_hash": b"", "old_valid_until_ms": 0,
        "created_at_ms": T0 + number, "expires_at_ms": T0 + HOUR_MS, "last_active_ms": T0 + number, "version": 1, "idle_seconds": 0,
        "user_id": f"user {number}", "device_id": "", "ip_address": "", "user_agent": "", "created_by": "", "data": b"{}",
    }  # fmt: skip
    return r.SessionStated(session_id=id16(number), **{**values, **fields})


# What stood in the stream, by position; the gaps are what others have replaced.
CLUSTER: Final[dict[int, r.AnyRecord]] = {
    1: r.ClusterStated(T0, CLUSTER_ID, ["tmnd-a", "tmnd-b"]),
    2: r.NodeStated(T0, "tmnd-a", T0),
    4: r.KeyStated(
        T0 + 4, False, r.KeyCreated(T0, ADMIN_KEY, "admin", "Schlüssel", (), 0.0, 0, "$argon2id$", id16(901), hash32("t"))
    ),
    7: stated(10, device_id="phone", ip_address="2001:db8::7", user_agent="curl \N{SNOWMAN}", data='{"näme":"Ünï"}'.encode()),
    8: stated(11),
    9: stated(
        11, version=2, time_ms=T0 + 20, token_hash=hash32("token 11, second"), old_token_hash=hash32("token 11"),
        old_valid_until_ms=T0 + 90_000, last_active_ms=T0 + 20,
    ),
    12: r.SessionsRevoked(T0 + 30, [id16(10)]),
}  # fmt: skip


def write_cluster_log(directory: Path) -> None:
    """The log of a node of a cluster: what it has made of a stream, with a record at position 13 that means nothing."""
    records: list[r.AnyRecord] = [r.StreamBound(T0, CLUSTER_ID, 1_734_567_000_123_456_789, 0)]
    previous = 0
    for position, record in CLUSTER.items():
        envelope = Envelope("tmnd-a", T0, position, f"req-{position}", record.encode())
        records.append(r.Streamed(record.time_ms, position, previous, envelope.encode()))
        previous = position
    records.append(r.Streamed(T0 + 31, 13, previous, b"no envelope"))
    source = random.Random(SEED)
    directory.mkdir(parents=True)
    with mock.patch("tokmesh.storage.segment.secrets.randbits", source.getrandbits):
        append(directory, [records[:3], records[3:]], seal=True)
    (directory / "lock").unlink(missing_ok=True)


def read_cluster_state(directory: Path) -> dict[str, Any]:
    """What a start makes of it."""
    table, keyring = Table(tombstone_ttl_ms=HOUR_MS, seed=bytes(16)), KeyRing()
    store = Store(table, keyring, replay_until_ms=READ_AT_MS)
    recovery.replay(directory, SEGMENT_BYTES, decode, store.replay)
    following = store.following
    place = {
        "cluster_id": following.cluster_id.hex(), "created_ns": following.created_ns, "position": following.position,
        "members": list(following.members), "incarnations": following.incarnations, "quarantined": following.quarantined,
    }  # fmt: skip
    return {"following": place, **told(table, keyring, {"token 10", "token 11", "token 11, second"})}


def main() -> None:
    cluster = FOLDER / f"v{wal.FORMAT_VERSION}-cluster"
    write_cluster_log(cluster / "log")
    told = json.dumps(read_cluster_state(cluster / "log"), indent=1, ensure_ascii=False) + "\n"
    (cluster / "expected.json").write_text(told, encoding="utf-8")
    write_encrypted_log(FOLDER / f"v{wal.FORMAT_VERSION}-encrypted" / "log")
    folder = FOLDER / f"v{wal.FORMAT_VERSION}"
    folder.mkdir()  # FileExistsError: golden files are made once
    write_log(folder / "log")
    scratch = folder / "scratch"
    write_log(scratch)
    expected = {"log": read_log(folder / "log"), "state": read_state(scratch)}
    shutil.rmtree(scratch)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Snapshot files: what is written is read back, in both forms; what is not whole or not ours is refused, and nothing changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.records import ENCRYPTED
from tests.model.table_pair import TablePair, hash_of, id_of
from tests.support.sanitizers import bits_of
from tokmesh._core import wal
from tokmesh._core.table import Table
from tokmesh.keyring import KeyRing
from tokmesh.log.record import KeyCreated, KeyStatusChanged
from tokmesh.snapshots.loading import Loaded, SnapshotForeign, load, load_newest, refuse_unknown
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.recovery import Progress
from tokmesh.storage.segment_keys import KeyMissing
from tokmesh.storage.snapshot_directory import Draft, SnapshotFile, list_snapshots, remove, remove_drafts, snapshot_path, surplus
from tokmesh.storage.snapshot_file import (
    HEADER_BYTES,
    PURPOSE,
    About,
    SnapshotDamaged,
    SnapshotHeader,
    SnapshotReader,
    SnapshotWriter,
    decode_header,
    encode_header,
)

NODE = "tmnd-one"
KEYS = ENCRYPTED.keys
assert KEYS is not None
OTHER_KEYS = KeySet([bytes(32)])
IN_BOTH_FORMS = pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
RING = (
    KeyCreated(1, bytes(16), "admin", "first", (), 0.0, 0, "$argon2id$x", bytes(16), bytes(32)),
    KeyCreated(2, b"\1" * 16, "validator", "é", ("10.0.0.0/8",), 12.5, 99, "$argon2id$y", b"s" * 16, b"t" * 32),
    KeyStatusChanged(2, b"\1" * 16, False),
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "snapshots"
    path.mkdir(mode=0o700)
    yield path


def a_pair() -> TablePair:
    pair = TablePair()
    for number in range(6):
        pair.insert(number, number, f"u{number % 2}", "", "192.0.2.1", "agent", 60_000, 0, b'{"n":"%d"}' % number)
    pair.revoke(2)
    pair.rotate(3, 30, 20_000)
    return pair


def new_table() -> Table:
    return Table(tombstone_ttl_ms=30_000)


def write(directory: Path, pair: TablePair, keys: KeySet | None, sequence: int = 7, **header: object) -> Path:
    """A snapshot of the pair's table and RING, in chunks of two entries."""
    ring = KeyRing()
    for record in RING:
        ring.apply_created(record) if isinstance(record, KeyCreated) else ring.apply_status(record)
    draft = Draft(directory)
    sessions, users, devices = pair.table.begin_image()
    described = SnapshotHeader(sequence, pair.now_ms, sessions, users, devices)._replace(**header)  # type: ignore[arg-type]
    writer = SnapshotWriter(draft.fd, described, About(NODE, "0.1.0"), keys.new_sealer(PURPOSE) if keys else None)
    writer.add_keys([record.encode() for record in ring.records()])
    done = False
    while not done:
        images, done = pair.table.image.step(2)
        writer.add_sessions(images)
    writer.finish(pair.table.image.count)
    return draft.publish(sequence).path


def read(path: Path, keys: KeySet | None, node_id: str | None = NODE) -> Loaded:
    return load(path, new_table, keys, node_id, Progress())


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@IN_BOTH_FORMS
def test_what_is_written_is_read_back(directory: Path, keys: KeySet | None) -> None:
    pair = a_pair()
    path = write(directory, pair, keys)
    assert path == snapshot_path(directory, 7) and os.stat(path).st_mode & 0o777 == 0o600
    loaded = read(path, keys)
    assert (loaded.header.sequence, loaded.header.time_ms, loaded.header.sealed) == (7, pair.now_ms, keys is not None)
    pair.table = loaded.table
    for number in range(6):
        pair.check_session(number)
        pair.check_token(number)
    pair.check_token(30)
    pair.check_all()
    assert loaded.keyring.records() == list(RING)


def test_nothing_readable_is_in_a_sealed_file(directory: Path) -> None:
    plain, sealed = write(directory, a_pair(), None, 1).read_bytes(), write(directory, a_pair(), KEYS, 2).read_bytes()
    assert NODE.encode() in plain  # short chunks are stored as they are
    for secret in (NODE.encode(), b"agent", b"192.0.2.1", b"argon2id", hash_of(1), id_of(1)):
        assert secret not in sealed


@IN_BOTH_FORMS
def test_every_flipped_bit_is_refused(directory: Path, keys: KeySet | None) -> None:
    path = write(directory, a_pair(), keys)
    original = path.read_bytes()
    for bit in bits_of(original):
        changed = bytearray(original)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(SnapshotDamaged) as caught:
            read(path, keys)
        assert str(caught.value).startswith(f"{path} at offset ")


@IN_BOTH_FORMS
def test_every_length_is_refused(directory: Path, keys: KeySet | None) -> None:
    path = write(directory, a_pair(), keys)
    original = path.read_bytes()
    for size in range(len(original)):
        path.write_bytes(original[:size])
        with pytest.raises(SnapshotDamaged):
            read(path, keys)
    path.write_bytes(original + b"\0")
    with pytest.raises(SnapshotDamaged, match="something follows its end"):
        read(path, keys)


def test_chunks_in_another_order_are_refused(directory: Path) -> None:
    path = write(directory, a_pair(), None)
    data = path.read_bytes()
    offsets, at = [], HEADER_BYTES
    while at < len(data):
        offsets.append(at)
        at += 24 + int.from_bytes(data[at + 12 : at + 16], "little")
    first, second, third = offsets[2:5]
    path.write_bytes(data[:first] + data[second:third] + data[first:second] + data[third:])
    with pytest.raises(SnapshotDamaged, match="chunk 2 is damaged or missing"):
        read(path, None)


def test_a_newer_format_is_told(directory: Path) -> None:
    path = write(directory, a_pair(), None)
    data = bytearray(path.read_bytes())
    data[8] = 2
    data[124:128] = wal.crc32c(data[:124]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SnapshotDamaged, match="its format, 2, is newer than this program"):
        read(path, None)


def test_a_header_says_what_it_was_given() -> None:
    header = SnapshotHeader(1, 2, 3, 4, 5, True, b"k" * 8, b"s" * 16)
    assert decode_header(Path("x"), encode_header(header)) == header
    assert decode_header(Path("x"), encode_header(header._replace(key_id=b"", salt=b"", restored=False))).restored is False


@pytest.mark.parametrize("content", [b"", b"x", b"TMESHLOG" + bytes(120), bytes(4096)])
def test_another_kind_of_file_is_refused(directory: Path, content: bytes) -> None:
    path = snapshot_path(directory, 3)
    path.write_bytes(content)
    with pytest.raises(SnapshotDamaged, match="not a snapshot"):
        read(path, None)


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    path = write(directory, a_pair(), None)
    target = path.rename(tmp_path / "elsewhere")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        read(path, None)


def test_another_nodes_snapshot_is_refused_unless_a_restore_made_it(directory: Path) -> None:
    path = write(directory, a_pair(), None)
    with pytest.raises(SnapshotForeign) as caught:
        read(path, None, "tmnd-other")
    assert caught.value.code == "TM-SYS-5001" and f"{path} is a snapshot of node {NODE}" in str(caught.value)
    assert read(path, None, None).header.sequence == 7
    assert read(write(directory, a_pair(), None, restored=True), None, "tmnd-other").header.restored


def test_without_its_key_a_sealed_snapshot_is_refused_and_no_older_one_taken(directory: Path) -> None:
    write(directory, a_pair(), None, 1)
    path = write(directory, a_pair(), KEYS, 2)
    before = tree(directory)
    for keys in (None, OTHER_KEYS):
        with pytest.raises(KeyMissing) as caught:
            load_newest(list_snapshots(directory), new_table, keys, NODE, Progress())
        assert str(path) in str(caught.value) and "key" in str(caught.value)
    assert tree(directory) == before


def test_a_snapshot_that_was_removed_meanwhile_is_nothing_to_who_looks_for_its_key(directory: Path) -> None:
    refuse_unknown(directory / "snapshot-00000000000000000001.tms", None)


def test_what_does_not_open_is_refused(directory: Path) -> None:
    path = write(directory, a_pair(), KEYS)
    data = bytearray(path.read_bytes())
    data[64] ^= 1  # of the salt: another key of the file
    data[124:128] = wal.crc32c(data[:124]).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(data)
    with pytest.raises(SnapshotDamaged):
        read(path, KEYS)


def test_a_bad_newest_is_passed_over_loudly(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(directory, a_pair(), None, 1)
    write(directory, a_pair(), None, 2)
    newest = write(directory, a_pair(), None, 3)
    newest.write_bytes(newest.read_bytes()[:-1])
    loaded, unusable = load_newest(list_snapshots(directory), new_table, None, NODE, Progress())
    assert loaded is not None and loaded.header.sequence == 2 and unusable == [newest]
    assert [(record.levelname, record.snapshot) for record in caplog.records] == [("ERROR", newest.stem)]  # type: ignore[attr-defined]


def test_a_draft_has_no_name_until_it_is_published_and_leaves_nothing(directory: Path) -> None:
    draft = Draft(directory)
    assert list_snapshots(directory) == [] and len(tree(directory)) == 1
    draft.discard()
    draft.discard()
    assert tree(directory) == {}
    Draft(directory).fd  # noqa: B018  (its process dies)
    assert len(tree(directory)) == 1
    remove_drafts(directory)
    assert tree(directory) == {}


def files(*sequences: int) -> list[tuple[SnapshotFile, int]]:
    return [(SnapshotFile(number, Path(str(number))), number * 1000) for number in sequences]


@pytest.mark.parametrize(
    ("count_max", "after_ms", "expected"),
    [(4, 0, []), (3, 0, [1]), (1, 0, [3, 2, 1]), (9, 2000, [1]), (9, 2001, [2, 1]), (9, 10**9, [3, 2, 1])],
)
def test_what_need_not_be_kept(count_max: int, after_ms: int, expected: list[int]) -> None:
    assert [file.sequence for file in surplus(files(2, 4, 1, 3), count_max, after_ms)] == expected


def test_removing_twice_is_no_error(directory: Path) -> None:
    path = write(directory, a_pair(), None, 5)
    file = SnapshotFile(5, path)
    remove(directory, [file])
    remove(directory, [file])
    assert not path.exists()


def test_a_reader_tells_how_far_it_is(directory: Path) -> None:
    with SnapshotReader(write(directory, a_pair(), None)) as reader:
        reader.verify()
        assert reader.bytes_read == reader.size_bytes

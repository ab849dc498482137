"""Encrypted segments: no nonce twice under one key, whatever becomes of a write; nothing forged is read; keys that are missing.

Torn tails, flipped bits and cut lengths are in test_wal_recovery.py, in both forms.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.crash.records import ENCRYPTED, FORMS, Note, end_of, make_log, read_log, write_groups
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import until
from tokmesh._core import wal
from tokmesh._core.tail import Tail
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.recovery import SMALL_SEGMENT_BYTES
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import KeyMissing, SegmentKeys

SEGMENT_BYTES = 4096
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
ROTATED = SegmentKeys(KeySet([NEW, OLD]), True)
NEW_ONLY = SegmentKeys(KeySet([NEW]), True)


def headers(directory: Path) -> list[wal.SegmentHeader]:
    found = [wal.decode_segment_header(path.read_bytes()) for _, path in list_segments(directory)]
    return [header for header in found if header is not None]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def with_right_crcs(frame: bytearray, chain_before: int) -> bytes:
    """What somebody without a key can do who wants to be taken for the log."""
    frame[40:44] = wal.crc32c(frame[56:]).to_bytes(4, "little")
    frame[44:48] = wal.crc32c(frame[:44], chain_before).to_bytes(4, "little")
    frame[52:56] = wal.crc32c(frame[:52]).to_bytes(4, "little")
    return bytes(frame)


def test_a_nonce_is_used_up_by_a_write_that_fails(tmp_path: Path) -> None:
    assert ENCRYPTED.keys is not None
    sealer = ENCRYPTED.keys.new_sealer(b"log segment")
    tail = Tail()
    full, fd = os.open("/dev/full", os.O_RDWR), os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    tail.enter(full, 1, 0, 0, sealer)
    assert [tail.write_group([b"what comes to nothing"]) for _ in range(3)] == [28, 28, 28]
    tail.fd = fd
    assert [tail.write_group([text]) for text in (b"first", b"second")] == [0, 0]
    data = (tmp_path / "segment").read_bytes()
    assert [int.from_bytes(data[at + 48 : at + 52], "little") for at in (0, tail.frame_overhead + 9)] == [3, 4]
    _, frame = wal.read_frame(data, 0, 1, 0, 0, sealer)
    assert frame is not None and frame.records == [b"first"]
    os.close(full)
    os.close(fd)


def test_a_frame_that_came_to_nothing_cannot_take_the_place_of_the_one_that_was_kept(tmp_path: Path) -> None:
    """Both were sealed for the same place; who saw both on the disk must not be able to swap them."""
    assert ENCRYPTED.keys is not None
    sealer = ENCRYPTED.keys.new_sealer(b"log segment")
    tail = Tail()
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    tail.enter(fd, 1, 0, 0, sealer)
    assert tail.write_group([b"given up"]) == 0
    given_up = (tmp_path / "segment").read_bytes()
    tail.offset = tail.chain = tail.sequence_due = 0
    assert [tail.write_group([text]) for text in (b"was kept", b"followed")] == [0, 0]
    data = (tmp_path / "segment").read_bytes()
    os.close(fd)
    size = len(given_up)
    _, kept = wal.read_frame(data, 0, 1, 0, 0, sealer)
    _, swapped = wal.read_frame(given_up, 0, 1, 0, 0, sealer)
    assert kept is not None and swapped is not None, "each is genuine by itself"
    followed = with_right_crcs(bytearray(data[size:]), swapped.chain)
    status, frame = wal.read_frame(given_up + followed, size, 1, 1, swapped.chain, sealer)
    assert (status, frame) == (wal.FrameStatus.FRAME_FORGED, None)


def test_every_start_begins_a_segment_with_a_key_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    salts = set()
    for index in range(5):
        write_groups(log, [[Note(f"n{index}")]], SEGMENT_BYTES, seal=index % 2 == 0, keys=ENCRYPTED)
        salts.add(headers(log)[-1].salt)
    assert len(salts) == 5 and len(list_segments(log)) == 5
    sizes = [path.stat().st_size for _, path in list_segments(log)]
    assert all(size < 300 for size in sizes[:-1]), "the room that a segment does not need any more is given back"
    assert read_log(log, SEGMENT_BYTES, ENCRYPTED)[0] == [Note(f"n{index}") for index in range(5)]


@pytest.mark.parametrize("seal", [False, True])
def test_starts_that_write_nothing_leave_no_segments_behind(tmp_path: Path, seal: bool) -> None:
    log = tmp_path / "log"
    write_groups(log, [[Note("a")]], SEGMENT_BYTES, keys=ENCRYPTED)
    salts = set()
    for _ in range(4):
        write_groups(log, [], SEGMENT_BYTES, seal, ENCRYPTED)
        salts.add(headers(log)[-1].salt)
    assert len(list_segments(log)) == 2 and len(salts) == 4
    assert read_log(log, SEGMENT_BYTES, ENCRYPTED)[0] == [Note("a")]


def test_encryption_turned_on_and_off_leaves_every_segment_readable(tmp_path: Path) -> None:
    log = tmp_path / "log"
    forms = ["plain", "encrypted", "unsealed", "unsealed", "encrypted", "encrypted", "unsealed"]
    for index, form in enumerate(forms):
        write_groups(log, [[Note(f"n{index}")]], SEGMENT_BYTES, keys=FORMS[form])
        path = list_segments(log)[-1][1]
        assert (f"n{index}".encode() in path.read_bytes()) == (form != "encrypted")
    assert read_log(log, SEGMENT_BYTES, FORMS["unsealed"])[0] == [Note(f"n{index}") for index in range(len(forms))]
    assert [bool(header.key_id) for header in headers(log)] == [False, True, False, True, True, False]


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("changed", ["payload", "tag", "count", "durable", "nonce"])
def test_a_frame_by_another_hand_is_refused_and_not_cut_as_a_torn_tail(tmp_path: Path, place: str, changed: str) -> None:
    log = tmp_path / "log"
    offsets = write_groups(log, [[Note("a")], [Note("b")], [Note("c")]], SEGMENT_BYTES, keys=ENCRYPTED)
    path = list_segments(log)[0][1]
    data = bytearray(path.read_bytes())
    start, end = (offsets[0], offsets[1]) if place == "first" else (offsets[2], end_of(bytes(data)))
    chain = 0 if place == "first" else int.from_bytes(data[offsets[1] + 44 : offsets[1] + 48], "little")
    at = {"payload": 60, "tag": end - start - 1, "count": 32, "durable": 24, "nonce": 48}[changed]
    frame = data[start:end]
    frame[at] ^= 1
    data[start:end] = with_right_crcs(frame, chain)
    path.write_bytes(data)
    before = contents(log)
    with pytest.raises(LogDamaged, match="another hand") as caught:
        read_log(log, SEGMENT_BYTES, ENCRYPTED)
    assert caught.value.offset == start and contents(log) == before


def test_a_plain_frame_in_an_encrypted_segment_is_refused(tmp_path: Path) -> None:
    """Else whoever can write to the disk could add records without a key."""
    log = tmp_path / "log"
    write_groups(log, [[Note("a")]], SEGMENT_BYTES, keys=ENCRYPTED)
    path = list_segments(log)[0][1]
    data = bytearray(path.read_bytes())
    end = end_of(bytes(data))
    chain = int.from_bytes(data[64 + 44 : 64 + 48], "little")
    added, _ = wal.encode_frame(headers(log)[0].segment_id, 2, 1, chain, [Note("b").encode()])
    data[end : end + len(added)] = added
    path.write_bytes(data)
    with pytest.raises(LogDamaged, match="does not follow"):
        read_log(log, SEGMENT_BYTES, ENCRYPTED)


@pytest.mark.parametrize("keys", [SegmentKeys(None, False), NEW_ONLY], ids=["none", "another"])
def test_a_missing_key_is_refused_by_name_before_anything_changes(tmp_path: Path, keys: SegmentKeys) -> None:
    log = tmp_path / "log"
    write_groups(log, [[Note("a")]], SEGMENT_BYTES)
    write_groups(log, [[Note("b")]], SEGMENT_BYTES, keys=ENCRYPTED)
    (log / "spare.tmp").write_bytes(b"left by a killed writer")
    before = contents(log)
    path = list_segments(log)[1][1]
    with pytest.raises(KeyMissing) as caught:
        read_log(log, SEGMENT_BYTES, keys)
    assert caught.value.code == "TM-CFG-1006" and caught.value.path == path
    assert f"{path} is encrypted under key {headers(log)[1].key_id.hex()}" in str(caught.value)
    assert "Nothing was changed" in str(caught.value) and contents(log) == before
    with pytest.raises(KeyMissing):
        make_log(log, keys=keys).lock()
    make_log(log, keys=ENCRYPTED).recover(lambda sequence, note: None)  # the refusal has freed the directory


def test_another_first_key_is_followed_while_the_log_is_written(tmp_path: Path) -> None:
    async def life() -> None:
        log = make_log(tmp_path / "log", keys=ENCRYPTED)
        log.recover(lambda sequence, note: None)
        log.start(asyncio.get_running_loop(), lambda sequence, note: sequence)
        await log.propose(Note("old"))
        log.use_keys(ROTATED)
        await until(lambda: log.stats()["segments"] == 2, "a segment begins under the new key, without waiting for a write")
        assert await log.propose(Note("new")) == 2
        log.use_keys(SegmentKeys(KeySet([NEW, OLD]), True))  # the same keys once more
        assert await log.propose(Note("newer")) == 3
        assert log.stats()["segments"] == 2
        await log.close()

    asyncio.run(asyncio.wait_for(life(), 60))
    assert ENCRYPTED.keys is not None and ROTATED.keys is not None
    assert [each.key_id for each in headers(tmp_path / "log")] == [ENCRYPTED.keys.first_id, ROTATED.keys.first_id]
    with pytest.raises(KeyMissing):
        read_log(tmp_path / "log", SEGMENT_BYTES, NEW_ONLY)
    assert read_log(tmp_path / "log", SEGMENT_BYTES, ROTATED)[0] == [Note("old"), Note("new"), Note("newer")]


def test_a_new_key_waits_for_room_on_a_full_disk(tmp_path: Path) -> None:
    segment_bytes = 64 << 10

    async def life(disk: Path) -> None:
        log = make_log(disk / "log", segment_bytes, keys=ENCRYPTED)
        log.recover(lambda sequence, note: None)
        log.start(asyncio.get_running_loop(), lambda sequence, note: sequence)
        await log.propose(Note("old"))
        fill(disk / "filler")
        log.use_keys(ROTATED)  # takes the spare
        await until(lambda: log.stats()["segments"] == 2, "the spare is used")
        log.use_keys(ENCRYPTED)
        await log.propose(Note("goes on under the key of before"))
        assert log.stats()["segments"] == 2
        (disk / "filler").unlink()
        await until(lambda: log.stats()["segments"] == 3, "the new key is followed when there is room")
        await log.close()

    with small_disk(tmp_path / "disk", "512k") as disk:
        asyncio.run(asyncio.wait_for(life(disk), 60))
        assert len(read_log(disk / "log", segment_bytes, ROTATED)[0]) == 2


def test_a_start_on_a_full_disk_makes_do_with_a_small_segment(tmp_path: Path) -> None:
    """A plain log would go on in the segment it has; an encrypted one must not, and what it holds must be served."""
    with small_disk(tmp_path / "disk", "512k") as disk:
        log = disk / "log"
        write_groups(log, [[Note("a")]], 256 << 10, keys=ENCRYPTED)
        fill(disk / "filler", SMALL_SEGMENT_BYTES // 4096)
        notes, _ = read_log(log, 256 << 10, ENCRYPTED)
        assert notes == [Note("a")]
        assert list_segments(log)[-1][1].stat().st_size == SMALL_SEGMENT_BYTES
        write_groups(log, [[Note("b", 1000)] for _ in range(100)], 128 << 10, keys=ENCRYPTED)
        assert len(read_log(log, 128 << 10, ENCRYPTED)[0]) == 101


@pytest.mark.parametrize("form", ["plain", "encrypted"])
def test_the_largest_record_fits_in_either_form(tmp_path: Path, form: str) -> None:
    async def life() -> None:
        log = make_log(tmp_path / "log", keys=FORMS[form])
        log.recover(lambda sequence, note: None)
        log.start(asyncio.get_running_loop(), lambda sequence, note: sequence)
        overhead = wal.FRAME_HEADER_BYTES + (wal.TAG_BYTES if form == "encrypted" else 0)
        room = 4096 - wal.SEGMENT_HEADER_BYTES - 4096 // 8 - 2 * overhead - wal.RECORD_HEADER_BYTES
        largest = Note("x", room - len(Note("x").encode()))
        assert await log.propose(largest) == 1
        with pytest.raises(Exception, match="TM-SYS-4130"):
            await log.propose(Note("x", largest.padding + 1))
        await log.close()

    asyncio.run(asyncio.wait_for(life(), 60))

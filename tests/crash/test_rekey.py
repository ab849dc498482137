"""A log that is written anew: the same records, whatever it was and becomes, and whenever the process that does it is killed."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.kills import strace
from tests.crash.records import ENCRYPTED, FORMS, Note, end_of, make_log, read_log, write_groups
from tests.support.server import clean_environment
from tests.support.small_disk import fill, small_disk
from tokmesh._core import wal
from tokmesh.errors import ApiError
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.rekey import READY, UNFINISHED, rekey
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments
from tokmesh.storage.segment_keys import KeyMissing, SegmentKeys

SEGMENT_BYTES = 1024
OLD_KEY = bytes(range(100, 132))
OLD = SegmentKeys(KeySet([OLD_KEY]), True)
BOTH = SegmentKeys(KeySet([bytes(range(32)), OLD_KEY]), True)
STEPS = "mkdir,rmdir,rename,fsync,unlinkat,unlink"
STEPS_MIN = 12


def make(directory: Path, *forms: SegmentKeys) -> list[Note]:
    """A log of several segments in each of the forms, one after the other."""
    notes = []
    for index, keys in enumerate(forms):
        groups = [[Note(f"n{index}.{group}.{each}", 50) for each in range(group % 3 + 1)] for group in range(16)]
        write_groups(directory, groups, SEGMENT_BYTES, seal=index % 2 == 1, keys=keys)
        notes += [note for group in groups for note in group]
    assert len(list_segments(directory)) > 2 * len(forms)
    return notes


def key_ids(directory: Path) -> set[bytes]:
    found = [wal.decode_segment_header(path.read_bytes()) for _, path in list_segments(directory)]
    return {header.key_id for header in found if header is not None}


def recovered(directory: Path, keys: SegmentKeys) -> list[Note]:
    """What a server that starts on the log finds."""
    notes: list[Note] = []
    log = make_log(directory, SEGMENT_BYTES, keys=keys)
    log.recover(lambda sequence, note: notes.append(note))
    asyncio.run(log.close())
    return notes


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("end", ["plain", "encrypted"])
def test_every_form_becomes_the_one_that_is_wanted(tmp_path: Path, end: str) -> None:
    notes = make(tmp_path / "log", FORMS["plain"], OLD, BOTH)
    keys = BOTH if end == "encrypted" else BOTH._replace(sealing=False)
    names = [path.name for _, path in list_segments(tmp_path / "log")]
    report = rekey(tmp_path / "log", keys)
    assert (report.segments, report.records) == (len(names), len(notes))
    assert [path.name for _, path in list_segments(tmp_path / "log")] == names
    assert BOTH.keys is not None
    assert key_ids(tmp_path / "log") == {report.key_id} == ({b""} if end == "plain" else {BOTH.keys.first_id})
    assert rekey(tmp_path / "log", keys).segments == 0, "there is nothing left to do"
    assert recovered(tmp_path / "log", ENCRYPTED if end == "encrypted" else FORMS["plain"]) == notes
    write_groups(tmp_path / "log", [[Note("after")]], SEGMENT_BYTES, keys=keys)
    assert read_log(tmp_path / "log", SEGMENT_BYTES, keys)[0] == [*notes, Note("after")]


@pytest.mark.parametrize("form", ["plain", "encrypted"])
@pytest.mark.parametrize("seal", [False, True])
def test_damage_in_what_was_written_anew_is_never_taken_for_a_torn_tail(tmp_path: Path, form: str, seal: bool) -> None:
    """Its frames were all written at once, and yet each must prove those before it."""
    log = tmp_path / "log"
    write_groups(log, [[Note(f"n{index}", 20)] for index in range(4)], SEGMENT_BYTES, seal, OLD)
    rekey(log, BOTH._replace(sealing=form == "encrypted"))
    path = list_segments(log)[-1][1]
    data = path.read_bytes()
    seal_bytes = wal.FRAME_HEADER_BYTES + (wal.TAG_BYTES if form == "encrypted" else 0)
    for at in range(wal.SEGMENT_HEADER_BYTES, end_of(data) - seal_bytes, 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(LogDamaged):
            read_log(log, SEGMENT_BYTES, BOTH)


@pytest.mark.parametrize("forms", [("plain", "encrypted"), ("encrypted", "unsealed")], ids=["on", "off"])
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, forms: tuple[str, str]) -> None:
    notes = make(tmp_path / "original", FORMS[forms[0]], FORMS[forms[0]])
    outcomes = set()
    for step in range(1, 200):
        log = tmp_path / f"log-{step}"
        shutil.copytree(tmp_path / "original", log)
        inject = ["-o", "/dev/null", "-e", f"trace={STEPS}", "-e", f"inject={STEPS}:signal=SIGKILL:when={step}"]
        command = [*strace(inject), sys.executable, "-m", "tests.crash.rekeys", str(log), forms[1]]
        environment = clean_environment({"PYTHONDONTWRITEBYTECODE": "1"})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        decided = (log / READY).exists() or key_ids(log) != key_ids(tmp_path / "original")
        if done.returncode == 0:
            assert step > STEPS_MIN
            break
        # Once it is decided, the form of before needs no key any more; until then it is untouched.
        keys = FORMS[forms[0]] if not decided else ENCRYPTED if forms[1] == "encrypted" else FORMS["plain"]
        assert recovered(log, keys) == notes, (step, done.stderr)
        assert not (log / READY).exists() and not (log / UNFINISHED).exists()
        outcomes.add(decided)
        rekey(log, FORMS[forms[1]])
        assert recovered(log, FORMS[forms[1]]) == notes
        shutil.rmtree(log)
    else:
        raise AssertionError("it never came to its end")
    assert outcomes == {False, True}


def test_a_missing_key_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "log", FORMS["plain"], OLD)
    before = contents(tmp_path / "log")
    for keys in (FORMS["plain"], ENCRYPTED, FORMS["unsealed"]):
        with pytest.raises(KeyMissing, match="Nothing was changed"):
            rekey(tmp_path / "log", keys)
    assert contents(tmp_path / "log") == before


def test_damage_and_a_torn_tail_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make(log, OLD)
    first, last = list_segments(log)[0][1], list_segments(log)[-1][1]
    with last.open("r+b") as file:
        file.seek(end_of(last.read_bytes()) + 9)
        file.write(b"torn")
    before = contents(log)
    with pytest.raises(ApiError, match="TM-SYS-5001") as caught:
        rekey(log, BOTH)
    assert caught.value.details is not None and "start the server and stop it again" in caught.value.details["reason"]
    assert contents(log) == before
    read_log(log, SEGMENT_BYTES, OLD)
    first.write_bytes(first.read_bytes()[:200] + b"damage" + first.read_bytes()[206:])
    before = contents(log)
    with pytest.raises(LogDamaged):
        rekey(log, BOTH)
    assert contents(log) == before


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "512k") as disk:
        notes = make(disk / "log", FORMS["plain"], FORMS["plain"])
        before = contents(disk / "log")
        for free_pages in range(6):
            fill(disk / "filler", free_pages)
            with pytest.raises(ApiError, match="TM-SYS-5001") as caught:
                rekey(disk / "log", ENCRYPTED)
            assert "No space left" in str(caught.value.details) and contents(disk / "log") == before
            (disk / "filler").unlink()
        rekey(disk / "log", ENCRYPTED)
        assert recovered(disk / "log", ENCRYPTED) == notes


def test_copies_of_torn_tails_are_named(tmp_path: Path) -> None:
    notes = make(tmp_path / "log", FORMS["plain"])
    (tmp_path / "log" / "wal-00000000000000000009.log.broken").write_bytes(b"may hold anything")
    report = rekey(tmp_path / "log", ENCRYPTED)
    assert [os.path.basename(path) for path in report.broken] == ["wal-00000000000000000009.log.broken"]
    assert recovered(tmp_path / "log", ENCRYPTED) == notes

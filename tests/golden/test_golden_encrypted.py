"""An encrypted log that an old release wrote is read into what it meant, with its keys, and refused without them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.golden import make
from tests.golden.plain_reader import read_log, read_record
from tokmesh.log.record import AnyRecord, decode
from tokmesh.storage import recovery
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.segment_keys import KeyMissing, SegmentKeys

VERSIONS = sorted(path.name for path in make.FOLDER.glob("v*-encrypted"))
RECORDS = [record for group in make.BEFORE_SEAL + make.AFTER_SEAL for record in group]


def told() -> list[dict[str, Any]]:
    return [{"sequence": sequence, **read_record(record.encode())} for sequence, record in enumerate(RECORDS, 1)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_start_reads_plain_and_encrypted_segments_of_two_keys(version: str, newest_first: bool, tmp_path: Path) -> None:
    shutil.copytree(make.FOLDER / version / "log", tmp_path / "log")
    keys = SegmentKeys(KeySet(make.golden_keys() if newest_first else reversed(make.golden_keys())), True)
    found: list[AnyRecord] = []
    recovery.replay(tmp_path / "log", make.SEGMENT_BYTES, decode, lambda sequence, record: found.append(record), keys=keys)
    assert [record.encode() for record in found] == [record.encode() for record in RECORDS]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reader_written_from_the_page_reads_it(version: str) -> None:
    log = read_log(make.FOLDER / version / "log", make.golden_keys())
    assert log["records"] == told() and log["torn_tail"] is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("known", [0, 1])
def test_one_key_of_the_two_is_not_enough(version: str, known: int, tmp_path: Path) -> None:
    shutil.copytree(make.FOLDER / version / "log", tmp_path / "log")
    keys = SegmentKeys(KeySet([make.golden_keys()[known]]), True)
    with pytest.raises(KeyMissing):
        recovery.replay(tmp_path / "log", make.SEGMENT_BYTES, decode, lambda sequence, record: None, keys=keys)


def test_what_is_written_today_is_what_the_page_tells(tmp_path: Path) -> None:
    """The golden files keep yesterday's reader; this keeps today's writer."""
    make.write_encrypted_log(tmp_path / "log")
    assert read_log(tmp_path / "log", make.golden_keys())["records"] == told()

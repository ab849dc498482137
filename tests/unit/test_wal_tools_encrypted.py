"""The log's tools on an encrypted log: with its keys as on a plain one, without them a refusal that changes nothing."""

import json
from pathlib import Path

import pytest

from tests.golden import make
from tests.support.damaged_log import read_back
from tests.support.encryption import new_key, write_keys
from tests.support.stopped_log import ACTIONS, flip, run, segments
from tokmesh.config.keys import EncryptionSettings
from tokmesh.host.encryption_keys import read_keys
from tokmesh.storage.segment_keys import SegmentKeys


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys", new_key())


@pytest.fixture
def keys(key_file: Path) -> SegmentKeys:
    return SegmentKeys(read_keys(EncryptionSettings(key_file=key_file)), True)


@pytest.fixture
def data(tmp_path: Path, keys: SegmentKeys) -> Path:
    """The data directory of a server that encryption was turned on for."""
    folder = tmp_path / "data"
    (folder / "log").mkdir(parents=True, mode=0o700)
    make.append(folder / "log", make.BEFORE_SEAL, seal=True)
    make.append(folder / "log", make.AFTER_SEAL, seal=True, keys=keys)
    (folder / "log" / "lock").touch(mode=0o600)
    return folder


@pytest.mark.parametrize("action", ACTIONS)
def test_with_its_keys_a_log_is_read_as_a_plain_one(
    action: str, data: Path, key_file: Path, keys: SegmentKeys, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, action, data, f"--storage.encryption.key_file={key_file}")
    assert (code, err) == (0, "")
    groups = make.BEFORE_SEAL + make.AFTER_SEAL
    count = sum(len(group) for group in groups)
    if action == "dump":
        assert [json.loads(line)["sequence"] for line in out.splitlines()] == list(range(1, count + 1))
    else:
        assert str(count) in out
    if action == "salvage":
        assert len(read_back(data.parent / "salvaged" / "log", keys)) == count


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("given", [False, True], ids=["none", "another"])
def test_without_them_it_is_refused_with_the_cure(
    action: str, given: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--storage.encryption.key_file={write_keys(tmp_path / 'other', new_key())}"] if given else []
    code, out, err = run(capsys, action, data, *options)
    first = next(path for path in segments(data) if path.read_bytes()[12])
    assert (code, out) == (78, "") and err.startswith(f"tokmesh: TM-CFG-1006: {first} is encrypted under key ")
    assert ("add that key behind the first" if given else "name one with storage.encryption.key_file") in err
    assert not (tmp_path / "salvaged").exists()


def test_damage_is_told_with_its_place(data: Path, key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = segments(data)[-2]
    flip(path, 100)
    code, _, err = run(capsys, "verify", data, f"--storage.encryption.key_file={key_file}")
    assert code == 65 and f"log damaged: {path} at offset 64" in err

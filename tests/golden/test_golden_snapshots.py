"""Snapshots that old releases wrote are read into exactly what they meant, and today's writer still writes what the page tells."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.golden import make, make_snapshots
from tests.golden.plain_snapshot_reader import read_snapshot
from tests.support.server import TokMeshProcess
from tokmesh._core.table import Table
from tokmesh.snapshots.loading import load
from tokmesh.storage.encryption import KeySet
from tokmesh.storage.recovery import Progress
from tokmesh.storage.segment_keys import KeyMissing
from tokmesh.storage.snapshot_file import HEADER_BYTES, VERSION

# What was released, to the byte. A line is added for a new format; none is ever changed.
SHA256 = {
    "snapshot-v1/encrypted.tms": "5e7643e38b74b26bd3a3508324d68410547346c76233c58b169d8c2280980201",
    "snapshot-v1/expected.json": "bbec06a6a012c2e435fa16d5b196c863f3ee49c8ae103d2c366d1ca193a6c40f",
    "snapshot-v1/plain.tms": "02a0e3584d7b46b238951feca73bdf92f44091cf42bbe7cd186e74ca8f1ce7d9",
}
VERSIONS = sorted({name.partition("/")[0] for name in SHA256})
FORMS = ("plain", "encrypted")
BOTH_FORMS = pytest.mark.parametrize("form", FORMS)
EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def expected_of(version: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((make.FOLDER / version / "expected.json").read_text(encoding="utf-8"))
    return expected


def content_of(version: str, form: str) -> dict[str, Any]:
    """The encrypted one differs in its marks alone."""
    marks = {"encrypted": form == "encrypted", "restored": form == "encrypted"}
    return {**expected_of(version)["content"], **marks}


def test_nobody_has_changed_a_golden_snapshot() -> None:
    found = {
        str(path.relative_to(make.FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in make.FOLDER.glob("snapshot-v*/*")
    }
    assert found == SHA256


def test_every_format_up_to_the_current_one_has_golden_snapshots() -> None:
    assert [f"snapshot-v{number}" for number in range(1, VERSION + 1)] == VERSIONS


@EVERY_VERSION
def test_the_golden_snapshot_has_every_kind_of_image_and_of_key(version: str) -> None:
    content = expected_of(version)["content"]
    assert {image["state"] for image in content["images"]} == {1, 2, 3, 5}
    assert any("old_token" in image for image in content["images"])
    assert {key["kind"] for key in content["keys"]} == {"KeyCreated", "KeyStatusChanged"}
    assert any('"' in image.get("user_id", "") and "\u0001" in image["user_id"] for image in content["images"])
    assert set(expected_of(version)["state"]["verdicts"].values()) == {0, 2, 3}


@EVERY_VERSION
@BOTH_FORMS
def test_a_start_makes_of_a_golden_snapshot_exactly_the_state_it_meant(version: str, form: str) -> None:
    assert make_snapshots.read_state(make.FOLDER / version / f"{form}.tms") == expected_of(version)["state"]


@EVERY_VERSION
@BOTH_FORMS
def test_a_reader_written_from_the_page_reads_a_golden_snapshot(version: str, form: str) -> None:
    assert read_snapshot(make.FOLDER / version / f"{form}.tms", [make_snapshots.KEY]) == content_of(version, form)


@EVERY_VERSION
def test_an_encrypted_golden_snapshot_opens_with_its_key_only(version: str) -> None:
    path = make.FOLDER / version / "encrypted.tms"
    for keys in (None, KeySet([make.golden_keys()[1]])):
        with pytest.raises(KeyMissing):
            load(path, lambda: Table(tombstone_ttl_ms=1), keys, None, Progress())


def test_what_is_written_today_is_what_the_page_tells(tmp_path: Path) -> None:
    """The golden files keep yesterday's reader; this keeps today's writer. How zstandard compresses is its own affair."""
    make_snapshots.write_both(tmp_path)
    for form in FORMS:
        written = read_snapshot(tmp_path / f"{form}.tms", [make_snapshots.KEY])
        assert written == content_of(f"snapshot-v{VERSION}", form)
        heads = [
            (folder / f"{form}.tms").read_bytes()[:HEADER_BYTES] for folder in (tmp_path, make.FOLDER / f"snapshot-v{VERSION}")
        ]
        assert heads[0] == heads[1]


@EVERY_VERSION
@BOTH_FORMS
def test_a_server_restores_a_golden_snapshot_and_goes_on(version: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{make_snapshots.KEY.hex()}\n")
    (tmp_path / "keys").chmod(0o600)
    server = TokMeshProcess(tmp_path, f"--storage.encryption.key_file={tmp_path / 'keys'}")
    server.directory.mkdir(mode=0o700)
    golden = shutil.copy(make.FOLDER / version / f"{form}.tms", tmp_path / "golden.tms")
    restored = server.command_line("backup", "restore", str(golden), *server.args)
    assert restored.returncode == 0, restored.stderr
    with server:
        keys = server.command_line("key", "list").stdout
        assert keys.count("tmak-") == 2, "those of the snapshot, and no first key beside them"
        made = server.command_line("key", "create", "--role=issuer").stdout.strip()
        assert server.create_session("carol", key=made)["session_id"]
        assert server.stop() == 0

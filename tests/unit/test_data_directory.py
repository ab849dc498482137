"""The data directory is private, and its node id is made once."""

import os
import re
import stat
from pathlib import Path

import pytest

from tokmesh._core.clock import Clock
from tokmesh.config import ConfigError
from tokmesh.host import data_directory


def codes(error: ConfigError) -> list[str]:
    return [problem.code for problem in error.problems]


def test_it_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    data_directory.prepare(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    data_directory.prepare(folder)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_one_that_others_can_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        data_directory.prepare(tmp_path)
    assert codes(caught.value) == ["TM-CFG-1004"]
    assert f"{mode:04o}" in str(caught.value)


def test_one_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError) as caught:
        data_directory.prepare(tmp_path)
    assert codes(caught.value) == ["TM-CFG-1004"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError) as caught:
            data_directory.prepare(path)
        assert codes(caught.value) == ["TM-CFG-1004"]


def test_the_node_id_is_made_once(tmp_path: Path) -> None:
    made = data_directory.node_id(tmp_path, Clock())
    assert re.fullmatch(r"tmnd-[0-9a-hjkmnp-tv-z]{26}", made)
    assert data_directory.node_id(tmp_path, Clock()) == made
    assert stat.S_IMODE((tmp_path / "node_id").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["node_id"]
    other = tmp_path / "other"
    other.mkdir()
    assert data_directory.node_id(other, Clock()) != made


def test_a_crash_while_making_the_node_id_leaves_nothing_behind_that_counts(tmp_path: Path) -> None:
    (tmp_path / "node_id.new").write_text("tmnd-ha")
    assert len(data_directory.node_id(tmp_path, Clock())) == 31


@pytest.mark.parametrize("content", ["junk", "tmak-x"])
def test_a_node_id_file_with_anything_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "node_id").write_text(content)
    with pytest.raises(ConfigError) as caught:
        data_directory.node_id(tmp_path, Clock())
    assert codes(caught.value) == ["TM-CFG-1004"]

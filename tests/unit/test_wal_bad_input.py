"""Bad input of `tokmesh wal`: one clear error that names the file, the reason and the cure, and nothing changed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.stopped_log import ACTIONS, data_directory, raise_header, run, segments, tree
from tokmesh.cli import main

NOBODY = 65_534
Prepare = Callable[[Path], object]


def replace_by_link(path: Path) -> None:
    target = path.with_name(path.name + "-elsewhere")
    path.rename(target)
    path.symlink_to(target)


def first_segment(change: Callable[[Path], object]) -> Prepare:
    return lambda data: change(segments(data)[0])


def last_segment(change: Callable[[Path], object]) -> Prepare:
    return lambda data: change(segments(data)[-1])


def empty_it(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def remove_segments(data: Path) -> None:
    for path in segments(data):
        path.unlink()


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_foreign(data: Path) -> None:
    empty_it(data)
    (data / "ibdata1").write_bytes(b"another database's")


BAD: dict[str, tuple[Prepare, int, str, str]] = {
    "missing": (shutil.rmtree, 78, "TM-CFG-1003: {data} does not exist", "give the data directory"),
    "empty": (empty_it, 65, "TM-WAL-1001: {data} is empty", "give the data directory"),
    "foreign": (make_foreign, 65, "TM-WAL-1001: {data} is no data directory of TokMesh", "give the data directory"),
    "no segments": (
        remove_segments, 65, "TM-WAL-1001: {data}/log holds no log", "give the data",
    ),
    "a file": (replace_by_file, 65, "TM-WAL-1001: {data} is not a directory", "give the data"),
    "log is a file": (
        lambda data: replace_by_file(data / "log"), 65, "TM-WAL-1001: {data}/log is not a", "give the",
    ),
    "symlinked": (replace_by_link, 78, "TM-CFG-1004: {data} is a symbolic link to", "give the directory that it leads to"),
    "symlinked log": (lambda data: replace_by_link(data / "log"), 78, "TM-CFG-1004: {data}/log is a symbolic", "leads to"),
    "symlinked segment": (first_segment(replace_by_link), 78, "TM-CFG-1004: {first} is a symbolic link", "put the file itself"),
    "symlinked lock": (lambda data: replace_by_link(data / "log/lock"), 78, "TM-CFG-1004: {data}/log/lock is a sym", "put the"),
    "world-readable log": (
        lambda data: (data / "log").chmod(0o755), 78, "TM-CFG-1004: {data}/log has mode 0755", "run chmod 700 {data}/log",
    ),
    "world-readable segment": (
        first_segment(lambda path: path.chmod(0o604)), 78, "TM-CFG-1004: {first} has mode 0604", "run chmod 600 {first}",
    ),
    "group-writable segment": (
        last_segment(lambda path: path.chmod(0o620)), 78, "TM-CFG-1004: {last} has mode 0620", "run chmod 600 {last}",
    ),
    "segment is a directory": (
        last_segment(replace_by_directory), 65, "TM-WAL-1001: {last} is not a regular file", "move it",
    ),
    "later format": (
        last_segment(lambda path: raise_header(path, 8, 2)), 65,
        "TM-SYS-5001: log not readable: {last} at offset 0: written in format 2, and this release reads format 1",
        "use the release that wrote it",
    ),
    "encrypted": (
        first_segment(lambda path: raise_header(path, 12, 1)), 78,
        "TM-CFG-1006: {first} is encrypted under key", "name one with storage.encryption.key_file",
    ),
    "unknown form": (
        first_segment(lambda path: raise_header(path, 12, 2)), 65,
        "TM-SYS-5001: log not readable: {first} at offset 0: written in a form (flags 0x2)", "use the release that wrote it",
    ),
    "half written anew": (
        lambda data: (data / "log" / "rekey.ready").mkdir(), 69,
        "TM-SYS-5001: {data}/log is half written anew", "start the server, or run tokmesh storage rekey again",
    ),
}  # fmt: skip
DAMAGED: dict[str, tuple[Prepare, str]] = {
    "empty segment": (first_segment(lambda path: os.truncate(path, 0)), "{first} at offset 0: the file is empty"),
    "segment cut in its header": (last_segment(lambda path: os.truncate(path, 63)), "{last} at offset 0: the file ends within"),
    "segment cut in its frames": (first_segment(lambda path: os.truncate(path, 300)), "{first} at offset 281: record 2 is damaged"),
    "last segment cut": (
        last_segment(lambda path: os.truncate(path, path.stat().st_size - 1)), "made with 2048 bytes and is shorter",
    ),
    "foreign segment": (first_segment(lambda path: path.write_bytes(b"x" * 4096)), "{first} at offset 0: not a segment header"),
}  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_name_reason_and_cure(
    name: str, action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_directory(tmp_path)
    names = {"data": data, "first": segments(data)[0], "last": segments(data)[-1]}
    prepare, expected_code, reason, cure = BAD[name]
    prepare(data)
    code, _, err = run(capsys, action, data)
    assert code == expected_code
    assert reason.format(**names) in err and cure.format(**names) in err and err.count("\n") == 1
    assert not (tmp_path / "salvaged").exists()


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_their_place(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    names = {"first": segments(data)[0], "last": segments(data)[-1]}
    prepare, reason = DAMAGED[name]
    prepare(data)
    for action in ("verify", "stats", "dump"):
        code, _, err = run(capsys, action, data)
        assert code == 65 and "log damaged: " in err and reason.format(**names) in err and "tokmesh wal salvage" in err


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who may not read everything, where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("part", ["log", "segment"])
def test_what_this_user_may_not_read_is_named(
    part: str, action: str, open_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_directory(open_path)
    data.chmod(0o755)
    refused = data / "log" if part == "log" else segments(data)[1]
    if os.geteuid() == 0 and part == "segment":
        os.chown(data / "log", NOBODY, NOBODY)
        for path in (data / "log").iterdir():
            os.chown(path, NOBODY, NOBODY)
    if os.geteuid() == 0:
        os.chown(refused, 0, 0)
    refused.chmod(0)
    main(["wal", "verify", f"--dir={open_path}"])  # so that everything is imported
    capsys.readouterr()
    with unprivileged():
        options = [f"--to={open_path / 'salvaged'}"] if action == "salvage" else []
        code = main(["wal", action, f"--dir={data}", *options])
    err = capsys.readouterr().err
    refused.chmod(0o700)
    assert code == 78
    assert f"TM-CFG-1004: {refused} cannot be read (Permission denied); run this as the server's user" in err


def test_a_log_that_cannot_be_written_can_be_read_all_the_same(open_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(open_path)
    main(["wal", "verify", f"--dir={data}"])
    main(["wal", "salvage", f"--dir={data}", f"--to={open_path / 'first'}", "--storage.wal.segment_size=1MB"])
    capsys.readouterr()
    for path in (*data.rglob("*"), data):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = tree(data)
    with unprivileged():
        codes = [main(["wal", action, f"--dir={data}"]) for action in ("verify", "stats", "dump")]
        refused = main(["wal", "salvage", f"--dir={data}", f"--to={data}/log/new"])
        unwritable = main(["wal", "salvage", f"--dir={data}", f"--to={data}/new", "--storage.wal.segment_size=1MB"])
    assert codes == [0, 0, 0]
    err = capsys.readouterr().err
    assert refused == 64 and f"{data}/log/new is inside of the log that is read" in err
    assert unwritable == 69 and f"{data}/new cannot be written (Permission denied)" in err
    assert tree(data) == before
    for path in (data, *data.rglob("*")):
        path.chmod(0o700)


def test_a_copy_without_the_lock_file_can_be_read_and_gets_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    (data / "log" / "lock").unlink()
    assert run(capsys, "verify", data)[0] == 0
    assert not (data / "log" / "lock").exists()

"""The log of a stopped server, for tests of the tools: made small, looked at to see that nothing changed, and spoiled."""

import os
import stat
from pathlib import Path

import pytest

from tests.golden import make
from tokmesh._core import wal
from tokmesh.cli import main
from tokmesh.storage.segment import list_segments

ACTIONS = ("verify", "stats", "dump", "salvage")


def data_directory(folder: Path, *, torn: bool = False) -> Path:
    """A data directory with a log of two segments or more, sealed, or with the golden log's torn tail."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    if torn:
        make.write_log(data / "log")
    else:
        (data / "log").mkdir(mode=0o700)
        make.append(data / "log", make.BEFORE_SEAL + make.AFTER_SEAL, seal=True)
    (data / "log" / "lock").touch(mode=0o600)
    return data


def segments(data: Path) -> list[Path]:
    return [path for _, path in list_segments(data / "log")]


def tree(directory: Path) -> dict[str, object]:
    """All that could be changed: names, kinds, modes, times, contents."""
    told: dict[str, object] = {}
    for path in (directory, *directory.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        told[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, content)
    return told


def run(capsys: pytest.CaptureFixture[str], action: str, data: Path, *options: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command that must not change `data`."""
    before = tree(data) if data.is_dir() else {}
    if action == "salvage" and not any(option.startswith("--to") for option in options):
        options = (*options, f"--to={data.parent / 'salvaged'}", "--storage.wal.segment_size=1MB")
    code = main(["wal", action, f"--dir={data}", *options])
    captured = capsys.readouterr()
    assert (tree(data) if data.is_dir() else {}) == before, "the log was changed"
    return code, captured.out, captured.err


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def raise_header(path: Path, at: int, value: int) -> None:
    """A header with one byte changed, and its CRC right."""
    with path.open("r+b") as file:
        header = bytearray(file.read(wal.SEGMENT_HEADER_BYTES))
        header[at] = value
        header[60:64] = wal.crc32c(header[:60]).to_bytes(4, "little")
        file.seek(0)
        file.write(header)

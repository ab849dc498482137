"""Standard output that cannot be written: one clear line and exit code 74; a reader that went away: nothing is said."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import TokMeshProcess, clean_environment
from tokmesh.cli import main

FULL = "tokmesh: TM-CLI-1001: Standard output cannot be written; reason: No space left on device\n"
CLOSED = "tokmesh: TM-CLI-1001: Standard output cannot be written; reason: Bad file descriptor\n"
OF_A_SERVER = (
    ("key", "list"), ("key", "list", "--json"), ("key", "create", "--role=metrics"), ("log-level", "get"), ("doctor",),
    ("top", "--once"), ("backup", "create"), ("backup", "list"),
)  # fmt: skip
ALONE = (("version",), ("--help",), ("config", "show"), ("config", "reference"), ("doctor", "--explain", "TokMeshLogFull"))
BUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with TokMeshProcess(tmp_path_factory.mktemp("output")) as server:
        yield server.directory


def run(line: tuple[str, ...], stdout: int | None, unbuffered: str) -> subprocess.CompletedProcess[str]:
    """`tokmesh LINE`; stdout: None closes it."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@"{" >&-" if stdout is None else ""}', "sh", sys.executable, "-m", "tokmesh", *line],
        env=clean_environment({"PYTHONUNBUFFERED": unbuffered}), stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def run_on_full(line: tuple[str, ...], unbuffered: str) -> subprocess.CompletedProcess[str]:
    device = os.open("/dev/full", os.O_WRONLY)
    try:
        return run(line, device, unbuffered)
    finally:
        os.close(device)


@BUFFERED
@pytest.mark.parametrize("line", ALONE, ids=" ".join)
def test_a_full_output_is_told_in_one_line(line: tuple[str, ...], unbuffered: str) -> None:
    done = run_on_full(line, unbuffered)
    assert (done.returncode, done.stderr) == (74, FULL)


@pytest.mark.parametrize("line", OF_A_SERVER, ids=" ".join)
def test_a_full_output_of_a_command_to_a_server_is_told(line: tuple[str, ...], directory: Path) -> None:
    done = run_on_full((*line, f"--dir={directory}"), "")
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1:]) == (74, [FULL])


def test_a_closed_output_is_told() -> None:
    done = run(("version",), None, "")
    assert (done.returncode, done.stderr) == (74, CLOSED)


def test_a_refusal_stays_what_it_is_where_nothing_was_printed() -> None:
    done = run_on_full(("key", "list", "--dir=/nonexistent"), "")
    assert done.returncode == 69 and "TM-SYS-5030" in done.stderr


@BUFFERED
@pytest.mark.parametrize("line", ALONE, ids=" ".join)
def test_a_reader_that_went_away_is_no_error(line: tuple[str, ...], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(line, writer, unbuffered)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_another_file_is_not_blamed_on_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tokmesh.cli.version.run", fail)
    assert main(["version"]) == 1
    assert "TM-SYS-5000" in capsys.readouterr().err

"""Syncs that fail and writes that do not fit, as the kernel reports them: strace injects errors, RLIMIT_FSIZE cuts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.crash.kills import acknowledged, run_driver, strace
from tests.crash.records import read_log


def driver(wrapper: list[str], directory: Path, *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """(the driver's last stats, its lines)."""
    status, lines = run_driver(wrapper, directory, *arguments)
    assert status == 0 and lines[-1].startswith("S "), lines[-3:]
    return json.loads(lines[-1][2:]), lines


def assert_kept(directory: Path, lines: list[str], segment_bytes: int = 4096, *, whole: bool = False) -> int:
    """How many records there are; whole: and no torn tail. Reading a log repairs it: only the first to look sees a torn tail."""
    notes, report = read_log(directory, segment_bytes)
    assert not (whole and report.torn_tail)
    for sequence, note in acknowledged(lines).items():
        assert notes[sequence - 1] == note
    return len(notes)


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
@pytest.mark.parametrize("when", [1, 2, 5, 23])
def test_a_failed_sync_ends_the_log_and_is_never_retried(tmp_path: Path, call: str, when: int) -> None:
    """fdatasync fails in a commit, fsync in the making of a segment."""
    directory, trace = tmp_path / "wal", tmp_path / "trace"
    driver([], directory, "--prefix", "before", "--records", "3")
    before = len(read_log(directory, 4096)[0])
    # strace counts the calls of each thread apart: N = 1 of fdatasync strikes recovery, in the main thread.
    inject = f"inject={call}:error=EIO:when={when}"
    wrapper = strace(["-o", str(trace), "-e", "trace=fdatasync,fsync,pwrite64,rename", "-e", inject])
    status, lines = run_driver(wrapper, directory, "--prefix", "x", "--records", "60")
    calls = trace.read_text().split("\n")
    struck = next(index for index, line in enumerate(calls) if "(INJECTED)" in line)
    after = [line for line in calls[struck + 1 :] if re.search(r"\b(fdatasync|pwrite64|rename)\(", line)]
    assert not after, "the log was touched after a failed sync"
    if status != 0:
        assert when == 1 or (call == "fsync" and when == 2), "only recovery's own"
        assert lines[-1].startswith("E "), "recovery could not sync and must not let the server start"
    else:
        stats = json.loads(lines[-1][2:])
        refused = [index for index, line in enumerate(lines) if line == "F TM-SYS-5001"]
        answered = [index for index, line in enumerate(lines) if line.startswith("A ")]
        assert stats["state"] == "failed" and not stats["writable"] and "Input/output error" in stats["failure"]
        assert stats["fsync_failed_total"] == 1
        assert len(refused) == 20 and max(answered, default=-1) < min(refused)
    assert assert_kept(directory, lines) >= before


def test_a_failed_sync_ends_a_log_that_syncs_at_intervals(tmp_path: Path) -> None:
    inject = "inject=fdatasync:error=EIO:when=2"
    wrapper = strace(["-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject])
    stats, lines = driver(wrapper, tmp_path / "wal", "--sync-mode", "interval", "--records", "2000")
    assert stats["state"] == "failed" and stats["fsync_failed_total"] == 1
    assert lines.count("F TM-SYS-5001") == 20 and not any(line.startswith("A ") for line in lines[lines.index("F TM-SYS-5001") :])


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_a_call_that_a_signal_interrupted_is_made_again(tmp_path: Path, call: str) -> None:
    """EINTR says that nothing was decided; only an error of the disk ends the log."""
    wrapper = strace(["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EINTR:when=5..7"])
    stats, lines = driver(wrapper, tmp_path / "wal")
    assert stats["state"] == "open" and stats["fsync_failed_total"] == 0 and len(acknowledged(lines)) == 400
    assert assert_kept(tmp_path / "wal", lines) == 400


def test_a_write_that_fails_ends_the_log(tmp_path: Path) -> None:
    wrapper = strace(["-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO:when=20"])
    stats, lines = driver(wrapper, tmp_path / "wal")
    assert stats["state"] == "failed" and stats["fsync_failed_total"] == 0 and stats["append_errors_total"] == 1
    assert_kept(tmp_path / "wal", lines)


def test_a_full_disk_in_a_write_refuses_and_recovers(tmp_path: Path) -> None:
    wrapper = strace(["-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=20..27"])
    stats, lines = driver(wrapper, tmp_path / "wal", "--retry", "50")
    assert stats["state"] == "open" and stats["append_errors_total"] >= 1
    assert "F TM-SYS-5001" in lines and lines[-2].startswith("A ")
    assert_kept(tmp_path / "wal", lines)


@pytest.mark.parametrize("limit", [*range(1500, 1540, 3), 4095])
def test_a_write_cut_short_by_a_file_size_limit_leaves_whole_frames(tmp_path: Path, limit: int) -> None:
    """A limit below the segment's size stops writes at any byte, and every allocation of a segment: EFBIG, since Python
    ignores SIGXFSZ."""
    stats, lines = driver([], tmp_path / "wal", "--file-size-limit", str(limit), "--retry", "3")
    assert stats["state"] == "full" and not stats["writable"] and "File too large" in stats["failure"]
    assert lines.count("F TM-SYS-5001") == 12
    notes = assert_kept(tmp_path / "wal", lines, whole=True)
    assert notes == len(acknowledged(lines)) > 0


def test_a_log_on_a_disk_that_cannot_allocate_does_not_start(tmp_path: Path) -> None:
    wrapper = strace(["-o", "/dev/null", "-e", "trace=fallocate", "-e", "inject=fallocate:error=ENOSPC"])
    status, lines = run_driver(wrapper, tmp_path / "wal")
    assert status != 0 and lines[-1].startswith("E tokmesh.errors.ApiError: TM-SYS-5001")
    assert not list((tmp_path / "wal").glob("wal-*"))

"""`tokmesh wal` as its user sees it: verdicts and exit codes, and nothing ever changed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden import make
from tests.support.server import TokMeshProcess, clean_environment
from tests.support.stopped_log import ACTIONS, data_directory, flip, run, segments, tree
from tokmesh._core import wal
from tokmesh.cli import main
from tokmesh.log.record import decode
from tokmesh.storage import recovery
from tokmesh.storage.inspection import Inspection, decoded
from tokmesh.storage.scan import LogDamaged
from tokmesh.storage.segment import list_segments

# ── verdicts ──


def test_a_whole_log_is_ok_with_its_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    code, out, err = run(capsys, "verify", data)
    count = len(segments(data))
    assert (code, err) == (0, "")
    assert out == f"OK: {count} segments, 14 frames, 21 records (records 1 to 21), sealed\n"
    assert run(capsys, "verify", data / "log")[:2] == (0, out), "the log's own directory will do"
    assert main(["wal", "verify", f"--storage.dir={data}"]) == 0


def test_a_torn_tail_has_an_exit_code_of_its_own_and_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path, torn=True)
    for action in ("verify", "stats", "dump"):
        code, out, err = run(capsys, action, data)
        assert code == 75 and out
        assert err.startswith(f"tokmesh: torn tail: {segments(data)[-1]} at offset 197: ") and err.count("\n") == 1
    code, out, _ = run(capsys, "verify", data, "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["offset"], told["records"], told["sealed"]) == (75, "torn tail", 197, 21, False)


def test_damage_is_told_with_file_offset_reason_and_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    first = segments(data)[0]
    flip(first, 600)
    for action in ("verify", "stats", "dump"):
        code, out, err = run(capsys, action, data)
        assert code == 65
        assert f"TM-SYS-5001: log damaged: {first} at offset 554: record 4 is damaged or missing; " in err
        assert f"tokmesh wal salvage --dir={data / 'log'} --to=NEW" in err and err.count("\n") == 1
        assert "records 1 to 3" in out or action == "dump"
    code, out, _ = run(capsys, "verify", data, "--json")
    told = json.loads(out)
    assert (told["verdict"], told["file"], told["offset"], told["last_sequence"]) == ("damaged", first.name, 554, 3)


def test_a_record_that_means_nothing_is_damage_though_its_frame_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_directory(tmp_path)
    tail = make.append(data / "log", [[make.created(70, "last")]], seal=False)
    frame, _ = wal.encode_frame(tail.segment_id, tail.sequence_due, tail.durable_sequence, tail.chain, [b"\xff no record"])
    with segments(data)[-1].open("r+b") as file:
        file.seek(tail.offset)
        file.write(frame)
    for action in ("verify", "stats", "dump"):
        code, _, err = run(capsys, action, data)
        assert code == 65
        assert f"{segments(data)[-1]} at offset {tail.offset}: record 23 cannot be decoded; restore a backup, or " in err


def verdict_of_tool(directory: Path) -> tuple[object, ...]:
    try:
        with Inspection(directory) as inspection:
            count = sum(1 for placed in inspection.frames() for _ in decoded(placed, decode))
            position = inspection.position
            return ("torn" if position.torn else "whole", position.sequence_due - 1, count)
    except LogDamaged as damage:
        return "damaged", damage.path.name, damage.offset, damage.reason


def verdict_of_start(directory: Path) -> tuple[object, ...]:
    seen: list[int] = []
    try:
        end, report = recovery.replay(directory, make.SEGMENT_BYTES, decode, lambda sequence, _: seen.append(sequence))
    except LogDamaged as damage:
        return "damaged", damage.path.name, damage.offset, damage.reason
    os.close(end.segment.fd)
    return ("torn" if report.torn_tail else "whole"), report.last_sequence, len(seen)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


def test_the_verdict_is_that_of_a_start_wherever_a_bit_is_flipped_or_the_file_is_cut(memory_path: Path) -> None:
    original = data_directory(memory_path, torn=True) / "log"
    work = memory_path / "work"
    seen: set[object] = set()
    for path in (path for _, path in list_segments(original)):
        content = path.read_bytes()
        changes = [(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]) for at in range(0, len(content), 5)]
        changes += [content[:size] for size in range(0, len(content), 97)]
        for change in changes:
            shutil.copytree(original, work)
            (work / path.name).write_bytes(change)
            before = tree(work)
            told = verdict_of_tool(work)
            assert tree(work) == before
            assert told == verdict_of_start(work)
            seen.add(told[0])
            shutil.rmtree(work)
    assert seen == {"torn", "damaged"}


def test_a_log_that_begins_later_is_read_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    segments(data)[0].unlink()
    begins_at = list_segments(data / "log")[0][0]
    code, out, err = run(capsys, "verify", data)
    assert (code, err) == (0, "") and out.endswith(f"; begins at {begins_at}, what is before is in a snapshot\n")
    assert f"(records {begins_at} to 21)" in out
    assert json.loads(run(capsys, "verify", data, "--json")[1])["begins_at"] == begins_at
    segments(data)[0].rename(data / "log" / "wal-00000000000000000900.log")
    assert run(capsys, "verify", data)[0] == 65


# ── stats, dump ──


def test_stats_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)
    code, out, _ = run(capsys, "stats", data, "--json")
    told = json.loads(out)
    rows, total = told["segments"], told["total"]
    assert code == 0 and told["verdict"] == "whole" and [row["segment"] for row in rows] == [path.name for path in segments(data)]
    for name in ("file_bytes", "used_bytes", "free_bytes", "frames", "seals", "records"):
        assert total[name] == sum(row[name] for row in rows)
    assert [row["file_bytes"] for row in rows] == [path.stat().st_size for path in segments(data)]
    assert [row["used_bytes"] for row in rows] == [len(path.read_bytes().rstrip(b"\0")) for path in segments(data)]
    assert total["records_by_kind"] == {
        "KeyCreated": 2, "KeyStatusChanged": 2, "SessionCreated": 9, "SessionRenewed": 1, "SessionUpdated": 2,
        "SessionsRevoked": 2, "SessionsTouched": 2, "TokenRotated": 1,
    }  # fmt: skip
    assert (total["first_sequence"], total["last_sequence"], total["seals"]) == (1, 21, 1)
    assert (total["first_time_ms"], total["last_time_ms"]) == (make.T0, make.T0 + 61)
    text = run(capsys, "stats", data)[1]
    assert "2024-12-19T00:24:50Z" in text and "SessionCreated    9" in text and "\ntotal " in text


def test_dump_prints_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_directory(tmp_path)

    def dumped(*options: str) -> list[dict[str, Any]]:
        code, out, err = run(capsys, "dump", data, *options)
        assert (code, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    everything = dumped()
    records = [record for group in make.BEFORE_SEAL + make.AFTER_SEAL for record in group]
    assert [line["sequence"] for line in everything] == list(range(1, 22))
    assert [(line["kind"], line["time_ms"]) for line in everything] == [(type(each).__name__, each.time_ms) for each in records]
    for line in everything:
        content = (data / "log" / line["file"]).read_bytes()
        assert content[line["offset"] : line["offset"] + 4] == b"TMFR"
    assert dumped("--from=4", "--to=6") == everything[3:6]
    assert dumped("--from=21") == everything[20:]
    assert dumped("--from=22") == []
    kinds = dumped("--kind=SessionsRevoked", "--kind=TokenRotated", "--to=15")
    assert [line["sequence"] for line in kinds] == [11, 14]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--kind=Sessions",), "--kind: 'Sessions' is none of SessionCreated, "),
        (("--from=0",), "--from, --to"),
        (("--from=5", "--to=4"), "--from, --to"),
    ],
)
def test_dump_refuses_what_cannot_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], expected: str
) -> None:
    code, out, err = run(capsys, "dump", data_directory(tmp_path), *options)
    assert code == 64 and out == "" and "TM-ARG-1001" in err and expected in err and err.count("\n") == 1


def test_a_pipe_whose_reader_went_away_is_no_error(tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tokmesh", "wal", "dump", f"--dir={data}"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=clean_environment(), timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


# ── in use ──


def test_a_log_in_use_is_refused_and_one_that_is_read_cannot_be_opened(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        server.create_session("alice")
        for action in ACTIONS:
            options = (f"--to={tmp_path / 'salvaged'}",) if action == "salvage" else ()
            done = server.command_line("wal", action, *options)
            assert (done.returncode, done.stdout) == (69, "")
            assert "TM-SYS-5001" in done.stderr and "is in use by a running server; stop it" in done.stderr
        assert not (tmp_path / "salvaged").exists()
        assert server.stop() == 0
        done = server.command_line("wal", "verify")
        assert done.returncode == 0 and done.stdout.endswith("sealed\n")
        with Inspection(server.directory) as inspection:
            assert server.spawn().wait() == 69, server.output
            assert sum(len(placed.frame.records) for placed in inspection.frames()) >= 2
        server.start()
        server.kill()
        assert server.command_line("wal", "verify").returncode in (0, 75)

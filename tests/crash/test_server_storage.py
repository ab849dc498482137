"""What an operator sees of a real server when its disk fails, fills up, was torn or was flipped, and when it is stopped.

A load with a ledger (server_load.py) runs in each; whatever was acknowledged must be there after the restart.
"""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.kills import strace
from tests.crash.server_load import Load
from tests.support.server import TokMeshProcess
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until
from tokmesh._core import wal
from tokmesh.errors import EX_UNAVAILABLE
from tokmesh.storage.segment import list_segments

SMALL_SEGMENTS = "--storage.wal.segment_size=1MB"
REFUSAL = (503, "TM-SYS-5001")


def metric(server: TokMeshProcess, name: str) -> float:
    status, text = server.request("GET", "/metrics")
    assert status == 200
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not exported"
    return float(found[1])


def failed_checks(server: TokMeshProcess) -> list[str]:
    """The names that /ready gives; [] when it answers 200."""
    status, answer = server.request("GET", "/ready", key=None)
    assert status in (200, 503)
    names: list[str] = [] if status == 200 else answer["details"]["failed"]
    return names


def last_frames(path: Path) -> tuple[bytearray, list[int]]:
    """(the bytes of a segment, offset of each of its frames, then of the end)."""
    data = bytearray(path.read_bytes())
    header = wal.decode_segment_header(data)
    assert header is not None
    offsets, sequence, chain = [wal.SEGMENT_HEADER_BYTES], header.first_sequence, header.chain
    while True:  # ends with the segment
        _, frame = wal.read_frame(data, offsets[-1], header.segment_id, sequence, chain)
        if frame is None:
            return data, offsets
        offsets.append(frame.end)
        sequence, chain = sequence + len(frame.records), frame.chain


def last_segment(server: TokMeshProcess) -> Path:
    return list_segments(server.directory / "log")[-1][1]


# strace counts the calls of each thread apart: N of the writer, whose first is the first admin key's.
@pytest.mark.parametrize("when", [3, 20, 120])
def test_a_sync_that_fails_under_load_is_never_acknowledged_and_takes_the_server_out_of_rotation(tmp_path: Path, when: int) -> None:
    inject = f"inject=fdatasync:error=EIO:when={when}"
    wrapper = strace(["-o", str(tmp_path / "trace"), "-e", "trace=fdatasync,pwrite64", "-e", inject])
    server = TokMeshProcess(tmp_path, SMALL_SEGMENTS, wrapper=wrapper)
    with server:
        kept = server.create_session("kept")
        load = Load(server, when).start()
        wait_until(lambda: load.refused.total() >= 20, "a sync fails and refusals come")
        load.finish()
        assert set(load.refused) == {REFUSAL}
        assert not any(client.written_after_refusal for client in load.clients)
        for _ in range(5):
            assert server.request("POST", "/sessions", json={"user_id": "late"})[0] == 503
        assert server.request("POST", f"/sessions/{kept['session_id']}/revoke", json={})[0] == 503, "not even a revocation"
        assert failed_checks(server) == ["storage"]
        assert server.request("GET", "/health", key=None)[0] == 200
        assert metric(server, "tokmesh_wal_fsync_failed_total") >= 1
        assert server.validate(kept["token"])["valid"] is True, "reads go on"
        trace = (tmp_path / "trace").read_text().split("(INJECTED)")
        assert len(trace) == 2 and "fdatasync(" not in trace[1] and "pwrite64(" not in trace[1], "touched after a failed sync"
        server.kill()
        server.wrapper = []
        server.start()
        assert server.validate(kept["token"])["valid"] is True
        load.check(0)


def test_a_torn_tail_is_cut_with_a_copy_and_nothing_acknowledged_is_lost(server: TokMeshProcess) -> None:
    load = Load(server, 5).start()
    load.wait_for(100)
    server.kill()
    load.finish()
    path = last_segment(server)
    data, offsets = last_frames(path)
    header = wal.decode_segment_header(data)
    assert header is not None
    torn = wal.encode_frame(header.segment_id, 2**32, 0, 0, [b"never acknowledged" * 20])[0][:99]
    data[offsets[-1] : offsets[-1] + len(torn)] = torn
    path.write_bytes(data)
    server.start()
    replayed = next(line for line in server.log_lines() if line["message"] == "log replayed")
    assert replayed["torn_tail"] is True
    assert path.with_name(path.name + ".broken").read_bytes() == data
    assert path.stat().st_size == offsets[-1] and last_segment(server) != path
    load.check(0)
    server.create_session("after")
    assert server.stop() == 0
    server.start()
    load.check(0)


def test_one_flipped_byte_in_the_middle_of_the_log_stops_the_start_with_its_place(server: TokMeshProcess) -> None:
    for number in range(20):
        server.create_session(f"user-{number}")
    server.kill()
    path = last_segment(server)
    data, offsets = last_frames(path)
    assert len(offsets) > 15
    flipped = bytearray(data)
    flipped[offsets[7] + 60] ^= 0x10
    path.write_bytes(flipped)
    assert server.spawn().wait() == EX_UNAVAILABLE
    refusal = server.stderr.strip()
    assert refusal.count("\n") == 0, "one line"
    assert "TM-SYS-5001" in refusal and f"{path} at offset {offsets[7]}" in refusal
    assert path.read_bytes() == flipped and not list(path.parent.glob("*.broken")), "nothing is changed"
    path.write_bytes(data)
    server.start()


def test_a_disk_that_fails_at_the_start_is_told_in_one_line(tmp_path: Path) -> None:
    """Recovery syncs what it read, in the main thread; a server that cannot must not begin to serve."""
    with TokMeshProcess(tmp_path) as server:
        server.create_session("kept")
        server.kill()
        server.wrapper = strace(["-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"])
        assert server.spawn().wait() == EX_UNAVAILABLE
        refusal = server.stderr.strip()
        assert refusal.count("\n") == 0, "one line"
        assert "TM-SYS-5001" in refusal and "Input/output error" in refusal


def test_sigterm_under_load_exits_0_and_keeps_what_was_acknowledged_and_every_touch(server: TokMeshProcess) -> None:
    load = Load(server, 3).start()
    load.wait_for(200)
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    load.finish()
    assert not load.refused.keys() - {(503, "TM-SYS-5030")}
    server.start()
    replayed = next(line for line in server.log_lines() if line["message"] == "log replayed")
    assert replayed["torn_tail"] is False
    assert load.check(None) > 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "5m") as point:
        yield point


def write_until_full(server: TokMeshProcess) -> dict[str, Any]:
    """Creates sessions until one is refused; the last that was not."""
    made: dict[str, Any] = {}
    for number in range(20_000):
        body = {"user_id": f"filler-{number}", "data": {"padding": "x" * 1000, "more": "y" * 1000}}
        status, answer = server.request("POST", "/sessions", json=body)
        if status != 200:
            assert (status, answer["code"]) == REFUSAL and made
            return made
        made = answer["data"]
    raise AssertionError("never full")


def test_a_full_disk_refuses_writes_keeps_reads_and_revocations_and_recovers_when_freed(tmp_path: Path, disk: Path) -> None:
    server = TokMeshProcess(tmp_path, SMALL_SEGMENTS)
    server.directory = disk / "data"
    with server:
        load = Load(server, 9).start()
        load.wait_for(200)
        load.finish()
        victims = [server.create_session(f"victim-{number}") for number in range(30)]
        fill(disk / "filler")
        kept = write_until_full(server)
        assert failed_checks(server) == ["storage"]
        assert server.validate(kept["token"])["valid"] is True
        for victim in victims:
            server.data("POST", f"/sessions/{victim['session_id']}/revoke", {})
        for path, body in (("/sessions", {"user_id": "x"}), ("/admin/v1/keys", {"role": "metrics"})):
            status, answer = server.request("POST", path, json=body)
            assert (status, answer["code"]) == REFUSAL
        assert all(server.validate(victim["token"])["valid"] is False for victim in victims)
        assert metric(server, "tokmesh_wal_append_errors_total") >= 1
        (disk / "filler").unlink()
        wait_until(lambda: not failed_checks(server), "the server notices that there is room again")
        after = server.create_session("after")
        server.kill()
        server.start()
        assert server.validate(after["token"])["valid"] is True and server.validate(kept["token"])["valid"] is True
        for victim in victims:
            assert server.validate(victim["token"])["error"]["code"] == "TM-TOKN-4012"
        load.check(0)

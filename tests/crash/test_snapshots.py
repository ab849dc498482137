"""Snapshots of a real server: taken under load, begun from, passed over when bad; and restores, which are all or nothing."""

import contextlib
import http.client
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import TokMeshProcess, in_background
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until

SNAPSHOTS = "/admin/v1/backups/snapshots"
RESTORES = "/admin/v1/backups/restores"
LONG_TOMBSTONES = "--session.tombstone_ttl=24h"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path, LONG_TOMBSTONES, "--storage.wal.segment_size=1MB") as running:
        yield running


def take(server: TokMeshProcess) -> dict[str, Any]:
    taken: dict[str, Any] = server.data("POST", SNAPSHOTS)
    return taken


def path_of(server: TokMeshProcess, snapshot: dict[str, Any]) -> Path:
    return server.directory / "snapshots" / f"{snapshot['id']}.tms"


def segments(server: TokMeshProcess) -> list[str]:
    return sorted(path.name for path in (server.directory / "log").glob("wal-*"))


def metric(server: TokMeshProcess, series: str) -> float:
    status, page = server.request("GET", "/metrics")
    assert status == 200
    return next(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{series} "))


def told(server: TokMeshProcess, message: str) -> list[dict[str, Any]]:
    return [line for line in server.log_lines() if line["message"] == message]


def everything(server: TokMeshProcess, sessions: list[dict[str, Any]]) -> list[Any]:
    """What a client can see of these sessions, and all that an administrator can list."""
    verdicts = []
    for session in sessions:
        verdict = server.validate(session["token"])
        verdicts.append((verdict["valid"], verdict.get("error", {}).get("code"), stable(verdict.get("session"))))
    keys = server.data("GET", "/admin/v1/keys")["items"]
    return [verdicts, [(key["key_id"], key["role"], key["status"]) for key in keys]]


def stable(session: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if session is None else {name: value for name, value in session.items() if not name.startswith("last_")}


def a_history(server: TokMeshProcess, count: int = 30, grace_seconds: int = 60) -> list[dict[str, Any]]:
    """Sessions that were renewed, updated, rotated, revoked, touched; their latest tokens, and those in their grace."""
    sessions = [server.create_session(f"user{number % 7}", data={"n": str(number)}) for number in range(count)]
    for number, session in enumerate(sessions):
        path = f"/sessions/{session['session_id']}"
        if number % 5 == 1:
            server.data("POST", f"{path}/renew", {"ttl_seconds": 5000 + number})
        elif number % 5 == 2:
            server.data("POST", f"{path}/update", {"data": {"other": "é" * number}})
        elif number % 5 == 3:
            rotated = server.data("POST", "/tokens/rotate", {"token": session["token"], "grace_seconds": grace_seconds})
            sessions.append({"session_id": session["session_id"], "token": session["token"]})
            session["token"] = rotated["token"]
        elif number % 5 == 4:
            server.data("POST", f"{path}/revoke", {})
    server.validate(sessions[0]["token"])
    return sessions


def restored(server: TokMeshProcess, body: dict[str, Any]) -> dict[str, Any]:
    """The job of a restore, ended."""
    job = server.data("POST", RESTORES, body)
    wait_until(lambda: server.data("GET", f"{RESTORES}/{job['job_id']}")["state"] != "running", "the restore")
    ended: dict[str, Any] = server.data("GET", f"{RESTORES}/{job['job_id']}")
    return ended


def test_a_start_from_a_snapshot_and_the_log_behind_it_is_what_was(server: TokMeshProcess) -> None:
    sessions = a_history(server)
    taken = take(server)
    assert taken["sessions"] == 30 and taken["size_bytes"] == path_of(server, taken).stat().st_size
    assert os.stat(path_of(server, taken)).st_mode & 0o777 == 0o600
    sessions += a_history(server)
    expected = everything(server, sessions)
    server.kill()
    server.start()
    assert [line["snapshot"] for line in told(server, "snapshot loaded")] == [taken["id"]]
    assert everything(server, sessions) == expected
    assert server.data("GET", SNAPSHOTS)["items"] == [taken]


BULK = {name: name * 1000 for name in "abc"}  # 3 KB of a session


def test_the_log_is_dropped_only_behind_a_second_snapshot(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--session.quota.max_per_user=10000", "--storage.wal.segment_size=1MB") as server:

        def write() -> None:
            for _ in range(600):
                server.create_session("u", data=BULK)

        write()
        take(server)
        assert segments(server)[0].endswith("1.log"), "with one snapshot the whole log stays"
        write()
        before = segments(server)
        take(server)
        wait_until(lambda: segments(server) != before, "covered segments are dropped")
        assert segments(server)[-1] == before[-1]
        assert metric(server, "tokmesh_wal_segments") == len(segments(server))
        server.kill()
        server.start()
        assert metric(server, "tokmesh_sessions_active_total") == 1200


def test_a_snapshot_becomes_due_by_the_size_of_the_log(tmp_path: Path) -> None:
    arguments = ("--storage.snapshot.threshold=1MB", "--session.quota.max_per_user=10000", "--storage.snapshot.retention_count=2")
    with TokMeshProcess(tmp_path, *arguments) as server:
        for round_ in range(1, 4):
            for _ in range(400):
                server.create_session("u", data=BULK)
            wait_until(lambda round_=round_: metric(server, 'tokmesh_snapshot_total{result="ok"}') >= round_, "a snapshot")  # type: ignore[misc]
        wait_until(lambda: metric(server, "tokmesh_snapshot_files") == 2, "two are kept")
        assert metric(server, "tokmesh_snapshot_last_sequence") > 800


def test_a_bad_newest_snapshot_is_passed_over_loudly_and_nothing_is_missing(server: TokMeshProcess) -> None:
    sessions = a_history(server)
    first = take(server)
    sessions += a_history(server)
    second = take(server)
    sessions += a_history(server)
    expected = everything(server, sessions)
    server.kill()
    data = bytearray(path_of(server, second).read_bytes())
    data[len(data) // 2] ^= 1
    path_of(server, second).write_bytes(data)
    server.start()
    assert [line["snapshot"] for line in told(server, "snapshot loaded")] == [first["id"]]
    (line,) = told(server, "a snapshot cannot be used; the one before it is tried")
    assert line["level"] == "ERROR" and line["snapshot"] == second["id"] and "damaged" in line["reason"]
    assert metric(server, "tokmesh_snapshot_unusable_files") == 1
    assert everything(server, sessions) == expected
    assert [item["id"] for item in server.data("GET", SNAPSHOTS)["items"]] == [first["id"]]


def test_the_log_that_leads_on_from_the_older_snapshot_is_kept(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--session.quota.max_per_user=10000", "--storage.wal.segment_size=1MB") as server:
        for _ in range(3):
            for _ in range(400):
                server.create_session("u", data=BULK)
            take(server)
        assert not segments(server)[0].endswith("00001.log"), "segments were dropped"
        path = path_of(server, server.data("GET", SNAPSHOTS)["items"][0])
        path.write_bytes(path.read_bytes()[:-1])
        server.kill()
        server.start()
        assert metric(server, "tokmesh_sessions_active_total") == 1200


def test_without_a_snapshot_that_can_be_used_and_without_the_log_before_it_the_start_is_refused(server: TokMeshProcess) -> None:
    server.create_session()
    taken = take(server)
    server.kill()
    path = server.directory / "log" / segments(server)[0]
    path.unlink()
    server.spawn()
    assert server.wait() == 69
    assert "the log is missing" in server.stderr
    path_of(server, taken).write_bytes(b"x" * 5000)
    server.spawn()
    server.wait_ready()  # neither snapshot nor log: what is left is an empty directory with a file that is no snapshot


def test_another_nodes_snapshot_is_refused(server: TokMeshProcess, tmp_path: Path) -> None:
    take(server)
    server.stop()
    with TokMeshProcess(tmp_path / "..", LONG_TOMBSTONES) as other:
        pass
    shutil.rmtree(other.directory / "snapshots", ignore_errors=True)
    shutil.copytree(server.directory / "snapshots", other.directory / "snapshots")
    other.spawn()
    assert other.wait() == 69
    assert "is a snapshot of node" in other.stderr and "tokmesh backup restore" in other.stderr, other.stderr
    shutil.rmtree(other.directory)


def test_a_disk_without_room_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk, TokMeshProcess(disk, "--storage.wal.segment_size=1MB") as server:
        session = server.create_session()
        filler = disk / "filler"
        fill(filler)
        status, answer = server.request("POST", SNAPSHOTS)
        assert (status, answer["code"]) == (503, "TM-SYS-5001")
        assert list((server.directory / "snapshots").iterdir()) == []
        assert metric(server, 'tokmesh_snapshot_total{result="failed"}') == 1
        assert server.validate(session["token"])["valid"]
        filler.unlink()
        assert take(server)["sessions"] == 1


def test_a_snapshot_survives_a_kill_whole_or_not_at_all(server: TokMeshProcess) -> None:
    sessions = a_history(server)
    for delay_s in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
        asking = in_background(ask_for_one, server)
        time.sleep(delay_s)
        server.kill()
        asking.join(10)
        server.start()
        assert metric(server, "tokmesh_snapshot_unusable_files") == 0
        assert not list((server.directory / "snapshots").glob("*.tmp"))
        sessions += a_history(server, 5)
    assert all(code != "TM-TOKN-4010" for _, code, _ in everything(server, sessions)[0]), "none is unknown"


def ask_for_one(server: TokMeshProcess) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.request("POST", SNAPSHOTS)


def test_a_restore_brings_back_what_was_and_survives_a_kill(server: TokMeshProcess) -> None:
    sessions = a_history(server)
    validator = server.create_key("validator")
    then = everything(server, sessions)
    taken = take(server)
    later = a_history(server)
    for session in sessions[:10]:
        server.request("POST", f"/sessions/{session['session_id']}/revoke", json={})
    late_key = server.create_key("issuer")
    assert everything(server, sessions) != then
    job = restored(server, {"snapshot_id": taken["id"]})
    assert (job["state"], job["error"]) == ("done", None) and job["entries"] >= taken["sessions"] == 30
    assert everything(server, sessions) == then
    assert {server.validate(each["token"])["error"]["code"] for each in later} == {"TM-TOKN-4010"}
    assert server.request("POST", "/tokens/validate", json={"token": later[0]["token"]}, key=validator)[0] == 200
    assert server.request("POST", "/sessions", json={"user_id": "u"}, key=late_key)[1]["code"] == "TM-AUTH-4011"
    after = server.create_session("after")
    server.kill()
    server.start()
    assert server.validate(after["token"])["valid"]
    assert everything(server, sessions) == then
    newest = server.data("GET", SNAPSHOTS)["items"][0]
    assert newest["restored"] and newest["sequence"] > taken["sequence"]
    take(server)
    server.kill()
    server.start()
    assert everything(server, sessions) == then and server.validate(after["token"])["valid"]


def test_a_snapshot_that_takes_the_place_of_a_restored_one_still_says_where_a_history_begins(server: TokMeshProcess) -> None:
    """Without a change in between both have one sequence, and so one name; what the log before it held leads elsewhere."""
    taken = take(server)
    restored(server, {"snapshot_id": taken["id"]})
    (newest, _) = server.data("GET", SNAPSHOTS)["items"]
    again = take(server)
    assert newest["restored"] and again == {**newest, "taken_at": again["taken_at"]}
    server.create_session()
    assert take(server)["restored"] is False


def test_a_restore_of_what_is_not_there_or_not_whole_changes_nothing(server: TokMeshProcess) -> None:
    sessions = a_history(server, 10)
    taken = take(server)
    expected = everything(server, sessions)
    assert server.request("POST", RESTORES, json={"snapshot_id": "snapshot-00000000000000000000"})[1]["code"] == "TM-ADMIN-4041"
    assert server.request("POST", RESTORES, json={"snapshot_id": "../../etc/passwd"})[1]["code"] == "TM-ADMIN-4041"
    assert server.request("GET", f"{RESTORES}/none")[1]["code"] == "TM-ADMIN-4041"
    path = path_of(server, taken)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    status, answer = server.request("POST", RESTORES, json={"snapshot_id": taken["id"]})
    assert (status, answer["code"]) == (422, "TM-ADMIN-4221")
    assert str(server.directory) not in json.dumps(answer)
    failed = server.data("GET", RESTORES)["items"][0]
    assert failed["state"] == "failed" and failed["error"].startswith(f"{path.name}: at offset ")
    assert everything(server, sessions) == expected
    server.create_session("goes on")
    path.write_bytes(data)
    assert restored(server, {"snapshot_id": taken["id"]})["state"] == "done"


def test_while_a_restore_runs_writes_are_told_to_come_back_and_reads_go_on(tmp_path: Path) -> None:
    """A restore held up by a slow disk: strace delays the sync of the restored snapshot."""
    slow = ("strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=3s:when=3+")
    with TokMeshProcess(tmp_path) as server:
        session = server.create_session()
        taken = take(server)
        server.stop()
        server.wrapper = list(slow)
        server.start()
        job = server.data("POST", RESTORES, {"snapshot_id": taken["id"]})
        wait_until(lambda: server.request("GET", "/ready", key=None)[0] == 503, "not ready")
        status, answer = server.request("GET", "/ready?verbose")
        assert answer["details"]["failed"] == ["restore"] and "restoring snapshot-" in answer["details"]["reasons"]["restore"]
        status, headers, body = server.exchange("POST", "/sessions", json={"user_id": "u"})
        assert (status, json.loads(body)["code"]) == (503, "TM-ADMIN-5031") and int(headers["retry-after"]) > 0
        assert server.validate(session["token"])["valid"], "reads go on"
        assert server.request("POST", RESTORES, json={"snapshot_id": taken["id"]})[1]["code"] == "TM-ADMIN-4091"
        assert server.request("POST", SNAPSHOTS)[1]["code"] == "TM-ADMIN-5031"
        wait_until(lambda: server.data("GET", f"{RESTORES}/{job['job_id']}")["state"] == "done", "the restore")
        assert server.request("GET", "/ready", key=None)[0] == 200
        assert server.create_session()["token"]


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_restore_killed_at_any_call_is_done_or_was_never_begun(tmp_path: Path, call: str) -> None:
    with TokMeshProcess(tmp_path, LONG_TOMBSTONES) as server:
        sessions = a_history(server, 10, grace_seconds=0)  # ten starts may take longer than any grace
        then = everything(server, sessions)
        taken = take(server)
        for session in sessions:
            server.request("POST", f"/sessions/{session['session_id']}/revoke", json={})
        now = everything(server, sessions)
        server.stop()
        outcomes = set()
        for when in range(1, 6):
            server.wrapper = [
                "strace",
                "-f",
                "-o",
                "/dev/null",
                "-e",
                f"trace={call}",
                "-e",
                f"inject={call}:signal=SIGKILL:when={when}",
            ]
            server.spawn()
            with contextlib.suppress(AssertionError, OSError, http.client.HTTPException):
                server.wait_ready()
                server.data("POST", RESTORES, {"snapshot_id": taken["id"]})
                wait_until(lambda: server.data("GET", RESTORES)["items"][0]["state"] == "done", "the restore", 20)
            server.kill()
            server.wrapper = []
            server.start()
            found = everything(server, sessions)
            assert found in (then, now)
            outcomes.add(found == then)
            if found == then:  # back to where it was before the restore
                for session in sessions:
                    server.request("POST", f"/sessions/{session['session_id']}/revoke", json={})
            server.stop()
        assert True in outcomes, "no round got as far as a restore"

"""Disks that are slow, or go away: what the server does then is stated in docs/disk-trouble.md. Reads stay up in all of it."""

import json
from pathlib import Path

from tests.crash.test_snapshots import SNAPSHOTS, metric, take
from tests.support.own_mounts import own_mounts
from tests.support.power_disk import PowerDisk
from tests.support.server import TokMeshProcess, in_background
from tests.support.waiting import wait_until

SLOW_SYNCS = ("strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=500ms")


def test_a_slow_disk_slows_writes_and_nothing_else(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, wrapper=SLOW_SYNCS) as server:
        token = server.create_session()["token"]
        made: list[str] = []
        for _ in range(3):
            writing = in_background(lambda: made.append(server.create_session()["token"]))
            while writing.is_alive():  # ends with the write, half a second later
                assert server.validate(token)["valid"]
                assert server.request("GET", "/ready", key=None)[0] == 200
            writing.join()
        assert len(made) == 3 and metric(server, "tokmesh_wal_append_errors_total") == 0
        assert all(server.validate(each)["valid"] for each in made)
        assert metric(server, 'tokmesh_wal_fsync_duration_seconds_bucket{le="0.25"}') == 0
        wait_until(
            lambda: "TokMeshWalSlow" in {one["code"] for one in server.data("GET", "/admin/v1/status/summary")["conditions"]},
            "the condition of a slow log",
        )
        server.kill()
        server.wrapper = []
        server.start()
        assert all(server.validate(each)["valid"] for each in (token, *made))


def test_a_disk_that_goes_away_refuses_writes_and_leaves_reads(tmp_path: Path) -> None:
    """The file system stops as it does after an error, when it turns read-only: every write and sync fails from then on."""
    disk = PowerDisk(tmp_path / "disk.img", tmp_path / "disk")
    with own_mounts():
        refuse_and_return(disk)


def refuse_and_return(disk: PowerDisk) -> None:
    with disk.mounted():
        server = TokMeshProcess(disk.point, "--storage.wal.segment_size=1MB")
        with server:
            session = server.create_session()
            taken = take(server)
            later = server.create_session()
            disk.cut_power()
            status, headers, body = server.exchange("POST", "/sessions", json={"user_id": "u"})
            assert (status, json.loads(body)["code"]) == (503, "TM-SYS-5001") and "retry-after" in headers
            assert server.request("POST", f"/sessions/{session['session_id']}/revoke", json={})[0] == 503
            assert server.request("POST", SNAPSHOTS)[1]["code"] == "TM-SYS-5001"
            assert server.request("GET", "/ready", key=None)[1]["details"]["failed"] == ["storage"]
            assert server.request("GET", "/health", key=None)[0] == 200
            for one in (session, later):
                assert server.validate(one["token"])["valid"]
            assert metric(server, "tokmesh_wal_fsync_failed_total") + metric(server, "tokmesh_wal_append_errors_total") >= 1
            assert "TokMeshWalFsyncFailed" in {one["code"] for one in server.data("GET", "/admin/v1/status/summary")["conditions"]}
        # What the test itself keeps on that disk, the server's output, goes with it.
    with disk.mounted():
        server.start()
        assert all(server.validate(one["token"])["valid"] for one in (session, later))
        assert [item["id"] for item in server.data("GET", SNAPSHOTS)["items"]] == [taken["id"]]
        assert server.create_session()["token"]
        server.stop()

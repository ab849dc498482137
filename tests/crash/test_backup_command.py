"""`tokmesh backup` on real servers, running and stopped: what is restored is what was; bad input changes nothing."""

import datetime
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_snapshots import LONG_TOMBSTONES, SNAPSHOTS, a_history, everything, path_of, take
from tests.support.server import TokMeshProcess, run_command
from tests.support.stopped_log import tree
from tokmesh._core.table import Table
from tokmesh.keyring import KeyRing
from tokmesh.log.record import decode
from tokmesh.snapshots import offline
from tokmesh.storage.inspection import Inspection
from tokmesh.storage.recovery import Progress
from tokmesh.store import Store

KEY = bytes(range(32)).hex()


@pytest.fixture(params=["plain", "encrypted"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TokMeshProcess]:
    arguments = [LONG_TOMBSTONES, "--storage.wal.segment_size=1MB"]
    if request.param == "encrypted":
        (tmp_path / "keys").write_text(f"{KEY}\n")
        (tmp_path / "keys").chmod(0o600)
        arguments += ["--storage.encryption.enabled=true", f"--storage.encryption.key_file={tmp_path / 'keys'}"]
    with TokMeshProcess(tmp_path, *arguments) as running:
        yield running


def tokmesh(server: TokMeshProcess, *words: str) -> tuple[int, str, str]:
    done = server.command_line("backup", *words, *server.args)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def revoke_all(server: TokMeshProcess, sessions: list[dict[str, Any]]) -> None:
    for session in sessions:
        server.request("POST", f"/sessions/{session['session_id']}/revoke", json={})


def test_created_listed_fetched_verified_and_restored(server: TokMeshProcess, tmp_path: Path) -> None:
    sessions = a_history(server)
    then = everything(server, sessions)
    code, out, _ = tokmesh(server, "create")
    snapshot_id = out.split()[0]
    assert code == 0 and "30 sessions" in out and ("encrypted" in out) == (len(server.args) > 2)
    assert tokmesh(server, "list")[1] == out
    target = tmp_path / "fetched.tms"
    assert tokmesh(server, "fetch", snapshot_id, str(target))[0] == 0
    assert target.read_bytes() == path_of(server, {"id": snapshot_id}).read_bytes() and target.stat().st_mode & 0o777 == 0o600
    code, out, _ = tokmesh(server, "verify", str(target))
    assert code == 0 and out.startswith(f"whole: {target}: 23 sessions, 1 API keys, up to record ")
    revoke_all(server, sessions)
    assert everything(server, sessions) != then
    code, out, err = tokmesh(server, "restore", str(target))
    assert (code, err) == (0, "") and out.startswith("restored: ")
    assert everything(server, sessions) == then
    revoke_all(server, sessions)
    assert tokmesh(server, "restore", snapshot_id)[0] == 0
    assert everything(server, sessions) == then
    assert sorted(path.suffix for path in (server.directory / "snapshots").iterdir()) == [".tms"] * 3, "no upload is left"


def test_a_backup_restored_into_an_empty_directory_equals_its_source(server: TokMeshProcess, tmp_path: Path) -> None:
    sessions = a_history(server)
    then = everything(server, sessions)
    target = tmp_path / "fetched.tms"
    tokmesh(server, "fetch", take(server)["id"], str(target))
    (tmp_path / "elsewhere").mkdir()
    other = TokMeshProcess(tmp_path / "elsewhere", *server.args)
    other.directory.mkdir(mode=0o700)
    code, out, err = tokmesh(other, "restore", str(target))
    assert code == 0 and out.startswith("the next start begins from snapshot-") and "23 sessions, 1 API keys" in out, err
    other._admin_key = server.admin_key
    with other:
        assert everything(other, sessions) == then
        assert other.create_session()["token"]
        other.kill()
        other.start()
        assert everything(other, sessions) == then


def test_a_stopped_server_goes_back_to_a_record_and_to_a_time(server: TokMeshProcess) -> None:
    sessions = a_history(server, 10)
    take(server)
    more = a_history(server, 5)
    then = everything(server, sessions + more)
    sequence = int(metric_of(server, "tokmesh_wal_last_sequence"))
    time.sleep(0.05)
    moment = datetime.datetime.now(datetime.UTC).isoformat()
    time.sleep(0.05)
    revoke_all(server, sessions + more)
    take(server)
    revoked = everything(server, sessions + more)
    for words in (("--to-time", moment), ("--to-sequence", str(sequence))):
        server.stop()
        code, _, err = tokmesh(server, "restore", *words)
        assert code == 0, err
        server.start()
        assert everything(server, sessions + more) == then
        revoke_all(server, sessions + more)
        assert everything(server, sessions + more) == revoked
        server.kill()
        server.start()
        assert everything(server, sessions + more) == revoked, "what came after the restore is there too"
    server.stop()
    assert tokmesh(server, "restore", "--to-sequence", "1")[0] == 0
    server.start()
    assert server.data("GET", "/admin/v1/status/summary")["sessions"]["active"] == 0


def metric_of(server: TokMeshProcess, name: str) -> float:
    page = server.request("GET", "/metrics")[1]
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def test_every_moment_of_the_log_can_be_gone_back_to(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, LONG_TOMBSTONES) as server:
        a_history(server, 8)
        take(server)
        a_history(server, 8)
        server.stop()
        new_table = partial(Table, tombstone_ttl_ms=86_400_000)
        with Inspection(server.directory) as inspection:
            records = [
                (sequence, decode(data))
                for placed in inspection.frames()
                for sequence, data in enumerate(placed.frame.records, placed.frame.first_sequence)
            ]
        assert len(records) > 30
        snapshots, log = server.directory / "snapshots", server.directory / "log"
        table, keyring = new_table(), KeyRing()
        store = Store(table, keyring)
        for sequence, record in records:
            store.replay(sequence, record)
            moment = offline.Moment(sequence=sequence)
            state = offline.of_moment(moment, snapshots, log, new_table, None, Progress())
            assert state.sequence == sequence
            assert sessions_of(state.table) == sessions_of(table)
            assert state.keyring.records() == keyring.records()


def sessions_of(table: Table) -> dict[bytes, Any]:
    return {view.id: view for view in (table.session(entry) for entry in table.scan(0, 1000)[0])}


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("restore",), 64, "TM-ARG-1002"),
        (("restore", "x", "--to-sequence=3"), 64, "TM-ARG-1002"),
        (("restore", "--to-sequence=3", "--to-time=2026-01-01T00:00:00Z"), 64, "TM-ARG-1003"),
        (("restore", "--to-time=yesterday"), 64, "--to-time: must be a time"),
        (("restore", "--to-time=2026-01-01T00:00:00"), 64, "its time zone"),
        (("restore", "--to-time=1990-01-01T00:00:00Z"), 64, "nothing was recorded by then"),
        (("restore", "--to-sequence=999999"), 64, "what is kept ends with record"),
        (("restore", "snapshot-00000000000000000077"), 65, "no snapshot of that id"),
        (("restore", "{bad}"), 65, "TM-ADMIN-4221"),
        (("verify", "{bad}"), 65, ""),
        (("verify", "/nonexistent"), 78, "TM-CFG-1003"),
        (("fetch", "../../etc/passwd", "x"), 64, "must be the id of a snapshot"),
        (("create",), 69, "TM-SYS-5030"),
    ],
)
def test_bad_input_to_a_stopped_server_changes_nothing(words: tuple[str, ...], code: int, expected: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tms"
    with TokMeshProcess(tmp_path) as server:
        server.create_session()
        bad.write_bytes(path_of(server, take(server)).read_bytes()[:-3])
        server.stop()
    before = tree(server.directory)
    done = run_command("backup", *(word.format(bad=bad) for word in words), f"--dir={server.directory}")
    assert done.returncode == code, done.stderr
    assert expected in done.stderr and done.stderr.count("\n") <= 1
    assert {**tree(server.directory), str(server.directory / "snapshots"): None, str(server.directory): None} == {
        **before, str(server.directory / "snapshots"): None, str(server.directory): None,
    }  # fmt: skip


def test_bad_input_to_a_running_server_changes_nothing(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--storage.backup.max_upload_size=1MB") as server:
        session = server.create_session()
        taken = take(server)
        good = path_of(server, taken).read_bytes()
        bad = {"cut": good[:-1], "foreign": b"x" * 500, "empty": b"", "large": bytes((1 << 20) + 1)}
        for name, content in bad.items():
            code = "TM-ADMIN-4130" if name == "large" else "TM-ADMIN-4221"
            (tmp_path / name).write_bytes(content)
            exit_code, _, err = tokmesh(server, "restore", str(tmp_path / name))
            assert exit_code == 65 and code in err, (name, err)
        exit_code, _, err = tokmesh(server, "restore", "--to-sequence=1")
        assert exit_code == 64 and "a server is running" in err
        (tmp_path / "there").write_text("mine")
        exit_code, _, err = tokmesh(server, "fetch", taken["id"], str(tmp_path / "there"))
        assert exit_code == 78 and "TM-CFG-1004" in err and (tmp_path / "there").read_text() == "mine"
        assert tokmesh(server, "fetch", "snapshot-00000000000000000077", str(tmp_path / "new"))[0] == 65
        assert sorted(path.name for path in (server.directory / "snapshots").iterdir()) == [f"{taken['id']}.tms"]
        assert not list(tmp_path.glob("*.unfinished"))
        (tmp_path / "copy.unfinished").write_text("of another that is under way")
        assert tokmesh(server, "fetch", taken["id"], str(tmp_path / "copy"))[0] == 0
        assert (tmp_path / "copy").read_bytes() == good and len(list(tmp_path.glob("*.unfinished"))) == 1
        assert server.validate(session["token"])["valid"]


def test_an_upload_over_http_needs_an_admin_key(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        taken = take(server)
        data = path_of(server, taken).read_bytes()
        issuer = server.create_key("issuer")
        for key, code in ((None, "TM-AUTH-4010"), (issuer, "TM-AUTH-4030")):
            assert server.request("POST", "/admin/v1/backups/uploads", data, key=key)[1]["code"] == code
            assert server.request("GET", f"{SNAPSHOTS}/{taken['id']}/file", key=key)[1]["code"] == code
        status, headers, body = server.exchange("GET", f"{SNAPSHOTS}/{taken['id']}/file")
        assert (status, body) == (200, data) and headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"] == f'attachment; filename="{taken["id"]}.tms"'
        assert server.request("POST", "/admin/v1/backups/uploads", data)[0] == 200


def test_rekey_writes_snapshots_anew_too(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text(f"{KEY}\n")
    key_file.chmod(0o600)
    with TokMeshProcess(tmp_path, LONG_TOMBSTONES) as server:
        sessions = a_history(server, 10)
        take(server)
        expected = everything(server, sessions)
        server.stop()
        with_key = ("--storage.encryption.enabled=true", f"--storage.encryption.key_file={key_file}")
        done = server.command_line("storage", "rekey", *with_key)
        assert done.returncode == 0 and "1 snapshots are written anew: encrypted under key" in done.stdout, done.stderr
        server.args += with_key
        server.start()
        assert everything(server, sessions) == expected
        assert server.data("GET", SNAPSHOTS)["items"][0]["encrypted"]
        server.stop()
        for path in server.directory.rglob("*"):
            if path.is_file() and path.suffix in (".tms", ".log"):
                assert b"user1" not in path.read_bytes(), path

"""The log of a server that was restored, running or stopped, has a gap: the tools know it from a loss."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import TokMeshProcess, run_command
from tests.support.waiting import wait_until

BACKUPS = "/admin/v1/backups"


@pytest.fixture(params=["running", "stopped"])
def restored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TokMeshProcess, str]]:
    """A stopped server, and the token of a session that was revoked, restored, and revoked again. Before: 4 records; after: 2."""
    with TokMeshProcess(tmp_path, "--storage.wal.segment_size=1MB") as server:
        session = server.create_session()
        taken = server.data("POST", f"{BACKUPS}/snapshots")
        server.create_session()
        server.data("POST", f"/sessions/{session['session_id']}/revoke", {})
        if request.param == "running":
            server.data("POST", f"{BACKUPS}/restores", {"snapshot_id": taken["id"]})
            wait_until(lambda: server.data("GET", f"{BACKUPS}/restores")["items"][0]["state"] == "done", "the restore")
        else:
            server.kill()
            assert server.command_line("backup", "restore", taken["id"]).returncode == 0
            server.start()
        assert server.validate(session["token"])["valid"]
        server.create_session()
        server.data("POST", f"/sessions/{session['session_id']}/revoke", {})
        assert server.stop() == 0
        yield server, session["token"]


def test_verify_and_dump_read_over_the_restore(restored: tuple[TokMeshProcess, str]) -> None:
    server, _ = restored
    verified = server.command_line("wal", "verify")
    assert verified.returncode == 0 and " 6 records " in verified.stdout, verified.stdout + verified.stderr
    dumped = server.command_line("wal", "dump")
    assert dumped.returncode == 0 and dumped.stdout.count("\n") == 6


def test_damage_behind_the_restore_is_still_told(restored: tuple[TokMeshProcess, str]) -> None:
    server, _ = restored
    path = max((server.directory / "log").glob("wal-*.log"))
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert server.command_line("wal", "verify").returncode == 65


def test_salvage_takes_what_came_behind_the_restore_alone(restored: tuple[TokMeshProcess, str], tmp_path: Path) -> None:
    server, token = restored
    new = tmp_path / "new"
    salvaged = server.command_line("wal", "salvage", f"--to={new}")
    assert salvaged.returncode == 0 and salvaged.stdout.startswith("2 records written"), salvaged.stdout + salvaged.stderr
    shutil.copytree(server.directory / "snapshots", new / "snapshots")
    shutil.copy(server.directory / "node_id", new)
    shutil.rmtree(server.directory)
    new.rename(server.directory)
    server.start()
    assert server.data("GET", "/admin/v1/status/summary")["sessions"]["active"] == 1
    assert server.validate(token)["error"]["code"] == "TM-TOKN-4012"


def test_rekey_writes_both_histories_anew(restored: tuple[TokMeshProcess, str], tmp_path: Path) -> None:
    server, token = restored
    (tmp_path / "keys").write_text(f"{secrets.token_hex(32)}\n")
    (tmp_path / "keys").chmod(0o600)
    keys = ("--storage.encryption.enabled=true", f"--storage.encryption.key_file={tmp_path / 'keys'}")
    rekeyed = server.command_line("storage", "rekey", *keys)
    assert rekeyed.returncode == 0, rekeyed.stderr
    assert " 6 records " in run_command("wal", "verify", f"--dir={server.directory}", *keys).stdout
    server.args += keys
    server.start()
    assert server.data("GET", "/admin/v1/status/summary")["sessions"]["active"] == 1
    assert server.validate(token)["error"]["code"] == "TM-TOKN-4012"

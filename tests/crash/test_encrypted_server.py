"""A real server that encrypts: nothing can be read on its disk, keys change under load, and what is missing is said."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.crash.server_load import Load
from tests.golden.plain_snapshot_reader import read_snapshot
from tests.support.canaries import Canary
from tests.support.encryption import ENABLED, encryption, new_key, write_keys
from tests.support.server import TokMeshProcess, run_command
from tests.support.waiting import wait_until
from tokmesh._core import wal
from tokmesh.storage.segment import list_segments

SNAPSHOTS = "/admin/v1/backups/snapshots"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SMALL_SEGMENTS = "--storage.wal.segment_size=1MB"
USER, DEVICE, AGENT, ADDRESS = "user-Zyzzyva-01", "device-Quixotry-02", "Agent-Mugwump-03/1.0", "203.0.113.77"
DATA_KEY, DATA_VALUE, DESCRIPTION = "field-Syzygy-04", "value-Flummox-05", "description-Kerfuffle-06"


def key_option(path: Path) -> str:
    return f"--storage.encryption.key_file={path}"


def rekey(server: TokMeshProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return server.command_line("storage", "rekey", *arguments)


def segment_key_ids(server: TokMeshProcess) -> list[bytes]:
    found = [wal.decode_segment_header(path.read_bytes()) for _, path in list_segments(server.directory / "log")]
    return [header.key_id for header in found if header is not None]


def has_keys(server: TokMeshProcess, count: int) -> bool:
    return len(set(segment_key_ids(server))) == count


def files(directory: Path) -> dict[str, bytes]:
    """Every file under a directory but the lock, which each start touches."""
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith("lock")}


def write_canaries(server: TokMeshProcess, count: int) -> list[bytes]:
    """Sessions and an API key whose every field is a canary; what must not be found, in every form it is kept in."""
    made = []
    for index in range(count):
        data = {DATA_KEY: DATA_VALUE, "padding": "x" * 1000, "more": "y" * 1000, "number": str(index)}
        user_id = f"{USER}-{secrets.token_hex(4)}"
        body = {"user_id": user_id, "device_id": DEVICE, "ip_address": ADDRESS, "user_agent": AGENT, "data": data}
        made.append(server.data("POST", "/sessions", body))
    session = made[-1]
    server.data("POST", f"/sessions/{session['session_id']}/touch", {})
    rotated = server.data("POST", "/tokens/rotate", {"token": session["token"]})
    server.data("POST", f"/sessions/{made[0]['session_id']}/revoke", {})
    key = server.data("POST", "/admin/v1/keys", {"role": "issuer", "description": DESCRIPTION})
    texts = [USER, DEVICE, AGENT, ADDRESS, DATA_KEY, DATA_VALUE, DESCRIPTION, "$argon2", "x" * 64]
    shown_once = [made[0]["token"], session["token"], rotated["token"], key["key_secret"]]
    hashes = [hashlib.sha256(secret.encode()).digest() for secret in shown_once]
    pieces = [piece for index, secret in enumerate(shown_once) for piece in Canary(str(index), secret).pieces]
    return [*(text.encode() for text in texts), *hashes, *(piece.encode() for piece in pieces)]


def tear(server: TokMeshProcess) -> None:
    """What a crash of the machine leaves behind the log's end, so that the next start keeps a copy of it."""
    path = list_segments(server.directory / "log")[-1][1]
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"torn")


def live_through(server: TokMeshProcess, key_file: Path | None) -> list[bytes]:
    """Writes over several segments, snapshots, another key, a kill, a torn tail, a restart, more writes: all forbidden pieces."""
    server.data("POST", SNAPSHOTS)  # the log behind the oldest one stays
    forbidden = write_canaries(server, 700)
    if key_file is not None:
        write_keys(key_file, new_key(), *key_file.read_text().split())
        server.send_signal(signal.SIGHUP)
        wait_until(partial(has_keys, server, 2), "the new key is followed")
    forbidden += write_canaries(server, 100)
    server.data("POST", SNAPSHOTS)
    server.kill()
    tear(server)
    server.start()
    forbidden += write_canaries(server, 20)
    server.data("POST", SNAPSHOTS)
    server.kill()
    return forbidden


def test_nothing_that_is_stored_can_be_read_in_any_file(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, SMALL_SEGMENTS, *encryption(tmp_path)) as server:
        forbidden = live_through(server, tmp_path / "keys")
        found = files(server.directory)
        assert {"log/spare.tmp", "node_id", "audit.jsonl"} <= found.keys()
        assert len([name for name in found if name.startswith("log/wal-")]) >= 5 and any(".broken" in name for name in found)
        snapshots = [content for name, content in found.items() if name.startswith("snapshots/")]
        assert len(snapshots) == 3 and not [content for content in snapshots if ZSTD_MAGIC in content], "nothing to decompress"
        readable = [(piece, name) for name, content in found.items() for piece in forbidden if piece in content]
        assert not readable, readable[:5]
        keys = (tmp_path / "keys").read_text().split()
        said = server.output.encode() + b"".join(found.values())
        assert len(keys) == 2 and not [key for key in keys if key[:16].encode() in said]


def test_the_same_is_found_without_encryption(tmp_path: Path) -> None:
    """The test above proves nothing unless its search finds what is there."""
    with TokMeshProcess(tmp_path, SMALL_SEGMENTS) as server:
        forbidden = live_through(server, None)
        content = b"".join(files(server.directory).values())
        texts = (USER, DEVICE, AGENT, ADDRESS, DATA_KEY, DATA_VALUE, DESCRIPTION, "$argon2", "x" * 64)
        assert [text for text in texts if text.encode() not in content] == []
        assert len([piece for piece in forbidden if len(piece) == 32 and piece in content]) >= 6, "hashes of tokens"
        newest = max((server.directory / "snapshots").iterdir())
        assert ZSTD_MAGIC in newest.read_bytes()
        held = json.dumps(read_snapshot(newest))
        assert [text for text in texts if text not in held] == []


def test_no_answer_shows_a_key(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, *encryption(tmp_path)) as server:
        key = (tmp_path / "keys").read_text().strip()
        answers = [server.exchange("GET", path)[2] for path in ("/metrics", "/admin/v1/config", "/admin/v1/status/summary")]
        shown = run_command("config", "show", *server.args).stdout
        assert str(tmp_path / "keys") in shown and b"tokmesh_storage_encryption_enabled 1" in answers[0]
        assert not [answer for answer in (*answers, shown.encode()) if key.encode() in answer]


def test_keys_change_under_load_and_nothing_is_refused_or_lost(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with TokMeshProcess(tmp_path, *encryption(tmp_path)) as server:
        load = Load(server, 1).start()
        for turn in range(3):
            load.wait_for(100 * (turn + 1))
            write_keys(keys, new_key(), *keys.read_text().split())
            server.send_signal(signal.SIGHUP)
            wait_until(partial(has_keys, server, turn + 2), "the new key is followed")
        load.wait_for(500)
        load.finish()
        assert not load.refused and load.check(None) > 100
        ids = segment_key_ids(server)
        assert len(ids) == len(set(ids)) == 4
        told = [line["key_id"] for line in server.log_lines() if "another key" in line["message"]]
        assert told == [each.hex() for each in ids[1:]]
        server.kill()
        server.start()
        load.check(None)
        # A key that segments are under cannot be taken away, neither while running nor at a start ...
        newest = keys.read_text().split()[0]
        write_keys(keys, newest)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration not reloaded" in server.stdout, "the reload is refused")
        assert f"keep key {ids[0].hex()} behind the first" in server.stdout
        assert server.data("POST", "/sessions", {"user_id": "still writes"})
        server.stop()
        server.spawn()
        assert server.wait() == 78 and f"is encrypted under key {ids[0].hex()}" in server.stderr


def test_rekey_leaves_one_key_or_none(tmp_path: Path) -> None:
    old, new, keys = new_key(), new_key(), tmp_path / "keys"
    with TokMeshProcess(tmp_path) as server:
        load = Load(server, 1).start()
        load.wait_for(50)
        load.finish()
        running = rekey(server, ENABLED, key_option(write_keys(keys, old)))
        assert running.returncode == 69 and "in use by another process" in running.stderr
        server.stop()
        for lines, now in (((old,), old), ((new, old), new)):
            done = rekey(server, ENABLED, key_option(write_keys(keys, *lines)))
            assert done.returncode == 0 and "written anew: encrypted under key" in done.stdout, done
            write_keys(keys, now)
            server.args = [ENABLED, key_option(keys)]
            server.start()
            load.check(None)
            server.stop()
            assert len(set(segment_key_ids(server))) == 1
        before = files(server.directory)
        for arguments in ((), (ENABLED, key_option(write_keys(tmp_path / "other", old)))):
            refused = rekey(server, *arguments)
            assert refused.returncode == 78 and "Nothing was changed" in refused.stderr, refused
            assert files(server.directory) == before
        done = rekey(server, key_option(keys))
        assert done.returncode == 0 and "written anew: not encrypted" in done.stdout
        server.args = []
        server.start()
        load.check(None)
        assert set(segment_key_ids(server)) == {b""}


@pytest.mark.parametrize("wrong", ["missing", "another", "short", "readable", "none"])
def test_a_start_without_the_right_key_is_refused_with_the_cure_and_changes_nothing(tmp_path: Path, wrong: str) -> None:
    keys = tmp_path / "keys"
    with TokMeshProcess(tmp_path, *encryption(tmp_path)) as server:
        server.data("POST", "/sessions", {"user_id": "someone"})
        server.stop()
        before = files(server.directory)
        first = list_segments(server.directory / "log")[0][1]
        expected: tuple[str, ...]
        if wrong == "missing":
            keys.unlink()
            expected = ("TM-CFG-1003 storage.encryption.key_file", str(keys))
        elif wrong == "another":
            write_keys(keys, new_key())
            expected = ("TM-CFG-1006", str(first), "add that key behind the first")
        elif wrong == "short":
            write_keys(keys, "c2hvcnQ=")
            expected = ("TM-CFG-1002 storage.encryption.key_file", str(keys), "5 bytes, and 32 are needed", "openssl rand")
        elif wrong == "readable":
            keys.chmod(0o640)
            expected = ("TM-CFG-1004 storage.encryption.key_file", str(keys), "mode 0640", "chmod 600")
        else:
            server.args = []
            expected = ("TM-CFG-1006", str(first), "name one with storage.encryption.key_file")
        server.spawn()
        assert server.wait() == 78
        assert not [text for text in expected if text not in server.stderr], server.stderr
        assert "Traceback" not in server.stderr and files(server.directory) == before
        if wrong in ("missing", "short", "readable"):
            assert run_command("config", "check", *server.args).returncode == 78


@pytest.mark.parametrize("source", ["command", "variable"])
def test_keys_come_from_a_command_or_the_environment(tmp_path: Path, source: str) -> None:
    path = write_keys(tmp_path / "kms", new_key())
    option = f"key_command=[/bin/cat, {path}]" if source == "command" else "key_variable=KMS"
    with TokMeshProcess(tmp_path, ENABLED, f"--storage.encryption.{option}", env={"KMS": path.read_text()}) as server:
        server.data("POST", "/sessions", {"user_id": USER})
        if source == "command":
            write_keys(path, new_key(), *path.read_text().split())
            server.send_signal(signal.SIGHUP)
            wait_until(partial(has_keys, server, 2), "the command is run again")
        server.env["KMS"] = path.read_text()
        server.kill()
        server.start()
        assert server.data("GET", "/sessions")["total_items"] == 1
        assert USER.encode() not in b"".join(files(server.directory).values())
        assert path.read_text().split()[0] not in server.output


def test_a_configuration_that_is_only_looked_at_runs_no_command(tmp_path: Path) -> None:
    """The text comes from whoever has an admin key."""
    with TokMeshProcess(tmp_path) as server:
        text = f"storage: {{encryption: {{enabled: true, key_command: [/usr/bin/touch, {tmp_path}/ran]}}}}"
        assert server.request("POST", "/admin/v1/config/validate", text)[0] == 200
        assert run_command("config", "check", f"--storage.encryption.key_command=[/usr/bin/touch, {tmp_path}/ran]").returncode == 0
        assert not (tmp_path / "ran").exists()

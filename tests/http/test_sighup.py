"""A configuration read again at SIGHUP: what can be is applied, and what keeps all of it from being so is told."""

import os
import signal
import time
from pathlib import Path

from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until


def test_sighup_applies_what_it_can_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("telemetry: {logging: {level: info}}\n")
    with TokMeshProcess(tmp_path, f"--config={file}") as server:
        file.write_text("telemetry: {logging: {level: error}}\nsession: {ttl: {default: soon}}\n")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.has_logged("configuration not reloaded"), "the bad file is reported")
        (problem,) = [line["problem"] for line in server.log_lines() if line["message"] == "configuration not reloaded"]
        assert "session.ttl.default" in problem
        file.write_text("telemetry: {logging: {level: debug}}\nsession: {ttl: {default: 10s}}\nserver: {http: {max_headers: 9}}\n")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.has_logged("configuration reloaded"), "the good file is applied")
        by_message = {line["message"]: line for line in server.log_lines()}
        assert by_message["configuration reloaded"]["applied"] == ["session.ttl.default", "telemetry.logging.level"]
        assert by_message["changes need a restart to take effect"]["keys"] == ["server.http.max_headers"]
        assert server.create_session()["expires_at"] < (time.time() + 60) * 1000, "the new default is in force"
        assert server.request("GET", "/ready", key=None)[0] == 200


def test_a_sighup_that_meets_what_it_cannot_read_says_so_and_the_next_one_is_taken(server: TokMeshProcess) -> None:
    """Encrypted files are looked at for keys that are missing."""
    folder = server.directory / "snapshots"
    folder.rename(server.directory / "elsewhere")
    folder.write_text("in the way")
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.has_logged("configuration not reloaded"), "it is told")
    (problem,) = [line["problem"] for line in server.log_lines() if line["message"] == "configuration not reloaded"]
    assert problem.startswith("TM-CFG-1004 storage.dir ") and problem.endswith(": what lies there cannot be read (Not a directory)")
    folder.unlink()
    (server.directory / "elsewhere").rename(folder)
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.has_logged("configuration reloaded"), "it is taken")
    assert server.request("GET", "/ready", key=None)[0] == 200


def test_a_sighup_while_too_many_wait_is_told_with_its_code(tmp_path: Path) -> None:
    """A configuration that is a pipe: each reading waits until somebody writes."""
    pipe = tmp_path / "tokmesh.yaml"
    os.mkfifo(pipe)
    server = TokMeshProcess(tmp_path, f"--config={pipe}")
    with server.spawn():
        pipe.write_text("")
        server.wait_ready()

        def is_told() -> bool:
            server.send_signal(signal.SIGHUP)
            return server.has_logged("configuration not reloaded")

        wait_until(is_told, "it is told")
        line = next(line for line in server.log_lines() if line["message"] == "configuration not reloaded")
        assert (line["level"], line["code"]) == ("ERROR", "TM-ADMIN-4291")

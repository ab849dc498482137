"""A server's life as its operator sees it: first start, stop, kill, reload, a second process, local administration."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_certificate
from tests.support.server import TokMeshProcess, clean_environment, in_background, run_command
from tests.support.waiting import wait_until

KEY = re.compile(r"tmak-[0-9a-z]{26}:tmas_[0-9A-Za-z]{43}")


def begin_request(server: TokMeshProcess, body_bytes: int) -> socket.socket:
    """A connection whose request the server has certainly begun to read: it has asked for the body, by 100 Continue."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(
        f"POST /sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.admin_key}\r\n"
        f"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {body_bytes}\r\n\r\n".encode()
    )
    asked = b""
    while not asked.endswith(b"\r\n\r\n"):
        received = connection.recv(100)
        assert received, f"closed after {asked!r}"
        asked += received
    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    return connection


def messages(server: TokMeshProcess) -> list[str]:
    return [line["message"] for line in server.log_lines()]


def test_the_first_start_prints_one_admin_key_and_later_starts_print_none(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        assert KEY.findall(server.stderr) == [server.admin_key]
        assert server.admin_key in server.stderr.splitlines(), "on a line of its own"
        secret = server.admin_key.partition(":")[2]
        assert secret not in server.stdout
        assert server.stop() == 0
        server.start()
        assert KEY.findall(server.stderr) == []
        assert server.request("GET", "/sessions")[0] == 200, "the key of the first start still works"
        assert server.stop() == 0
        for path in server.directory.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes()


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path) as server:
        kept = server.create_session("alice", data={"cart": "42"})
        revoked = server.create_session("bob")
        key = server.create_key("validator", description="survives")
        server.data("POST", f"/sessions/{revoked['session_id']}/revoke", {})
        server.kill()
        server.start()
        verdict = server.validate(kept["token"], key=key)
        assert verdict["valid"] is True
        assert verdict["session"]["id"] == kept["session_id"]
        assert verdict["session"]["data"] == {"cart": "42"}
        verdict = server.validate(revoked["token"], key=key)
        assert (verdict["valid"], verdict["error"]["code"]) == (False, "TM-TOKN-4012")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: signal.Signals, server: TokMeshProcess) -> None:
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    started = time.monotonic()
    server.send_signal(number)
    assert server.wait() == 0
    assert time.monotonic() - started < 10, "an idle connection does not hold the stop"
    assert idle.recv(1) == b""
    idle.close()
    assert messages(server)[-2:] == ["stopping", "stopped"]
    assert not (server.directory / "admin.sock").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_request_in_flight_is_finished_before_the_end(server: TokMeshProcess) -> None:
    body = json.dumps({"user_id": "in flight"}).encode()
    connection = begin_request(server, len(body))
    connection.sendall(body[:5])
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in messages(server), "the signal is seen")
    time.sleep(0.3)
    assert server.process is not None and server.process.poll() is None, "waits for the request"
    connection.sendall(body[5:])
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200
    assert answer.getheader("connection", "").lower() == "close"
    token = json.loads(answer.read())["data"]["token"]
    connection.close()
    assert server.wait() == 0
    server.start()
    assert server.validate(token)["valid"] is True, "what was acknowledged during the stop is there"


def test_a_stop_under_load_keeps_what_was_acknowledged(server: TokMeshProcess) -> None:
    """Every answer that said 200 holds after the restart; every other request got no answer or a 503."""
    tokens: list[str] = []
    statuses: set[int] = set()

    def write() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        headers = {"Authorization": f"Bearer {server.admin_key}"}
        try:
            for number in range(100_000):
                connection.request("POST", "/sessions", json.dumps({"user_id": f"{id(connection)}-{number}"}), headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
                statuses.add(answer.status)
                if answer.status == 200:
                    tokens.append(content["data"]["token"])
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    writers = [in_background(write) for _ in range(8)]
    wait_until(lambda: len(tokens) > 200, "writes are under way")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()
    assert statuses <= {200, 503}
    assert "requests were still in flight" not in server.stdout
    server.start()
    for start in range(0, len(tokens), 1000):
        results = server.data("POST", "/tokens/validate/batch", {"tokens": tokens[start : start + 1000]})["results"]
        assert all(result["valid"] for result in results)


def test_a_request_that_never_ends_does_not_hold_the_stop_beyond_its_timeout(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--server.shutdown.timeout=1s") as server:
        connection = begin_request(server, 100)
        connection.sendall(b"{")
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 0.8 < time.monotonic() - started < 15, "neither at once nor after the 30 s that are the default"
        connection.close()


def test_a_second_process_on_the_same_directory_ends_with_a_clear_error(server: TokMeshProcess) -> None:
    done = server.command_line("serve", "--server.http.address=127.0.0.1:0")
    assert done.returncode == 69
    assert "TM-SYS-5001" in done.stderr
    assert str(server.directory) in done.stderr
    assert "Traceback" not in done.stderr
    assert server.request("GET", "/ready", key=None)[0] == 200, "the first one goes on"
    assert server.command_line("key", "list").returncode == 0, "and keeps its socket"


def test_an_address_in_use_ends_the_start_with_a_clear_error(server: TokMeshProcess, tmp_path: Path) -> None:
    done = run_command("serve", f"--server.http.address=127.0.0.1:{server.port}", f"--storage.dir={tmp_path / 'other'}")
    assert done.returncode == 69
    line = done.stderr.splitlines()[-1]
    assert line.startswith("tokmesh: TM-SYS-5030")
    assert f"127.0.0.1:{server.port}" in line
    assert "Traceback" not in done.stderr


def test_bad_configuration_ends_the_start_with_every_error(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    done = run_command("serve", f"--storage.dir={shared}")
    assert done.returncode == 78
    assert "TM-CFG-1004 storage.dir" in done.stderr
    done = run_command("serve", "--server.http.address=here", "--storage.wal.sync_mode=never", "--sesion.ttl.max=1h")
    assert done.returncode == 78
    assert done.stderr.count("TM-CFG-") == 3


def test_files_belong_to_the_owner_alone(server: TokMeshProcess) -> None:
    server.create_session()
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    admin_socket = (server.directory / "admin.sock").stat()
    assert stat.S_ISSOCK(admin_socket.st_mode)
    assert stat.S_IMODE(admin_socket.st_mode) == 0o600
    for path in server.directory.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert re.fullmatch(r"tmnd-[0-9a-z]{26}\n", (server.directory / "node_id").read_text())


def test_no_core_dump_can_hold_a_secret(server: TokMeshProcess) -> None:
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_keys_are_managed_through_the_local_socket(server: TokMeshProcess) -> None:
    made = server.command_line("key", "create", "--role=validator", "--description=a shop", "--expires-in=90d")
    assert (made.returncode, made.stderr) == (0, "")
    key = made.stdout.strip()
    assert KEY.fullmatch(key)
    key_id, _, secret = key.partition(":")
    token = server.create_session()["token"]
    assert server.validate(token, key=key)["valid"] is True

    listed = server.command_line("key", "list")
    assert listed.returncode == 0
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(key_id)]
    assert re.search(r"validator +active +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +a shop$", line)
    assert secret not in listed.stdout
    as_json = json.loads(server.command_line("key", "list", "--json").stdout)
    assert [item["role"] for item in as_json] == ["admin", "validator"]

    disabled = server.command_line("key", "disable", key_id.upper())
    assert (disabled.returncode, disabled.stdout) == (0, f"{key_id} disabled\n")
    status, answer = server.request("POST", "/tokens/validate", json={"token": token}, key=key)
    assert (status, answer["code"]) == (401, "TM-AUTH-4012")
    assert server.command_line("key", "enable", key_id).returncode == 0
    assert server.validate(token, key=key)["valid"] is True


def test_refusals_of_the_local_socket_have_codes_and_exit_codes(server: TokMeshProcess) -> None:
    unknown = server.command_line("key", "disable", "tmak-00000000000000000000000000")
    assert unknown.returncode == 65
    assert unknown.stderr.startswith("tokmesh: TM-ADMIN-4041: ")
    malformed = server.command_line("key", "create", "--role=issuer", "--allow=not-a-network")
    assert malformed.returncode != 0
    assert malformed.stderr.startswith("tokmesh: TM-ARG-1001: ")
    assert malformed.stdout == ""
    server.stop()
    gone = server.command_line("key", "list")
    assert gone.returncode == 69
    assert "no server answers" in gone.stderr


def test_more_keys_than_a_page_are_listed(server: TokMeshProcess) -> None:
    for number in range(101):
        server.create_key("metrics", description=f"key {number}")
    listed = server.command_line("key", "list").stdout.splitlines()
    assert len(listed) == 1 + 1 + 101
    assert listed[-1].endswith("key 100")


def test_https(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    options = (
        "--server.https.enabled=true", "--server.https.address=127.0.0.1:0",
        f"--server.https.tls.cert_file={cert_file}", f"--server.https.tls.key_file={key_file}",
    )  # fmt: skip
    with TokMeshProcess(tmp_path, *options) as server:
        context = ssl.create_default_context(cafile=str(cert_file))
        connection = http.client.HTTPSConnection("127.0.0.1", server.https_port, timeout=20, context=context)
        connection.request("POST", "/sessions", json.dumps({"user_id": "alice"}), {"Authorization": f"Bearer {server.admin_key}"})
        answer = connection.getresponse()
        assert answer.status == 200
        token = json.loads(answer.read())["data"]["token"]
        assert server.validate(token)["valid"] is True
        connection.close()
        assert server.stop() == 0


def test_https_may_ask_for_client_certificates(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    options = (
        "--server.https.enabled=true", "--server.https.address=127.0.0.1:0",
        f"--server.https.tls.cert_file={cert_file}", f"--server.https.tls.key_file={key_file}",
        f"--server.https.tls.client_ca_file={cert_file}",
    )  # fmt: skip
    with TokMeshProcess(tmp_path, *options) as server:
        for with_certificate in (True, False):
            context = ssl.create_default_context(cafile=str(cert_file))
            if with_certificate:
                context.load_cert_chain(cert_file, key_file)
            connection = http.client.HTTPSConnection("127.0.0.1", server.https_port, timeout=20, context=context)
            if with_certificate:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
            else:
                with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                    connection.request("GET", "/health")
                    connection.getresponse()
            connection.close()


def test_listening_beyond_this_host_is_warned_about(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--server.http.address=0.0.0.0:0", "--telemetry.metrics.auth_enabled=false") as server:
        warnings = [line["message"] for line in server.log_lines() if line["level"] == "WARN"]
        assert any("Plain HTTP" in line for line in warnings)
        assert any("/metrics" in line for line in warnings)
        assert server.request("GET", "/metrics", key=None)[0] == 200


def test_metrics_ask_for_a_key_unless_told_otherwise(server: TokMeshProcess) -> None:
    assert server.request("GET", "/metrics", key=None)[0] == 401
    key = server.create_key("metrics")
    status, text = server.request("GET", "/metrics", key=key)
    assert status == 200
    assert "tokmesh_sessions_active_total 0" in text
    assert server.request("GET", "/sessions", key=key)[0] == 403


def test_the_environment_and_a_relative_file_configure_a_server(tmp_path: Path) -> None:
    (tmp_path / "tokmesh.yaml").write_text("storage: {dir: here}\nserver: {http: {address: '127.0.0.1:0'}}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tokmesh", "serve", "--config", str(tmp_path / "tokmesh.yaml")],
        env=clean_environment({"TOKMESH_TELEMETRY_LOGGING_LEVEL": "debug"}),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    try:
        listing = ("key", "list", f"--dir={tmp_path / 'here'}")
        wait_until(lambda: run_command(*listing).returncode == 0, "the server's directory is beside its file")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
        assert KEY.search(stderr)
    finally:
        process.kill()
        process.wait(30)


def test_logs_are_json_lines(server: TokMeshProcess) -> None:
    server.stop()
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.stdout.splitlines()]
    assert {"log replayed", "listening", "serving", "stopping", "stopped"} <= {line["message"] for line in lines}
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
        assert line["level"] in ("DEBUG", "INFO", "WARN", "ERROR")


def test_the_process_is_ready_within_a_second_or_so(tmp_path: Path) -> None:
    """Not a timed test: only far beyond the goal of one second is it a defect."""
    started = time.monotonic()
    with TokMeshProcess(tmp_path):
        assert time.monotonic() - started < 20


def test_a_start_can_be_interrupted(tmp_path: Path) -> None:
    server = TokMeshProcess(tmp_path).spawn()
    try:
        wait_until(server.directory.exists, "the start has begun")
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() in (0, -signal.SIGTERM)
    finally:
        server.kill()

"""A running server as its operator handles it: log level, configuration, audit trail, over HTTP, the local socket and signals."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until


def audited(server: TokMeshProcess, event: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = server.data("GET", f"/admin/v1/audit/logs?size=100&event={event}")["items"]
    return items


def level(server: TokMeshProcess) -> dict[str, Any]:
    state: dict[str, Any] = server.data("GET", "/admin/v1/log-level")
    return state


def test_the_level_returns_by_itself(server: TokMeshProcess) -> None:
    assert level(server) == {"level": "info", "configured": "info", "reverts_at": None}
    before_ms = time.time_ns() // 1_000_000
    changed = server.data("POST", "/admin/v1/log-level", {"level": "debug", "revert_after_seconds": 1})
    assert changed["level"] == "debug" and abs(changed["reverts_at"] - 1000 - before_ms) <= 10_000
    wait_until(lambda: level(server)["level"] == "info", "the level is back")
    assert level(server)["reverts_at"] is None
    wait_until(lambda: server.has_logged("log level returned to the configured one"), "it is told")


def test_a_reload_and_an_override_agree(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("telemetry: {logging: {level: info}}\n")
    with TokMeshProcess(tmp_path, f"--config={file}") as server:
        server.data("POST", "/admin/v1/log-level", {"level": "debug", "revert_after_seconds": 600})
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.has_logged("configuration reloaded"), "reloaded by signal")
        assert level(server)["level"] == "debug", "a reload that brings no other level leaves it"
        file.write_text("telemetry: {logging: {level: warn}}\n")
        assert server.data("POST", "/admin/v1/config/reload")["applied"] == ["telemetry.logging.level"]
        assert level(server) == {"level": "warn", "configured": "warn", "reverts_at": None}
        told = audited(server, "config.reloaded")
        assert [entry["actor"] for entry in told] == [server.admin_key.split(":")[0], "signal"]
        assert told[0]["details"]["applied"] == ["telemetry.logging.level"]


@pytest.mark.parametrize(
    "body",
    [
        {"level": "loud"}, {"level": ""}, {"level": "x" * 1000}, {"level": "info", "revert_after_seconds": 0},
        {"level": "info", "revert_after_seconds": -1}, {"level": "info", "revert_after_seconds": 86_401},
    ],
)  # fmt: skip
def test_an_unknown_level_or_time_changes_nothing(shared_server: TokMeshProcess, body: dict[str, Any]) -> None:
    status, answer = shared_server.request("POST", "/admin/v1/log-level", json=body)
    assert (status, answer["code"]) == (400, "TM-ARG-1001")
    assert level(shared_server) == {"level": "info", "configured": "info", "reverts_at": None}


@pytest.mark.parametrize("seconds", [1, 86_400])
def test_the_bounds_of_the_time_are_good_times(server: TokMeshProcess, seconds: int) -> None:
    assert server.data("POST", "/admin/v1/log-level", {"level": "error", "revert_after_seconds": seconds})["level"] == "error"


def test_the_level_over_the_local_socket(server: TokMeshProcess) -> None:
    assert server.command_line("log-level", "get").stdout == "info\n"
    done = server.command_line("log-level", "set", "debug", "--for=10m")
    assert done.returncode == 0 and done.stdout.startswith("debug until ") and done.stdout.endswith("Z, then info\n")
    assert json.loads(server.command_line("log-level", "get", "--json").stdout)["level"] == "debug"
    assert audited(server, "log_level.changed")[0]["actor"] == "local"
    refused = server.command_line("log-level", "set", "loud")
    assert refused.returncode == 64 and refused.stderr.startswith("tokmesh: TM-ARG-1001: ")
    assert server.command_line("log-level", "set", "info", "--for=soon").returncode == 64


def test_the_configuration_is_shown_tried_and_reloaded(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("session: {ttl: {default: 8h}}\n")
    with TokMeshProcess(tmp_path, f"--config={file}") as server:
        shown = server.data("GET", "/admin/v1/config")
        assert shown["config_file"] == str(file)
        assert shown["settings"]["session.ttl.default"] == {
            "value": "8h", "default": "2h", "source": f"file {file}", "reloadable": True,
        }  # fmt: skip
        assert shown["settings"]["storage.dir"] == {
            "value": str(server.directory), "default": "./tokmesh-data", "source": "command line", "reloadable": False,
        }  # fmt: skip
        by_command = server.command_line("config", "show", f"--config={file}").stdout
        assert {line.split(":")[0] for line in by_command.splitlines()} == set(shown["settings"]), "the same keys on both ways"

        status, answer = server.request("POST", "/admin/v1/config/validate", "session: {ttl: {default: soon}}\nx: 1\n")
        assert status == 200 and answer["data"]["valid"] is False
        assert [problem["key"] for problem in answer["data"]["problems"]] == ["x", "session.ttl.default"]
        file.write_text("session: {ttl: {default: soon}}\nx: 1\n")
        by_command = server.command_line("config", "check", f"--config={file}").stderr
        assert all(f"{each['code']} {each['key']} " in by_command for each in answer["data"]["problems"])
        status, answer = server.request("POST", "/admin/v1/config/validate", '"\\ud800": x')
        assert status == 200 and answer["data"]["problems"][0]["key"] == "\\ud800", "YAML can name what UTF-8 cannot say"

        refused = server.data("POST", "/admin/v1/config/reload")
        assert [problem["key"] for problem in refused["problems"]] == ["x", "session.ttl.default"]
        assert server.create_session()["expires_at"] > (time.time() + 7 * 3600) * 1000, "the 8 hours still hold"
        file.write_text("session: {ttl: {default: 10s}}\nserver: {http: {max_headers: 9}}\n")
        _, answer = server.request("POST", "/admin/v1/config/validate", file.read_text())
        would = {"applied": ["session.ttl.default"], "needs_restart": ["server.http.max_headers"], "problems": []}
        assert answer["data"] == {"valid": True, **would}
        assert server.data("GET", "/admin/v1/config")["settings"]["session.ttl.default"]["value"] == "8h", "tried only"
        assert server.data("POST", "/admin/v1/config/reload") == would
        assert server.create_session()["expires_at"] < (time.time() + 60) * 1000
        shown = server.data("GET", "/admin/v1/config")
        assert shown["needs_restart"] == ["server.http.max_headers"]
        assert shown["settings"]["server.http.max_headers"]["value"] == "64"


def test_a_certificate_is_tried_too(server: TokMeshProcess, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("not a certificate\n")
    https = {"enabled": True, "tls": {"cert_file": str(tmp_path / "bad.pem"), "key_file": str(tmp_path / "bad.pem")}}
    _, answer = server.request("POST", "/admin/v1/config/validate", json.dumps({"server": {"https": https}}))
    assert [problem["code"] for problem in answer["data"]["problems"]] == ["TM-CFG-1007"]


def test_what_is_done_stands_in_the_audit_trail_and_the_log_and_survives_a_kill(server: TokMeshProcess) -> None:
    admin_id = server.admin_key.split(":")[0]
    key_id = server.create_key("issuer").split(":")[0]
    server.create_session("alice")
    server.data("POST", "/users/alice/sessions/revoke", {})
    server.data("POST", f"/admin/v1/keys/{key_id}/status", {"status": "disabled"})
    server.request("POST", f"/admin/v1/keys/{key_id[:-4]}0000/status", json={"status": "disabled"})
    server.data("POST", "/admin/v1/log-level", {"level": "error"})
    server.command_line("key", "enable", key_id)
    items = server.data("GET", "/admin/v1/audit/logs?size=100")["items"]
    told = [(each["event"], each["actor"], each["target"], each["outcome"]) for each in reversed(items)]
    assert told == [
        ("key.created", "server", admin_id, "ok"),
        ("key.created", admin_id, key_id, "ok"),
        ("user.sessions_revoked", admin_id, "alice", "ok"),
        ("key.status_changed", admin_id, key_id, "ok"),
        ("key.status_changed", admin_id, f"{key_id[:-4]}0000", "TM-ADMIN-4041"),
        ("log_level.changed", admin_id, "", "ok"),
        ("key.status_changed", "local", key_id, "ok"),
    ]

    def audit_lines() -> list[dict[str, Any]]:
        return [line for line in server.log_lines() if line.get("audit") is True]

    wait_until(lambda: len(audit_lines()) == len(told), "the log has them too")
    lines = audit_lines()
    assert [line["event"] for line in lines] == [event for event, *_ in told], "also those below the level"
    assert all(line["request_id"].startswith("req-") for line in lines if line["actor"] != "server")
    assert lines[2]["details"] == {"revoked_count": 1}
    server.kill()
    server.start()
    assert server.data("GET", "/admin/v1/audit/logs?size=100")["items"] == items


def test_a_repeated_line_becomes_a_count_in_the_log_and_the_metrics(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--telemetry.logging.repeat.max=2", "--telemetry.logging.repeat.interval=1h") as server:
        for _ in range(6):
            server.data("POST", "/admin/v1/config/reload")
        metrics = str(server.request("GET", "/metrics")[1]).splitlines()
        assert "tokmesh_log_lines_suppressed_total 4" in metrics
        assert len(audited(server, "config.reloaded")) == 6
        assert server.stop() == 0
        lines = [line for line in server.log_lines() if line["message"] == "configuration reloaded"]
        assert [line.get("repeated") for line in lines] == [None, None, 4], "told at the end at the latest"
        assert len([line for line in server.log_lines() if line.get("audit") and line["event"] == "config.reloaded"]) == 6

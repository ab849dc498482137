"""Slow requests are told with where their time went, and the lines of a request carry its id, however deep they are logged."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.client import exchange
from tests.support.server import TokMeshProcess
from tests.support.wire import HEALTH, WAIT, Wire, add_session, canonical, spin, validate
from tokmesh._core.server import NEVER_NS
from tokmesh.telemetry.logs import configure_logging, reset_logging

# Loaded by the server's interpreter first: code deep inside that logs, and that is slow where a test wants it.
DEEP = """
import logging, time
from tokmesh.log.file_log import FileLog
from tokmesh.sessions import service
propose, check = FileLog.propose, service.are_plain

def proposing(self, record):
    logging.getLogger("tokmesh.log").info("proposed", extra={"kind": type(record).__name__})
    return propose(self, record)

def checking(user_id, device_id, user_agent):
    logging.getLogger("tokmesh.sessions").info("checked")
    if user_id == "slow":
        time.sleep(0.2)
    return check(user_id, device_id, user_agent)

FileLog.propose, service.are_plain = proposing, checking
"""


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokMeshProcess]:
    folder = tmp_path_factory.mktemp("deep")
    (folder / "modules").mkdir()
    (folder / "modules" / "sitecustomize.py").write_text(DEEP)
    path = os.pathsep.join((str(folder / "modules"), str(Path(__file__).parents[2])))
    options = ("--telemetry.logging.slow_request=150ms", "--telemetry.logging.repeat.max=0")
    with TokMeshProcess(folder, *options, env={"PYTHONPATH": path}) as server:
        yield server


def lines_of(server: TokMeshProcess, request_id: str, message: str) -> list[dict[str, Any]]:
    """The lines of one request with one message; waits for the first."""
    deadline = time.monotonic() + 10
    while True:
        lines = [line for line in server.log_lines() if line.get("request_id") == request_id and line["message"] == message]
        if lines:
            return lines
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)


def create(server: TokMeshProcess, user_id: str) -> str:
    """Makes a session; the id of that request."""
    answer = exchange(server.port, "POST", "/sessions", {"user_id": user_id}, key=server.admin_key)
    assert answer.status == 200
    return answer.request_id


def test_lines_logged_deep_inside_carry_the_request_id(deep: TokMeshProcess) -> None:
    first, second = create(deep, "one"), create(deep, "two")
    for request_id in (first, second):
        assert len(lines_of(deep, request_id, "checked")) == 1
        assert len(lines_of(deep, request_id, "proposed")) == 1


def test_what_no_request_logs_carries_no_request_id(deep: TokMeshProcess) -> None:
    token = deep.create_session("touched")["token"]
    deep.data("POST", "/tokens/validate", {"token": token, "touch": True})
    deadline = time.monotonic() + 20
    while not (touches := [line for line in deep.log_lines() if line.get("kind") == "SessionsTouched"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all("request_id" not in line for line in touches), "written for nobody in particular"


def test_a_slow_request_is_told_with_its_phases(deep: TokMeshProcess) -> None:
    [line] = lines_of(deep, create(deep, "slow"), "slow request")
    assert (line["level"], line["method"], line["route"], line["status"]) == ("WARN", "POST", "/sessions", 200)
    assert line["key_id"] == deep.admin_key.split(":")[0]
    phases = [line[f"{name}_ms"] for name in ("parse", "auth", "lookup", "log_wait", "write")]
    assert line["duration_ms"] >= line["lookup_ms"] >= 200 and line["log_wait_ms"] > 0
    # The client sends head and body apart: where they come apart, head's parse and check are before the time of the request.
    assert all(phase >= 0 for phase in phases)
    assert line["duration_ms"] in (pytest.approx(sum(phases), abs=0.01), pytest.approx(sum(phases[2:]), abs=0.01))


def test_ordinary_requests_are_not_logged(deep: TokMeshProcess) -> None:
    request_id = create(deep, "quick")
    lines_of(deep, request_id, "proposed")
    lines_of(deep, create(deep, "slow"), "slow request")
    messages = [line["message"] for line in deep.log_lines() if line.get("request_id") == request_id]
    assert messages == ["checked", "proposed"]


def test_the_limit_is_changed_by_a_reload_and_none_means_none(tmp_path: Path) -> None:
    file = tmp_path / "tokmesh.yaml"
    file.write_text("telemetry: {logging: {slow_request: 0}}\n")
    with TokMeshProcess(tmp_path, f"--config={file}") as server:
        server.create_session("unseen")
        file.write_text("telemetry: {logging: {slow_request: 1ms}}\n")
        assert server.data("POST", "/admin/v1/config/reload")["applied"] == ["telemetry.logging.slow_request"]
        answer = exchange(server.port, "POST", "/admin/v1/keys", {"role": "issuer"}, key=server.admin_key)
        assert lines_of(server, answer.request_id, "slow request")[0]["route"] == "/admin/v1/keys"
        assert not [line for line in server.log_lines() if line.get("route") == "/sessions"]


def test_denied_administration_is_audited_and_other_refusals_are_not(server: TokMeshProcess) -> None:
    issuer = server.create_key("issuer")
    assert server.request("GET", "/admin/v1/keys", key=None)[0] == 401
    assert server.request("POST", "/admin/v1/keys", json={"role": "admin"}, key=issuer)[0] == 403
    assert server.request("GET", "/admin/v1/config", key=issuer + "x")[0] == 401
    assert server.request("GET", "/sessions", key=None)[0] == 401
    assert server.request("GET", "/metrics", key=issuer)[0] == 403
    told = server.data("GET", "/admin/v1/audit/logs?event=admin.denied")["items"]
    assert [(each["actor"], each["target"], each["outcome"], each["address"]) for each in reversed(told)] == [
        ("anonymous", "/admin/v1/keys", "TM-AUTH-4010", "127.0.0.1"),
        (issuer.split(":")[0], "/admin/v1/keys", "TM-AUTH-4030", "127.0.0.1"),
        ("anonymous", "/admin/v1/config", "TM-AUTH-4011", "127.0.0.1"),
    ]
    assert all(each["request_id"].startswith("req-") for each in told)


def slow_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.getMessage() == "slow request"]


@pytest.mark.parametrize("limit_ns", [0, NEVER_NS])
def test_the_hot_path_compares_and_tells(
    loop: asyncio.AbstractEventLoop, wire: Wire, caplog: pytest.LogCaptureFixture, limit_ns: int
) -> None:
    wire.server.slow_ns = limit_ns
    token = add_session(wire, 1)
    connection, _ = wire.connect()
    for _ in range(3):
        connection.data_received(validate(canonical(token), b"X-Request-ID: mine\r\n"))
    told = slow_lines(caplog)
    assert len(told) == (3 if limit_ns == 0 else 0)
    for line in told:
        assert (line["request_id"], line["route"], line["status"], line["key_id"]) == ("mine", "/tokens/validate", 200, "tmak-test")
        assert line["lookup_ms"] == line["duration_ms"] and line["queue_ms"] == line["log_wait_ms"] == 0


def test_what_waits_behind_another_request_was_queued(
    loop: asyncio.AbstractEventLoop, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.server.slow_ns = 0
    connection, _ = wire.connect()
    connection.data_received(WAIT)
    connection.data_received(HEALTH)
    time.sleep(0.05)
    wire.waiting[0].set_result("done")
    spin(loop)
    waited, queued = slow_lines(caplog)
    assert (waited["route"], queued["route"]) == ("/wait", "/health")
    assert waited["log_wait_ms"] >= 50 and waited["queue_ms"] == 0 and waited["lookup_ms"] < 50
    assert queued["queue_ms"] >= 50 and queued["duration_ms"] < 50


def test_a_request_is_in_scope_only_while_its_handler_runs(loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
    connection, _ = wire.connect()
    assert wire.server.handling is None
    connection.data_received(WAIT)
    assert wire.server.handling is None, "it waits"
    wire.waiting[0].set_result("done")
    spin(loop)
    assert wire.server.handling is None


def test_a_line_of_another_thread_belongs_to_no_request(tmp_path: Path) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    fd = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    made = configure_logging("info", time.monotonic_ns, fd=fd)
    made.scope.follow(lambda: {"request_id": "req-loop"})
    logging.info("here")
    logging.info("named", extra={"request_id": "req-own"})
    asyncio.run(asyncio.to_thread(logging.info, "there"))
    reset_logging()
    os.close(fd)
    root.handlers[:] = handlers
    root.setLevel(level)
    told = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(line["message"], line.get("request_id")) for line in told] == [
        ("here", "req-loop"), ("named", "req-own"), ("there", None),
    ]  # fmt: skip

"""`tokmesh doctor`: says what the server says, and has something to say when no server answers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host_clock import kernel_answers
from tests.support.server import ROOT, TokMeshProcess, clean_environment, run_command
from tokmesh.cli import doctor, main
from tokmesh.telemetry.conditions import RULES

EXPOSED = ("--server.http.address=0.0.0.0:0", "--telemetry.metrics.auth_enabled=false", "--storage.wal.sync_mode=interval")
POSTURE = {"TokMeshMetricsExposed", "TokMeshPlainHttpExposed", "TokMeshSyncOff"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokMeshProcess]:
    with TokMeshProcess(tmp_path_factory.mktemp("doctor")) as running:
        yield running


@pytest.fixture(autouse=True)
def clock_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the host of the tests has; the tests of the clock say otherwise."""
    monkeypatch.setattr(doctor, "clock_synchronised", lambda: True)


def conditions_of(server: TokMeshProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.data("GET", "/admin/v1/status/summary")["conditions"]
    return found


def codes(findings: list[dict[str, Any]]) -> set[str]:
    return {finding["code"] for finding in findings}


def test_what_the_server_says_is_what_the_doctor_says(server: TokMeshProcess, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", f"--dir={server.directory}", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["server"] is True
    assert codes(told["findings"]) == codes(conditions_of(server))
    assert code == (1 if told["findings"] else 0)


@pytest.mark.parametrize(("answer", "expected"), [("retval=0", False), ("retval=5", True)])
def test_doctor_top_and_summary_have_one_verdict_on_the_clock(
    answer: str, expected: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "clock_synchronised", lambda: not expected)  # not asked while a server answers
    with TokMeshProcess(tmp_path, wrapper=kernel_answers(answer)) as server:
        found = [one["code"] for one in conditions_of(server)]
        main(["doctor", f"--dir={server.directory}", "--json"])
        told = json.loads(capsys.readouterr().out)["findings"]
        screen = " ".join(server.command_line("top", "--once").stdout.split())
    clock = "TokMeshClockUnsynchronised"
    assert [one["code"] for one in told].count(clock) == found.count(clock) == int(expected)
    assert ("clock is not synchronised" in screen) is expected


def test_nothing_wrong_is_said_and_is_exit_code_0(
    server: TokMeshProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = server.data("GET", "/admin/v1/status/summary")
    well = {**summary, "conditions": []}  # the host of the tests may have a full disk
    monkeypatch.setattr(doctor, "call", lambda *_: well)
    assert main(["doctor", f"--dir={server.directory}"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("TokMesh 0.") and summary["node"]["id"] in first
    assert rest == ["Nothing is wrong."]


def test_a_check_that_keeps_the_server_from_being_ready_is_a_finding(
    server: TokMeshProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = server.data("GET", "/admin/v1/status/summary")
    checks = [{"name": "log", "ok": False, "reason": "a sync failed"}, {"name": "recovery", "ok": True, "reason": ""}]
    monkeypatch.setattr(doctor, "call", lambda *_: {**summary, "conditions": [], "readiness": {"ready": False, "checks": checks}})
    assert main(["doctor", f"--dir={server.directory}"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["", "CRITICAL  not ready: log", "  a sync failed"]


def test_a_server_open_to_the_world_is_told_in_words(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, *EXPOSED) as server:
        done = server.command_line("doctor")
    assert done.returncode == 1
    for code in POSTURE:
        assert f"WARNING  {code}\n  " in done.stdout
        assert f"  What to do: tokmesh doctor --explain {code}\n" in done.stdout
    assert "tokens and API keys travel unencrypted" in done.stdout
    assert server.admin_key not in done.stdout + done.stderr


def test_without_a_server_its_configuration_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--dir={tmp_path}"]) == 69
    assert capsys.readouterr().out.splitlines() == [
        "No server answers: what follows is about its configuration and its host.",
        "Nothing is wrong with those.",
    ]
    assert main(["doctor", f"--dir={tmp_path}", "--json", *EXPOSED]) == 69
    told = json.loads(capsys.readouterr().out)
    assert told["server"] is False and codes(told["findings"]) == POSTURE


def test_a_configuration_that_no_server_would_take_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--dir={tmp_path}", "--server.workers=x"]) == 78
    assert "TM-CFG-1001 server.workers" in capsys.readouterr().err


@pytest.mark.parametrize(("clock", "expected"), [(True, set()), (None, set()), (False, {"TokMeshClockUnsynchronised"})])
def test_only_a_clock_known_to_be_wrong_is_told(
    clock: bool | None, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "clock_synchronised", lambda: clock)
    assert main(["doctor", f"--dir={tmp_path}", "--json"]) == 69
    assert codes(json.loads(capsys.readouterr().out)["findings"]) == expected


@pytest.mark.parametrize(
    ("answer", "expected"), [("retval=0", "True"), ("retval=4", "True"), ("retval=5", "False"), ("error=EPERM", "None")]
)
def test_the_kernel_is_asked_about_its_clock(answer: str, expected: str) -> None:
    code = "from tokmesh.host.clock_discipline import clock_synchronised; print(clock_synchronised())"
    done = subprocess.run(
        [*kernel_answers(answer), sys.executable, "-c", code],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_every_condition_can_be_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--explain", code]) == 0
    assert capsys.readouterr().out.startswith(f"# {code}\n")


@pytest.mark.parametrize("name", ["TokMeshNoSuchThing", "../../../etc/passwd", "README"])
def test_what_has_no_runbook_is_refused(name: str) -> None:
    done = run_command("doctor", "--explain", name)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("tokmesh: TM-ARG-1001: ") and done.stderr.count("\n") == 1

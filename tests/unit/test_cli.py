"""The command line without a server: exit codes, one-line errors, help, and a fast start."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import run_command
from tokmesh import __version__
from tokmesh.cli import build_parser, main, split_settings
from tokmesh.cli.table import shown_time


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ([], 64, "TM-ARG-1001"),
        (["frobnicate"], 64, "invalid choice"),
        (["serve", "extra"], 64, "unrecognized arguments: extra"),
        (["serve", "--nonsense"], 64, "unrecognized arguments: --nonsense"),
        (["serve", "--storage.dir"], 64, "--storage.dir needs a value"),
        (["serve", "--KEY", "x"], 64, "--KEY stands for any setting"),
        (["key", "create"], 64, "--role"),
        (["key", "create", "--role=king"], 64, "invalid choice"),
        (["key", "disable"], 64, "KEY_ID"),
        (["config"], 64, "ACTION"),
        (["key", "disable", "../../x", "--dir=/nonexistent"], 64, "TM-ARG-1001"),
        (["key", "create", "--role=admin", "--expires-in=soon"], 64, "--expires-in"),
        (["key", "list", "--dir=/nonexistent"], 69, "TM-SYS-5030"),
        (["cluster"], 64, "ACTION"),
        (["cluster", "remove"], 64, "NODE_ID"),
        (["cluster", "remove", "../../x", "--dir=/nonexistent"], 64, "TM-ARG-1001"),
        (["cluster", "remove", "tmnd-" + "a" * 60, "--dir=/nonexistent"], 64, "TM-ARG-1001"),
        (["cluster", "status", "--dir=/nonexistent"], 69, "TM-SYS-5030"),
        (["cluster", "rebalance", "--dir=/nonexistent"], 69, "TM-SYS-5030"),
        (["cluster", "rebalance", "tmnd-1"], 64, "tmnd-1"),
        (["wal"], 64, "ACTION"),
        (["wal", "repair"], 64, "invalid choice"),
        (["wal", "salvage", "--dir=/nonexistent"], 64, "--to"),
        (["wal", "dump", "--from=x"], 64, "--from"),
        (["wal", "verify", "--dir=/nonexistent"], 78, "TM-CFG-1003: /nonexistent does not exist"),
        (["storage"], 64, "ACTION"),
        (["storage", "rekey", "--dir=/nonexistent"], 78, "TM-CFG-1003 storage.dir (/nonexistent): there is no log"),
        (["storage", "rekey", "--storage.encryption.enabled=true"], 78, "TM-CFG-1006 storage.encryption.key_file"),
        (["serve", "--server.workers=2"], 78, "TM-CFG-1006 server.workers"),
        (["config", "check", "--config=/nonexistent.yaml"], 78, "TM-CFG-1003 --config"),
    ],
)
def test_refusals(line: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        result = main(line)
    except SystemExit as exit_:
        assert isinstance(exit_.code, int)
        result = exit_.code
    captured = capsys.readouterr()
    assert result == code
    assert expected in captured.err
    assert captured.out == ""
    if code != 78:
        assert captured.err.count("\n") == 1, "one clear line"


def test_a_bad_configuration_lists_every_error_and_exits_78(tmp_path: Path) -> None:
    (tmp_path / "tokmesh.yaml").write_text("session: {ttl: {default: soon}}\nservr: {}\n")
    done = run_command("serve", "--config=tokmesh.yaml", "--server.http.max_headers", "0", env={"TOKMESH_TYPO": "1"}, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "tokmesh: configuration refused, 4 errors:"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["TM-CFG-1001", "servr"],
        ["TM-CFG-1001", "TOKMESH_TYPO"],
        ["TM-CFG-1001", "session.ttl.default"],
        ["TM-CFG-1002", "server.http.max_headers"],
    ]
    assert not (tmp_path / "tokmesh-data").exists(), "nothing is touched before the configuration is good"


def test_config_check_and_show(tmp_path: Path) -> None:
    (tmp_path / "tokmesh.yaml").write_text("session: {ttl: {default: 8h}}\n")
    checked = run_command("config", "check", "--config=tokmesh.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "configuration is good\n", "")
    shown = run_command("config", "show", "--config", "tokmesh.yaml", "--server.http.max_headers=9", cwd=tmp_path)
    assert shown.returncode == 0
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert f"session.ttl.default: 8h # file {tmp_path}/tokmesh.yaml" in lines
    assert "server.http.max_headers: 9 # command line" in lines
    assert "session.ttl.max: 30d # default" in lines


def test_config_check_reads_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("not a certificate\n")
    done = run_command(
        "config", "check", "--server.https.enabled=true", f"--server.https.tls.cert_file={tmp_path}/bad.pem",
        f"--server.https.tls.key_file={tmp_path}/bad.pem",
    )  # fmt: skip
    assert done.returncode == 78
    assert "TM-CFG-1007 server.https.tls.cert_file" in done.stderr


def test_version() -> None:
    done = run_command("version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"tokmesh {__version__} (")


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["serve"],
        ["key"],
        ["key", "create"],
        ["config"],
        ["config", "show"],
        ["log-level", "set"],
        ["doctor"],
        ["top"],
        ["wal"],
        ["wal", "salvage"],
        ["storage"],
        ["storage", "rekey"],
        ["version"],
    ],
)
def test_every_command_explains_itself(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*line, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: tokmesh")
    if line in (["serve"], ["key"], ["config"], ["doctor"], ["top"], ["wal"], ["wal", "salvage"], ["storage", "rekey"]):
        assert "examples:" in text


def test_a_time_beyond_any_calendar_ends_no_command() -> None:
    assert shown_time(1_734_567_890_999) == "2024-12-19T00:24:50Z"
    assert shown_time(2**70) == f"{2**70} ms"


def test_settings_are_taken_in_both_spellings() -> None:
    parser = build_parser()
    line = ["key", "disable", "--storage.dir", "/x", "tmak-1", "--server.http.address=[::1]:1", "--session.ttl.max=a=b"]
    rest, settings = split_settings(parser, line)
    assert rest == ["key", "disable", "tmak-1"]
    assert settings == [
        ("storage.dir", "/x"),
        ("server.http.address", "[::1]:1"),
        ("session.ttl.max", "a=b"),
    ]


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, tokmesh.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    heavy = {"uvloop", "asyncio", "yaml", "ssl", "orjson", "argon2", "prometheus_client", "httptools", "http.client"}
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith("tokmesh._core.")]

"""The nightly script of docs/backup.md, run to the letter but for its paths."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.http.test_readme import command_is_here
from tests.support.server import ROOT, TokMeshProcess

PAGE = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")


@pytest.fixture
def script(server: TokMeshProcess, tmp_path: Path) -> str:
    found = re.search(r"run by tests/http/test_backup_page\.py\. -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (tmp_path / "backup").mkdir()
    text = found[1].replace("/var/lib/tokmesh", str(server.directory)).replace("/backup/tokmesh", str(tmp_path / "backup"))
    return command_is_here(text, server)


def run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_night_leaves_a_backup_that_is_whole_and_private(script: str, server: TokMeshProcess, tmp_path: Path) -> None:
    server.create_session()
    old = tmp_path / "backup" / "20200101T000000Z-snapshot-00000000000000000001.tms"
    old.touch()
    subprocess.run(["touch", "-d", "31 days ago", old], check=True)
    done = run(script)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "backup").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-snapshot-\d{20}\.tms", made.name) and stat.S_IMODE(made.stat().st_mode) == 0o600
    assert f"whole: {made}: 1 sessions, 1 API keys" in done.stdout


def test_a_night_without_a_server_fails(script: str, server: TokMeshProcess, tmp_path: Path) -> None:
    server.stop()
    done = run(script)
    assert done.returncode == 69 and "TM-SYS-5030" in done.stderr
    assert list((tmp_path / "backup").iterdir()) == []

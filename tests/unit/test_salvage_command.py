"""`tokmesh wal salvage` as its user sees it: what it tells, what it refuses, and a server that starts on what it wrote."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.damaged_log import Original
from tests.support.server import TokMeshProcess, clean_environment
from tokmesh.cli import main
from tokmesh.storage.inspection import Inspection


def test_the_command_tells_what_is_missing_and_a_server_starts_on_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TokMeshProcess(tmp_path) as server:
        made = [server.create_session(f"user-{number}") for number in range(5)]
        assert server.stop() == 0
        with Inspection(server.directory) as inspection:
            frames = list(inspection.frames())
        victim = frames[3]
        with victim.path.open("r+b") as file:
            file.seek(victim.offset + 100)
            file.write(b"damage")
        assert server.spawn().wait() == 69 and "log damaged" in server.stderr
        target = tmp_path / "salvaged"
        options = [f"--dir={server.directory}", f"--to={target}", "--storage.wal.segment_size=1MB"]
        assert main(["wal", "salvage", *options]) == 65
        text = capsys.readouterr().out
        lost = victim.frame.first_sequence
        assert "1 records are missing" in text and f"\n  {lost}\n" in text
        assert f"\n  {victim.path.name} at offset {victim.offset}, " in text and "may have been a revocation" in text
        assert main(["wal", "salvage", *options]) == 64
        assert f"{target} is not empty" in capsys.readouterr().err
        shutil.rmtree(target)
        assert main(["wal", "salvage", *options, "--json"]) == 65
        told = json.loads(capsys.readouterr().out)
        assert (told["missing_count"], told["missing"]) == (1, [{"first": lost, "last": lost}])
        assert main(["wal", "verify", f"--dir={target}"]) == 0
        key = server.admin_key
        server.directory = target
        server.start()
        valid = [server.validate(each["token"], key=key)["valid"] for each in made]
        assert valid.count(True) == 4 and valid.count(False) == 1
        assert server.stop() == 0


def test_a_place_without_room_is_refused_and_left_clean(tmp_path: Path) -> None:
    original = Original(tmp_path)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from tokmesh.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    line = ["wal", "salvage", f"--dir={original.directory}", f"--to={tmp_path}/new", "--storage.wal.segment_size=1MB"]
    done = subprocess.run(
        [sys.executable, "-c", script, *line], capture_output=True, text=True, env=clean_environment(), timeout=60, check=False
    )
    assert done.returncode == 69 and done.stdout == ""
    assert f"TM-SYS-5001: {tmp_path}/new cannot be written (File too large); give a place with room" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["file", "full", "link", "inside"])
def test_a_target_that_is_neither_new_nor_empty_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = Original(tmp_path)
    target = original.directory / "new" if kind == "inside" else tmp_path / "new"
    if kind == "file":
        target.touch()
    elif kind == "full":
        (target / "something").mkdir(parents=True)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(["wal", "salvage", f"--dir={original.directory}", f"--to={target}"]) == 64
    err = capsys.readouterr().err
    assert f"TM-ARG-1001: {target} is " in err and "new" in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert main(["wal", "salvage", f"--dir={original.directory}", f"--to={tmp_path}/empty", "--storage.wal.segment_size=1MB"]) == 0

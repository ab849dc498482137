"""The README's lines, run to the letter against a real server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT, TokMeshProcess, clean_environment

README = ROOT / "README.md"


def shell_lines(after: str) -> list[str]:
    """The lines of the first shell block behind a text of the README."""
    text = README.read_text()
    block = re.search(r"```sh\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert block
    return block[1].splitlines()


def run(script: str, server: TokMeshProcess) -> str:
    """Runs lines in one shell that has the key; the server's port takes the place of the default one."""
    script = script.replace("http://127.0.0.1:5080", server.url)
    done = subprocess.run(
        ["sh", "-eu", "-c", script], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TOKMESH_KEY": server.admin_key},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_three_lines_create_validate_and_revoke(server: TokMeshProcess) -> None:
    lines = shell_lines("run by tests/http/test_readme.py")
    assert len(lines) == 3
    create, validate, revoke = lines
    output = run(f"{create}\necho\n{validate}\necho\n{revoke}\necho\n{validate}\n", server)
    created, good, revoked, bad = (json.loads(line) for line in output.split("\n") if line)
    assert created["code"] == good["code"] == revoked["code"] == bad["code"] == "OK"
    assert good["data"]["valid"] is True
    assert good["data"]["session"]["user_id"] == "alice"
    assert revoked["data"] == {"revoked_count": 1}
    assert bad["data"]["valid"] is False
    assert bad["data"]["error"]["code"] == "TM-TOKN-4012"


def test_the_load_example_gets_good_answers(server: TokMeshProcess, tmp_path: Path) -> None:
    script = "\n".join(shell_lines("## Load it"))
    assert "-d10s" in script
    script = script.replace("-d10s", "-d1s").replace("-c64", "-c8").replace("/tmp/validate.lua", str(tmp_path / "x.lua"))
    output = run(script, server)
    assert "Non-2xx" not in output
    assert re.search(r"Requests/sec: +[1-9]", output)
    assert server.data("GET", "/sessions?user_id=bob")["total_items"] == 1


def test_the_backup_is_taken_fetched_verified_and_restored(server: TokMeshProcess, tmp_path: Path) -> None:
    (session,) = [server.create_session("eve")]
    target = tmp_path / "tokmesh.tms"
    script = "\n".join(shell_lines("## Back it up")[:-1]).replace("/backup/tokmesh.tms", str(target))
    output = run(command_is_here(script, server), server)
    assert f"whole: {target}: " in output and "snapshot-" in output
    server.data("POST", f"/sessions/{session['session_id']}/revoke", {})
    assert not server.validate(session["token"])["valid"]
    restore = shell_lines("## Back it up")[-1].replace("/backup/tokmesh.tms", str(target))
    assert run(command_is_here(restore, server), server).startswith("restored: ")
    assert server.validate(session["token"])["valid"]


@pytest.mark.parametrize(
    ("option", "variable", "address"),
    [
        ((), {}, "127.0.0.1:5080"),
        (("--server.http.address=127.0.0.1:6080",), {}, "127.0.0.1:6080"),
        (("--server.http.address", "0.0.0.0:6081"), {}, "127.0.0.1:6081"),
        ((), {"TOKMESH_SERVER_HTTP_ADDRESS": "[::1]:6082"}, "[::1]:6082"),
    ],
)
def test_make_run_prints_the_lines_for_the_address_it_will_listen_on(
    option: tuple[str, ...], variable: dict[str, str], address: str
) -> None:
    command = [str(ROOT / ".ci/first_steps"), str(Path(sys.executable).parent / "tokmesh"), *option]
    done = subprocess.run(command, env=clean_environment(variable), capture_output=True, text=True, timeout=60, check=True)
    _, key, *lines = done.stdout.splitlines()
    assert key.startswith("export TOKMESH_KEY=")
    assert lines == [line.replace("127.0.0.1:5080", address) for line in shell_lines("run by tests/http/test_readme.py")]
    assert done.stdout.count(f"http://{address}/") == 3


def test_make_run_prints_no_lines_for_a_server_that_will_not_start() -> None:
    command = [str(ROOT / ".ci/first_steps"), str(Path(sys.executable).parent / "tokmesh"), "--server.http.address=x"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (78, "") and "server.http.address" in done.stderr


def command_is_here(script: str, server: TokMeshProcess) -> str:
    """With a `tokmesh` that is the package under test, and knows the server."""
    command = f"{sys.executable} -m tokmesh"
    return f'cd {ROOT}; tokmesh() {{ {command} "$@" --storage.dir={server.directory}; }}\n{script}'


def test_every_command_it_names_exists() -> None:
    lines = shell_lines("Give each its own")
    commands = [line.partition("#")[0].split(maxsplit=2) for line in lines]
    assert {tuple(words[:2]) for words in commands} == {("tokmesh", "key")}
    assert {words[2].split()[0] for words in commands} == {"create", "list", "disable"}

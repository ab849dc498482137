"""docs/api.md is right: every route has its section, every example works as it stands, every code is the table's."""

import re
import subprocess
from pathlib import Path

from tests.http.route_cases import CASES
from tests.support.server import TokMeshProcess
from tokmesh.errors import ERRORS

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "api.md").read_text()
# Codes with a status that no answer carries: a command tells them, or they end a start.
NOT_ANSWERED = {"TM-ADMIN-4031", "TM-CLST-4090", "TM-CLST-5050"}
EXAMPLE_TIMEOUT_S = 10


def test_every_route_has_a_section() -> None:
    sections = re.findall(r"^### `(\w+ /\S*)`$", REFERENCE, re.MULTILINE)
    assert sorted(sections) == sorted(case.name for case in CASES)


def test_every_example_works(tmp_path: Path) -> None:
    examples = re.findall(r"^```sh\n(curl .*?)\n```$", REFERENCE, re.MULTILINE | re.DOTALL)
    assert len(examples) == len(CASES)
    with TokMeshProcess(tmp_path) as server:
        for example in examples:
            server.wait_ready()  # the one before may have begun a restore
            session = server.create_session("alice")
            key_id = server.create_key("validator").split(":")[0]
            command = named(server, example).replace("tmtk_…", session["token"]).replace("tmak-…", key_id)
            command = re.sub(r"tmss-(…|[0-9a-z]{26})", session["session_id"], command)
            (tmp_path / "tokmesh.yaml").write_text("session: {ttl: {default: 8h}}\n")
            script = f"URL={server.url}; KEY={server.admin_key}; {command} --write-out ' %{{http_code}}'"
            answer = subprocess.run(
                ["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=EXAMPLE_TIMEOUT_S, check=True
            )
            # A node alone has no cluster; in one they are run by tests/cluster/test_administration.py.
            assert answer.stdout.endswith(" 404" if "/cluster/" in example else " 200"), (example, answer.stdout)


def named(server: TokMeshProcess, example: str) -> str:
    """With the ids of the newest snapshot and restore, where it leaves them open."""
    for route, kind, field in (("snapshots", "snapshot", "id"), ("restores", "restore", "job_id")):
        if f"{kind}-…" in example:
            newest = server.data("GET", f"/admin/v1/backups/{route}")["items"][0]
            example = example.replace(f"{kind}-…", newest[field])
    return example


def test_codes_have_the_status_and_message_of_the_table() -> None:
    rows = re.findall(r"^\| `(TM-[A-Z]+-\d+)` \| (\d+)(?: or (\d+))? \| ([^|]+) \|$", REFERENCE, re.MULTILINE)
    assert len(rows) > 25
    for code, status, other, message in rows:
        assert (str(ERRORS[code].status), ERRORS[code].message) == (other or status, message)
    for status, code in re.findall(r"(\d{3}) `(TM-[A-Z]+-\d+)`", REFERENCE):
        assert ERRORS[code].status == int(status), (status, code)
    assert set(re.findall(r"TM-[A-Z]+-\d{4}", REFERENCE)) <= set(ERRORS)


def test_every_code_that_is_answered_is_on_the_page() -> None:
    sources = [path for suffix in ("py", "pyx") for path in (ROOT / "tokmesh").rglob(f"*.{suffix}") if path.name != "errors.py"]
    raised = {code for path in sources for code in re.findall(r'"(TM-[A-Z]+-\d{4})"', path.read_text()) if ERRORS[code].status}
    assert raised - set(re.findall(r"^\| `(TM-[A-Z]+-\d+)` \| \d+", REFERENCE, re.MULTILINE)) == NOT_ANSWERED

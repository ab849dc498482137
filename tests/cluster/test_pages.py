"""The pages about clusters are right: commands that start one are run to the letter, names are those of the software."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.nats import HeldPorts, server_program
from tests.support.server import ROOT, TokMeshProcess, clean_environment, run_command
from tests.support.waiting import wait_until
from tokmesh.config.keys import KEYS
from tokmesh.errors import ERRORS

NAMES = ("docs/cluster.md", "docs/cluster-failures.md", "docs/cluster-sizing.md", "deploy/kubernetes/README.md")
PAGES = {name: (ROOT / name).read_text() for name in NAMES}


def test_the_five_commands_start_a_cluster_of_three(tmp_path: Path) -> None:
    block = re.search(r"run by tests/cluster/test_pages\.py\. -->\n```sh\n(.*?)```", PAGES["docs/cluster.md"], re.DOTALL)
    assert block and len(block[1].splitlines()) == 5
    held = HeldPorts()
    script = block[1].replace("nats-server ", f"{server_program()} ").replace("tokmesh serve", f"{sys.executable} -m tokmesh serve")
    script = script.replace("4222", str(held.ports.client))
    for number in (1, 2, 3):
        script = script.replace(f"127.0.0.1:508{number}", "127.0.0.1:0")
    with (tmp_path / "keys").open("wb") as keys:
        shell = subprocess.Popen(
            ["sh", "-euc", f"{script}\nwait"], cwd=tmp_path, env=clean_environment(), stderr=keys, start_new_session=True
        )
    try:
        def is_well() -> bool:
            done = run_command("cluster", "status", "--dir=./node-1", cwd=tmp_path)
            return done.returncode == 0 and done.stdout.startswith("OK: 3 active, 0 down")

        wait_until(is_well, "three nodes are a cluster", 60)
        assert (tmp_path / "keys").read_text().count("tmak-") == 1
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait(30)
        held.release()


def test_a_lost_stream_leaves_a_backup_for_a_node_alone(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        kept, gone = cluster.create(0), cluster.create(0)
        assert cluster.ask(0, "POST", f"/sessions/{gone['session_id']}/revoke", {})[0] == 200
        cluster.nats.kill(0)
        shutil.rmtree(tmp_path / "nats" / "store-0")
        cluster.nats.start(0)
        node = cluster.nodes[0]
        wait_until(lambda: cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 503, "no writes without the stream", 20)
        assert cluster.verdict(0, kept["token"]) is True
        cluster.add_node().start()  # it knows no stream, so it makes one

        def reason() -> str:
            answer = node.request("GET", "/ready?verbose", key=cluster.key)[1]
            return str(answer.get("details", {}).get("reasons", {}).get("cluster"))

        wait_until(lambda: cluster.verdict(0, kept["token"]) == (503, "TM-CLST-5030"), "it answers nothing", 30)
        assert reason().startswith("TM-CLST-5050: the stream was made anew")
        told = cluster.ask(0, "GET", "/admin/v1/cluster/nodes")[1]
        assert (told["status"], told["reasons"]) == ("DEGRADED", ["stream_lost", "quorum_lost"])
        taken = node.command_line("backup", "create")
        assert taken.returncode == 0, taken.stderr
        file = tmp_path / "tokmesh.tms"
        assert node.command_line("backup", "fetch", taken.stdout.split()[0], str(file)).returncode == 0
        restored = run_command("backup", "restore", f"--dir={tmp_path / 'alone' / 'data'}", str(file))
        assert restored.returncode == 0, restored.stderr
        with TokMeshProcess(tmp_path / "alone") as alone:
            assert alone.validate(kept["token"], key=cluster.key)["valid"] is True
            assert alone.validate(gone["token"], key=cluster.key)["valid"] is False


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_software(name: str) -> None:
    page = PAGES[name]
    keys = {key.name for key in KEYS}
    for key in re.findall(r"`((?:cluster|session|storage|server)\.[a-z_.]+[a-z])`", page):
        assert key in keys or any(each.startswith(f"{key}.") for each in keys), key
    assert set(re.findall(r"TM-[A-Z]+-\d{4}", page)) <= set(ERRORS)
    for alert in re.findall(r"TokMesh[A-Z]\w+", page):
        assert (ROOT / "docs" / "runbooks" / f"{alert}.md").is_file(), alert
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (ROOT / name).parent.joinpath(link).exists(), link
    for command in re.findall(r"tokmesh (cluster|backup|key) ([a-z]+)", page):
        assert run_command(*command, "--help").returncode == 0, command


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [("cluster.streams=2", 78, "TM-CFG-1006 cluster.streams"), ("cluster.replication_factor=2", 0, "")],
)
def test_what_is_not_in_this_version_is_refused_and_the_rest_is_not(setting: str, code: int, words: str) -> None:
    done = run_command("config", "check", "--cluster.enabled=true", "--cluster.nats.servers=nats://127.0.0.1:1", f"--{setting}")
    assert done.returncode == code and words in done.stderr

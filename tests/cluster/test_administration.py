"""A cluster for administrators: what they see, a node taken out, one that leaves, and nothing restored over the stream."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.server import ROOT, TokMeshProcess, in_background, run_command
from tests.support.waiting import wait_until
from tokmesh import __version__

NODES = "/admin/v1/cluster/nodes"
REFERENCE = (ROOT / "docs" / "api.md").read_text()
KEYS_OF_A_NODE = {
    "node_id", "state", "self", "heard_seconds_ago", "incarnation", "counted", "applied", "lag_seconds", "ahead_seconds",
    "round_trip_seconds", "shards", "sessions", "pending", "version",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; a test leaves them as it found them."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def seen(cluster: Cluster, node: int) -> dict[str, Any]:
    """The cluster as that node sees it."""
    status, data = cluster.ask(node, "GET", NODES)
    assert status == 200, data
    found: dict[str, Any] = data
    return found


def states(cluster: Cluster, node: int) -> dict[str, str]:
    return {item["node_id"]: item["state"] for item in seen(cluster, node)["items"]}


def wait_whole(cluster: Cluster) -> None:
    """Until each node of three sees all of them well."""
    wait_until(lambda: all(seen(cluster, node)["status"] == "OK" for node in range(3)), "all nodes are seen by all")


def ready_reason(cluster: Cluster, node: int) -> str:
    answer = cluster.nodes[node].request("GET", "/ready?verbose", key=cluster.key)[1]
    reason: str = answer["details"]["reasons"]["cluster"]
    return reason


def test_every_node_lists_every_node(cluster: Cluster) -> None:
    cluster.create(0)
    wait_whole(cluster)
    told = []
    for node in range(3):
        data = seen(cluster, node)
        assert (data["status"], data["reasons"], data["total_items"], data["next_cursor"]) == ("OK", [], 3, None)
        assert [item["node_id"] for item in data["items"]] == ["tmnd-0", "tmnd-1", "tmnd-2"]
        assert [item["self"] for item in data["items"]] == [number == node for number in range(3)]
        for item in data["items"]:
            assert item.keys() == KEYS_OF_A_NODE
            assert (item["state"], item["counted"], item["version"]) == ("active", True, __version__)
            assert item["shards"] == 64
            assert item["incarnation"] > 0 and item["sessions"] >= 1 and 0 <= item["heard_seconds_ago"] < 2
        about = data["cluster"]
        assert (about["name"], about["stream"], about["quorum"]) == ("tokmesh", "TOKMESH_tokmesh_0", "ok")
        assert (about["majority"], about["parity"], about["active"], about["down"]) == (2, "odd", 3, 0)
        told.append(about["id"])
    assert len(set(told)) == 1 and re.fullmatch("[0-9a-f]{32}", told[0])


def test_a_node_that_stops_says_goodbye(cluster: Cluster) -> None:
    wait_whole(cluster)
    assert cluster.nodes[2].stop() == 0
    try:
        data = seen(cluster, 0)  # at once: by silence it would take two seconds
        item = data["items"][2]
        assert item["state"] == "down" and item["heard_seconds_ago"] < 1.5, item
        assert (data["status"], data["reasons"], data["cluster"]["down"]) == ("DEGRADED", ["node_down"], 1)
    finally:
        cluster.nodes[2].start()
    wait_whole(cluster)


def test_a_second_process_of_a_nodes_id_is_refused_and_the_first_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    made = cluster.create(0)
    wait_whole(cluster)
    first = cluster.nodes[1]
    second = TokMeshProcess(tmp_path, *first.args).spawn()
    assert second.wait() == 78
    assert "TM-CLST-4090" in second.stderr and "tmnd-1" in second.stderr
    assert first.request("GET", "/ready", key=None)[0] == 200
    assert cluster.verdict(1, made["token"]) is True
    assert states(cluster, 0)["tmnd-1"] == "active"


def test_a_removed_node_stops_answering_says_why_and_comes_back_by_a_restart(cluster: Cluster) -> None:
    made = cluster.create(0)
    assert cluster.verdict(2, made["token"]) is True
    status, data = cluster.ask(0, "POST", f"{NODES}/tmnd-2/remove", {})
    assert (status, data) == (200, {"node_id": "tmnd-2", "removed": True})
    cluster.wait_verdict(2, made["token"], (503, "TM-CLST-5030"), 3)
    for question in (
        ("POST", "/sessions", {"user_id": "u"}),
        ("POST", "/tokens/validate", {"token": made["token"]}),
        ("GET", f"/sessions/{made['session_id']}"),
        ("POST", f"{NODES}/tmnd-1/remove", {}),
    ):
        status, answer = cluster.ask(2, *question)
        assert (status, answer["code"], answer["details"]) == (503, "TM-CLST-5030", {"reason": "removed"}), question
    assert ready_reason(cluster, 2).startswith("removed: ")
    assert seen(cluster, 2)["reasons"] == ["removed"]
    for command in (("cluster", "status"), ("doctor",)):
        told = cluster.nodes[2].command_line(*command)
        assert told.returncode == 1 and "taken out of the cluster" in told.stdout, told
        assert "majority of the" not in told.stdout and "acknowledged" not in told.stdout
    # The others go on, and know what two nodes are worth.
    for node in range(2):
        wait_until(lambda: list(states(cluster, node)) == ["tmnd-0", "tmnd-1"], "the node is gone")  # noqa: B023
        assert cluster.verdict(node, made["token"]) is True
        data = seen(cluster, node)
        assert (data["status"], data["reasons"], data["cluster"]["parity"]) == ("DEGRADED", ["even_number"], "even")
    cluster.create(1)
    entry = cluster.ask(0, "GET", "/admin/v1/audit/logs?event=cluster.node_removed")[1]["items"][0]
    assert (entry["target"], entry["outcome"]) == ("tmnd-2", "ok")
    assert cluster.nodes[2].stop() == 0
    cluster.nodes[2].start()
    assert cluster.verdict(2, made["token"]) is True
    wait_whole(cluster)


def test_a_node_that_waits_to_remove_another_goes_on_afterwards(cluster: Cluster) -> None:
    made = cluster.create(0)
    wait_whole(cluster)
    told: list[Any] = []
    cluster.nodes[2].send_signal(signal.SIGSTOP)  # a majority of the two that stay cannot know of the first removal
    try:
        assert cluster.ask(0, "POST", f"{NODES}/tmnd-1/remove", {})[0] == 200
        second = in_background(lambda: told.append(cluster.ask(0, "POST", f"{NODES}/tmnd-2/remove", {})))
        second.join(0.5)
        assert second.is_alive() and told == []
    finally:
        cluster.nodes[2].send_signal(signal.SIGCONT)
    second.join(20)
    assert told == [(200, {"node_id": "tmnd-2", "removed": True})]
    wait_until(lambda: cluster.nodes[0].request("GET", "/ready", key=None)[0] == 200, "the one that is left is ready", 10)
    assert cluster.verdict(0, made["token"]) is True
    for number in (1, 2):
        cluster.nodes[number].stop()
        cluster.nodes[number].start()
    wait_whole(cluster)


@pytest.mark.parametrize(
    ("node_id", "expected"),
    [
        ("tmnd-9", (404, "TM-ADMIN-4041", "no_such_node")),
        ("TMND-1", (404, "TM-ADMIN-4041", "no_such_node")),
        ("%00", (404, "TM-ADMIN-4041", "no_such_node")),
        ("tmnd-1%2F..", (404, "TM-ADMIN-4041", "no_such_node")),
        ("tmnd-0", (409, "TM-ADMIN-4091", "this_node")),
    ],
)
def test_what_cannot_be_removed_is_refused_and_stays(cluster: Cluster, node_id: str, expected: tuple[int, str, str]) -> None:
    status, answer = cluster.ask(0, "POST", f"{NODES}/{node_id}/remove", {})
    assert (status, answer["code"], answer["details"]["reason"]) == expected
    assert list(states(cluster, 0)) == ["tmnd-0", "tmnd-1", "tmnd-2"]


def test_where_every_node_holds_everything_there_is_nothing_to_rebalance(cluster: Cluster) -> None:
    status, answer = cluster.ask(0, "POST", "/admin/v1/cluster/rebalance", {})
    assert (status, answer["code"], answer["details"]) == (409, "TM-ADMIN-4091", {"reason": "every_node_holds_all"})
    done = cluster.nodes[0].command_line("cluster", "rebalance")
    assert done.returncode == 65 and "TM-ADMIN-4091" in done.stderr and "every_node_holds_all" in done.stderr
    entry = cluster.ask(0, "GET", "/admin/v1/audit/logs?event=cluster.rebalanced")[1]["items"][0]
    assert entry["outcome"] == "TM-ADMIN-4091"


def test_without_a_quorum_nobody_is_removed(cluster: Cluster) -> None:
    wait_whole(cluster)
    for number in (1, 2):
        cluster.nodes[number].kill()
    try:
        wait_until(lambda: seen(cluster, 0)["cluster"]["quorum"] == "lost", "the quorum is lost", 5)
        assert set(seen(cluster, 0)["reasons"]) >= {"quorum_lost"}
        assert cluster.ask(0, "POST", f"{NODES}/tmnd-2/remove", {})[1]["code"] == "TM-CLST-5030"
    finally:
        for number in (1, 2):
            cluster.nodes[number].spawn()
        for number in (1, 2):
            cluster.nodes[number].wait_ready()
    wait_whole(cluster)


def test_a_node_that_leaves_is_no_member_and_ends_and_may_come_back(cluster: Cluster) -> None:
    done = cluster.nodes[2].command_line("cluster", "leave")
    assert (done.returncode, done.stdout) == (0, "tmnd-2 has left the cluster, and stops\n"), done.stderr
    assert cluster.nodes[2].wait() == 0
    wait_until(lambda: list(states(cluster, 0)) == ["tmnd-0", "tmnd-1"], "it is gone")
    cluster.nodes[2].start()
    wait_whole(cluster)


def test_the_last_node_cannot_leave_and_a_cluster_survives_its_founder(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as single:
        done = single.nodes[0].command_line("cluster", "leave")
        assert done.returncode == 65 and "TM-ADMIN-4091" in done.stderr and "last_node" in done.stderr
        token = single.create(0)["token"]
        single.add_node().start()
        assert single.nodes[0].command_line("cluster", "leave").returncode == 0
        assert single.nodes[0].wait() == 0
        wait_until(lambda: single.verdict(1, token) is True, "the other goes on alone")
        wait_until(lambda: list(states(single, 1)) == ["tmnd-1"], "it knows that it is alone")


def test_nodes_started_at_once_make_one_admin_key_between_them(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=0, servers=1) as several:
        nodes = [several.add_node().spawn() for _ in range(3)]
        for node in nodes:
            node.wait_ready()
        founders = [node for node in nodes if "tmak-" in node.stderr]
        assert len(founders) == 1, [node.stderr for node in nodes]
        for node in nodes:
            status, answer = node.request("GET", NODES, key=founders[0].admin_key)
            assert (status, answer["data"]["total_items"]) == (200, 3)


def test_the_commands_show_what_the_server_says(cluster: Cluster) -> None:
    wait_whole(cluster)
    node = cluster.nodes[0]
    done = node.command_line("cluster", "status")
    assert done.returncode == 0 and done.stdout.startswith("OK: 3 active, 0 down, quorum ok\n"), done.stderr
    assert "of 64 shards 64 held here, 0 being loaded, 0 being left, 0 held by nobody in reach\n" in done.stdout
    assert json.loads(node.command_line("cluster", "status", "--json").stdout)["cluster"]["majority"] == 2
    lines = node.command_line("cluster", "nodes").stdout.splitlines()
    assert lines[0].split() == ["NODE", "STATE", "HEARD", "APPLIED", "LAG", "SHARDS", "SESSIONS", "VERSION"]
    assert [line.split()[0] for line in lines[1:]] == ["tmnd-0", "tmnd-1", "tmnd-2"] and "(this)" in lines[1]
    assert len(json.loads(node.command_line("cluster", "nodes", "--json").stdout)) == 3
    for removed, code, words in (("tmnd-9", 65, "TM-ADMIN-4041"), ("tmnd-0", 65, "tokmesh cluster leave")):
        done = node.command_line("cluster", "remove", removed)
        assert done.returncode == code and words in done.stderr
    cluster.nodes[1].stop()
    try:
        done = node.command_line("cluster", "status")
        assert done.returncode == 1 and "node_down: a member cannot be heard" in done.stdout
        done = node.command_line("cluster", "remove", "tmnd-1")
        assert (done.returncode, done.stdout) == (0, "tmnd-1 is no member any more\n")
    finally:
        cluster.nodes[1].start()
    wait_whole(cluster)


def test_nothing_is_restored_into_a_cluster_and_its_backups_are_good_for_a_node_alone(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.nodes[0]
    made = cluster.create(0)
    status, taken = cluster.ask(0, "POST", "/admin/v1/backups/snapshots", {})
    assert status == 200
    status, answer = cluster.ask(0, "POST", "/admin/v1/backups/restores", {"snapshot_id": taken["id"]})
    assert (status, answer["code"], answer["details"]) == (409, "TM-ADMIN-4091", {"reason": "cluster"})
    file = tmp_path / "backup.tms"
    assert node.command_line("backup", "fetch", taken["id"], str(file)).returncode == 0
    for what in (taken["id"], str(file)):
        done = node.command_line("backup", "restore", what)
        assert done.returncode == 65 and "TM-ADMIN-4091" in done.stderr and "cluster" in done.stderr, done.stderr
    assert cluster.ask(0, "GET", "/admin/v1/backups/restores")[1]["items"] == []
    # Of a stopped node; by its settings, and by its directory alone.
    assert cluster.nodes[2].stop() == 0
    directory = f"--storage.dir={cluster.nodes[2].directory}"
    enabled = ("--cluster.enabled=true", "--cluster.nats.servers=nats://127.0.0.1:1")
    for options in ((directory, *enabled), (directory,), (f"--storage.dir={tmp_path / 'new'}", *enabled)):
        done = run_command("backup", "restore", str(file), *options)
        assert done.returncode == 65 and "TM-ADMIN-4091" in done.stderr, done.stderr
    cluster.nodes[2].start()
    assert cluster.verdict(2, made["token"]) is True
    assert run_command("backup", "restore", str(file), f"--storage.dir={tmp_path / 'alone'}").returncode == 0


def test_the_examples_of_the_reference_work_in_a_cluster(cluster: Cluster) -> None:
    examples = re.findall(r"^```sh\n(curl [^`]*?/cluster/[^`]*?)\n```$", REFERENCE, re.MULTILINE)
    assert len(examples) == 4
    try:
        for example in examples:  # in their order: shown, another removed, nothing to rebalance here, this one leaves
            command = example.replace("tmnd-…", "tmnd-1")
            script = f"URL={cluster.nodes[2].url}; KEY={cluster.key}; {command} --write-out ' %{{http_code}}'"
            answer = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30, check=True)
            assert answer.stdout.endswith(" 409" if "/rebalance" in example else " 200"), (example, answer.stdout)
        assert cluster.nodes[2].wait() == 0
    finally:
        cluster.nodes[1].stop()
        for number in (1, 2):
            cluster.nodes[number].start()
    wait_whole(cluster)

"""Real nodes whose files somebody has altered are found by the others. It mostly waits: run by `make slow`.

A place is made every five seconds and three in a row must differ, so each finding takes some twenty.
"""

import re
import time
from pathlib import Path

from tests.golden import make
from tests.support.cluster import Cluster
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.ids import parse_key_id, parse_session_id
from tokmesh.log import record as r

FOUND_S = 120.0  # twenty seconds, on a machine with nothing else to do
KEPT = ("node_id", "incarnation")  # as the runbook says


def value(cluster: Cluster, node: int, name: str, node_id: str = "") -> float:
    page = cluster.nodes[node].exchange("GET", "/metrics", key=cluster.key)[2].decode()
    labels = f'{{node_id="{node_id}"}}' if node_id else ""
    found = re.search(rf"^tokmesh_cluster_{name}{re.escape(labels)} (\S+)$", page, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def differences(cluster: Cluster, node: int) -> list[int]:
    return [int(value(cluster, node, "table_differences", f"tmnd-{other}")) for other in range(len(cluster.nodes))]


def wait_compared(cluster: Cluster, nodes: tuple[int, ...], places: int = 2) -> None:
    """That many more comparisons by each of these."""
    before = {node: value(cluster, node, "table_comparisons_total") for node in nodes}
    for node in nodes:
        wait_until(
            lambda: value(cluster, node, "table_comparisons_total") >= before[node] + places,  # noqa: B023
            f"node {node} has compared",
            FOUND_S,
        )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def alter(node: TokMeshProcess, record: r.AnyRecord) -> None:
    """What the stream never said, in the log of a stopped node."""
    make.append(node.directory / "log", [[record]], seal=True)


def told(cluster: Cluster, node: int) -> str:
    """What /ready?verbose says of the cluster; "" while the node does not listen yet."""
    server = cluster.nodes[node]
    return str(server.request("GET", "/ready?verbose", key=cluster.key)[1]) if server._find_ports() else ""


def test_a_node_of_three_whose_log_was_altered_stands_apart_until_it_has_begun_anew(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        sessions = [cluster.create(number % 3, user_id=f"user-{number}", data={"n": str(number)}) for number in range(30)]
        cluster.ask(1, "POST", f"/sessions/{sessions[3]['session_id']}/revoke", {})
        cluster.ask(2, "POST", "/tokens/rotate", {"token": sessions[4]["token"], "grace_seconds": 600})
        wait_compared(cluster, (0, 1, 2))
        assert [differences(cluster, node) for node in range(3)] == [[0, 0, 0]] * 3
        victim = sessions[0]

        assert cluster.nodes[2].stop() == 0
        session_id = parse_session_id(victim["session_id"])
        assert session_id is not None
        alter(cluster.nodes[2], r.SessionsRevoked(now_ms(), [session_id]))  # by nobody
        cluster.nodes[2].start()
        assert cluster.verdict(2, victim["token"]) == "TM-TOKN-4012", "it says what is not so"

        wait_until(lambda: value(cluster, 2, "stands_apart") == 1, "it is found", FOUND_S)
        cluster.wait_verdict(2, victim["token"], (503, "TM-CLST-5030"))
        assert cluster.ask(2, "POST", "/sessions", {"user_id": "u"})[0] == 503
        assert "TM-CLST-5050" in told(cluster, 2) and "majority" in told(cluster, 2)
        for node in (0, 1):
            wait_until(lambda: differences(cluster, node) == [0, 0, 1], "the others tell which", FOUND_S)  # noqa: B023
            assert cluster.verdict(node, victim["token"]) is True and value(cluster, node, "stands_apart") == 0
        assert "CRITICAL  TokMeshTablesDiffer" in cluster.nodes[0].command_line("doctor").stdout
        status = cluster.nodes[2].command_line("cluster", "status")
        assert status.returncode == 1 and "stands_apart" in status.stdout
        wait_until(lambda: any(line.get("code") == "TM-CLST-5050" for line in cluster.nodes[2].log_lines()), "the log tells")
        assert cluster.create(0)["token"], "the others take writes"

        assert cluster.nodes[2].stop() == 0
        cluster.nodes[2].spawn()
        wait_until(lambda: "TM-CLST-5050" in told(cluster, 2), "it stands apart after a restart too", FOUND_S)
        assert cluster.verdict(2, victim["token"]) == (503, "TM-CLST-5030")

        assert cluster.nodes[2].stop() == 0
        for path in sorted(cluster.nodes[2].directory.rglob("*"), reverse=True):
            if path.name not in KEPT:
                path.rmdir() if path.is_dir() else path.unlink()
        cluster.nodes[2].start()
        assert cluster.verdict(2, victim["token"]) is True and cluster.verdict(2, sessions[3]["token"]) is not True
        wait_compared(cluster, (0, 1, 2), 3)
        assert [differences(cluster, node) for node in range(3)] == [[0, 0, 0]] * 3
        assert value(cluster, 2, "stands_apart") == 0


def test_of_two_nodes_both_tell_and_both_go_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        made = cluster.create(0)
        assert cluster.nodes[1].stop() == 0
        session_id = parse_session_id(made["session_id"])
        assert session_id is not None
        alter(cluster.nodes[1], r.SessionRenewed(now_ms(), session_id, made["expires_at"] + 86_400_000))  # lives longer
        cluster.nodes[1].start()
        for node in range(2):
            others = [0, 1] if node == 0 else [1, 0]
            wait_until(lambda: differences(cluster, node) == others, "both tell", FOUND_S)  # noqa: B023
            assert cluster.verdict(node, made["token"]) is True and value(cluster, node, "stands_apart") == 0
        status = cluster.nodes[0].command_line("cluster", "status")
        assert status.returncode == 1 and "tables_differ: another node's table" in status.stdout


def test_a_node_whose_log_has_a_key_disabled_by_nobody_is_found_and_judges_no_key(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        made = cluster.ask(0, "POST", "/admin/v1/keys", {"role": "issuer"})[1]
        credential = f"{made['key_id']}:{made['key_secret']}"
        token = cluster.create(0)["token"]
        assert cluster.nodes[2].stop() == 0
        key_id = parse_key_id(made["key_id"])
        assert key_id is not None
        alter(cluster.nodes[2], r.KeyStatusChanged(now_ms(), key_id, False))
        cluster.nodes[2].start()

        def asked(node: int) -> int:
            return cluster.nodes[node].request("POST", "/tokens/validate", json={"token": token}, key=credential)[0]

        assert [asked(node) for node in range(3)] == [200, 200, 401], "it says what is not so"
        wait_until(lambda: value(cluster, 2, "stands_apart") == 1, "it is found", FOUND_S)
        assert differences(cluster, 0) == [0, 0, 1]
        wait_until(lambda: asked(2) == 503, "it says nothing of a key any more")
        assert cluster.ask(2, "GET", "/admin/v1/keys")[0] == 503 and cluster.ask(0, "GET", "/admin/v1/keys")[0] == 200
        told_of = [line for line in cluster.nodes[0].log_lines() if line.get("code") == "TM-CLST-5050"]
        assert [(line["node_id"], line["shards"], line["keys"]) for line in told_of] == [("tmnd-2", 0, True)]
        assert [asked(node) for node in range(2)] == [200, 200]

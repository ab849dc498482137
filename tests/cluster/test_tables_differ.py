"""Real nodes whose files somebody has altered are found by the others, and begin anew from the stream. It mostly waits: run by
`make slow`.

A place is made every five seconds and three in a row must differ, so each finding takes some twenty.
"""

import http.client
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.golden import make
from tests.support.cluster import Cluster
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.host.apart import Apart
from tokmesh.ids import parse_key_id, parse_session_id
from tokmesh.log import record as r

FOUND_S = 120.0  # twenty seconds, on a machine with nothing else to do
KEPT = ("node_id", "incarnation")
NO_ANSWERS: tuple[Any, ...] = ("nothing", (503, "TM-CLST-5030"), (503, "TM-SYS-5030"))  # of a node that ends, or has not begun yet


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


def revoked_by_nobody(session: dict[str, Any]) -> r.SessionsRevoked:
    session_id = parse_session_id(session["session_id"])
    assert session_id is not None
    return r.SessionsRevoked(now_ms(), [session_id])


def alter_and_start(node: TokMeshProcess, record: r.AnyRecord) -> None:
    """Stops a node and starts it with another log, on the same port."""
    node.keep_port()
    assert node.stop() == 0
    alter(node, record)
    node.start()


def answers_until(ask: Callable[[], Any], right: Any) -> list[Any]:
    """What is answered from now on until it is right: each once, in order."""
    seen: list[Any] = []

    def look() -> bool:
        try:
            found = ask()
        except (OSError, http.client.HTTPException):
            found = "nothing"
        if not seen or seen[-1] != found:
            seen.append(found)
        return bool(found == right)

    wait_until(look, "it answers right", FOUND_S)
    return seen


def told_in_log(node: TokMeshProcess, words: str) -> list[dict[str, Any]]:
    """Lines of tables that differ, with these words."""
    return [line for line in node.log_lines() if line.get("code") == "TM-CLST-5050" and words in str(line)]


def set_aside(node: TokMeshProcess) -> list[Path]:
    """Where it put what it had."""
    return sorted((node.directory / "set_aside").glob("*"))


def check_stands_apart(cluster: Cluster, token: str) -> None:
    """The last of three nodes was found wrong, and answers nothing; the others tell, and go on."""
    wait_until(lambda: value(cluster, 2, "stands_apart") == 1, "it is found", FOUND_S)
    cluster.wait_verdict(2, token, (503, "TM-CLST-5030"))
    assert cluster.ask(2, "POST", "/sessions", {"user_id": "u"})[0] == 503
    assert "TM-CLST-5050" in told(cluster, 2) and "empty its directory" in told(cluster, 2)
    for number in (0, 1):
        wait_until(lambda: differences(cluster, number) == [0, 0, 1], "the others tell which", FOUND_S)  # noqa: B023
    assert "CRITICAL  TokMeshTablesDiffer" in cluster.nodes[0].command_line("doctor").stdout
    status = cluster.nodes[2].command_line("cluster", "status")
    assert status.returncode == 1 and "stands_apart" in status.stdout
    assert cluster.create(0)["token"], "the others take writes"


def empty(node: TokMeshProcess) -> None:
    """As the runbook says."""
    for path in sorted(node.directory.rglob("*"), reverse=True):
        if path.name not in KEPT:
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_node_whose_log_was_altered_begins_anew_by_itself_and_the_second_time_waits_for_a_hand(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        node = cluster.nodes[2]
        sessions = [cluster.create(number % 3, user_id=f"user-{number}", data={"n": str(number)}) for number in range(30)]
        cluster.ask(1, "POST", f"/sessions/{sessions[3]['session_id']}/revoke", {})
        cluster.ask(2, "POST", "/tokens/rotate", {"token": sessions[4]["token"], "grace_seconds": 600})
        wait_compared(cluster, (0, 1, 2))
        assert [differences(cluster, number) for number in range(3)] == [[0, 0, 0]] * 3
        assert value(cluster, 2, "began_anew_timestamp_seconds") == 0
        victim = sessions[0]

        alter_and_start(node, revoked_by_nobody(victim))
        pid = node.pid
        seen = answers_until(lambda: cluster.verdict(2, victim["token"]), True)
        assert seen[0] == "TM-TOKN-4012", "it says what is not so"
        assert set(seen[1:-1]) <= set(NO_ANSWERS) and len(seen) > 2, seen
        node.wait_ready()
        assert node.pid == pid and cluster.verdict(2, sessions[3]["token"]) is not True
        wait_until(lambda: len(told_in_log(node, "begins anew")) == 2, "the log tells, before and after")
        apart, anew = told_in_log(node, "begins anew")
        assert (apart["level"], anew["level"]) == ("ERROR", "ERROR") and "majority" in anew["reason"]
        [folder] = set_aside(node)
        assert anew["folder"] == str(folder) and list(folder.glob("log/wal-*.log"))
        assert all(stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600) for path in folder.rglob("*"))
        assert time.time() - value(cluster, 2, "began_anew_timestamp_seconds") < 2 * FOUND_S
        for number in (0, 1):
            assert cluster.verdict(number, victim["token"]) is True and value(cluster, number, "stands_apart") == 0
            wait_until(lambda: told_in_log(cluster.nodes[number], "tmnd-2"), "the others tell")  # noqa: B023
        wait_compared(cluster, (0, 1, 2), 3)
        assert [differences(cluster, number) for number in range(3)] == [[0, 0, 0]] * 3
        assert value(cluster, 2, "stands_apart") == 0

        alter_and_start(node, revoked_by_nobody(sessions[1]))
        assert cluster.verdict(2, sessions[1]["token"]) == "TM-TOKN-4012"
        check_stands_apart(cluster, sessions[1]["token"])

        assert node.stop() == 0
        node.spawn()
        wait_until(lambda: "TM-CLST-5050" in told(cluster, 2), "it stands apart after a restart too", FOUND_S)
        assert cluster.verdict(2, sessions[1]["token"]) == (503, "TM-CLST-5030")
        assert set_aside(node) == [folder], "nothing more is set aside"

        assert node.stop() == 0
        empty(node)
        node.start()
        assert cluster.verdict(2, sessions[1]["token"]) is True
        wait_compared(cluster, (0, 1, 2), 3)
        assert [differences(cluster, number) for number in range(3)] == [[0, 0, 0]] * 3
        assert value(cluster, 2, "stands_apart") == 0


def test_a_node_killed_on_its_way_to_begin_anew_goes_on_and_never_answers_wrong(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        node = cluster.nodes[2]
        victim = cluster.create(0)
        alter_and_start(node, revoked_by_nobody(victim))
        wait_until((node.directory / "stands_apart").exists, "it is found", FOUND_S)
        node.kill()
        assert (node.directory / "stands_apart").exists() or set_aside(node)
        node.spawn()
        wait_until((node.directory / "began_anew").exists, "what it had is set aside")
        node.kill()  # with a table that lacks all
        assert not (node.directory / "stands_apart").exists() and len(set_aside(node)) == 1
        node.spawn()
        wait_until(node._find_ports, "it listens")
        seen = answers_until(lambda: cluster.verdict(2, victim["token"]), True)
        assert set(seen[:-1]) <= set(NO_ANSWERS), seen
        node.wait_ready()
        wait_compared(cluster, (0, 1, 2), 3)
        assert [differences(cluster, number) for number in range(3)] == [[0, 0, 0]] * 3


def test_a_node_that_begins_anew_makes_no_stream_and_joins_no_other(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        node = cluster.nodes[0]
        cluster_id = bytes.fromhex(str(cluster.ask(0, "GET", "/admin/v1/cluster/nodes")[1]["cluster"]["id"]))
        node.keep_port()
        assert node.stop() == 0
        Apart(node.directory).begin("its table differs", now_ms(), 77, cluster_id)
        wait_until((node.directory / "stands_apart").exists, "it is written down")
        node.spawn()
        assert node.wait() != 0 and "TM-CLST-5050" in node.output, "it followed another stream"
        assert not (node.directory / "stands_apart").exists()


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


def test_a_node_whose_log_has_a_key_disabled_by_nobody_is_found_and_begins_anew(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        made = cluster.ask(0, "POST", "/admin/v1/keys", {"role": "issuer"})[1]
        credential = f"{made['key_id']}:{made['key_secret']}"
        token = cluster.create(0)["token"]
        key_id = parse_key_id(made["key_id"])
        assert key_id is not None
        alter_and_start(cluster.nodes[2], r.KeyStatusChanged(now_ms(), key_id, False))

        def asked(number: int) -> int:
            return cluster.nodes[number].request("POST", "/tokens/validate", json={"token": token}, key=credential)[0]

        assert [asked(number) for number in range(3)] == [200, 200, 401], "it says what is not so"
        seen = answers_until(lambda: asked(2), 200)
        assert seen[0] == 401 and 503 in seen and set(seen[1:-1]) <= {503, "nothing"}, seen
        for number in range(2):
            wait_until(lambda: told_in_log(cluster.nodes[number], "tmnd-2"), "it tells in what")  # noqa: B023
            [line] = told_in_log(cluster.nodes[number], "tmnd-2")
            assert (line["shards"], line["keys"]) == (0, True)
            assert asked(number) == 200
        wait_compared(cluster, (0, 1, 2), 3)
        assert [differences(cluster, number) for number in range(3)] == [[0, 0, 0]] * 3

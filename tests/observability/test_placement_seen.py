"""What three nodes tell of who holds what, where each holds a part: the sum by primaries is the number of sessions, a loss is told
as what it is, and `tokmesh cluster rebalance` gives others what was held by a node that is gone, well within the minute that they
would have waited."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.observability.test_cluster_seen import NODE_IDS, by_label, value
from tests.support.cluster import Cluster
from tests.support.server import ROOT
from tests.support.waiting import wait_until
from tokmesh.cluster.holding import AWAY_NS
from tokmesh.ids import SHARDS

NODES: Final = "/admin/v1/cluster/nodes"
REBALANCE: Final = "/admin/v1/cluster/rebalance"
SESSIONS: Final = 60
MOVED_S: Final = 30.0  # half of what is waited without being told
RULES: Final = ROOT / "deploy" / "prometheus" / "tokmesh-alerts.yaml"


class Placed:
    """Three nodes, each shard on `copies` of them."""

    def __init__(self, folder: Path, copies: int) -> None:
        self.copies = copies
        self.cluster = Cluster(folder, args=[f"--cluster.replication_factor={copies}"])

    def shards(self, node: int) -> list[int]:
        """Held, loading, leaving, unheld, as that node tells."""
        names = ("held", "loading", "leaving", "unheld")
        return [int(value(self.cluster, node, f"cluster_shards_{name}")) for name in names]

    def wait_settled(self, nodes: tuple[int, ...] = (0, 1, 2)) -> None:
        """Until these hold all shards `copies` times, or once each, and nothing moves."""
        whole = min(self.copies, len(nodes)) * SHARDS

        def settled() -> bool:
            found = [self.shards(node) for node in nodes]
            return sum(each[0] for each in found) == whole and all(each[1:] == [0, 0, 0] for each in found)

        wait_until(settled, f"shards are held by {nodes}", MOVED_S)

    def counts(self, node: int) -> dict[str, float]:
        """Sessions by primary, as that node tells."""
        return by_label(self.cluster, node, "shard_keys_count")

    def wait_counts(self, total: int, nodes: tuple[int, ...] = (0, 1, 2)) -> None:
        """Until each of these tells the same number of sessions for each of them, in all `total`."""
        expected = [NODE_IDS[node] for node in nodes]

        def counted() -> bool:
            found = [self.counts(node) for node in nodes]
            return all(list(each) == expected and sum(each.values()) == total and each == found[0] for each in found)

        wait_until(counted, f"{total} sessions by primaries", MOVED_S)


def alert_holds(placed: Placed, node: int) -> bool:
    """Whether what the alert compares is so on that node's page."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    [expression] = [rule["expr"] for rule in rules if rule.get("alert") == "TokMeshShardsUnheld"]
    assert re.fullmatch(
        r"max by \(job\) \(tokmesh_cluster_shards_unheld unless on \(job, instance\) tokmesh_cluster_fenced == 1\) > 0", expression
    )
    return value(placed.cluster, node, "cluster_fenced") == 0 and value(placed.cluster, node, "cluster_shards_unheld") > 0


def reasons(placed: Placed, node: int) -> list[str]:
    status, data = placed.cluster.ask(node, "GET", NODES)
    assert status == 200
    found: list[str] = data["reasons"]
    return found


def told_shards(placed: Placed, node: int) -> list[int]:
    status, data = placed.cluster.ask(node, "GET", NODES)
    assert status == 200
    return [item["shards"] for item in data["items"]]


def started(placed: Placed) -> Iterator[Placed]:
    with placed.cluster as cluster:
        placed.wait_settled()
        for number in range(SESSIONS):
            cluster.create(number % 3, user_id=f"user-{number}", ttl_seconds=600)
        placed.wait_counts(SESSIONS)
        yield placed


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    """Each session on two of three."""
    yield from started(Placed(tmp_path_factory.mktemp("twice"), 2))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    """Each session on one of three."""
    yield from started(Placed(tmp_path_factory.mktemp("once"), 1))


def test_each_node_tells_its_part_and_the_sum_over_nodes_is_the_number_of_sessions(twice: Placed) -> None:
    held = [twice.shards(node)[0] for node in range(3)]
    assert sum(held) == 2 * SHARDS and max(held) - min(held) <= 2, held
    for node in range(3):
        assert told_shards(twice, node) == held and min(twice.counts(node).values()) > 0
        assert 0 < value(twice.cluster, node, "sessions_active_total") < SESSIONS, "a part of them is held"
        assert value(twice.cluster, node, "cluster_shard_loads_failed_total") == 0
        summary = twice.cluster.nodes[node].data("GET", "/admin/v1/status/summary", key=twice.cluster.key)["cluster"]
        assert summary["shards"] == {"held": held[node], "loading": 0, "leaving": 0, "unheld": 0}
        assert [each["shards"] for each in summary["nodes"]] == held
    first = twice.cluster.nodes[0]
    assert f"of 64 shards {held[0]} held here, 0 being loaded" in first.command_line("cluster", "status").stdout
    for shown, line in zip(held, first.command_line("cluster", "nodes").stdout.splitlines()[1:], strict=True):
        assert str(shown) in line.split()
    assert f"{held[0]} of 64 held" in first.command_line("top", "--once").stdout


def test_with_two_copies_a_death_leaves_nothing_unheld_and_nobody_is_written_off_for_it(twice: Placed) -> None:
    cluster = twice.cluster
    cluster.nodes[2].kill()
    try:
        wait_until(lambda: "node_down" in reasons(twice, 0), "it is missed")
        for node in (0, 1):
            assert twice.shards(node)[3] == 0 and not alert_holds(twice, node)
            assert reasons(twice, node) == ["node_down"]
        twice.wait_counts(SESSIONS, (0, 1))  # the other holder of each shard is its primary
    finally:
        cluster.nodes[2].start()
    twice.wait_settled()
    twice.wait_counts(SESSIONS)
    assert value(cluster, 2, "cluster_shard_records_loaded_total") == 0, "it has on its disk what it held"


def test_with_one_copy_a_death_is_told_as_what_it_is_and_rebalance_gives_others_what_it_held(once: Placed) -> None:
    cluster, lost = once.cluster, once.shards(2)[0]
    assert AWAY_NS >= 2e9 * MOVED_S
    cluster.nodes[2].kill()
    try:
        for node in (0, 1):
            wait_until(lambda: once.shards(node)[3] == lost, "nobody holds what it held")  # noqa: B023
            assert alert_holds(once, node) and "shards_unheld" in reasons(once, node)
            assert cluster.nodes[node].request("GET", "/ready", key=None)[0] == 200, "no other node could do better"
        status = cluster.nodes[0].command_line("cluster", "status")
        assert status.returncode == 1 and "shards_unheld: nobody in reach holds some of the sessions" in status.stdout
        doctor = cluster.nodes[0].command_line("doctor")
        assert "CRITICAL  TokMeshShardsUnheld" in doctor.stdout and f"{lost} of 64 shards" in doctor.stdout
        assert f"{lost} held by nobody" in cluster.nodes[0].command_line("top", "--once").stdout
        done = cluster.nodes[1].command_line("cluster", "rebalance")
        assert (done.returncode, done.stdout.split(";")[0]) == (0, "not waited for any longer: tmnd-2"), done.stderr
        once.wait_settled((0, 1))  # both: the one that was not asked has heard of it
        once.wait_counts(SESSIONS, (0, 1))
        for node in (0, 1):
            assert not alert_holds(once, node) and reasons(once, node) == ["node_down"]
            assert value(cluster, node, "cluster_shard_records_loaded_total") > 0
        entry = cluster.ask(1, "GET", "/admin/v1/audit/logs?event=cluster.rebalanced")[1]["items"][0]
        assert (entry["outcome"], entry["actor"], entry["details"]) == ("ok", "local", {"away": ["tmnd-2"]})
    finally:
        cluster.nodes[2].start()
    once.wait_settled()  # it is in use again by being heard, and is given its part
    once.wait_counts(SESSIONS)


def test_where_nobody_is_away_rebalance_moves_nothing(once: Placed) -> None:
    before = [once.shards(node) for node in range(3)]
    status, data = once.cluster.ask(0, "POST", REBALANCE, {})
    assert (status, data) == (200, {"away": []})
    done: Any = once.cluster.nodes[0].command_line("cluster", "rebalance")
    assert (done.returncode, done.stdout) == (0, "no member is away: nothing is waited for\n")
    assert [once.shards(node) for node in range(3)] == before

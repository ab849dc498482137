"""What three real nodes tell of themselves: the same truth in metrics, status, `top`, `doctor` and on the status page, each its own
view; and it stays so when one of them is gone."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.browser import Visit, chromium
from tests.support.cluster import Cluster
from tests.support.nats import MAY_ASK
from tests.support.waiting import wait_until
from tokmesh.cluster.subjects import Subjects

NODE_IDS = ("tmnd-0", "tmnd-1", "tmnd-2")
LABELLED = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; a test leaves them as it found them."""
    with Cluster(tmp_path_factory.mktemp("seen")) as started:
        yield started


def scrape(cluster: Cluster, node: int) -> dict[tuple[str, LABELLED], float]:
    page = cluster.nodes[node].exchange("GET", "/metrics", key=cluster.key)[2].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(cluster: Cluster, node: int, name: str, *labels: tuple[str, str]) -> float:
    return scrape(cluster, node)[f"tokmesh_{name}", labels]


def by_label(cluster: Cluster, node: int, name: str) -> dict[str, float]:
    return {labels[0][1]: value for (each, labels), value in scrape(cluster, node).items() if each == f"tokmesh_{name}"}


def shards_hold(cluster: Cluster, node: int, sessions: int) -> bool:
    keys = by_label(cluster, node, "shard_keys_count")
    return tuple(keys) == NODE_IDS and sum(keys.values()) == value(cluster, node, "sessions_active_total") == sessions


def sync_line(top: str) -> list[str]:
    """What `tokmesh top` says of how NATS syncs, word by word."""
    [line] = [line for line in top.splitlines() if line.startswith("NATS sync")]
    return line.split()[2:]


def test_every_node_tells_of_all_three_and_the_sum_over_nodes_is_the_number_of_sessions(cluster: Cluster) -> None:
    made = [cluster.create(number % 3, user_id=f"user-{number}", ttl_seconds=600) for number in range(60)]
    brief = [cluster.create(number % 3, user_id=f"brief-{number}", ttl_seconds=3) for number in range(6)]
    for node in range(3):
        assert by_label(cluster, node, "cluster_nodes_total") == {"active": 3, "down": 0}
        assert by_label(cluster, node, "cluster_member_up") == dict.fromkeys(NODE_IDS, 1)
        assert (value(cluster, node, "cluster_nodes_parity"), value(cluster, node, "cluster_quorum_lost")) == (0, 0)
        assert (value(cluster, node, "cluster_fenced"), value(cluster, node, "cluster_diverged")) == (0, 0)
        assert by_label(cluster, node, "cluster_nats_state")["connected"] == 1
        pairs = {labels for name, labels in scrape(cluster, node) if name == "tokmesh_replication_lag_seconds"}
        own, others = NODE_IDS[node], [each for each in NODE_IDS if each != NODE_IDS[node]]
        expected = {(own, own), *((own, each) for each in others), *((each, own) for each in others)}
        assert {(one, other) for (_, one), (_, other) in pairs} == expected
    for each in made[:7]:
        assert cluster.ask(1, "POST", f"/sessions/{each['session_id']}/revoke", {})[0] == 200
    assert brief
    for node in range(3):  # those that were brief have expired by then, of themselves
        wait_until(lambda: shards_hold(cluster, node, 53), "made, less revoked and expired")  # noqa: B023
        assert min(by_label(cluster, node, "shard_keys_count").values()) > 0


def test_a_revocation_s_way_to_all_nodes_is_measured_where_it_was_committed(cluster: Cluster) -> None:
    count, total = "session_revoke_propagation_lag_seconds_count", "session_revoke_propagation_lag_seconds_sum"
    before = [value(cluster, node, count) for node in range(3)]
    for _ in range(5):
        made = cluster.create(2)
        assert cluster.ask(2, "POST", f"/sessions/{made['session_id']}/revoke", {"sync": True})[0] == 200
    wait_until(lambda: value(cluster, 2, count) == before[2] + 5, "all five are measured")
    assert [value(cluster, node, count) for node in range(2)] == before[:2]
    assert 0 < value(cluster, 2, total) / value(cluster, 2, count) < 1
    assert (value(cluster, 2, "session_revoke_pending"), value(cluster, 2, "session_revoke_oldest_pending_seconds")) == (0, 0)
    assert value(cluster, 2, "gossip_propagation_lag_seconds_count") > 0


def test_what_is_published_is_counted_by_its_outcome(cluster: Cluster) -> None:
    before = by_label(cluster, 0, "cluster_publications_total")
    assert tuple(before) == ("stored", "conflict", "refused", "unknown")
    cluster.create(0)
    wait_until(
        lambda: by_label(cluster, 0, "cluster_publications_total") == {**before, "stored": before["stored"] + 1}, "one was stored"
    )
    position = value(cluster, 0, "cluster_stream_position")
    assert position > 0
    wait_until(lambda: value(cluster, 0, "cluster_majority_position") >= position, "a majority has it")
    for node in (1, 2):
        wait_until(lambda: value(cluster, node, "cluster_stream_position") >= position, "all come as far")  # noqa: B023


def test_a_node_that_is_gone_is_told_everywhere_and_its_return_too(cluster: Cluster) -> None:
    cluster.create(0)
    with chromium() as browser:
        visit = Visit(browser, cluster.nodes[0].url)
        visit.open(cluster.key)
        visit.wait_for_text("#cluster", "tmnd-2")
        visit.wait_until(lambda: visit.page.locator("#cluster .member .pill.good").count() == 3)
        cluster.nodes[2].kill()
        try:
            visit.wait_for_text("#conditions", "TokMeshNodeDown")
            visit.wait_for_text("#cluster", "silent for")
            visit.wait_until(lambda: visit.page.locator("#cluster .member .pill.critical").count() == 1)
            summary = cluster.nodes[0].data("GET", "/admin/v1/status/summary", key=cluster.key)["cluster"]
            assert [node["status"] for node in summary["nodes"]] == ["active", "active", "down"]
            keys = by_label(cluster, 0, "shard_keys_count")
            assert tuple(keys) == NODE_IDS[:2], "what is silent is primary for nothing"
            assert sum(keys.values()) == value(cluster, 0, "sessions_active_total") > 0
            assert summary["nodes"][2]["silent_seconds"] > 2 and summary["quorum"] is True
            top = cluster.nodes[0].command_line("top", "--once").stdout
            assert "2 active" in top and "quorum held, reads answered" in top and "stream applied to" in top
            assert sync_line(top)[0] == "unknown", "nobody may ask NATS here"
            [line] = [line for line in top.splitlines() if line.startswith("tmnd-2")]
            assert "down" in line and "silent for" in line
            doctor = cluster.nodes[0].command_line("doctor").stdout
            assert "WARNING  TokMeshNodeDown" in doctor and "TokMeshQuorumLost" not in doctor
        finally:
            cluster.nodes[2].start()
        # Not that nothing else is wrong: a busy machine may have held up the loop meanwhile, and is told so.
        visit.wait_until(lambda: "TokMeshNodeDown" not in visit.text("#conditions"))
        visit.wait_until(lambda: visit.page.locator("#cluster .member .pill.good").count() == 3)
        visit.assert_clean()
        visit.close()


def test_a_node_that_is_cut_off_says_so_of_itself(cluster: Cluster) -> None:
    for node in cluster.nodes[1:]:
        node.kill()
    try:
        wait_until(lambda: value(cluster, 0, "cluster_fenced") == 1, "it is fenced", 10)
        assert value(cluster, 0, "cluster_quorum_lost") == 1
        began, staleness = time.monotonic(), value(cluster, 0, "cluster_staleness_seconds")
        assert staleness > 2
        wait_until(lambda: value(cluster, 0, "cluster_staleness_seconds") > staleness + 0.5, "and ever staler")
        assert time.monotonic() - began < 5
        top = cluster.nodes[0].command_line("top", "--once").stdout
        assert "quorum lost, reads refused" in top
        doctor = cluster.nodes[0].command_line("doctor").stdout
        assert "CRITICAL  TokMeshClusterStale" in doctor and "CRITICAL  TokMeshQuorumLost" in doctor
    finally:
        for node in cluster.nodes[1:]:
            node.spawn()
        for node in cluster.nodes[1:]:
            node.wait_ready()
    wait_until(lambda: value(cluster, 0, "cluster_fenced") == 0, "it answers again", 10)


def test_what_no_node_can_read_is_told_by_all(cluster: Cluster) -> None:
    async def write() -> None:
        client = await nats.connect(cluster.nats.urls)
        await client.publish(Subjects("tokmesh").node("tmnd-9"), b"\xffnobody's record")
        await client.drain()

    before = value(cluster, 0, "cluster_quarantined_records")
    asyncio.run(write())
    for node in range(3):
        wait_until(lambda: value(cluster, node, "cluster_quarantined_records") == before + 1, "it is counted")  # noqa: B023
        assert "CRITICAL  TokMeshStreamRecordsQuarantined" in cluster.nodes[node].command_line("doctor").stdout
    made = cluster.create(0)
    assert [cluster.verdict(node, made["token"]) for node in range(3)] == [True] * 3, "and they go on behind it"


def test_the_way_to_nats_is_told_while_it_is_cut_and_when_it_is_there_again(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as single:
        info = by_label(single, 0, "cluster_nats_info")
        assert info == {single.nats.versions()[0]: 1} and value(single, 0, "cluster_nats_old") == 0
        single.nats.kill(0)
        wait_until(lambda: by_label(single, 0, "cluster_nats_state")["lost"] == 1, "lost")
        assert sum(by_label(single, 0, "cluster_nats_state").values()) == 1
        single.nats.start(0)
        wait_until(lambda: by_label(single, 0, "cluster_nats_state")["connected"] == 1, "connected again")
        assert value(single, 0, "cluster_nats_reconnects_total") == 1


@pytest.mark.parametrize(("state", "words"), [("always", "each record"), ("off", "not each record")])
def test_whether_nats_syncs_each_record_is_told_by_all(tmp_path: Path, state: str, words: str) -> None:
    with Cluster(tmp_path, nodes=1, servers=1, sync_always=state == "always", nats_extra=MAY_ASK) as single:
        wait_until(lambda: by_label(single, 0, "cluster_nats_sync")[state] == 1, "it is known")
        assert sync_line(single.nodes[0].command_line("top", "--once").stdout) == [state, *words.split()]
        assert ("TokMeshNatsSyncOff" in single.nodes[0].command_line("doctor").stdout) == (state == "off")

"""What another hand writes in place of the record of the members is passed over; it keeps no node that knows them from anything."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_bad_records import RECORDS, envelope
from tests.cluster.test_bad_starts import node_of, ready_status, said
from tests.support.cluster import Cluster
from tests.support.nats_hands import STREAM, api, put
from tests.support.waiting import wait_until
from tokmesh.cluster.stream import facts_of
from tokmesh.host.apart import Apart
from tokmesh.log.record import ClusterStated, NodeStated

SUBJECT = "tokmesh.tokmesh.c.cluster"
MEMBERS = {
    **{name: record for name, record in RECORDS.items() if "session" not in name},
    "members of another cluster": envelope(ClusterStated(1_700_000_000_000, b"another cluster!", ("tmnd-9",)).encode()),
    "a start of a node": envelope(NodeStated(1_700_000_000_000, "tmnd-9", 1).encode()),
    "more members than there may be": envelope(
        ClusterStated(1_700_000_000_000, bytes(16), [f"tmnd-{number:03}" for number in range(200)]).encode()
    ),
    "the last": b"\x01garbage",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("members"), nodes=2, servers=1) as started:
        yield started


def members(cluster: Cluster, node: int) -> list[str]:
    status, found = cluster.ask(node, "GET", "/admin/v1/cluster/nodes")
    assert status == 200, found
    return [item["node_id"] for item in found["items"]]


def test_running_nodes_go_on_with_the_members_they_know(cluster: Cluster) -> None:
    for name, record in MEMBERS.items():
        put(cluster.nats.servers[0], SUBJECT, record)
        made = cluster.create(0, user_id=name)
        for node in range(2):
            cluster.wait_verdict(node, made["token"], True)
    for node in range(2):
        assert members(cluster, node) == ["tmnd-0", "tmnd-1"]


def test_nodes_start_again_over_it(cluster: Cluster) -> None:
    token = cluster.create(0)["token"]
    cluster.restart_nodes()
    for number in range(len(cluster.nodes)):
        assert cluster.verdict(number, token) is True
        assert members(cluster, number) == ["tmnd-0", "tmnd-1"]


def test_a_fresh_node_says_what_it_lacks_until_a_change_of_members_writes_it_anew(cluster: Cluster, tmp_path: Path) -> None:
    token = cluster.create(0)["token"]
    fresh = node_of(tmp_path, cluster.nats.urls[0]).spawn()
    try:
        wait_until(lambda: said(fresh, "TM-CLST-5050") and said(fresh, "record of the members cannot be read"), "it says so")
        assert ready_status(fresh) == 503
        # Meanwhile a node that is taken out comes back, which writes the members anew.
        assert cluster.ask(0, "POST", "/admin/v1/cluster/nodes/tmnd-1/remove", {})[0] == 200
        cluster.nodes[1].stop()
        cluster.nodes[1].start()
        fresh.wait_ready()
        assert len(members(cluster, 0)) == 3
        status, answer = fresh.request("POST", "/tokens/validate", json={"token": token}, key=cluster.key)
        assert status == 200 and answer["data"]["valid"]
    finally:
        fresh.kill()


def test_a_node_that_begins_anew_over_it_does_not_make_itself_the_only_member(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        node, server = cluster.nodes[1], cluster.nats.servers[0]
        cluster_id = bytes.fromhex(str(cluster.ask(0, "GET", "/admin/v1/cluster/nodes")[1]["cluster"]["id"]))
        assert node.stop() == 0
        put(server, SUBJECT, MEMBERS["the last"])
        created_ns = facts_of(api(server, f"STREAM.INFO.{STREAM}")).created_ns
        Apart(node.directory).begin("its table differs", time.time_ns() // 1_000_000, created_ns, cluster_id)
        wait_until((node.directory / "stands_apart").exists, "it is written down")
        node.spawn()
        wait_until(lambda: said(node, "record of the members cannot be read"), "it says what it lacks")
        assert ready_status(node) == 503
        assert members(cluster, 0) == ["tmnd-0", "tmnd-1"]
        assert not cluster.ask(0, "GET", "/admin/v1/cluster/nodes")[1]["reasons"].count("removed")

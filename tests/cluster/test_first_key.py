"""A cluster gets one first admin key, however many nodes find none at the same time, also when the node that founded it dies first.

NATS takes no keys until the test says so: until then every node stays where it has found that there is no key.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

NO_KEYS = """
authorization { users: [{ user: tokmesh, password: word, permissions: { publish: { deny: ["tokmesh.tokmesh.k.>"] } } }] }
no_auth_user: tokmesh
"""
NODES = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nodes that were started at once, belong, and try to make the first key."""
    with Cluster(tmp_path, nodes=0, servers=1, nats_extra=NO_KEYS) as held:
        for node in [held.add_node() for _ in range(NODES)]:
            node.spawn()
        for node in held.nodes:
            wait_until(lambda: node.has_logged("the first API key is not made yet"), "it tries")  # noqa: B023
        yield held


def permit_keys(cluster: Cluster) -> None:
    """From now on."""
    server = cluster.nats.servers[0]
    server.config.write_text(server.config.read_text().replace(NO_KEYS, ""))
    server.send_signal(signal.SIGHUP)


def the_key(cluster: Cluster) -> str:
    """The only one: one node of those that are ready has shown it, and every node knows it and no other."""
    shown = [node.stderr.split()[-1] for node in cluster.nodes if "tmas_" in node.stderr]
    assert len(shown) == 1, shown
    for node in cluster.nodes:
        keys = node.data("GET", "/admin/v1/keys", key=shown[0])["items"]
        assert [(each["key_id"], each["role"]) for each in keys] == [(shown[0].split(":")[0], "admin")]
    return shown[0]


def test_nodes_that_all_find_no_key_make_one(cluster: Cluster) -> None:
    permit_keys(cluster)
    for node in cluster.nodes:
        node.wait_ready()
    key = the_key(cluster)
    cluster.nodes[0].stop()
    cluster.nodes[0].start()
    assert cluster.nodes[0].data("GET", "/admin/v1/keys", key=key)["total_items"] == 1, "a later start makes none"


def test_a_founder_that_dies_before_it_has_made_the_key_leaves_that_to_another(cluster: Cluster) -> None:
    founder = next(node for node in cluster.nodes if node.has_logged("the cluster's stream was made"))
    founder.kill()
    permit_keys(cluster)
    others = [node for node in cluster.nodes if node is not founder]
    for node in others:
        node.wait_ready()
    founder.start()
    assert "tmas_" not in founder.stderr
    the_key(cluster)


def test_a_founder_that_dies_alone_before_it_has_made_the_key_makes_it_when_it_is_back(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=0, servers=1, nats_extra=NO_KEYS) as cluster:
        founder, other = cluster.add_node().spawn(), cluster.add_node()
        wait_until(lambda: founder.has_logged("the first API key is not made yet"), "it tries")
        founder.kill()
        permit_keys(cluster)
        other.spawn()
        wait_until(lambda: "majority of the members to know" in other.command_line("cluster", "status").stdout, "it waits")
        founder.start()
        other.wait_ready()
        the_key(cluster)

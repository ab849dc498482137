"""A fresh node takes all that a real stream holds, and has it from its own log when it starts again."""

from pathlib import Path

from benchmarks.cluster.filling import fill, token_of
from tests.support.cluster import Cluster
from tests.support.nats_hands import put

SESSIONS = 4_000
BATCH = 1000


def valid_of(cluster: Cluster, node: int) -> int:
    """How many of the sessions the node knows."""
    found = 0
    for first in range(0, SESSIONS, BATCH):
        tokens = [token_of(number) for number in range(first, first + BATCH)]
        status, data = cluster.ask(node, "POST", "/tokens/validate/batch", {"tokens": tokens})
        assert status == 200, data
        found += sum(result["valid"] for result in data["results"])
    return found


def test_a_fresh_node_has_every_session_of_the_stream(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        cluster.begin()
        fill(cluster.nats.urls[0], "tokmesh", SESSIONS)
        put(cluster.nats.servers[0], "tokmesh.tokmesh.s.00.junk", b"junk")
        made = cluster.create(0)
        cluster.add_node().start()
        for node in (0, 1):
            cluster.wait_verdict(node, made["token"], True)
            assert valid_of(cluster, node) == SESSIONS
        cluster.nodes[1].kill()  # and again from its own log
        cluster.nodes[1].start()
        assert valid_of(cluster, 1) == SESSIONS

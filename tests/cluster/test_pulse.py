"""A stream that takes no records is told as long as it is so, whether or not anybody writes; and no longer."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

NOTICED_WITHIN_S = 60.0  # a leader that has lost its majority goes on claiming for some seconds
WATCHED_S = 6.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One node, three servers."""
    with Cluster(tmp_path, nodes=1, servers=3) as started:
        yield started


def quorum_lost(cluster: Cluster) -> bool:
    status, _, page = cluster.nodes[0].exchange("GET", "/metrics", key=cluster.key)
    assert status == 200
    return b"\ntokmesh_cluster_quorum_lost 1" in page


def test_an_outage_of_the_stream_is_told_without_a_break_until_it_ends(cluster: Cluster) -> None:
    token = cluster.create(0)["token"]
    assert not quorum_lost(cluster)
    for number in (0, 1):
        cluster.nats.kill(number)
    wait_until(lambda: quorum_lost(cluster), "nobody writes, and it is noticed all the same", NOTICED_WITHIN_S)
    until = time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        assert quorum_lost(cluster)
        began = time.monotonic()
        status, answer = cluster.ask(0, "POST", "/sessions", {"user_id": "u"})
        assert (status, answer["code"]) == (503, "TM-CLST-5030")
        assert time.monotonic() - began < 1, "refused at once: nothing is tried that cannot be"
        assert cluster.verdict(0, token) is True
    wait_until(lambda: cluster.nodes[0].request("GET", "/ready", key=None)[0] == 503, "readiness follows a long one")
    for number in (0, 1):
        cluster.nats.start(number)
    wait_until(lambda: not quorum_lost(cluster), "its end is noticed, and nobody writes")
    assert cluster.create(0)["token"]
    assert cluster.nodes[0].request("GET", "/ready", key=None)[0] == 200

    def told(words: str) -> int:
        return sum(line["message"] == words for line in cluster.nodes[0].log_lines())

    wait_until(lambda: told("quorum again: writes are taken"), "the log tells that it is over")
    assert (told("no quorum: writes are refused"), told("quorum again: writes are taken")) == (1, 1)


def test_a_node_that_goes_and_comes_is_in_the_log_of_another_once(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        cluster.nodes[1].kill()

        def told(words: str) -> int:
            return sum(line["message"] == words for line in cluster.nodes[0].log_lines())

        wait_until(lambda: told("a node cannot be heard"), "the log tells of the node that is gone")
        wait_until(lambda: told("no quorum: writes are refused"), "the log tells that one of two is no majority")
        wait_until(lambda: told("this node is not proved current: it answers nothing about sessions"), "and what follows")
        cluster.nodes[1].start()
        wait_until(lambda: told("a node is heard again"), "the log tells that it is back")
        wait_until(lambda: told("this node is current again: it answers"), "and that answers are")
        assert (told("a node cannot be heard"), told("a node is heard again")) == (1, 1)

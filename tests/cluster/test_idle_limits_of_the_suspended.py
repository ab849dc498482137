"""A node that was suspended, or cut off, for longer than an idle limit. It mostly waits, some twenty seconds: for `make slow`."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.test_idle_limits import IDLE_S, is_forgotten, touched
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

SILENT: Any = (503, "TM-CLST-5030")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, which forget at once what has ended."""
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=1, args=["--session.tombstone_ttl=1s"]) as started:
        yield started


def test_it_says_nothing_until_it_knows_who_was_active_and_ends_no_session_that_was(cluster: Cluster) -> None:
    seen, quiet = cluster.create(0, idle_seconds=IDLE_S), cluster.create(0, idle_seconds=IDLE_S)
    for node in range(3):
        cluster.wait_verdict(node, seen["token"], True)
    cluster.nodes[2].send_signal(signal.SIGSTOP)
    try:
        with touched(cluster, seen["session_id"]):
            wait_until(lambda: is_forgotten(cluster, 0, quiet["session_id"]), "a session that nobody has seen ends")
    finally:
        cluster.nodes[2].send_signal(signal.SIGCONT)
    said: list[Any] = []

    def answers() -> bool:
        said.append(cluster.verdict(2, seen["token"]))
        return bool(said[-1] != SILENT)

    wait_until(answers, "it answers again")
    assert said[-1] is True
    with touched(cluster, seen["session_id"]):
        wait_until(lambda: is_forgotten(cluster, 2, quiet["session_id"]), "what nobody has seen ends on it too")
        assert cluster.verdict(2, seen["token"]) is True
    assert "heard who was active" in cluster.nodes[2].stdout.rsplit("this node belongs to the cluster", 1)[-1]

"""Real nodes: one that was away ends no session for its idle limit that another has seen meanwhile, and all end the others."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

IDLE_S = 8  # and longer than a node takes to start
TOUCH_EVERY_S = 0.2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, which forget at once what has ended."""
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=1, args=["--session.tombstone_ttl=1s"]) as started:
        yield started


@contextmanager
def touched(cluster: Cluster, session_id: str, node: int = 0) -> Iterator[None]:
    """That node sees the session again and again."""
    over = threading.Event()
    answers: list[int] = []

    def touch() -> None:
        while not answers or not over.wait(TOUCH_EVERY_S):
            answers.append(cluster.ask(node, "POST", f"/sessions/{session_id}/touch", {})[0])

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert set(answers) == {200}


def is_forgotten(cluster: Cluster, node: int, session_id: str) -> bool:
    """Whether it has ended there, and its tombstone with it."""
    status, answer = cluster.ask(node, "GET", f"/sessions/{session_id}")
    return (status, answer.get("code")) == (404, "TM-SESS-4040")


def test_a_node_that_was_away_for_longer_than_an_idle_limit_ends_no_session_that_others_have_seen(cluster: Cluster) -> None:
    seen, quiet = cluster.create(0, idle_seconds=IDLE_S), cluster.create(0, idle_seconds=IDLE_S)
    for node in range(3):
        cluster.wait_verdict(node, seen["token"], True)
    cluster.nodes[2].kill()
    with touched(cluster, seen["session_id"]):
        wait_until(lambda: is_forgotten(cluster, 0, quiet["session_id"]), "a session that nobody has seen ends")
    cluster.nodes[2].start()  # which hears no touch meanwhile
    assert [cluster.verdict(node, seen["token"]) for node in (2, 0)] == [True, True]
    with touched(cluster, seen["session_id"]):
        wait_until(lambda: is_forgotten(cluster, 2, quiet["session_id"]), "it ends on the node that was away")
        assert cluster.verdict(2, seen["token"]) is True
    cluster.nodes[1].kill()
    for folder in ("log", "snapshots"):
        shutil.rmtree(cluster.nodes[1].directory / folder)
    cluster.nodes[1].start()
    assert [cluster.verdict(node, seen["token"]) for node in (1, 0)] == [True, True]
    wait_until(lambda: is_forgotten(cluster, 1, quiet["session_id"]), "it ends on the node that has begun anew")

"""A stream that is not what the nodes made: refused in words, never served as if nothing had been."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_bad_starts import node_of, ready_status, said
from tests.support.cluster import Cluster
from tests.support.config import load_settings
from tests.support.nats import NatsCluster
from tests.support.nats_hands import delete_stream, make_stream
from tests.support.waiting import wait_until
from tokmesh.cluster.link import Link
from tokmesh.cluster.stream import Stream, StreamRefused
from tokmesh.cluster.subjects import Subjects

FENCED_WITHIN_S = 10.0
EX_FAILURE = 1

CHANGED: dict[str, dict[str, object]] = {
    "max_age": {"max_age": 3_600_000_000_000},
    "max_msgs": {"max_msgs": 1000, "discard": "old"},
    "max_bytes": {"max_bytes": 1_000_000, "discard": "old"},
    "max_msgs_per_subject": {"max_msgs_per_subject": 5},
    "storage": {"storage": "memory"},
    "retention": {"retention": "interest"},
    "subjects": {"subjects": ["tokmesh.tokmesh.s.>"]},
    "allow_direct": {"allow_direct": False},
    "allow_msg_ttl": {"allow_msg_ttl": False},
    "max_msg_size": {"max_msg_size": 100},
    "no_ack": {"no_ack": True},
    "duplicate_window": {"duplicate_window": 100_000_000},
    "persist_mode": {"persist_mode": "async"},
}


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """One server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as started:
        yield started


def refusal(url: str) -> str:
    """What a node says of the stream; "" where it is as it must be."""

    async def look() -> str:
        link = Link(load_settings({"cluster.enabled": "true", "cluster.nats.servers": url}).cluster.nats, "test")
        await link.connect()
        try:
            await Stream(link, Subjects("tokmesh"), 1).ensure(may_make=False)
        except StreamRefused as error:
            return str(error)
        finally:
            await link.close()
        return ""

    return asyncio.run(look())


@pytest.mark.parametrize("name", CHANGED)
def test_a_stream_with_other_settings_is_refused_by_name(nats: NatsCluster, name: str) -> None:
    make_stream(nats.servers[0], **CHANGED[name])
    assert f"made or changed by somebody else: {name} is" in refusal(nats.urls[0])
    delete_stream(nats.servers[0])


def test_with_a_stream_of_other_settings_a_node_waits_and_says_so(tmp_path: Path, nats: NatsCluster) -> None:
    make_stream(nats.servers[0], **CHANGED["max_age"])
    node = node_of(tmp_path, nats.urls[0]).spawn()
    try:
        wait_until(lambda: said(node, "made or changed by somebody else: max_age is"), "it says so")
        assert ready_status(node) == 503
    finally:
        node.kill()
        delete_stream(nats.servers[0])


def test_a_stream_made_by_hand_as_it_must_be_is_used(tmp_path: Path, nats: NatsCluster) -> None:
    make_stream(nats.servers[0])
    with node_of(tmp_path, nats.urls[0]) as node:
        assert node.validate(node.create_session()["token"])["valid"]
    delete_stream(nats.servers[0])


def test_a_stream_made_anew_while_the_node_was_stopped_ends_its_start(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        cluster.create(0)
        node, server = cluster.nodes[0], cluster.nats.servers[0]
        node.stop()
        delete_stream(server)
        node.spawn()
        wait_until(lambda: said(node, "stream not found"), "without a stream it waits, and makes none")
        assert ready_status(node) == 503
        node.stop()
        make_stream(server)
        assert node.spawn().wait() == EX_FAILURE, node.output
        assert "TM-CLST-5050" in node.stderr and "made anew" in node.stderr


@pytest.mark.parametrize("gone_s", ["at once", "later"])
def test_a_stream_made_anew_under_running_nodes_fences_them(tmp_path: Path, gone_s: str) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        token, server = cluster.create(0)["token"], cluster.nats.servers[0]
        delete_stream(server)
        if gone_s == "later":
            wait_until(lambda: cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 503, "no stream takes a write")
        make_stream(server)
        for node in range(2):
            status, answer = cluster.ask(node, "POST", "/sessions", {"user_id": "u"})
            assert status == 503, answer
        for node in range(2):
            question = ("POST", "/tokens/validate", {"token": token})
            wait_until(lambda: cluster.ask(node, *question)[0] == 503, "it is fenced", FENCED_WITHIN_S)  # noqa: B023
            status, answer = cluster.nodes[node].request("GET", "/ready?verbose", key=cluster.key)
            assert status == 503 and "TM-CLST-5050" in str(answer), answer
            cluster.nodes[node].stop()
            assert cluster.nodes[node].spawn().wait() == EX_FAILURE

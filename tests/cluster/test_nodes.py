"""Three real nodes on three real NATS servers are one: what one takes, all know; what one loses, the others still have."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_bad_records import envelope
from tests.support.cluster import Cluster
from tests.support.nats import NatsServer
from tests.support.nats_hands import STREAM, api, put
from tests.support.waiting import wait_until
from tokmesh.log.record import PlaceStated

NO_QUORUM = (503, "TM-CLST-5030")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; a test leaves them as it found them."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def state(server: NatsServer) -> dict[str, Any]:
    """Of the cluster's stream."""
    found: dict[str, Any] = api(server, f"STREAM.INFO.{STREAM}")["state"]
    return found


def test_what_one_node_does_to_a_session_all_nodes_know(cluster: Cluster) -> None:
    made = cluster.create(0, data={"a": "1"})
    path = f"/sessions/{made['session_id']}"
    for node in range(3):
        cluster.wait_verdict(node, made["token"], True)
    status, renewed = cluster.ask(1, "POST", f"{path}/renew", {"ttl_seconds": 900})
    assert status == 200
    status, updated = cluster.ask(2, "POST", f"{path}/update", {"data": {"a": "2"}, "if_version": 2})
    assert (status, updated) == (200, {"version": 3})
    for node in range(3):
        session = cluster.session(node, made["session_id"])
        assert (session["expires_at"], session["data"], session["version"]) == (renewed["new_expires_at"], {"a": "2"}, 3), node


def test_a_rotated_token_is_good_everywhere_and_the_old_one_for_its_grace(cluster: Cluster) -> None:
    made = cluster.create(0)
    status, rotated = cluster.ask(1, "POST", "/tokens/rotate", {"token": made["token"], "grace_seconds": 60})
    assert status == 200
    for node in range(3):
        assert (cluster.verdict(node, rotated["token"]), cluster.verdict(node, made["token"])) == (True, True)
    status, again = cluster.ask(2, "POST", "/tokens/rotate", {"token": rotated["token"], "grace_seconds": 0})
    assert status == 200
    for node in range(3):
        assert cluster.verdict(node, again["token"]) is True
        assert cluster.verdict(node, rotated["token"]) != True  # noqa: E712
        assert cluster.verdict(node, made["token"]) != True  # noqa: E712


def test_a_sync_revocation_is_answered_when_every_node_refuses(cluster: Cluster) -> None:
    made = cluster.create(0)
    status, answer = cluster.ask(2, "POST", f"/sessions/{made['session_id']}/revoke", {"sync": True})
    assert (status, answer["revoked_count"], answer["nodes_fenced"]) == (200, 1, [])
    assert answer["nodes_reached"] == ["tmnd-0", "tmnd-1", "tmnd-2"]
    assert [cluster.verdict(node, made["token"]) for node in range(3)] == ["TM-TOKN-4012"] * 3


def test_of_two_changes_on_two_nodes_to_one_version_one_is_told_of_the_other(cluster: Cluster) -> None:
    made = cluster.create(0)
    path = f"/sessions/{made['session_id']}/update"
    assert cluster.ask(1, "POST", path, {"data": {"by": "1"}, "if_version": 1})[0] == 200
    status, answer = cluster.ask(2, "POST", path, {"data": {"by": "2"}, "if_version": 1})
    assert (status, answer["code"]) == (409, "TM-SESS-4091")


def test_an_api_key_made_on_one_node_is_good_on_all_and_disabled_on_all(cluster: Cluster) -> None:
    status, made = cluster.ask(0, "POST", "/admin/v1/keys", {"role": "validator"})
    assert status == 200
    credential = f"{made['key_id']}:{made['key_secret']}"
    token = cluster.create(0)["token"]
    for node in cluster.nodes:
        assert node.request("POST", "/tokens/validate", json={"token": token}, key=credential)[0] == 200
    assert cluster.ask(2, "POST", f"/admin/v1/keys/{made['key_id']}/status", {"status": "disabled"})[0] == 200
    for node in cluster.nodes:
        status, answer = node.request("POST", "/tokens/validate", json={"token": token}, key=credential)
        assert (status, answer["code"]) == (401, "TM-AUTH-4012")


def test_a_touch_on_one_node_keeps_an_idle_session_alive_on_the_others(cluster: Cluster) -> None:
    made = cluster.create(0, idle_seconds=3)
    path = f"/sessions/{made['session_id']}"
    first = cluster.session(1, made["session_id"])["last_active"]
    assert cluster.ask(0, "POST", f"{path}/touch", {})[0] == 200
    touched = cluster.session(0, made["session_id"])["last_active"]
    assert touched > first
    for node in (1, 2):
        wait_until(lambda: cluster.session(node, made["session_id"])["last_active"] == touched, "the touch is known")  # noqa: B023


def test_a_killed_node_comes_back_with_what_happened_meanwhile(cluster: Cluster) -> None:
    before = cluster.create(2)
    cluster.nodes[2].kill()
    meanwhile = cluster.create(0)
    assert cluster.ask(1, "POST", f"/sessions/{before['session_id']}/revoke", {})[0] == 200
    cluster.nodes[2].start()
    assert cluster.verdict(2, before["token"]) == "TM-TOKN-4012"
    assert cluster.verdict(2, meanwhile["token"]) is True


def test_a_sync_revocation_does_not_wait_for_a_dead_node_once_it_is_fenced(cluster: Cluster) -> None:
    made = cluster.create(0)
    cluster.nodes[1].kill()
    try:
        status, answer = cluster.ask(0, "POST", f"/sessions/{made['session_id']}/revoke", {"sync": True})
        assert (status, answer["nodes_reached"], answer["nodes_fenced"]) == (200, ["tmnd-0", "tmnd-2"], ["tmnd-1"])
    finally:
        cluster.nodes[1].start()


def test_a_node_without_a_majority_refuses_writes_and_soon_reads(cluster: Cluster) -> None:
    made = cluster.create(0)
    cluster.nodes[1].kill()
    cluster.nodes[2].kill()
    try:
        wait_until(lambda: cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 503, "writes are refused", 5)
        cluster.wait_verdict(0, made["token"], NO_QUORUM, 10)
        status, answer = cluster.nodes[0].request("GET", "/ready?verbose", key=cluster.key)
        assert (status, answer["details"]["failed"]) == (503, ["cluster"])
        assert cluster.nodes[0].request("GET", "/health", key=None)[0] == 200
    finally:
        cluster.nodes[1].start()
        cluster.nodes[2].start()
    cluster.wait_verdict(0, made["token"], True)


def test_a_fresh_node_makes_its_table_from_the_stream_alone(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as single:
        kept, gone = single.create(0, data={"x": "y"}), single.create(0)
        single.ask(0, "POST", f"/sessions/{kept['session_id']}/renew", {"ttl_seconds": 500})
        single.ask(0, "POST", f"/sessions/{gone['session_id']}/revoke", {})
        expected = single.session(0, kept["session_id"])
        single.add_node().start()
        found = single.session(1, kept["session_id"])
        assert {**found, "last_active": 0} == {**expected, "last_active": 0}
        assert single.verdict(1, kept["token"]) is True
        assert single.verdict(1, gone["token"]) != True  # noqa: E712


@pytest.mark.parametrize("directory", ["kept", "lost"])
def test_nodes_start_where_the_last_record_of_the_stream_has_expired(tmp_path: Path, directory: str) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as single:
        token, node, server = single.create(0)["token"], single.nodes[0], single.nats.servers[0]
        assert node.stop() == 0
        last = put(server, "tokmesh.tokmesh.c.place", envelope(PlaceStated(time.time_ns() // 1_000_000).encode()), ttl_s=1)
        kept = state(server)["messages"]
        if directory == "lost":
            shutil.rmtree(node.directory)
        wait_until(lambda: state(server)["messages"] < kept, "it is there no more")
        assert state(server)["last_seq"] == last, "and counts all the same"
        node.start()
        assert single.verdict(0, token) is True

"""A stream that was lost is noticed before anything wrong is said, and put back from what the nodes have."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.support.cluster import Cluster
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.cli import main

STREAM = "TOKMESH_tokmesh_0"
SETTINGS = ("--cluster.enabled=true", "--cluster.nats.replicas=1")


def delete_stream(cluster: Cluster) -> None:
    """As an operator's hand might."""

    async def delete() -> None:
        client = await nats.connect(cluster.nats.urls)
        await client.jetstream().delete_stream(STREAM)
        await client.close()

    asyncio.run(delete())


def reseed(cluster: Cluster, number: int, *more: str) -> Any:
    node = cluster.nodes[number]
    urls = ",".join(cluster.nats.urls)
    options = (*SETTINGS, f"--cluster.nats.servers={urls}", f"--cluster.node_id=tmnd-{number}")
    return node.command_line("cluster", "reseed", f"--storage.dir={node.directory}", *options, *more)


def refused_start(node: TokMeshProcess) -> str:
    node.spawn()
    assert node.wait() != 0
    return node.output


def test_a_lost_stream_is_put_back_from_the_nodes_session_for_session(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2, servers=1) as cluster:
        renewed, rotated, revoked = (cluster.create(number % 2, data={"n": str(number)}) for number in range(3))
        assert cluster.ask(0, "POST", f"/sessions/{renewed['session_id']}/renew", {"ttl_seconds": 600})[0] == 200
        new = cluster.ask(1, "POST", "/tokens/rotate", {"token": rotated["token"], "grace_seconds": 60})[1]["token"]
        assert cluster.ask(1, "POST", f"/sessions/{revoked['session_id']}/revoke", {})[0] == 200
        before = [cluster.session(0, each["session_id"]) for each in (renewed, rotated)]
        made = cluster.ask(0, "POST", "/admin/v1/keys", {"role": "validator"})[1]
        for node in cluster.nodes:
            assert node.stop() == 0
        delete_stream(cluster)

        first = reseed(cluster, 0)
        assert first.returncode == 0, first.stderr
        assert "TM-CLST-5050" in refused_start(cluster.nodes[1]), "it follows another stream: it must not serve"
        second = reseed(cluster, 1)
        assert (second.returncode, second.stdout.split()[0]) == (0, "1"), "all but the revocation was there"
        again = reseed(cluster, 1)
        assert "TM-CLST-5050" in again.stderr and again.returncode != 0, "nothing is lost any more"

        for node in cluster.nodes:
            node.start()
        for number in range(2):
            assert [cluster.session(number, each["session_id"]) for each in (renewed, rotated)] == before
            verdicts = [cluster.verdict(number, token) for token in (renewed["token"], new, rotated["token"], revoked["token"])]
            assert verdicts == [True, True, True, "TM-TOKN-4012"]
            credential = f"{made['key_id']}:{made['key_secret']}"
            status, _ = cluster.nodes[number].request("POST", "/tokens/validate", json={"token": new}, key=credential)
            assert status == 200


def test_what_was_revoked_while_a_node_was_away_does_not_come_back_from_its_directory(tmp_path: Path) -> None:
    forgets = "--session.tombstone_ttl=1s"
    with Cluster(tmp_path, nodes=3, servers=1, args=[forgets]) as cluster:
        revoked, kept = cluster.create(0), cluster.create(0)
        away = cluster.nodes[2]
        cluster.wait_verdict(2, kept["token"], True)
        assert away.stop() == 0
        assert cluster.ask(0, "POST", f"/sessions/{revoked['session_id']}/revoke", {"sync": True})[0] == 200
        for node in cluster.nodes[:2]:
            assert node.stop() == 0
        delete_stream(cluster)
        assert reseed(cluster, 1, forgets).returncode == 0
        refused = reseed(cluster, 2, forgets)
        assert refused.returncode != 0 and "TM-CLST-5050" in refused.stderr and "this node was away" in refused.stderr
        for folder in ("log", "snapshots"):
            shutil.rmtree(away.directory / folder)
        for node in cluster.nodes[1:]:
            node.spawn()
        for node in cluster.nodes[1:]:
            node.wait_ready()
        for number in (1, 2):
            assert cluster.verdict(number, kept["token"]) is True
            assert cluster.verdict(number, revoked["token"]) in ("TM-TOKN-4010", "TM-TOKN-4012")


def test_a_stream_deleted_and_made_anew_under_running_nodes_stops_their_answers(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        token = cluster.create(0)["token"]
        delete_stream(cluster)
        stranger = cluster.add_node()
        stranger.args = [each for each in stranger.args if not each.startswith("--cluster.node_id")] + ["--cluster.node_id=tmnd-x"]
        stranger.start()  # makes a stream where there is none
        cluster.wait_verdict(0, token, (503, "TM-CLST-5030"), 20)
        wait_until(lambda: cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 503, "writes are refused")
        status, answer = cluster.nodes[0].request("GET", "/ready?verbose", key=cluster.key)
        assert status == 503 and "TM-CLST-5050" in answer["details"]["reasons"]["cluster"]


def test_nothing_is_put_back_from_a_node_that_stands_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    (directory / "stands_apart").write_text("its table differs")
    assert main(["cluster", "reseed", f"--dir={directory}", "--cluster.nats.servers=nats://127.0.0.1:1", *SETTINGS]) != 0
    error = capsys.readouterr().err
    assert "TM-CLST-5050" in error and "its table differs" in error
    assert [each.name for each in directory.iterdir()] == ["stands_apart"]

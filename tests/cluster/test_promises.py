"""What a node may say before it is with a majority, and before it is counted: looked at from outside, on real nodes."""

import asyncio
import signal
import threading
from collections.abc import Iterator

import nats
import pytest
from nats.aio.msg import Msg

from tests.support.cluster import Cluster
from tests.support.nats_hands import api
from tests.support.waiting import wait_until
from tokmesh.cluster.beat import Beat, decode_beat

BEATS = "tokmesh.tokmesh.core.beat"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("promises"), servers=1) as started:
        yield started


def test_what_only_the_stream_has_is_not_acknowledged(cluster: Cluster) -> None:
    made = cluster.create(0)
    try:
        for node in cluster.nodes[1:]:
            node.send_signal(signal.SIGSTOP)
        status, answer = cluster.ask(0, "POST", f"/sessions/{made['session_id']}/revoke", {})
        assert (status, answer["code"]) == (503, "TM-CLST-5030")
        assert answer["details"].get("outcome") == "unknown", "it was asked while writes were taken"
    finally:
        for node in cluster.nodes[1:]:
            node.send_signal(signal.SIGCONT)
    for number in range(3):  # and it was made, as it may be
        cluster.wait_verdict(number, made["token"], "TM-TOKN-4012")


@pytest.mark.parametrize("whose", ["session", "user"])
def test_a_revocation_that_only_this_node_has_seen_is_not_acknowledged_when_it_is_asked_for_again(
    cluster: Cluster, whose: str
) -> None:
    user_id = f"again-{whose}"
    made = cluster.create(0, user_id=user_id)
    path = f"/sessions/{made['session_id']}/revoke" if whose == "session" else f"/users/{user_id}/sessions/revoke"
    first = threading.Thread(target=cluster.ask, args=(0, "POST", path, {}), daemon=True)
    try:
        for node in cluster.nodes[1:]:
            node.send_signal(signal.SIGSTOP)
        first.start()
        wait_until(lambda: cluster.verdict(0, made["token"]) == "TM-TOKN-4012", "it is revoked there")
        status, answer = cluster.ask(0, "POST", path, {})
        assert (status, answer["code"]) == (503, "TM-CLST-5030")
    finally:
        for node in cluster.nodes[1:]:
            node.send_signal(signal.SIGCONT)
    first.join(30)
    wait_until(lambda: cluster.ask(0, "POST", path, {})[0] == 200, "with a majority it is")


def test_a_node_that_starts_again_is_counted_only_when_its_start_has_come_back_to_it(cluster: Cluster) -> None:
    cluster.nodes[2].stop()
    server = cluster.nats.servers[0]

    async def listen() -> list[Beat]:
        heard: list[Beat] = []
        counted = asyncio.Event()

        async def take(message: Msg) -> None:
            beat = decode_beat(message.data)
            if beat.node_id == "tmnd-2":
                heard.append(beat)
                if beat.counted:
                    counted.set()

        client = await nats.connect(server.url)
        await client.subscribe(BEATS, cb=take)
        await client.flush()
        cluster.nodes[2].spawn()
        await asyncio.wait_for(counted.wait(), 60)
        await client.close()
        return heard

    heard = asyncio.run(listen())
    cluster.nodes[2].wait_ready()
    said_at = int(api(server, "STREAM.MSG.GET.TOKMESH_tokmesh_0", {"last_by_subj": "tokmesh.tokmesh.n.tmnd-2"})["message"]["seq"])
    assert not heard[0].counted
    assert all(beat.applied >= said_at for beat in heard if beat.counted), (said_at, heard)

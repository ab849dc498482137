"""What the stream has forgotten although it lives, as the clock of a NATS server is ahead: what nodes say of it."""

import json
from pathlib import Path

from nats.aio.client import Client

from tests.cluster.test_bad_records import SESSION, stated
from tests.support.cluster import Cluster
from tests.support.nats_hands import api, by_hand
from tests.support.waiting import wait_until
from tokmesh.cluster.subjects import Subjects
from tokmesh.ids import format_session_id

SUBJECT = Subjects("tokmesh").session(SESSION)


def test_a_session_that_the_stream_has_dropped_is_not_changed_and_holds_up_nothing(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1, servers=1) as cluster:
        server = cluster.nats.servers[0]

        async def put(client: Client) -> None:
            answer = json.loads((await client.request(SUBJECT, stated(), headers={"Nats-TTL": "1s"})).data)
            assert "error" not in answer, answer

        by_hand(server, put)
        path = f"/sessions/{format_session_id(SESSION)}"
        wait_until(lambda: cluster.ask(0, "GET", path)[0] == 200, "the node has it")
        stream = "STREAM.INFO.TOKMESH_tokmesh_0"
        wait_until(lambda: not api(server, stream, {"subjects_filter": SUBJECT})["state"].get("subjects"), "the stream has not")
        for _ in range(2):
            status, answer = cluster.ask(0, "POST", f"{path}/renew", {"ttl_seconds": 3600})
            assert (status, answer["code"]) == (409, "TM-SESS-4091"), answer
        assert cluster.ask(0, "POST", "/sessions", {"user_id": "u"})[0] == 200, "the stream is not taken for stuck"
        assert cluster.ask(0, "POST", f"{path}/revoke", {})[0] == 200

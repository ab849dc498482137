"""Hands in a NATS server, for tests of what must not be taken for granted: streams and records that no node made."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import NoRespondersError

from tests.support.nats import NatsServer
from tests.support.waiting import LOOK_EVERY_S, wait_until

TIMEOUT_S: Final = 10.0
STORE_NOT_MADE: Final = "error creating store for stream"  # err_code 10049
STREAM: Final = "TOKMESH_tokmesh_0"
# As a node makes it (tokmesh/cluster/stream.py), on one server.
CONFIG: Final = {
    "name": STREAM, "subjects": [f"tokmesh.tokmesh.{kind}.>" for kind in "sknc"], "retention": "limits", "max_consumers": -1,
    "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": 1, "max_msg_size": 65_536, "discard": "new",
    "storage": "file", "num_replicas": 1, "duplicate_window": 120_000_000_000, "allow_direct": True, "allow_msg_ttl": True,
    "deny_delete": True, "deny_purge": True,
}  # fmt: skip

T = TypeVar("T")


def by_hand(server: NatsServer, work: Callable[[Client], Awaitable[T]]) -> T:
    """What `work` returns, done with a client of that server."""

    async def inside() -> T:
        client = await nats.connect(server.url, connect_timeout=5)
        try:
            return await work(client)
        finally:
            await client.close()

    return server.place.call(lambda: asyncio.run(inside()))


async def until_heard(client: Client, subject: str) -> None:
    """Until a stream that was just made hears that subject: what its leader subscribes to comes to the client's server a moment
    later. Nothing is stored."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                await client.request(subject, b"", timeout=TIMEOUT_S, headers={"Nats-Expected-Stream": "none"})
            except NoRespondersError:
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                return


def api(server: NatsServer, name: str, body: object = None) -> dict[str, Any]:
    """What the JetStream API answers, which must be no error."""

    async def ask(client: Client) -> dict[str, Any]:
        text = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{name}", text, timeout=TIMEOUT_S)).data)
        return answer

    answer = by_hand(server, ask)
    assert "error" not in answer, answer
    return answer


def make_stream(server: NatsServer, **changed: object) -> None:
    """The cluster's stream with some settings changed."""

    def made() -> bool:
        try:
            api(server, f"STREAM.CREATE.{STREAM}", {**CONFIG, **changed})
        except AssertionError as error:
            # The files of the one before, which was deleted, may still be going away.
            if STORE_NOT_MADE not in str(error):
                raise
            return False
        return True

    wait_until(made, "the stream is made")


def delete_stream(server: NatsServer) -> None:
    """The cluster's stream and all it holds."""
    api(server, f"STREAM.DELETE.{STREAM}")


def last_sequence(server: NatsServer) -> int:
    """Of the cluster's stream."""
    return int(api(server, f"STREAM.INFO.{STREAM}")["state"]["last_seq"])


def put(server: NatsServer, subject: str, payload: bytes, ttl_s: int = 0) -> int:
    """Publishes a record, which the stream keeps so long, 0: for ever; its sequence."""
    headers = {"Nats-TTL": f"{ttl_s}s"} if ttl_s else None

    async def publish(client: Client) -> int:
        answer = json.loads((await client.request(subject, payload, timeout=TIMEOUT_S, headers=headers)).data)
        assert "error" not in answer, answer
        return int(answer["seq"])

    return by_hand(server, publish)

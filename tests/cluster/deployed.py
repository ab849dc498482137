"""The NATS servers of deploy/nats on three hosts, and a client of TokMesh's user."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.js.api import StreamConfig

from tests.support.nats_hands import until_heard
from tests.support.nats_hosts import NatsHosts, nats_hosts
from tests.support.server import ROOT
from tokmesh.cluster.connection import abort
from tokmesh.cluster.nats_conf import make_nkey
from tokmesh.cluster.subjects import INBOX_PREFIX

CONFIG: Final = ROOT / "deploy" / "nats" / "nats-server.conf"
STREAM = "TOKMESH_tokmesh_0"
SUBJECTS = [f"tokmesh.tokmesh.{kind}.>" for kind in ("s", "k", "n", "c")]
API_TIMEOUT_S: Final = 10.0
USER, SYSTEM = make_nkey(), make_nkey()
T = TypeVar("T")

# What TokMesh makes of its stream.
STREAM_CONFIG = StreamConfig(
    name=STREAM, subjects=SUBJECTS, num_replicas=3, max_msgs_per_subject=1, allow_direct=True, allow_msg_ttl=True,
    duplicate_window=120,
)  # fmt: skip


@contextlib.contextmanager
def deployed(folder: Path, certificates: Path | None = None) -> Iterator[NatsHosts]:
    """Three servers with exactly the file of deploy/nats. certificates: see `NatsHosts`."""
    env = {"TOKMESH_NKEY": USER.public, "SYSTEM_NKEY": SYSTEM.public}
    with nats_hosts(folder, CONFIG.read_text(), env, certificates) as started:
        yield started


class Session:
    """A client of TokMesh's user and what its servers complained about."""

    def __init__(self, client: Client, complaints: list[str]) -> None:
        self.client = client
        self.complaints = complaints

    async def settle(self) -> None:
        """Returns when refusals of all that was sent have arrived: the server answers in order."""
        for _ in range(2):  # the first may be ended by the server's answer to the ping of the connect
            await self.client.flush(timeout=int(API_TIMEOUT_S))

    async def api(self, name: str, body: Any = None) -> dict[str, Any]:
        """What the JetStream API answers; never an error."""
        payload = b"" if body is None else json.dumps(body).encode()
        message = await self.client.request(f"$JS.API.{name}", payload, timeout=API_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(message.data)
        assert "error" not in answer, (name, answer, self.complaints)
        return answer


async def open_client(hosts: NatsHosts, seed: str | None, complaints: list[str], ca_file: Path | None = None) -> Client:
    """One attempt at each server. complaints: what the servers say."""

    async def note(error: Exception) -> None:
        complaints.append(str(error))

    client = Client()
    try:
        await client.connect(
            hosts.urls, tls=ssl.create_default_context(cafile=ca_file or hosts.authority.ca_file), nkeys_seed_str=seed,
            inbox_prefix=INBOX_PREFIX, allow_reconnect=False, connect_timeout=5, error_cb=note,
        )  # fmt: skip
    except BaseException:
        abort(client)
        raise
    return client


def as_tokmesh(hosts: NatsHosts, work: Callable[[Session], Awaitable[T]]) -> T:
    """Runs `work` with a client of TokMesh's user, on the servers' network."""

    async def run() -> T:
        complaints: list[str] = []
        client = await open_client(hosts, USER.seed, complaints)
        try:
            return await work(Session(client, complaints))
        finally:
            await client.close()

    return hosts.call(lambda: asyncio.run(run()))


async def ensure_stream(session: Session) -> None:
    """The stream of TokMesh, made where it is missing."""
    await session.client.jetstream(timeout=API_TIMEOUT_S).add_stream(STREAM_CONFIG)
    await until_heard(session.client, "tokmesh.tokmesh.c.place")

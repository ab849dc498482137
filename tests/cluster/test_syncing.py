"""Whether NATS syncs each record is asked of the servers that hold the stream; who does not tell is not taken for one that does."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.nats import MAY_ASK, NatsCluster
from tests.support.nats_hands import make_stream
from tests.support.waiting import until
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.stream import Stream
from tokmesh.cluster.subjects import Subjects
from tokmesh.cluster.syncing import Syncing
from tokmesh.config.keys import NatsSettings


def looked(nats: NatsCluster, work: Callable[[Syncing], Awaitable[None]]) -> None:
    """Runs `work` with one that is connected; the stream is there."""

    async def inside() -> None:
        link = Link(NatsSettings(servers=tuple(nats.urls)), "test")
        await link.connect()
        try:
            await work(Syncing(link, Stream(link, Subjects("tokmesh"), 1)))
        finally:
            await link.close()

    asyncio.run(asyncio.wait_for(inside(), 60))


async def look(syncing: Syncing) -> str:
    """What is known after it was asked; while the servers elect a leader nobody answers."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 30
    while True:
        try:
            await syncing.look()
            return syncing.state
        except (LinkDown, ApiRefused):
            assert loop.time() < until_s, "nobody answers"
            await asyncio.sleep(0.1)


def test_a_server_that_syncs_now_and_then_is_noticed_until_it_was_restarted_with_another_configuration(tmp_path: Path) -> None:
    async def work(syncing: Syncing) -> None:
        assert syncing.state == "unknown"
        syncing.start()
        await until(lambda: syncing.state == "off", "it is known")
        await syncing.stop()
        server = nats.servers[0]
        server.config.write_text(server.config.read_text().replace("max_file_store", "sync_interval: always, max_file_store"))
        await asyncio.to_thread(nats.restart, 0)
        assert await look(syncing) == "always"

    with NatsCluster(tmp_path, 1, extra=MAY_ASK, sync_always=False) as nats:
        make_stream(nats.servers[0])
        looked(nats, work)


def test_without_the_right_to_ask_it_stays_unknown(tmp_path: Path) -> None:
    async def work(syncing: Syncing) -> None:
        assert await look(syncing) == "unknown"

    with NatsCluster(tmp_path, 1) as nats:
        make_stream(nats.servers[0])
        looked(nats, work)


def test_a_refusal_of_the_question_is_no_trouble_of_the_link(tmp_path: Path) -> None:
    user = 'user: tokmesh, password: word, permissions: { publish: ["$JS.API.>", "_INBOX.>"] }'
    refusing = f"accounts {{ A {{ jetstream: enabled, users: [{{ {user} }}] }} }}\nno_auth_user: tokmesh\n"

    async def work(syncing: Syncing) -> None:
        assert await look(syncing) == "unknown"
        assert (syncing._link.state, syncing._link.reason) == ("connected", None)
        with contextlib.suppress(LinkDown):
            await syncing._link.request("forbidden", b"", 0.5)
        await until(lambda: syncing._link.state == "refused", "another refusal is told")

    with NatsCluster(tmp_path, 1, extra=refusing) as nats:
        make_stream(nats.servers[0])
        looked(nats, work)


def test_one_server_of_three_that_does_not_is_enough_and_one_that_is_away_is_remembered(tmp_path: Path) -> None:
    async def work(syncing: Syncing) -> None:
        assert await look(syncing) == "off"
        await asyncio.to_thread(nats.kill, other)
        assert await look(syncing) == "off"
        server = nats.servers[other]
        server.config.write_text(server.config.read_text().replace("max_file_store", "sync_interval: always, max_file_store"))
        await asyncio.to_thread(nats.start, other)
        assert await look(syncing) == "always"
        await asyncio.to_thread(nats.kill, other)
        assert await look(syncing) == "always"

    with NatsCluster(tmp_path, 3, extra=MAY_ASK) as nats:
        make_stream(nats.servers[0], num_replicas=3)
        other = (nats.wait_stream_leader("TOKMESH_tokmesh_0") + 1) % 3
        server = nats.servers[other]
        server.stop()
        server.config.write_text(server.config.read_text().replace("sync_interval: always, ", ""))
        nats.start(other)
        looked(nats, work)

"""The harness's real NATS servers do what tests of the cluster rely on: lose a server or a leader, and come back by themselves."""

import asyncio
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig

from tests.support import nats as harness
from tests.support.nats import HeldPorts, NatsCluster
from tests.support.waiting import until, wait_until

STREAM = "EVENTS"
PUBLISH_TIMEOUT_S = 2.0
WRITES_BACK_TIMEOUT_S = 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers with JetStream."""
    with NatsCluster(tmp_path) as started:
        yield started


async def connect(cluster: NatsCluster) -> Client:
    """A client that knows all servers, and says nothing while one is away."""

    async def ignore(error: Exception) -> None:
        pass

    return await nats.connect(cluster.urls, max_reconnect_attempts=-1, reconnect_time_wait=0.1, connect_timeout=5, error_cb=ignore)


async def make_stream(client: Client, replicas: int = 3) -> None:
    """The stream that these tests write to."""
    await client.jetstream(timeout=10).add_stream(StreamConfig(name=STREAM, subjects=["events.>"], num_replicas=replicas))


async def publish_until_taken(client: Client, subject: str) -> int:
    """Publishes, again after each failure, until a majority has it; the sequence."""
    stream = client.jetstream(timeout=PUBLISH_TIMEOUT_S)
    taken = 0

    async def attempt() -> None:
        nonlocal taken
        try:
            taken = (await stream.publish(subject, b"x", headers={"Nats-Msg-Id": subject})).seq
        except (NatsError, TimeoutError):
            taken = 0

    async with asyncio.timeout(WRITES_BACK_TIMEOUT_S):
        while not taken:
            await attempt()
    return taken


async def last_sequence(client: Client) -> int:
    """The stream's last sequence, as its leader tells it."""
    return (await client.jetstream(timeout=10).stream_info(STREAM)).state.last_seq


def test_three_servers_make_one_cluster_that_syncs_always(cluster: NatsCluster) -> None:
    assert cluster.versions() == [harness.VERSION] * 3
    assert cluster.meta_leader() in (0, 1, 2)
    for server in cluster.servers:
        jetstream = server.monitor("/varz")["jetstream"]
        assert jetstream["config"]["sync_always"] is True
        assert jetstream["meta"]["cluster_size"] == 3


def test_one_server_alone_keeps_its_stream_over_a_restart(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, 1) as cluster:

        async def write() -> None:
            client = await connect(cluster)
            await make_stream(client, replicas=1)
            assert await publish_until_taken(client, "events.1") == 1
            await client.close()

        async def read() -> int:
            client = await connect(cluster)
            try:
                return await last_sequence(client)
            finally:
                await client.close()

        asyncio.run(write())
        pid = cluster.servers[0].pid
        cluster.restart(0)
        assert cluster.servers[0].pid != pid
        assert asyncio.run(read()) == 1
        cluster.kill(0)
        assert not cluster.servers[0].running
        cluster.start(0)
        assert asyncio.run(read()) == 1


def test_a_stream_of_three_survives_the_kill_of_a_follower_and_catches_it_up(cluster: NatsCluster) -> None:
    async def check() -> None:
        client = await connect(cluster)
        await make_stream(client)
        leader = await asyncio.to_thread(cluster.wait_stream_leader, STREAM)
        follower = (leader + 1) % 3
        assert await publish_until_taken(client, "events.1") == 1
        cluster.kill(follower)
        assert await publish_until_taken(client, "events.2") == 2
        assert cluster.stream_leader(STREAM) == leader
        await asyncio.to_thread(cluster.start, follower)
        assert await last_sequence(client) == 2
        await client.close()

    asyncio.run(check())
    wait_until(lambda: [stored(cluster, number) for number in range(3)] == [2, 2, 2], "the same two messages on every server")


def stored(cluster: NatsCluster, number: int) -> int:
    """The messages that one server holds of the stream."""
    jetstream = cluster.servers[number].monitor("/jsz?accounts=true&streams=true")
    streams = [stream for account in jetstream.get("account_details", ()) for stream in account["stream_detail"]]
    return sum(int(stream["state"]["messages"]) for stream in streams if stream["name"] == STREAM)


def test_writes_come_back_by_themselves_after_the_kill_of_the_leader(cluster: NatsCluster) -> None:
    async def check() -> None:
        client = await connect(cluster)
        await make_stream(client)
        leader = await asyncio.to_thread(cluster.wait_stream_leader, STREAM)
        assert await publish_until_taken(client, "events.1") == 1
        cluster.kill(leader)
        assert await publish_until_taken(client, "events.2") == 2
        new = await asyncio.to_thread(cluster.wait_stream_leader, STREAM, leader)
        assert new != leader
        await client.close()

    asyncio.run(check())


def test_a_paused_majority_takes_no_writes_and_a_resumed_one_does(cluster: NatsCluster) -> None:
    async def check() -> None:
        client = await connect(cluster)
        await make_stream(client)
        leader = await asyncio.to_thread(cluster.wait_stream_leader, STREAM)
        for number in range(3):
            if number != leader:
                cluster.pause(number)
        alone = await connect_to(cluster, leader)
        with pytest.raises((NatsError, TimeoutError)):
            await alone.jetstream(timeout=PUBLISH_TIMEOUT_S).publish("events.1", b"x", headers={"Nats-Msg-Id": "events.1"})
        assert cluster.stream_leader(STREAM) is None  # one server's word is no majority's
        for number in range(3):
            cluster.resume(number)
        assert await publish_until_taken(client, "events.1") == 1
        await until(lambda: cluster.stream_leader(STREAM) is not None, "a leader again")
        await client.close()
        await alone.close()

    asyncio.run(check())


async def connect_to(cluster: NatsCluster, number: int) -> Client:
    """A client of one server only."""

    async def ignore(error: Exception) -> None:
        pass

    return await nats.connect(cluster.urls[number], error_cb=ignore, dont_randomize=True)


def test_a_server_older_than_a_cluster_admits_is_there_to_be_refused(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, 1, sync_always=False, program=harness.old_server_program()) as cluster:

        async def greeted() -> int:
            client = await connect(cluster)
            major, minor = client.connected_server_version.major, client.connected_server_version.minor
            await client.close()
            return major * 100 + minor

        assert cluster.versions() != [harness.VERSION]
        assert asyncio.run(greeted()) < 214


def test_a_server_that_does_not_sync_always_says_so(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, 1, sync_always=False) as cluster:
        assert "sync_always" not in cluster.servers[0].monitor("/varz")["jetstream"]["config"]


def test_extra_text_reaches_every_server_and_a_bad_one_is_told(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, 1, extra=lambda number: f"max_payload: {1000 + number}\n") as cluster:
        assert cluster.servers[0].monitor("/varz")["max_payload"] == 1000
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(AssertionError, match="nats-0 ended"), NatsCluster(bad, 1, extra="no_such_setting: {"):
        pass


def test_nothing_runs_after_the_end_and_stop_is_an_end(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        cluster.pause(1)
        processes = [server.process for server in cluster.servers]
        cluster.servers[0].stop()
    assert [process.poll() is not None for process in processes if process is not None] == [True] * 3
    with pytest.raises(OSError):
        cluster.servers[1].monitor("/varz")
    with NatsCluster(tmp_path) as cluster:
        cluster.pause(2)
        cluster.stop()
        assert not any(server.running for server in cluster.servers)


def test_another_program_than_the_known_one_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SHA256", {platform.machine(): "0" * 64})
    with pytest.raises(AssertionError, match=r"is not nats-server 2\.15\.1"):
        harness.server_program.__wrapped__()


def test_a_held_port_is_nobody_elses_and_a_server_may_listen_on_it() -> None:
    held = HeldPorts()
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", held.ports.client))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", held.ports.client))
        server.listen()
    held.release()
    with socket.socket() as other:
        other.bind(("127.0.0.1", held.ports.client))

"""The NATS configuration of deploy/nats on three real servers: TokMesh's user may do all that TokMesh does, and nothing else."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError

from tests.cluster.deployed import (
    API_TIMEOUT_S,
    CONFIG,
    STREAM,
    STREAM_CONFIG,
    SUBJECTS,
    USER,
    Session,
    as_tokmesh,
    deployed,
    ensure_stream,
    open_client,
)  # fmt: skip
from tests.support.certificates import Authority
from tests.support.nats_hosts import NatsHosts
from tests.support.server import run_command
from tests.support.waiting import until
from tokmesh.cluster.link import Link
from tokmesh.cluster.nats_conf import SERVERS_SUBJECT, make_nkey
from tokmesh.cluster.stream import Stream
from tokmesh.cluster.subjects import Subjects
from tokmesh.cluster.syncing import Syncing
from tokmesh.config.keys import NatsSettings, NatsTlsSettings

FORBIDDEN = (
    f"$JS.API.STREAM.DELETE.{STREAM}",
    f"$JS.API.STREAM.PURGE.{STREAM}",
    f"$JS.API.STREAM.MSG.DELETE.{STREAM}",
    f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}",
    f"$JS.API.STREAM.SNAPSHOT.{STREAM}",
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.INFO.OTHER",
    "$JS.API.STREAM.CREATE.TOKMESH_tokmesh_1",
    "$JS.API.STREAM.LIST",
    f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.kept",
    f"$JS.API.CONSUMER.LIST.{STREAM}",
    "$JS.API.META.LEADER.STEPDOWN",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "tokmesh.other.s.1",
    "tokmesh.tokmesh.x.1",
    "other",
    "_INBOX.somebody",
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHosts]:
    """Servers that these tests share."""
    with deployed(tmp_path_factory.mktemp("nats")) as started:
        yield started


def test_the_file_is_what_the_command_prints() -> None:
    printed = run_command("cluster", "init", "--print-nats-conf", "--no-keys")
    told = "run: tokmesh cluster init --print-nats-conf --no-keys >deploy/nats/nats-server.conf"
    assert (printed.returncode, printed.stdout) == (0, CONFIG.read_text()), told


def test_servers_sync_always_and_tell_it_with_their_version(hosts: NatsHosts) -> None:
    async def ask(session: Session) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        inbox = session.client.new_inbox()

        async def take(message: Msg) -> None:
            answers.append(json.loads(message.data)["data"])

        await session.client.subscribe(inbox, cb=take)
        await session.client.publish(SERVERS_SUBJECT, b"", reply=inbox)
        await until(lambda: len(answers) == 3 or session.complaints, "all servers answer")
        assert session.complaints == []
        return answers

    answers = as_tokmesh(hosts, ask)
    assert sorted(each["server_name"] for each in answers) == ["nats-1", "nats-2", "nats-3"]
    assert [each["jetstream"]["config"]["sync_always"] for each in answers] == [True] * 3
    assert {each["version"] for each in answers} == {"2.15.1"}


def test_a_node_learns_that_they_sync_always(hosts: NatsHosts, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(USER.seed)
    tls = NatsTlsSettings(ca_file=hosts.authority.ca_file)

    async def ask() -> str:
        link = Link(NatsSettings(servers=tuple(hosts.urls), credentials_file=credentials, tls=tls), "test")
        await link.connect()
        stream = Stream(link, Subjects("tokmesh"), 3)
        syncing = Syncing(link, stream)
        await syncing.look()
        assert await stream.holders() == {"nats-1", "nats-2", "nats-3"}
        assert link.reason is None
        await link.close()
        return syncing.state

    as_tokmesh(hosts, ensure_stream)
    assert hosts.call(lambda: asyncio.run(ask())) == "always"


def test_the_user_makes_describes_and_changes_its_stream(hosts: NatsHosts) -> None:
    async def work(session: Session) -> None:
        await ensure_stream(session)
        stream = session.client.jetstream(timeout=API_TIMEOUT_S)
        await stream.update_stream(STREAM_CONFIG)
        info = await stream.stream_info(STREAM)
        assert info.config.subjects == SUBJECTS
        assert info.cluster is not None
        assert info.cluster.replicas is not None
        assert len(info.cluster.replicas) == 2
        assert session.complaints == []

    as_tokmesh(hosts, work)


def test_the_user_writes_with_ttl_and_compare_and_set_and_reads_back(hosts: NatsHosts) -> None:
    async def work(session: Session) -> None:
        await ensure_stream(session)
        stream = session.client.jetstream(timeout=API_TIMEOUT_S)
        for kind in ("s", "k", "n", "c"):
            subject = f"tokmesh.tokmesh.{kind}.00.written"
            acked = await stream.publish(
                subject, kind.encode(), msg_ttl=3600, headers={"Nats-Msg-Id": kind, "Nats-Expected-Last-Subject-Sequence": "0"}
            )
            direct = await stream.get_last_msg(STREAM, subject, direct=True)
            assert (direct.seq, direct.data) == (acked.seq, kind.encode())
            assert (await stream.get_msg(STREAM, acked.seq, direct=True)).data == kind.encode()
            assert (await session.api(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject}))["message"]["seq"] == acked.seq
        assert session.complaints == []

    as_tokmesh(hosts, work)


def test_the_user_follows_by_an_ephemeral_push_consumer_with_flow_control(hosts: NatsHosts) -> None:
    count = 500
    consumer = {
        "name": "follower", "deliver_policy": "by_start_sequence", "ack_policy": "none", "mem_storage": True, "num_replicas": 1,
        "flow_control": True, "idle_heartbeat": 5_000_000_000, "inactive_threshold": 30_000_000_000,
    }  # fmt: skip

    async def work(session: Session) -> None:
        await ensure_stream(session)
        stream = session.client.jetstream(timeout=API_TIMEOUT_S)
        first = (await stream.publish("tokmesh.tokmesh.s.01.0", bytes(20_000))).seq
        await asyncio.gather(*(stream.publish(f"tokmesh.tokmesh.s.01.{number}", bytes(20_000)) for number in range(1, count)))
        got: list[int] = []
        let_on = 0

        async def take(message: Msg) -> None:
            nonlocal let_on
            if not message.headers:
                got.append(message.metadata.sequence.stream)
            elif message.reply.startswith(f"$JS.FC.{STREAM}."):
                let_on += 1
                await message.respond(b"")

        deliver_subject = session.client.new_inbox()
        await session.client.subscribe(deliver_subject, cb=take)
        config = {**consumer, "deliver_subject": deliver_subject, "opt_start_seq": first}
        await session.api(f"CONSUMER.CREATE.{STREAM}.follower", {"stream_name": STREAM, "config": config})
        await until(lambda: len(got) == count or session.complaints, "all records of the consumer")
        await session.settle()
        assert session.complaints == []
        assert got == list(range(first, first + count))
        assert let_on > 0  # ten megabytes do not pass without
        assert (await session.api(f"CONSUMER.INFO.{STREAM}.follower"))["num_pending"] == 0
        await session.api(f"CONSUMER.DELETE.{STREAM}.follower")

    as_tokmesh(hosts, work)


@pytest.mark.parametrize("subject", ["beat", "ask.tmnd-1"])
def test_the_user_asks_and_answers_on_core_subjects(hosts: NatsHosts, subject: str) -> None:
    subject = f"tokmesh.tokmesh.core.{subject}"

    async def work(session: Session) -> None:
        async def answer(message: Msg) -> None:
            await message.respond(b"heard " + message.data)

        await session.client.subscribe(subject, cb=answer)
        answered = await session.client.request(subject, b"you", timeout=API_TIMEOUT_S)
        assert answered.data == b"heard you"
        assert session.complaints == []

    as_tokmesh(hosts, work)


@pytest.mark.parametrize("subject", FORBIDDEN)
def test_the_user_can_do_nothing_else(hosts: NatsHosts, subject: str) -> None:
    async def work(session: Session) -> None:
        await session.client.publish(subject, b"{}", reply=session.client.new_inbox())
        await session.settle()
        assert [each for each in session.complaints if f'publish to "{subject.lower()}"' in each], session.complaints

    as_tokmesh(hosts, work)


@pytest.mark.parametrize("subject", [">", "tokmesh.tokmesh.s.>", "tokmesh.other.core.beat", "_INBOX.>", "$SYS.>", "$JS.API.>"])
def test_the_user_can_listen_to_nothing_else(hosts: NatsHosts, subject: str) -> None:
    async def work(session: Session) -> None:
        await session.client.subscribe(subject)
        await session.settle()
        assert [each for each in session.complaints if f'subscription to "{subject.lower()}"' in each], session.complaints

    as_tokmesh(hosts, work)


def test_a_stream_outlives_what_the_user_may_not_do(hosts: NatsHosts) -> None:
    async def work(session: Session) -> None:
        await ensure_stream(session)
        stream = session.client.jetstream(timeout=2.0)
        await stream.publish("tokmesh.tokmesh.c.kept", b"x")
        for attempt in (stream.delete_stream(STREAM), stream.purge_stream(STREAM)):
            with pytest.raises((NatsError, TimeoutError)):
                await attempt
        assert (await stream.get_last_msg(STREAM, "tokmesh.tokmesh.c.kept", direct=True)).data == b"x"

    as_tokmesh(hosts, work)


@pytest.mark.parametrize("seed", [make_nkey().seed, None], ids=["another nkey", "no nkey"])
def test_wrong_credentials_are_refused(hosts: NatsHosts, seed: str | None) -> None:
    complaints: list[str] = []

    async def attempt() -> None:
        with pytest.raises((NoServersError, NatsError)):
            await open_client(hosts, seed, complaints)

    hosts.call(lambda: asyncio.run(attempt()))
    assert any("authorization" in each.lower() for each in complaints), complaints


def test_a_client_without_tls_is_refused(hosts: NatsHosts) -> None:
    async def attempt() -> bytes:
        reader, writer = await asyncio.open_connection(hosts.servers[0].place.address, 4222)
        greeting = await reader.readline()
        writer.write(b'CONNECT {"verbose":true,"pedantic":false,"tls_required":false}\r\nPING\r\n')
        answered = await asyncio.wait_for(reader.read(), API_TIMEOUT_S)
        writer.close()
        assert json.loads(greeting.removeprefix(b"INFO "))["tls_required"] is True
        return answered

    answered = hosts.call(lambda: asyncio.run(attempt()))
    assert b"PONG" not in answered
    assert b"+OK" not in answered


# nats-py leaves the socket of a handshake that failed to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_of_another_authority_is_refused_by_clients(hosts: NatsHosts, tmp_path: Path) -> None:
    async def attempt() -> None:
        with pytest.raises((NoServersError, NatsError, ssl.SSLError)):
            await open_client(hosts, USER.seed, [], Authority(tmp_path, "somebody").ca_file)

    hosts.call(lambda: asyncio.run(attempt()))


def test_nobody_joins_as_a_server_without_a_certificate(hosts: NatsHosts) -> None:
    def attempt(context: ssl.SSLContext) -> bytes:
        address = hosts.servers[0].place.address
        with (
            socket.create_connection((address, 6222), timeout=API_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=address) as encrypted,
        ):
            return encrypted.recv(65536)

    context = ssl.create_default_context(cafile=hosts.authority.ca_file)
    with pytest.raises(ssl.SSLError, match="certificate required"):
        hosts.call(lambda: attempt(context))
    tls = hosts.folder / "nats-1" / "etc" / "nats" / "tls"
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    assert hosts.call(lambda: attempt(context)).startswith(b"INFO ")

"""Whatever ends a connection to a real NATS server, the link comes back by itself, and says what is wrong meanwhile."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.certificates import Authority
from tests.support.nats import HeldPorts, NatsServer, old_server_program
from tests.support.waiting import until
from tokmesh.cluster.connection import Tls
from tokmesh.cluster.link import Link, LinkDown, VersionRefused
from tokmesh.cluster.nats_conf import make_nkey
from tokmesh.config.keys import NatsSettings, NatsTlsSettings

ENDS_WITHIN_S = 60.0
SUBJECT = "heard"


@pytest.fixture
def held() -> Iterator[HeldPorts]:
    """Ports of a server."""
    made = HeldPorts()
    yield made
    made.release()


class Server(NatsServer):
    """Of a configuration that changes: `more` is what stands in it besides its ports and its store."""

    def __init__(self, folder: Path, held: HeldPorts, more: str = "", program: str | None = None) -> None:
        name = "nats" if program is None else "old"
        super().__init__(name, folder, folder / f"{name}.conf", held.ports, program=program)
        self.folder = folder
        self.write(more)

    def write(self, more: str) -> None:
        """Other settings, of the next start or reload."""
        ports = self.ports
        self.config.write_text(
            f'listen: "127.0.0.1:{ports.client}"\nhttp: "127.0.0.1:{ports.monitor}"\n'
            f'jetstream {{ store_dir: "{self.folder / self.name}" }}\n{more}\n'
        )

    def reload(self, more: str) -> None:
        """Other settings from now on."""
        self.write(more)
        self.send_signal(signal.SIGHUP)


def linked(
    work: Callable[[Link], Awaitable[None]],
    *servers: NatsServer,
    before: Callable[[], Awaitable[None]] | None = None,
    **settings: Any,
) -> None:
    """Runs `work`, after `before`, with a link that may be connected yet or not; it must come to its end."""

    async def inside() -> None:
        if before is not None:
            await before()
        link = Link(NatsSettings(servers=tuple(each.url for each in servers), **settings), "test")
        connecting = asyncio.create_task(link.connect())
        try:
            await work(link)
            await connecting
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await link.close()

    asyncio.run(asyncio.wait_for(inside(), ENDS_WITHIN_S))


async def says(link: Link, words: str) -> None:
    await until(lambda: not link.connected and words in (link.reason or ""), f"it says {words!r}", 20)


async def connected(link: Link, reconnects: int) -> None:
    """For the time after so many reconnects; on a busy machine a connection may have been lost once more."""
    await until(lambda: link.connected and link.reason is None and link.reconnects >= reconnects, "connected", 20)


async def heard(link: Link, got: list[bytes], server: NatsServer, word: bytes, **options: Any) -> None:
    """What another client says arrives by a subscription that was made on an earlier connection."""
    client = await nats.connect(server.url, **options)
    try:
        await client.publish(SUBJECT, word)
        await until(lambda: word in got, "it arrives")
    finally:
        await client.close()


async def listen(link: Link) -> list[bytes]:
    got: list[bytes] = []

    async def take(message: Msg) -> None:
        got.append(message.data)

    await link.subscribe(SUBJECT, take)
    return got


def test_a_server_too_old_met_later_is_not_used_and_others_are_tried(tmp_path: Path, held: HeldPorts) -> None:
    others = HeldPorts()
    new, old = Server(tmp_path, held), Server(tmp_path, others, program=old_server_program())

    async def work(link: Link) -> None:
        await connected(link, 0)
        got = await listen(link)
        with old:
            new.kill()
            await says(link, "too old")
            with pytest.raises(LinkDown):
                await link.request("anything", b"", 0.2)
            with pytest.raises(LinkDown):
                await link.publish("anything", b"")
            new.spawn()
            await connected(link, 1)
            assert link.server_version.startswith("2.15.")
            await heard(link, got, new, b"again")

    with new:
        linked(work, new, old)
    others.release()


def test_beside_one_too_old_another_is_used_at_the_start(tmp_path: Path, held: HeldPorts) -> None:
    others = HeldPorts()
    new, old = Server(tmp_path, held), Server(tmp_path, others, program=old_server_program())

    async def work(link: Link) -> None:
        await connected(link, 0)
        assert link.server_version.startswith("2.15.")

    with new, old:
        for _ in range(4):  # the order is random
            linked(work, new, old)
        new.kill()
        with pytest.raises(VersionRefused, match="too old"):
            linked(lambda link: asyncio.sleep(0), new, old)
    others.release()


def test_an_authorization_taken_away_and_given_back(tmp_path: Path, held: HeldPorts) -> None:
    ours, other = make_nkey(), make_nkey()
    file = tmp_path / "credentials"
    file.write_text(ours.seed)

    def users(*public: str) -> str:
        listed = ", ".join(f"{{ nkey: {each} }}" for each in public)
        return f'authorization {{ users: [{listed}, {{ user: "other", password: "word" }}] }}'

    async def work(link: Link) -> None:
        await connected(link, 0)
        got = await listen(link)
        for count, word in enumerate((b"once", b"twice"), 1):
            server.reload(users(other.public))
            await says(link, "uthorization")
            server.reload(users(ours.public, other.public))
            await connected(link, count)
            await heard(link, got, server, word, user="other", password="word")

    with Server(tmp_path, held, users(ours.public)) as server:
        linked(work, server, credentials_file=file)


def test_an_expired_certificate_is_told_and_its_renewal_noticed(tmp_path: Path, held: HeldPorts) -> None:
    authority = Authority(tmp_path)
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    settings: Tls = NatsTlsSettings(ca_file=authority.ca_file)

    async def work(link: Link) -> None:
        await says(link, "expired")
        authority.issue(cert, key, "127.0.0.1")
        server.reload(tls)
        await connected(link, 0)
        authority.issue(cert, key, "127.0.0.1", valid_days=-1)
        server.stop()
        server.spawn()
        await says(link, "expired")
        authority.issue(cert, key, "127.0.0.1")
        server.reload(tls)
        await connected(link, 1)

    authority.issue(cert, key, "127.0.0.1", valid_days=-1)
    with Server(tmp_path, held, tls) as server:
        linked(work, server, tls=settings)


def test_a_full_server_is_told_and_tried_again(tmp_path: Path, held: HeldPorts) -> None:
    first = Client()

    async def occupy() -> None:
        await first.connect(server.url)

    async def work(link: Link) -> None:
        try:
            await says(link, "maximum connections")
        finally:
            await first.close()
        await connected(link, 0)

    with Server(tmp_path, held, "max_connections: 1") as server:
        linked(work, server, before=occupy)


def test_a_server_that_says_nothing_is_left_and_found_again(tmp_path: Path, held: HeldPorts) -> None:
    async def flood(link: Link) -> None:
        # More than any buffer on the way takes, until there is no connection to send it by.
        while True:
            await link.publish(SUBJECT, bytes(60_000))

    async def work(link: Link) -> None:
        await connected(link, 0)
        got = await listen(link)
        server.pause()
        floods = await asyncio.wait_for(asyncio.gather(*(flood(link) for _ in range(5)), return_exceptions=True), 30)
        assert [type(end) for end in floods] == [LinkDown] * 5
        await says(link, "no answer within")
        server.resume()
        await connected(link, 1)
        await heard(link, got, server, b"again")

    with Server(tmp_path, held) as server:
        linked(work, server)


def test_what_is_no_nats_at_all_is_told_and_left(tmp_path: Path, held: HeldPorts) -> None:
    lines = [b"INFO\r\n", b'INFO "no object"\r\n', b"INFO {\r\n", b"HTTP/1.1 400 Bad Request\r\n", bytes(range(256)) * 9, b""]
    answers: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(lines[len(answers) % len(lines)])
        writer.write(answers[-1])
        writer.close()

    async def work(link: Link) -> None:
        stranger = await asyncio.start_server(answer, "127.0.0.1", held.ports.client)
        try:
            await until(lambda: len(answers) >= len(lines), "all of it was told", 20)
            assert not link.connected and "cannot connect" in (link.reason or "")
        finally:
            stranger.close()
            await stranger.wait_closed()
        server.spawn()
        await connected(link, 0)

    server = Server(tmp_path, held)
    try:
        linked(work, server)
    finally:
        server.kill()

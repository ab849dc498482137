"""Deliveries go past nats-py, everything else through it, in order; what is no protocol ends the connection as it always did."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from nats.aio.msg import Msg

from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import Deliveries
from tokmesh.cluster.direct_client import DirectClient

DIRECT, OTHER = 1, 2


class Consumer:
    """Notes what it is given, in order."""

    def __init__(self) -> None:
        self.deliveries = Deliveries(0, Clock())
        self.given: list[object] = []

    def delivered(self) -> None:
        for batch in self.deliveries.take():
            self.given += [batch.record(index)[26:] for index in range(len(batch))]

    def told(self, reply: str, headers: dict[str, str]) -> None:
        self.given.append((reply, headers.get("Status"), headers.get("Nats-Last-Consumer")))


class Wire(DirectClient):
    """A client without a connection: what it would send is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.pongs = 0
        self._status = DirectClient.CONNECTED

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.sent.append(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        pass

    async def _process_ping(self) -> None:
        self.pongs += 1


def delivery(number: int, payload: bytes) -> bytes:
    return b"MSG i %d $JS.ACK.S.c.1.%d.%d.17.0 %d\r\n%s\r\n" % (DIRECT, number, number, len(payload), payload)


def control(sid: int, headers: bytes, reply: bytes = b"") -> bytes:
    return b"HMSG i %d %s%d %d\r\n%s\r\n" % (sid, reply, len(headers), len(headers), headers)


HEARTBEAT = control(DIRECT, b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 2\r\n\r\n")
FLOW = control(DIRECT, b"NATS/1.0 100 FlowControl Request\r\n\r\n", b"$JS.FC.x ")
SENT = b"".join((
    delivery(1, b"a"), b"PING\r\n", b"MSG o 2 3\r\nfoo\r\n", delivery(2, b"b"), HEARTBEAT, FLOW, delivery(3, b"c\r\n"),
    b"MSG o 2 r 0\r\n\r\n", control(DIRECT, b"NATS/1.0 409 Consumer Deleted\r\n\r\n"), b"MSG o 9 1\r\nx\r\n",
))  # fmt: skip
GIVEN = [b"a", b"b", ("", "100", "2"), ("$JS.FC.x", "100", None), b"c\r\n", ("", "409", None)]


def play(script: Callable[[Wire, Consumer, list[tuple[str, bytes]]], Awaitable[None]]) -> None:
    async def inside() -> None:
        client, consumer, others = Wire(), Consumer(), list[tuple[str, bytes]]()

        async def take(message: Msg) -> None:
            others.append((message.reply, message.data))

        await client.subscribe_direct("i", consumer)
        subscription = await client.subscribe("o", cb=take)
        assert (subscription._id, client.sent[0]) == (OTHER, b"SUB i  1\r\n")
        await script(client, consumer, others)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()

    asyncio.run(inside())


@pytest.mark.parametrize("size", [1, 5, 64, 10_000])
def test_each_message_goes_its_way_in_order_however_it_is_cut(size: int) -> None:
    async def script(client: Wire, consumer: Consumer, others: list[tuple[str, bytes]]) -> None:
        for at in range(0, len(SENT), size):
            await client._ps.parse(SENT[at : at + size])
        await until(lambda: len(others) == 2, "nats-py has given the others")
        assert (consumer.given, others, client.pongs) == (GIVEN, [("", b"foo"), ("r", b"")], 1)

    play(script)


def test_what_is_forgotten_is_nobodys() -> None:
    async def script(client: Wire, consumer: Consumer, others: list[tuple[str, bytes]]) -> None:
        await client._ps.parse(delivery(1, b"a"))
        subscription = client._subs[DIRECT]
        client.forget_direct(subscription)
        await client._ps.parse(delivery(2, b"b") + HEARTBEAT)
        assert consumer.given == [b"a"]

    play(script)


def test_another_connection_begins_with_nothing_of_the_one_before() -> None:
    async def script(client: Wire, consumer: Consumer, others: list[tuple[str, bytes]]) -> None:
        await client._ps.parse(delivery(1, b"a") + delivery(2, b"lost")[:-4])
        client._ps.reset()
        await client._ps.parse(delivery(2, b"b"))
        assert consumer.given == [b"a", b"b"]

    play(script)


def test_what_is_no_protocol_is_an_error_of_it() -> None:
    async def script(client: Wire, consumer: Consumer, others: list[tuple[str, bytes]]) -> None:
        for bad in (b"MSG a 1 99999999999\r\n", b"NONSENSE\r\n", b"HMSG a 1 9 3\r\n"):
            client._ps.reset()
            with pytest.raises(nats.errors.ProtocolError):
                await client._ps.parse(bad)

    play(script)

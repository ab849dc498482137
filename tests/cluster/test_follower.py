"""What a consumer delivers is taken once, in order, without a gap; whatever else arrives makes a new one from the last taken."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.waiting import until
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.stream import StreamLost


class Delivery:
    """A message as a consumer delivers it."""

    def __init__(self, number: int, sequence: int, *, domain: bool = False) -> None:
        where = "hub.ACCOUNT.S.c" if domain else "S.c"
        self.reply = f"$JS.ACK.{where}.1.{sequence}.{number}.1700000000000000000.0" + (".token" if domain else "")
        self.headers: dict[str, str] | None = None
        self.data = b"%d" % sequence


class Control:
    """A message without a record."""

    def __init__(self, **headers: str) -> None:
        self.reply = ""
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.data = b""


class FakeLink:
    """Makes consumers without a server; `starts`: where each begins."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.asked: Callable[[], object] = lambda: None
        self.handler: Callable[[Any], Awaitable[None]] | None = None

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, subject: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        self.handler = handler

    async def unsubscribe(self, subscription: object) -> None:
        self.handler = None

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        pass

    async def ask(self, name: str, body: Any, timeout_s: float) -> dict[str, Any]:
        self.asked()
        self.starts.append(body["config"]["opt_start_seq"])
        return {}


class FakeStream:
    name = "S"

    def __init__(self) -> None:
        self.lost = False

    async def verify(self, following: object) -> None:
        if self.lost:
            raise StreamLost("made anew")


class Sink:
    def __init__(self) -> None:
        self.position = 40
        self.taken: list[int] = []

    def take(self, sequence: int, payload: bytes) -> None:
        assert payload == b"%d" % sequence and sequence > self.position
        self.taken.append(sequence)
        self.position = sequence

    def room(self) -> None:
        return None


class World:
    def __init__(self) -> None:
        self.link, self.stream, self.sink = FakeLink(), FakeStream(), Sink()
        self.lost: list[str] = []
        self.follower = Follower(
            self.link, self.stream, None, self.sink, self.lost.append  # type: ignore[arg-type]
        )

    async def deliver(self, *messages: object) -> None:
        for message in messages:
            assert self.link.handler is not None, "the consumer has ended"
            await self.link.handler(message)

    async def consumer(self, count: int) -> None:
        await until(lambda: len(self.link.starts) == count and self.link.handler is not None, f"consumer {count}")


def play(script: Callable[[World], Awaitable[None]]) -> World:
    async def inside() -> World:
        world = World()
        world.follower.start()
        await world.consumer(1)
        await script(world)
        await world.follower.stop()
        return world

    return asyncio.run(inside())


@pytest.mark.parametrize("domain", [False, True])
def test_records_are_taken_in_order_whatever_the_stream_has_dropped_between(domain: bool) -> None:
    async def script(world: World) -> None:
        await world.deliver(*(Delivery(number, 40 + 3 * number, domain=domain) for number in (1, 2, 3)))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41], [43, 46, 49])


def test_what_was_taken_is_not_taken_again() -> None:
    async def script(world: World) -> None:
        await world.deliver(Delivery(1, 41), Delivery(2, 41), Delivery(3, 40), Delivery(4, 42))

    assert play(script).sink.taken == [41, 42]


@pytest.mark.parametrize(
    "spoiler",
    [
        Delivery(3, 43),  # one is missing
        Delivery(1, 41),  # one comes again
        Control(Status="409", Description="Consumer Deleted"),
        Control(Status="100", Nats_Last_Consumer="2", Nats_Last_Stream="42"),  # a heartbeat: one never came
    ],
    ids=["gap", "repetition", "ended", "heartbeat"],
)
def test_a_delivery_out_of_order_makes_a_new_consumer_from_the_last_taken(spoiler: object) -> None:
    async def script(world: World) -> None:
        await world.deliver(Delivery(1, 41), spoiler)
        await world.consumer(2)
        await world.deliver(Delivery(1, 42), Delivery(2, 43))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 42], [41, 42, 43])


def test_a_stream_that_is_another_is_not_followed() -> None:
    async def script(world: World) -> None:
        world.stream.lost = True
        await world.deliver(Delivery(1, 41), Control(Status="409", Description="Stream Deleted"))
        await until(lambda: world.lost, "it is told")

    world = play(script)
    assert (world.link.starts, world.lost) == ([41], ["made anew"])


def test_a_stream_made_anew_just_before_the_consumer_is_noticed() -> None:
    async def script(world: World) -> None:
        world.link.asked = lambda: setattr(world.stream, "lost", True)
        await world.deliver(Delivery(2, 42))
        deadline = asyncio.get_running_loop().time() + 5
        while not world.lost and asyncio.get_running_loop().time() < deadline:
            if world.link.handler is not None:
                await world.deliver(Control(Status="100"))  # from beyond its end the new stream sends nothing but heartbeats
            await asyncio.sleep(0.02)
        assert world.lost

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 41], [])

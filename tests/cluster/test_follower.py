"""What a consumer delivers is taken once, in order, without a gap; whatever else arrives makes a new one from the last taken."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh.cluster.direct_client import Direct
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.stream import StreamLost
from tokmesh.log.record import Streamed, decode


class Delivery:
    """A message as a consumer delivers it."""

    def __init__(self, number: int, sequence: int, *, domain: bool = False) -> None:
        where = "hub.ACCOUNT.S.c" if domain else "S.c"
        self.reply = f"$JS.ACK.{where}.1.{sequence}.{number}.1700000000000000000.0" + (".token" if domain else "")
        self.data = b"%d" % sequence


class Control:
    """A message without a record."""

    def __init__(self, reply: str = "", **headers: str) -> None:
        self.reply = reply
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class FakeLink:
    """Makes consumers without a server; `starts`: where each begins; `answered`: subjects."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.answered: list[str] = []
        self.asked: Callable[[], object] = lambda: None
        self.direct: Direct | None = None

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe_direct(self, subject: str, direct: Direct) -> None:
        self.direct = direct

    async def unsubscribe_direct(self, subscription: object) -> None:
        self.direct = None

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        if not subject.startswith("$JS.API."):
            self.answered.append(subject)

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
        self.has_room = True

    def take(self, batch: StreamedBatch) -> bool:
        if batch.previous != self.position:
            return False
        for index in range(len(batch)):
            record = decode(batch.record(index))
            assert isinstance(record, Streamed) and record.envelope == b"%d" % record.position
            self.taken.append(record.position)
        self.position = batch.position
        return True

    async def wait_for_room(self) -> None:
        await until(lambda: self.has_room, "there is room")


class World:
    def __init__(self) -> None:
        self.link, self.stream, self.sink = FakeLink(), FakeStream(), Sink()
        self.lost: list[str] = []
        self.follower = Follower(
            self.link, self.stream, None, self.sink, Clock(), self.lost.append  # type: ignore[arg-type]
        )

    async def deliver(self, *messages: object) -> None:
        """In one piece of the connection."""
        direct = self.link.direct
        assert direct is not None, "the consumer has ended"
        for message in messages:
            if isinstance(message, Delivery):
                assert direct.deliveries.deliver(message.reply.encode(), message.data)
            elif isinstance(message, Control):
                direct.delivered()
                direct.told(message.reply, message.headers)
        direct.delivered()
        await asyncio.sleep(0)

    async def consumer(self, count: int) -> None:
        await until(lambda: len(self.link.starts) == count and self.link.direct is not None, f"consumer {count}")


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


def test_what_does_not_follow_on_what_was_taken_makes_a_new_consumer() -> None:
    """Nothing of the one before would ever follow again."""

    async def script(world: World) -> None:
        await world.deliver(Delivery(1, 41), Delivery(2, 42))
        world.sink.position = 41  # set back
        await world.deliver(Delivery(3, 43))
        deadline = asyncio.get_running_loop().time() + 5
        while len(world.link.starts) == 1 and asyncio.get_running_loop().time() < deadline:
            if world.link.direct is not None:
                await world.deliver(Control(Status="100"))  # it is not silent
            await asyncio.sleep(0.02)
        assert len(world.link.starts) == 2
        await world.consumer(2)
        await world.deliver(Delivery(1, 42), Delivery(2, 43))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 42], [41, 42, 42, 43])


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
            if world.link.direct is not None:
                await world.deliver(Control(Status="100"))  # from beyond its end the new stream sends nothing but heartbeats
            await asyncio.sleep(0.02)
        assert world.lost

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 41], [])


def test_what_the_sink_has_no_room_for_is_held_in_order_and_flow_control_is_not_answered_before_it() -> None:
    async def script(world: World) -> None:
        await world.deliver(Delivery(1, 41), Control("$JS.FC.a", Status="100"))
        await until(lambda: world.link.answered == ["$JS.FC.a"], "it is answered")
        world.sink.has_room = False
        await world.deliver(Delivery(2, 42), Control("$JS.FC.b", Status="100"), Delivery(3, 43))
        await world.deliver(Control(Status="100", Nats_Last_Consumer="3", Nats_Consumer_Stalled="$JS.FC.c"), Delivery(4, 44))
        assert (world.sink.taken, world.link.answered) == ([41], ["$JS.FC.a"])
        world.sink.has_room = True
        await until(lambda: len(world.link.answered) == 3, "all is answered")
        await until(lambda: len(world.sink.taken) == 4, "all is taken")
        await world.deliver(Delivery(5, 45))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41], [41, 42, 43, 44, 45])
    assert world.link.answered == ["$JS.FC.a", "$JS.FC.b", "$JS.FC.c"]


def test_what_is_held_when_the_consumer_ends_is_delivered_again() -> None:
    async def script(world: World) -> None:
        world.sink.has_room = False
        await world.deliver(Delivery(1, 41), Control(Status="409", Description="Consumer Deleted"))
        world.sink.has_room = True
        await world.consumer(2)
        await world.deliver(Delivery(1, 41), Delivery(2, 42))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 41], [41, 42])


def test_what_anybody_else_sends_there_ends_the_consumer() -> None:
    async def script(world: World) -> None:
        await world.deliver(Control("anything"))
        await world.consumer(2)
        await world.deliver(Delivery(1, 41))

    world = play(script)
    assert (world.link.starts, world.sink.taken) == ([41, 41], [41])

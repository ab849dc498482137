"""While no consumer can be had, records are fetched from a replica, which has to prove that they follow on what was taken."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from tests.support.nats import NatsCluster
from tests.support.nats_hands import delete_stream, make_stream, put
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Table
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.link import Handler, Link, LinkDown, Subscription
from tokmesh.cluster.recent import RECORDS_MAX, Recent
from tokmesh.cluster.stream import Stream
from tokmesh.cluster.subjects import Subjects
from tokmesh.config.keys import NatsSettings
from tokmesh.following import Following
from tokmesh.log.record import StreamBound


class Sink:
    def __init__(self) -> None:
        self.position = 0
        self.taken: list[tuple[int, bytes]] = []

    def take(self, batch: StreamedBatch) -> bool:
        assert batch.previous == self.position
        self.taken += [(batch.place(index)[0], batch.envelope(index)) for index in range(len(batch))]
        self.position = batch.position
        return True

    @property
    def has_room(self) -> bool:
        return True

    async def wait_for_room(self) -> None:
        raise AssertionError("there is room")


class LossyLink(Link):
    """A real link. loses: what is lost on the way, each once."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        super().__init__(settings, name)
        self.loses: set[bytes] = set()

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        async def take(message: Msg) -> None:
            if message.data in self.loses:
                self.loses.discard(message.data)
            else:
                await handler(message)

        return await super().subscribe(subject, take)


class LeaderlessStream(Stream):
    """A real stream; without `has_leader` none answers for it, and no consumer is made."""

    has_leader = True

    async def verify(self, following: Following) -> None:
        if not self.has_leader:
            raise LinkDown("no leader")
        await super().verify(following)


class World:
    def __init__(self, nats: NatsCluster, link: LossyLink) -> None:
        self.nats = nats
        self.link = link
        self.sink = Sink()
        self.following = Following(Table(tombstone_ttl_ms=600_000, seed=bytes(16)))
        self.stream = LeaderlessStream(link, Subjects("tokmesh"), 1)
        self.lost: list[str] = []
        self.follower = Follower(link, self.stream, self.following, self.sink, Clock(), self.lost.append)

    async def put(self, *words: str) -> None:
        """A record each, of the session of that name."""
        for word in words:
            session = word.partition(" ")[0]
            await asyncio.to_thread(put, self.nats.servers[0], f"tokmesh.tokmesh.s.00.{session}", word.encode())

    async def taken(self, *words: str) -> None:
        await until(lambda: [payload.decode() for _, payload in self.sink.taken] == [*words], f"taken: {words}")

    async def lose_the_leader(self) -> None:
        await self.follower.stop()
        self.stream.has_leader = False
        self.follower.start()

    async def fetched(self) -> None:
        """Returns when it was tried twice more."""
        fetches = self.follower.fetches
        await until(lambda: self.follower.fetches >= fetches + 2, "fetches")


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path, 1) as started:
        make_stream(started.servers[0])
        yield started


def play(nats: NatsCluster, script: Callable[[World], Awaitable[None]]) -> World:
    async def inside() -> World:
        link = LossyLink(NatsSettings(servers=tuple(nats.urls)), "test")
        await link.connect()
        world = World(nats, link)
        facts = await world.stream.ensure(may_make=False)
        world.following.bind(StreamBound(1, bytes(16), facts.created_ns, 0))
        await world.put("a 1", "b 1", "c 1")
        world.follower.start()
        await world.taken("a 1", "b 1", "c 1")
        await script(world)
        await world.follower.stop()
        await link.close()
        return world

    return asyncio.run(asyncio.wait_for(inside(), 60))


def test_without_a_leader_records_are_fetched_in_order(nats: NatsCluster) -> None:
    async def script(world: World) -> None:
        await world.lose_the_leader()
        await world.put("d 1", "c 2", "a 2")
        await world.taken("a 1", "b 1", "c 1", "d 1", "c 2", "a 2")
        await world.put("e 1")
        await world.taken("a 1", "b 1", "c 1", "d 1", "c 2", "a 2", "e 1")

    world = play(nats, script)
    assert world.follower.fetches > 0 and world.follower.consumers_made == 1 and world.lost == []


@pytest.mark.parametrize("lost", ["c 1", "d 1", "e 1", "f 1"])
def test_what_is_lost_of_what_is_fetched_is_not_passed_over(nats: NatsCluster, lost: str) -> None:
    """It is no consumer's, whose deliveries are numbered."""

    async def script(world: World) -> None:
        await world.follower.stop()
        world.stream.has_leader = False
        await world.put("d 1", "e 1", "f 1")
        world.link.loses = {lost.encode()}
        world.follower.start()
        await world.taken("a 1", "b 1", "c 1", "d 1", "e 1", "f 1")

    assert not play(nats, script).link.loses


def test_the_record_at_the_very_position_may_have_been_replaced(nats: NatsCluster) -> None:
    async def script(world: World) -> None:
        await world.follower.stop()
        await world.put("c 2", "b 2")
        world.stream.has_leader = False
        world.follower.start()
        await world.taken("a 1", "b 1", "c 1", "c 2", "b 2")

    play(nats, script)


def test_a_stream_made_anew_while_there_is_no_leader_is_not_its_continuation(nats: NatsCluster) -> None:
    async def script(world: World) -> None:
        await world.lose_the_leader()
        await asyncio.to_thread(delete_stream, nats.servers[0])
        await asyncio.to_thread(make_stream, nats.servers[0])
        await world.put("x 1", "y 1", "z 1", "new 1", "new 2", "a 1")
        await world.fetched()
        world.stream.has_leader = True
        await until(lambda: world.lost, "its leader tells that it is another")

    assert play(nats, script).sink.taken == [(1, b"a 1"), (2, b"b 1"), (3, b"c 1")]


def test_what_cannot_be_proved_is_not_taken_until_a_leader_vouches_for_it(nats: NatsCluster) -> None:
    before = ["a 1", "b 1", "c 1"]
    after = ["a 2", "b 2", "c 2", "d 1"]

    async def script(world: World) -> None:
        await world.follower.stop()
        await world.put(*after)  # nothing of what was taken is left
        world.stream.has_leader = False
        world.follower.start()
        await world.fetched()
        await world.taken(*before)
        world.stream.has_leader = True
        await world.taken(*before, *after)

    play(nats, script)


def test_what_was_taken_and_not_written_down_is_not_passed_over_when_records_are_fetched(nats: NatsCluster) -> None:
    """The own log had no room: the node is set back to what it has, and must be given the rest again."""

    async def script(world: World) -> None:
        await world.follower.stop()
        world.stream.has_leader = False
        del world.sink.taken[1:]
        world.sink.position = 1
        await world.put("d 1")
        world.follower.start()
        await until(lambda: world.follower.fetches == 0 and not len(world.follower._recent), "nothing can be proved")
        await world.taken("a 1")
        world.stream.has_leader = True
        await world.taken("a 1", "b 1", "c 1", "d 1")

    play(nats, script)


def batch(*records: tuple[int, bytes], previous: int = 0) -> StreamedBatch:
    """These, behind `previous`."""
    found = StreamedBatch(previous, Clock())
    for sequence, payload in records:
        found.append(sequence, payload)
    return found


def test_a_proof_is_for_what_follows_without_one_contradiction() -> None:
    recent = Recent()
    recent.note(batch((1, b"1"), (2, b"2")))
    recent.note(batch(*((sequence, b"%d" % sequence) for sequence in range(3, RECORDS_MAX + 11)), previous=2))
    assert (len(recent), recent.oldest) == (RECORDS_MAX, 11)
    last = RECORDS_MAX + 10
    proof = recent.proof()
    assert not proof.holds_for(last + 1, b"new") and not proof.is_other  # nothing was shown
    assert not proof.holds_for(20, b"20") and proof.holds_for(last + 1, b"new")
    for sequence, payload in ((20, b"other"), (last, b"")):
        proof = recent.proof()
        assert not proof.holds_for(12, b"12") and not proof.holds_for(sequence, payload)
        assert proof.is_other and not proof.holds_for(last + 1, b"new")
    recent.note(batch((15, b"15"), previous=14))  # set back
    assert (len(recent), recent.oldest) == (1, 15)


def test_a_record_at_a_place_where_there_was_none_is_of_another_stream() -> None:
    recent = Recent()
    recent.note(batch((5, b"five"), (9, b"nine")))
    proof = recent.proof()
    assert not proof.holds_for(5, b"five") and not proof.holds_for(7, b"seven")
    assert not proof.holds_for(10, b"ten")

"""What one node has forgotten as ended does not come back from another that was away, in whichever order they are put back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.unit.test_following import CLUSTER_ID, HOUR_MS, Node, stated, ulid
from tokmesh._core.clock import Clock
from tokmesh.cluster.link import Link
from tokmesh.cluster.recall import recall_of
from tokmesh.cluster.reseeding import Figures, Reseeding
from tokmesh.cluster.statement import Stating
from tokmesh.cluster.stream import Stream
from tokmesh.cluster.subjects import Subjects
from tokmesh.config.keys import NatsSettings
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, shard_of
from tokmesh.log import record as r
from tokmesh.log.stream_record import Envelope

MINUTE_MS: Final = 60_000
TOMBSTONE_MS: Final = 10 * MINUTE_MS
NOW_MS: Final = Clock().now_ms()
SUBJECTS: Final = Subjects("test")
KEY: Final = r.KeyCreated(NOW_MS - 20 * HOUR_MS, b"k" * 16, "admin", "", [], 0.0, 0, "h", bytes(16), bytes(32))
LIVES: Final = 1
ENDED: Final = 2  # at the node that had come further, which knows nothing of it any more


class Stopped(Node):
    """A node that has come as far as that time. ran_until_ms: when its snapshot was taken, 0 without one."""

    def __init__(self, as_of_ms: int, *sessions: int, key_active: bool = True, ran_until_ms: int = 0) -> None:
        super().__init__()
        self.ran_until_ms = ran_until_ms
        records: list[r.AnyRecord] = [self.session(number) for number in sessions]
        self.position = 0
        for record in (*records, r.KeyStated(as_of_ms, key_active, KEY), r.PlaceStated(as_of_ms)):
            self.follow(record)

    @staticmethod
    def session(number: int, **fields: int) -> r.SessionStated:
        begun_ms = NOW_MS - 10 * HOUR_MS
        times = {"time_ms": begun_ms, "created_at_ms": begun_ms, "last_active_ms": begun_ms, "expires_at_ms": NOW_MS + HOUR_MS}
        return stated(number, **{**times, **fields})

    def follow(self, record: r.AnyRecord) -> None:
        self.position += 1
        self.stream(self.position, record)


class World:
    """The server, and whose hand it is."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.stream = Stream(link, SUBJECTS, 1)

    async def reseed(self, node: Stopped, *, anyway: bool = False) -> Figures:
        stating = Stating(SUBJECTS, node.table, node.keyring, node.store.following, TOMBSTONE_MS, HOUR_MS)
        reseeding = Reseeding(
            self.link, self.stream, SUBJECTS, stating, node.table, node.keyring, node.store.following, Clock(), "tmnd-a", 1,
            recall_of(node.store.following, node.ran_until_ms, TOMBSTONE_MS), lambda done, total: None,
        )  # fmt: skip
        figures, bound = await reseeding.run(anyway=anyway)
        node.apply(bound)
        return figures

    async def refused(self, node: Stopped) -> str:
        with pytest.raises(ApiError) as caught:
            await self.reseed(node)
        assert caught.value.code == "TM-CLST-5050"
        return str(caught.value.details)

    async def sessions(self) -> list[int]:
        """Those that a fresh node would take for good."""
        found = {number: await self.stream.last(SUBJECTS.session(ulid(number))) for number in (LIVES, ENDED)}
        return [number for number, each in found.items() if each and isinstance(r.decode_enveloped(each.payload), r.SessionStated)]

    async def key_active(self) -> bool:
        found = await self.stream.last(SUBJECTS.key(KEY.key_id))
        assert found is not None
        record = r.decode_enveloped(found.payload)
        assert isinstance(record, r.KeyStated)
        return record.active

    async def put(self, subject: str, record: r.AnyRecord) -> None:
        await self.link.request(subject, Envelope("tmnd-b", 1, 1, "", record.encode()).encode(), 5.0)

    async def lose(self) -> None:
        await self.link.ask(f"STREAM.DELETE.{self.stream.name}", None)


def run(url: str, work: Callable[[World], Awaitable[None]]) -> None:
    async def inside() -> None:
        link = Link(NatsSettings(servers=(url,)), "tmnd-a")
        await link.connect()
        try:
            await work(World(link))
        finally:
            await link.close()

    asyncio.run(asyncio.wait_for(inside(), 30))


def current(ran_until_ms: int = 0) -> Stopped:
    return Stopped(NOW_MS - HOUR_MS, LIVES, key_active=False, ran_until_ms=ran_until_ms)


def away(*, key_active: bool = True) -> Stopped:
    """Until an hour before the others stopped: it has not heard that a session was revoked, and the key was as it is there."""
    return Stopped(NOW_MS - 2 * HOUR_MS, LIVES, ENDED, key_active=key_active)


def late(by_ms: int = 2 * MINUTE_MS) -> Stopped:
    """By less than what has ended is remembered."""
    return Stopped(NOW_MS - HOUR_MS - by_ms, LIVES)


def test_what_has_ended_while_a_node_was_away_does_not_come_back_from_it(url: str) -> None:
    async def work(world: World) -> None:
        await world.reseed(current())
        assert "was away" in await world.refused(away())
        assert await world.sessions() == [LIVES] and not await world.key_active()
        await world.reseed(late())
        assert await world.sessions() == [LIVES] and not await world.key_active()

    run(url, work)


def test_a_stream_from_a_node_that_was_away_is_told_by_the_next_and_begun_anew(url: str) -> None:
    async def work(world: World) -> None:
        first = away()
        await world.reseed(first)
        for node in (current(), late()):
            assert "remove the stream" in await world.refused(node)
        await world.lose()
        await world.reseed(late())
        await world.reseed(current())
        assert "was away" in await world.refused(first), "what it follows since tells nothing new"
        assert await world.sessions() == [LIVES] and not await world.key_active()

    run(url, work)


def test_of_three_nodes_each_must_fit_to_each(url: str) -> None:
    async def work(world: World) -> None:
        for order in ((0, 6, 12), (12, 6, 0)):
            for minutes in order[:2]:
                await world.reseed(late(minutes * MINUTE_MS))
            await world.refused(late(order[2] * MINUTE_MS))
            await world.lose()

    run(url, work)


def test_a_node_that_went_on_forgetting_while_it_was_cut_off_remembers_no_more_than_it_does(url: str) -> None:
    async def work(world: World) -> None:
        for first, second in ((current(ran_until_ms=NOW_MS), late()), (late(), current(ran_until_ms=NOW_MS))):
            await world.reseed(first)
            await world.refused(second)
            await world.lose()
        await world.reseed(current(ran_until_ms=NOW_MS))
        await world.reseed(current())

    run(url, work)


def test_a_disabled_key_stays_so_whichever_node_is_the_first(url: str) -> None:
    async def work(world: World) -> None:
        for nodes in ((current(), late()), (late(), current())):
            for node in nodes:
                await world.reseed(node)
            assert not await world.key_active()
            await world.lose()

    run(url, work)


def test_a_session_that_ended_early_as_its_life_was_made_shorter_does_not_get_the_longer_one_back(url: str) -> None:
    async def work(world: World) -> None:
        for is_first in (True, False):
            nodes = [Stopped(NOW_MS - HOUR_MS - by_ms, LIVES, ENDED) for by_ms in (0, 2 * MINUTE_MS)]
            end_ms = NOW_MS - HOUR_MS - MINUTE_MS
            shorter = Stopped.session(ENDED, version=2, time_ms=end_ms - 1, expires_at_ms=end_ms)
            nodes[0].follow(r.SessionHeld(shorter.time_ms, ulid(ENDED), NOW_MS + HOUR_MS, shorter))
            nodes[0].follow(r.PlaceStated(NOW_MS - HOUR_MS))
            while nodes[0].table.advance(NOW_MS - HOUR_MS, 1000):
                pass
            for node in nodes if is_first else nodes[::-1]:
                await world.reseed(node)
            assert await world.sessions() == [LIVES]
            await world.lose()

    run(url, work)


@pytest.mark.parametrize("is_snapshot", [True, False])
def test_a_node_remembers_of_a_shard_nothing_that_had_ended_before_it_was_loaded(is_snapshot: bool, url: str) -> None:
    """Who held it then has left it since, or is lost: a node that was away for a moment only has for good what had ended."""

    async def work(world: World) -> None:
        part, loaded_ms = ALL_SHARDS ^ 1 << shard_of(ulid(ENDED)), NOW_MS - HOUR_MS - MINUTE_MS
        for first_is_away in (True, False):
            holder = Stopped(NOW_MS - HOUR_MS, LIVES, ran_until_ms=loaded_ms if is_snapshot else 0)
            holder.apply(r.ShardsHeld(loaded_ms, part ^ 1 << shard_of(ulid(LIVES)), 0))
            if not is_snapshot:
                holder.apply(r.ShardsHeld(loaded_ms - 1, holder.store.following.held, 1 << shard_of(ulid(ENDED))))
                holder.apply(r.ShardsHeld(loaded_ms, holder.store.following.held | 1 << shard_of(ulid(ENDED)), 0))
            away = Stopped(loaded_ms - 1, ENDED)
            first, second = (away, holder) if first_is_away else (holder, away)
            await world.reseed(first)
            await world.refused(second)
            await world.lose()

    run(url, work)


def test_a_node_ends_no_session_whose_shard_it_has_left(url: str) -> None:
    async def work(world: World) -> None:
        node = Stopped(NOW_MS - HOUR_MS, LIVES, ENDED)
        shorter = Stopped.session(ENDED, version=2, time_ms=NOW_MS - HOUR_MS)
        node.follow(r.SessionHeld(shorter.time_ms, ulid(ENDED), NOW_MS + 2 * HOUR_MS, shorter))
        node.follow(r.PlaceStated(NOW_MS - HOUR_MS))
        node.apply(r.ShardsHeld(NOW_MS, ALL_SHARDS ^ 1 << shard_of(ulid(ENDED)), 0))
        while node.table.forgetting:
            node.table.forget(1000)
        await world.reseed(Stopped(NOW_MS - HOUR_MS, ENDED))
        await world.reseed(node)
        assert ENDED in await world.sessions()

    run(url, work)


def test_what_only_a_node_has_that_was_away_is_put_back_when_it_is_said_so_and_its_keys_are_not(url: str) -> None:
    async def work(world: World) -> None:
        await world.reseed(Stopped(NOW_MS - HOUR_MS, LIVES))
        await world.reseed(away(key_active=False), anyway=True)
        assert await world.sessions() == [LIVES, ENDED] and await world.key_active()
        assert "was away" in await world.refused(away()), "it counts for nothing"
        await world.reseed(late())

    run(url, work)


def test_nothing_is_put_into_a_stream_that_nodes_follow_already(url: str) -> None:
    async def work(world: World) -> None:
        await world.reseed(current())
        await world.put(SUBJECTS.cluster, r.ClusterStated(NOW_MS - HOUR_MS, CLUSTER_ID, ("tmnd-b",)))
        assert "was away" in await world.refused(current())

    run(url, work)


@pytest.mark.parametrize("is_old", [True, False])
def test_a_stream_that_was_set_back_is_filled_up_if_it_has_not_lost_more_than_is_remembered(url: str, is_old: bool) -> None:
    async def work(world: World) -> None:
        facts = await world.stream.ensure(may_make=True)
        await world.put(SUBJECTS.cluster, r.ClusterStated(NOW_MS - 9 * HOUR_MS, CLUSTER_ID, ("tmnd-b",)))
        known_ms = NOW_MS + (HOUR_MS if is_old else MINUTE_MS)
        node = Stopped(known_ms, LIVES)
        node.store.following.created_ns = facts.created_ns
        if is_old:
            assert "remove the stream" in await world.refused(node)
            return
        await world.reseed(node)
        assert await world.sessions() == [LIVES]

    run(url, work)

"""A node gets shards from a real NATS server: they are held when they are whole, whatever goes on meanwhile, and not before."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.crash.records import QUIET
from tests.support.waiting import until
from tests.unit.test_following import CLUSTER_ID, stated, ulid
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Table, Verdict
from tokmesh.cluster.consumer import Consumer
from tokmesh.cluster.follower import Follower
from tokmesh.cluster.holding import Holding
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.link import Link
from tokmesh.cluster.loading import LoadFailed, Loading, _OutOfTurn
from tokmesh.cluster.publishing import Publishing
from tokmesh.cluster.quorum import Quorum
from tokmesh.cluster.rebalancing import Rebalancing
from tokmesh.cluster.statement import UNCONDITIONAL, Statement
from tokmesh.cluster.stream import Stream
from tokmesh.cluster.subjects import Subjects
from tokmesh.config.keys import NatsSettings
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.log.interface import Proposal
from tokmesh.log.record import AnyRecord, NodeStated, SessionsRevoked, SessionStated, ShardsHeld, StreamBound, decode
from tokmesh.log.stream_record import Envelope
from tokmesh.store import Store

NODE = "tmnd-a"
T0 = 1_734_567_890_000


class World:
    """A node that holds nothing, and follows a stream."""

    def __init__(self, url: str, directory: Path, entries_max: int) -> None:
        self.clock = Clock()
        self.table = Table(tombstone_ttl_ms=600_000, seed=bytes(16), entries_max=entries_max)
        self.store = Store(self.table, KeyRing())
        self.following = self.store.following
        self.subjects = Subjects("test")
        self.link = Link(NatsSettings(servers=(url,)), NODE)
        self.stream = Stream(self.link, self.subjects, 1)
        self.own: FileLog[AnyRecord] = FileLog(
            directory / "log", sync_mode="interval", sync_interval_ms=20, segment_bytes_max=1 << 20, decode=decode,
            clock=self.clock, logger=QUIET,
        )  # fmt: skip
        self.publishing = Publishing(self.link, self.stream, self.clock)
        self.log = JetStreamLog(
            self.own, self.following, None, self.publishing, self.clock, NODE, 1,  # type: ignore[arg-type]
            apply_all=self.store.apply_all, request_id=lambda: "", refusal=lambda: None, advanced=lambda: None, doubt=_no_doubt,
        )  # fmt: skip
        self.follower = Follower(self.link, self.stream, self.following, self.log, self.clock, _not_lost)
        self.heard = 0
        self.loading = Loading(
            self.link, self.subjects, self.following, self.log, self.clock, self._start_stated, self._heard_activity
        )

    def _start_stated(self) -> Statement:
        record = NodeStated(self.clock.now_ms(), NODE, 1)
        return Statement(self.subjects.node(NODE), record, UNCONDITIONAL, 0, "")

    async def _heard_activity(self) -> None:
        self.heard += 1

    async def put(self, session: SessionStated) -> None:
        """Another node's statement."""
        envelope = Envelope("tmnd-b", 1, 1, "", session.encode()).encode()
        await self.link.request(self.subjects.session(session.session_id), envelope, 5.0)

    def rebalancing(self) -> Rebalancing:
        """Of a cluster that is this node."""
        quorum = Quorum(NODE, 1, max_staleness_ns=2_000_000_000)
        quorum.set_members([NODE], self.clock.monotonic_ns())
        holding = Holding(quorum, self.following, 1, self.clock.monotonic_ns(), lambda _: None)
        return Rebalancing(self.link, self.subjects.rebalance, holding, self.loading, self.table, self.clock, lambda: True)

    def known(self, *numbers: int) -> list[int]:
        return [number for number in numbers if self.table.find(ulid(number)) >= 0]

    async def begin(self) -> None:
        self.own.recover(self.store.replay)
        self.log.start(asyncio.get_running_loop(), self.store.apply)
        await self.link.connect()
        facts = await self.stream.ensure(may_make=True)
        await self.publishing.start()
        await self.log.bind(StreamBound(T0, CLUSTER_ID, facts.created_ns, 0))
        await self.loading.begin()
        self.follower.start()

    async def end(self) -> None:
        await self.follower.stop()
        await self.publishing.stop()
        await self.link.close()
        await self.own.close()


def run(url: str, directory: Path, script: Callable[[World], Awaitable[None]], entries_max: int = 1000) -> None:
    async def life() -> None:
        world = World(url, directory, entries_max)
        try:
            await world.begin()
            await script(world)
        finally:
            await world.end()

    asyncio.run(asyncio.wait_for(life(), 60))


async def _no_doubt() -> bool:
    return False


def _not_lost(reason: str) -> None:
    raise AssertionError(reason)


def test_what_changed_while_it_was_read_out_of_turn_has_come_in_its_turn_before_it_is_held(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a session whose record was replaced meanwhile is missing for as long as the node follows behind."""

    async def script(world: World) -> None:
        for number in (1, 2):
            await world.put(stated(number))
        await until(lambda: world.following.position == 2, "it follows")
        opened = Consumer.open

        async def open_late(consumer: Consumer) -> None:
            if consumer._wanted is not None:
                await world.follower.stop()
                await world.put(stated(1, version=2))
                await opened(consumer)
                asyncio.get_running_loop().call_later(0.5, world.follower.start)
            else:
                await opened(consumer)

        monkeypatch.setattr(Consumer, "open", open_late)
        await world.loading.load(ALL_SHARDS)
        assert world.following.held == ALL_SHARDS
        assert world.known(1, 2) == [1, 2]
        assert world.table.session(world.table.find(ulid(1))).version == 2

    run(url, tmp_path, script)


def test_a_revocation_that_a_replica_gives_behind_the_session_ends_it(url: str, tmp_path: Path) -> None:
    """A replica that is behind when it is asked gives what was the last then, and what replaced it later; all of that had come in
    its turn before."""

    async def script(world: World) -> None:
        await world.log.note(ShardsHeld(T0, 0, ALL_SHARDS))
        sink = _OutOfTurn(world.log, world.clock, 3)
        batch = StreamedBatch(0, world.clock)
        for position, record in enumerate((stated(1), stated(2), SessionsRevoked(T0, [ulid(1)])), 1):
            batch.append(position, Envelope("tmnd-b", 1, position, "", record.encode()).encode())
        sink.take(batch)
        await sink.applied()
        verdicts = [world.table.find_token(b"%032d" % number, T0 + 1)[0] for number in (1, 2)]
        assert verdicts == [Verdict.VERDICT_REVOKED, Verdict.VERDICT_VALID]

    run(url, tmp_path, script)


def test_a_shard_that_the_table_has_no_room_for_is_not_held(url: str, tmp_path: Path) -> None:
    async def script(world: World) -> None:
        for number in (1, 2):
            await world.put(stated(number))
        await until(lambda: world.following.position == 2, "it follows")
        with pytest.raises(LoadFailed, match="TM-SYS-5030"):
            await world.loading.load(ALL_SHARDS)
        assert (world.following.held, world.following.loading) == (0, 0)
        while world.table.forgetting:
            world.table.forget(100)
        assert world.known(1, 2) == []

    run(url, tmp_path, script, entries_max=1)


def test_what_could_not_be_given_up_is_loaded_when_the_log_takes_records_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(world: World) -> None:
        await world.put(stated(1))
        note, refuses = world.log.note, True

        def note_or_refuse(record: AnyRecord) -> Proposal:
            if not refuses or not world.following.loading:
                return note(record)  # type: ignore[arg-type]
            future = Proposal(loop=asyncio.get_running_loop())
            future.set_exception(ApiError("TM-SYS-5001"))
            return future

        monkeypatch.setattr(world.log, "note", note_or_refuse)
        rebalancing = world.rebalancing()
        rebalancing.start()
        await until(lambda: rebalancing.loads_failed_total > 1, "it fails, and so does giving up")
        assert (world.following.held, world.loading.is_unfinished) == (0, True)
        refuses = False
        await until(lambda: world.following.held == ALL_SHARDS, "all is held")
        assert (world.known(1), world.loading.is_unfinished) == ([1], False)
        await rebalancing.stop()

    run(url, tmp_path, script)

"""What the stream brings goes through the node's own log, in order and without a gap, or is asked for again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.crash.records import QUIET
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Outcome, Table
from tokmesh.cluster.jetstream_log import BACKLOG_RECORDS, JetStreamLog
from tokmesh.cluster.publishing import Publication
from tokmesh.cluster.statement import Statement, Stating
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord, SessionsRevoked, SessionStated, StreamBound, decode
from tokmesh.log.stream_record import Envelope
from tokmesh.store import Store

T0 = 1_734_567_890_000
NODE = "tmnd-a"
INCARNATION = 7
LIFE_MS_MAX = 30 * 24 * 3_600_000
SUBJECTS = Subjects("test")


class FakePublishing:
    """Keeps what is to be published; a message counts as stored when it comes back."""

    def __init__(self) -> None:
        self.put_last: Publication | None = None
        self.count = 0
        self.came_back: list[tuple[int, int]] = []

    def put(self, publication: Publication) -> None:
        self.put_last = publication
        self.count += 1

    def seen(self, number: int, sequence: int) -> None:
        self.came_back.append((number, sequence))
        assert self.put_last is not None
        self.put_last.stored(sequence)


class World:
    """A node without a network."""

    def __init__(self, directory: Path, entries_max: int = 100_000) -> None:
        self.clock = Clock(anchor_ms=T0)
        self.table = Table(tombstone_ttl_ms=600_000, seed=bytes(16), entries_max=entries_max)
        self.store = Store(self.table, KeyRing())
        self.own: FileLog[AnyRecord] = FileLog(
            directory, sync_mode="interval", sync_interval_ms=20, segment_bytes_max=1 << 20, decode=decode, clock=self.clock,
            logger=QUIET,
        )  # fmt: skip
        self.publishing = FakePublishing()
        self.advanced = 0
        self.doubt: Callable[[], Awaitable[bool]] = _no_doubt
        self.stating = Stating(SUBJECTS, self.table, KeyRing(), self.store.following, 600_000, LIFE_MS_MAX)
        self.log = JetStreamLog(
            self.own, self.store.following, self.stating, self.publishing, self.clock,  # type: ignore[arg-type]
            NODE, INCARNATION, apply_all=self.store.apply_all, request_id=lambda: "", refusal=lambda: None,
            advanced=self._advanced, doubt=self._is_doubted,
        )  # fmt: skip

    async def _is_doubted(self) -> bool:
        return await self.doubt()

    def _advanced(self) -> None:
        self.advanced += 1

    def batch(self, *positions: int, previous: int | None = None) -> StreamedBatch:
        batch = StreamedBatch(self.log.position if previous is None else previous, self.clock)
        for position in positions:
            batch.append(position, envelope(position))
        return batch

    def known(self, *positions: int) -> list[bool]:
        return [self.table.find(session_id(position)) >= 0 for position in positions]


async def _no_doubt() -> bool:
    return False


def session_id(number: int) -> bytes:
    return (T0 << 80 | number).to_bytes(16, "big")


def session(number: int) -> SessionStated:
    return SessionStated(
        T0, session_id(number), b"%032d" % number, b"", 0, T0, T0 + 60_000, T0, 1, 0, "ann", "", "", "", "", b"{}"
    )


def envelope(number: int, origin: str = "tmnd-b", incarnation: int = 1) -> bytes:
    return Envelope(origin, incarnation, number, "", session(number).encode()).encode()


def play(directory: Path, script: Callable[[World], Awaitable[None]], entries_max: int = 100_000) -> World:
    async def life() -> World:
        world = World(directory, entries_max)
        world.own.recover(world.store.replay)
        world.log.start(asyncio.get_running_loop(), world.store.apply)
        try:
            await world.log.bind(StreamBound(T0, b"c" * 16, 77, 0))
            await script(world)
        finally:
            await world.own.close()
        return world

    return asyncio.run(asyncio.wait_for(life(), 60))


def test_batches_are_applied_and_survive_a_restart(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.log.take(world.batch(3, 5))
        world.log.take(world.batch(6))
        assert (world.log.position, world.store.following.position) == (6, 0)
        await until(lambda: world.store.following.position == 6, "all is applied")
        assert world.known(3, 4, 5, 6) == [True, False, True, True]
        await until(lambda: world.advanced > 0, "it is told")

    play(tmp_path, script)

    async def again(world: World) -> None:
        assert world.known(3, 5, 6) == [True, True, True]

    world = World(tmp_path)
    world.own.recover(world.store.replay)
    assert (world.store.following.position, world.known(3, 4, 5, 6)) == (6, [True, False, True, True])


def test_a_batch_that_does_not_follow_on_what_was_taken_is_let_go(tmp_path: Path) -> None:
    """After a failure of the own log the following begins anew: an older consumer's batches must leave nothing out."""

    async def script(world: World) -> None:
        assert world.log.take(world.batch(3))
        assert not world.log.take(world.batch(9, previous=8))
        assert not world.log.take(world.batch(2, 4, previous=1))
        assert world.log.position == 3
        world.log.take(world.batch(4))
        await until(lambda: world.store.following.position == 4, "all is applied")
        assert world.known(2, 3, 4, 9) == [False, True, True, False]

    play(tmp_path, script)


def test_what_the_own_log_does_not_take_stops_the_following_until_it_does(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.log.take(world.batch(1, 2))
        await until(lambda: world.store.following.position == 2, "it is applied")
        await world.own.suspend(lambda: ApiError("TM-SYS-5030"))
        world.log.take(world.batch(3, 4))
        await until(lambda: world.log.failure is not None, "it is noticed")
        world.own.resume()
        assert world.log.take(world.batch(5)), "no other consumer would help"
        assert (world.log.position, world.store.following.position) == (4, 2)
        assert world.log.resume()
        assert world.log.position == 2
        world.log.take(world.batch(5, previous=4))  # of the consumer before
        world.log.take(world.batch(3, 4, 5))
        await until(lambda: world.store.following.position == 5, "all is applied")

    assert play(tmp_path, script).known(1, 2, 3, 4, 5) == [True] * 5


def test_what_this_node_proposed_is_told_its_outcome_among_what_others_did(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        future = world.log.propose_alone(Statement("s", session(12), 0, 0, ""))
        assert world.publishing.put_last is not None
        batch = StreamedBatch(0, world.clock)
        for position, content in ((10, envelope(10)), (12, world.publishing.put_last.payload), (14, envelope(14))):
            batch.append(position, content)
        world.log.take(batch)
        assert await future == Outcome.INSERTED
        assert world.publishing.came_back == [(1, 12)]
        await until(lambda: world.store.following.position == 14, "all is applied")
        assert world.known(10, 12, 14) == [True] * 3
        assert world.store.following.sequence_of_entry(world.table.find(session_id(12))) == 12

    play(tmp_path, script)


def test_there_is_room_until_too_much_waits_for_the_own_log(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        position = 0
        while world.log.has_room:
            assert position <= BACKLOG_RECORDS
            world.log.take(world.batch(*range(position + 1, position + 1025)))
            position += 1024
        assert position > BACKLOG_RECORDS
        await asyncio.wait_for(world.log.wait_for_room(), 30)
        assert world.log.has_room
        await until(lambda: world.store.following.position == position, "all is applied")

    play(tmp_path, script)


def test_a_failure_ends_the_wait_for_room(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.log.failure = "for a test"
        waiting = [world.own.propose_all(world.batch(*range(1, 1025))) for _ in range(BACKLOG_RECORDS // 1024 + 1)]
        assert not world.log.has_room
        await asyncio.wait_for(world.log.wait_for_room(), 0.001)
        await asyncio.gather(*waiting)

    play(tmp_path, script)


async def stored_below_the_position(world: World) -> "asyncio.Future[int]":
    """A proposal that the stream has stored where the node has been already, which asks whether the stream is still the same."""
    if world.log.position < 3:
        world.log.take(world.batch(3))
    await until(lambda: world.store.following.position == 3, "it is applied")
    future = world.log.propose(SessionsRevoked(T0, (session_id(3),)))
    assert world.publishing.put_last is not None
    world.publishing.put_last.stored(2)
    await asyncio.sleep(0)
    return future


def outcome_of(future: "asyncio.Future[int]") -> object:
    error = future.exception()
    assert isinstance(error, ApiError) and error.details is not None
    return error.details.get("outcome")


def test_an_odd_answer_to_whether_the_stream_is_the_same_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def odd() -> bool:
        raise KeyError("created")

    async def script(world: World) -> None:
        world.doubt = odd
        future = await stored_below_the_position(world)
        await asyncio.wait((future,), timeout=10)
        assert outcome_of(future) == "unknown"

    play(tmp_path, script)


def test_the_end_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Whoever waits for a proposal cannot be cancelled: a stopping node would wait for ever for what it does for another."""

    async def never() -> bool:
        await asyncio.sleep(1_000_000)
        return False

    async def script(world: World) -> None:
        world.doubt = never
        doubted = await stored_below_the_position(world)
        world.doubt = _no_doubt
        stored = await stored_below_the_position(world)
        await asyncio.sleep(0.01)
        await world.log.stop()
        assert (outcome_of(doubted), outcome_of(stored)) == ("unknown", "unknown")
        refused = world.log.propose(session(3)).exception()
        assert isinstance(refused, ApiError) and refused.code == "TM-SYS-5030"
        running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not [name for name in running if "look_before" in name]

    play(tmp_path, script)

"""Who asks for missed touches hears them from every member that is there, on a real NATS server, and is held up by none."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.model.table_pair import id_of
from tests.support.nats import NatsCluster
from tests.support.waiting import until
from tests.unit.test_activity import HOUR_MS, item, last_active, table_with
from tokmesh._core.activity import ACTIVITY_ITEM_BYTES
from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.cluster import missed_touches as module
from tokmesh.cluster.beat import Beat
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.missed_touches import (
    PIECE_BYTES_MAX,
    ActivityError,
    MissedTouches,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from tokmesh.cluster.quorum import Quorum
from tokmesh.cluster.subjects import Subjects
from tokmesh.cluster.touch_exchange import TouchExchange
from tokmesh.config.keys import NatsSettings
from tokmesh.log.record import SessionsTouched

SUBJECTS = Subjects("test")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


def quorum_of(node_id: str) -> Quorum:
    return Quorum(node_id, 1, max_staleness_ns=2_000_000_000)


def fail() -> None:
    raise AssertionError("it asked nobody")


class Member:
    """A node, as far as it tells and hears who was active."""

    def __init__(self, url: str, node_id: str, table: Table) -> None:
        self.link = Link(NatsSettings(servers=(url,)), node_id)
        self.table = table
        self.clock = Clock()
        self.touches = TouchExchange(self.link, SUBJECTS.touches, table)
        self.quorum = quorum_of(node_id)
        self.times_caught_up = 0
        self.is_loading = False
        self.missed = MissedTouches(
            self.link, SUBJECTS, table, self.touches, self.clock, self.quorum, lambda: self.is_loading, self.caught_up
        )

    def caught_up(self) -> None:
        """It is told so when that is so."""
        assert not self.missed.is_behind
        self.times_caught_up += 1

    async def begin(self) -> None:
        await self.link.connect()
        await self.missed.listen()
        await self.settle()

    async def settle(self) -> None:
        """The server knows what this node hears: it has answered what came after that."""
        with pytest.raises(LinkDown, match="no responders"):
            await self.link.request("nobody", b"", 10)


def run(url: str, work: Callable[..., Awaitable[None]], *tables: Table) -> None:
    """`work` with members tmnd-0, tmnd-1, …, of which each has one of the tables."""

    async def inside() -> None:
        members = [Member(url, f"tmnd-{number}", table) for number, table in enumerate(tables)]
        try:
            for member in members:
                await member.begin()
            await work(*members)
        finally:
            for member in members:
                await member.link.close()

    asyncio.run(asyncio.wait_for(inside(), 60))


def now_table(*numbers: int) -> Table:
    """Sessions of this hour."""
    now_ms = Clock().now_ms()
    return table_with(*numbers, created_at_ms=now_ms - 1000, expires_at_ms=now_ms + HOUR_MS)


def test_it_hears_from_all_members_what_each_knows_and_ends_no_session_before(url: str) -> None:
    count = PIECE_BYTES_MAX // ACTIVITY_ITEM_BYTES + 10  # more than a piece

    async def work(away: Member, first: Member, second: Member) -> None:
        now_ms = away.clock.now_ms()
        for number in range(count):
            first.table.touch(id_of(number), now_ms + number)
        second.table.touch(id_of(3), now_ms + 1_000_000)
        assert away.table.idle_ends_from_ms > now_ms
        await away.missed.ask(["tmnd-1", "tmnd-2"])
        assert away.table.idle_ends_from_ms == 0
        assert [last_active(away.table, number) - now_ms for number in (0, 3, count - 1)] == [0, 1_000_000, count - 1]
        assert away.touches.undecodable == first.touches.undecodable == 0

    run(url, work, *(now_table(*range(count)) for _ in range(3)))


def test_what_it_heard_it_does_not_tell_again_and_what_it_sees_afterwards_it_does(url: str) -> None:
    async def work(away: Member, other: Member) -> None:
        heard: list[bytes] = []

        async def hear(message: Msg) -> None:
            heard.append(message.data)

        await other.link.subscribe(SUBJECTS.touches, hear)
        await other.settle()
        now_ms = away.clock.now_ms()
        other.table.touch(id_of(1), now_ms - 10)
        await away.missed.ask(["tmnd-1"])
        away.touches.note(SessionsTouched(now_ms, away.table.drain_touched(10)))
        await away.touches.tell()
        later_ms = away.clock.now_ms() + 5
        away.table.touch(id_of(1), later_ms)
        later = SessionsTouched(later_ms, away.table.drain_touched(10))
        away.touches.note(later)
        await away.touches.tell()
        while not heard:
            await asyncio.sleep(0.01)
        assert heard == [later.encode()]

    run(url, work, now_table(1), now_table(1))


def test_a_member_that_is_not_there_is_passed_over_at_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work(away: Member, other: Member) -> None:
        other.table.touch(id_of(1), away.clock.now_ms() + 5)
        started_ns = away.clock.monotonic_ns()
        hears_beats_of(away, "tmnd-gone", ago_ns=module.SILENT_NS + 1)
        await away.missed.ask(["tmnd-1", "tmnd-gone", "tmnd-never-heard"])
        assert away.clock.monotonic_ns() - started_ns < module.PIECE_S * 1e9
        assert last_active(away.table, 1) > away.clock.now_ms() - 1000
        assert away.table.idle_ends_from_ms == 0

    run(url, work, now_table(1), now_table(1))
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [vars(record)["node_id"] for record in told] == ["tmnd-gone", "tmnd-never-heard"]


async def answering(by: Member, node_id: str, answers: Callable[[bytes], bytes | None]) -> None:
    """A member of that id that answers so, on the link of another."""

    async def answer(message: Msg) -> None:
        found = answers(message.data)
        if found is not None:
            await by.link.publish(message.reply, found)

    await by.link.subscribe(SUBJECTS.activity(node_id), answer)
    await by.settle()


def test_a_member_that_says_nothing_or_never_ends_is_passed_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_S", 0.2)
    monkeypatch.setattr(module, "TELL_S", 0.5)
    monkeypatch.setattr(module, "ALL_S", 1.0)
    cursors = iter(range(1, 1 << 40))

    async def work(away: Member, other: Member) -> None:
        hears_beats_of(away, "tmnd-silent")
        await answering(other, "tmnd-silent", lambda _: None)
        await answering(other, "tmnd-endless", lambda _: encode_answer(next(cursors), b""))
        await away.missed.ask(["tmnd-silent", "tmnd-endless"])
        assert away.table.idle_ends_from_ms == 0
        assert away.touches.undecodable == 0

    run(url, work, now_table(1), now_table(1))


@pytest.mark.parametrize("is_there_at_first", [True, False])
def test_a_member_that_is_heard_is_asked_until_it_tells(url: str, monkeypatch: pytest.MonkeyPatch, is_there_at_first: bool) -> None:
    monkeypatch.setattr(module, "PIECE_S", 0.2)
    questions: list[bytes] = []
    refused: list[LinkDown] = []

    async def work(away: Member, other: Member) -> None:
        seen_ms, request = away.clock.now_ms() + 5, away.link.request

        async def noticed(subject: str, payload: bytes, timeout_s: float) -> Msg:
            try:
                return await request(subject, payload, timeout_s)
            except LinkDown as error:
                refused.append(error)
                raise

        monkeypatch.setattr(away.link, "request", noticed)

        def tell(question: bytes) -> bytes | None:
            questions.append(question)
            return encode_answer(0, item(1, seen_ms)) if len(questions) > 2 else None

        hears_beats_of(away, "tmnd-late")
        if is_there_at_first:
            await answering(other, "tmnd-late", tell)
        asking = asyncio.ensure_future(away.missed.ask(["tmnd-late"]))
        if not is_there_at_first:
            await until(lambda: refused, "nobody has heard a question")
            await answering(other, "tmnd-late", tell)
        await until(lambda: len(questions) > 1, "it is asked again")
        assert away.missed.is_behind and away.table.idle_ends_from_ms > 0
        await asking
        assert not away.missed.is_behind and last_active(away.table, 1) == seen_ms

    run(url, work, now_table(1), now_table(1))


BAD_ANSWERS = [
    b"", b"\x02" + bytes(8), bytes(9), encode_answer(0, b"x"), encode_answer(0, item(1, 2**60)),
    encode_answer(0, bytes(PIECE_BYTES_MAX + ACTIVITY_ITEM_BYTES)),
]  # fmt: skip


def test_bad_answers_and_questions_are_counted_and_change_nothing(url: str) -> None:
    async def work(away: Member, other: Member) -> None:
        before = last_active(away.table, 1)
        for number, bad in enumerate(BAD_ANSWERS):
            await answering(other, f"tmnd-bad-{number}", lambda _, bad=bad: bad)  # type: ignore[misc]
        await away.missed.ask([f"tmnd-bad-{number}" for number in range(len(BAD_ANSWERS))])
        assert away.touches.undecodable == len(BAD_ANSWERS)
        assert last_active(away.table, 1) == before
        for bad_question in (b"", b"\x02" + bytes(16), bytes(17), b"\x01" * 18, encode_question(0, 2**63)):
            await away.link.publish(SUBJECTS.activity("tmnd-1"), bad_question)
        while other.touches.undecodable < 5:
            await asyncio.sleep(0.01)
        await away.missed.ask(["tmnd-1"])  # which still answers
        assert away.touches.undecodable == len(BAD_ANSWERS)

    run(url, work, now_table(1), now_table(1))


def test_a_question_and_an_answer_come_back_as_they_were_made() -> None:
    assert decode_question(encode_question(7, 2**63 - 1)) == (7, 2**63 - 1)
    assert decode_answer(encode_answer(8, item(1, 5)), 7) == (8, item(1, 5))
    assert decode_answer(encode_answer(0, b""), 7) == (0, b"")
    for following in (1, 7):
        with pytest.raises(ActivityError, match="does not rise"):
            decode_answer(encode_answer(following, b""), 7)


def test_a_member_pauses_after_a_piece_for_longer_than_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    times = iter((1.0, 1.5))

    async def work() -> None:
        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        async def publish(subject: str, payload: bytes) -> None:
            assert (subject, payload) == ("reply", encode_answer(0, b""))

        link: Any = SimpleNamespace(publish=publish)
        table = now_table(1)
        touches, quorum = TouchExchange(link, "touch", table), quorum_of("tmnd-0")
        missed = MissedTouches(link, SUBJECTS, table, touches, Clock(), quorum, lambda: False, fail)
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(times)))
        message: Any = SimpleNamespace(data=encode_question(0, 0), reply="reply")
        await missed._asked(message)

    asyncio.run(work())
    assert slept == [2.0]


def hears_beats_of(member: Member, node_id: str, *, ago_ns: int = 0) -> None:
    """That node is a member, and heard just now, or was."""
    member.quorum.set_members((member.quorum.node_id, node_id), 0)
    member.quorum.hear(Beat(node_id, 1, 1, 0, True, False, (), 0, 0, "1"), member.clock.monotonic_ns() - ago_ns)


async def found_current(member: Member, *, at_ms: int) -> None:
    """That member has missed nothing, at that time."""
    member.missed.look(True)
    await until(lambda: not member.missed.is_behind, "it is not behind any more")
    member.missed.look(True)
    member.missed._current_ms = at_ms


def test_a_node_that_is_not_current_for_a_while_is_behind_until_it_has_asked_for_what_was_active_since(url: str) -> None:
    async def work(away: Member, other: Member) -> None:
        now_ms = away.clock.now_ms()
        await found_current(away, at_ms=now_ms)
        hears_beats_of(away, "tmnd-1")
        other.table.touch(id_of(1), now_ms + 1)
        other.table.touch(id_of(2), now_ms - 2000 - module.CLOCKS_MS - 1)  # known before, so not asked for
        away.missed.look(False)
        assert away.missed.is_behind
        assert away.table.idle_ends_from_ms > now_ms
        away.missed.look(True)
        asking = away.missed._asking
        assert asking is not None
        await asyncio.sleep(0)
        away.missed.look(False)  # while it asks
        await asking
        assert away.missed.is_behind
        assert away.times_caught_up == 1
        away.missed.look(True)
        await until(lambda: not away.missed.is_behind, "it has heard what it missed")
        assert away.times_caught_up == 2
        assert away.table.idle_ends_from_ms == 0
        assert last_active(away.table, 1) == now_ms + 1
        assert last_active(away.table, 2) < now_ms - HOUR_MS

    hours_ago = Clock().now_ms() - 2 * HOUR_MS
    tables = [table_with(1, 2, created_at_ms=hours_ago, expires_at_ms=hours_ago + 9 * HOUR_MS) for _ in range(2)]
    run(url, work, *tables)


def test_without_a_majority_in_reach_nobody_is_asked_and_nothing_counts_as_heard(url: str) -> None:
    async def work(away: Member, other: Member) -> None:
        away.quorum.set_members(("tmnd-0", "tmnd-1", "tmnd-2"), 0)
        away.missed.look(True)  # by an old proof; no beat has come yet on this connection
        assert away.missed._asking is None and away.missed.is_behind
        hold_ms = away.table.idle_ends_from_ms
        await asyncio.sleep(0.002)
        away.missed.look(True)
        assert away.table.idle_ends_from_ms > hold_ms, "idle ends are put off for as long as it waits"
        hears_beats_of(away, "tmnd-1")
        other.table.touch(id_of(1), away.clock.now_ms() + 5)
        away.missed.look(True)
        await until(lambda: not away.missed.is_behind, "it is not behind any more")
        assert last_active(away.table, 1) == last_active(other.table, 1)

    run(url, work, now_table(1), now_table(1))


def test_what_came_between_two_connections_is_asked_for_and_the_node_goes_on_answering(url: str) -> None:
    async def work(away: Member, other: Member) -> None:
        now_ms = away.clock.now_ms()
        await found_current(away, at_ms=now_ms)
        hears_beats_of(away, "tmnd-1")
        other.table.touch(id_of(1), now_ms + 1)
        away.link.reconnects += 1
        away.missed.look(True)
        assert not away.missed.is_behind
        await until(lambda: last_active(away.table, 1) == now_ms + 1, "it has heard what it missed")

    run(url, work, now_table(1), now_table(1))


def test_what_it_saw_before_it_was_behind_and_after_is_told_and_what_it_heard_meanwhile_is_not() -> None:
    told: list[bytes] = []

    async def publish(subject: str, payload: bytes) -> None:
        told.append(payload)

    link: Any = SimpleNamespace(publish=publish)
    touches = TouchExchange(link, "touch", now_table())
    touches.others_know(10, 20)
    touches.note(SessionsTouched(30, [(id_of(at_ms), at_ms, None, None) for at_ms in (9, 10, 20, 21)]))
    asyncio.run(touches.tell())
    assert told == [SessionsTouched(30, [(id_of(9), 9, None, None), (id_of(21), 21, None, None)]).encode()]

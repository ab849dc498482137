"""Who surveys at which place, who makes one and when, and what is made of the reports that come."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.waiting import until
from tests.unit.test_following import Node, stated, ulid
from tokmesh._core.clock import Clock
from tokmesh._core.principal import Grant, Refusal
from tokmesh.cluster import comparing as module
from tokmesh.cluster.comparing import LATE_MS_MAX, Comparing
from tokmesh.cluster.key_survey import KeySurvey
from tokmesh.cluster.link import Link
from tokmesh.cluster.report import Report, encode_report
from tokmesh.cluster.subjects import Subjects
from tokmesh.ids import ALL_SHARDS
from tokmesh.keyring import KeyRing
from tokmesh.log import record as r
from tokmesh.log.stream_record import decode_envelope

SUBJECTS = Subjects("test")
MEMBERS = ("tmnd-a", "tmnd-b", "tmnd-c")
DAY_MS = 86_400_000
Handler = Callable[[Any], Awaitable[None]]


class Bus:
    """What is published, and who hears it: all but who sent it."""

    def __init__(self) -> None:
        self.handlers: dict[object, Handler] = {}
        self.places: list[r.AnyRecord] = []
        self.reports = 0

    def link(self) -> Link:
        name = object()

        async def subscribe(subject: str, handler: Handler) -> None:
            assert subject == SUBJECTS.reports
            self.handlers[name] = handler

        async def publish(subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
            if subject == SUBJECTS.place:
                assert headers == {"Nats-TTL": "60s"}
                self.places.append(r.decode(decode_envelope(payload).record))
                return
            self.reports += 1
            for each, handler in self.handlers.items():
                if each is not name:
                    await handler(SimpleNamespace(data=payload))

        return cast(Link, SimpleNamespace(subscribe=subscribe, publish=publish))


class Member:
    """One node: its table, made by hand, and its comparing."""

    def __init__(self, bus: Bus, node_id: str = "tmnd-a", rank: int | None = 0) -> None:
        self.node = Node()
        self.clock = Clock()
        self.outvoted: list[str] = []
        self.rank = rank
        self.node.store.following.members = MEMBERS
        self.comparing = Comparing(
            bus.link(), SUBJECTS, self.node.store.following, self.node.table, self.node.keyring, self.clock, node_id, 1, None,
            rank=lambda: self.rank, apart=lambda: bool(self.outvoted), outvoted=self.outvoted.append,
        )  # fmt: skip

    def apply(self, record: r.AnyRecord, previous: int | None = None) -> None:
        """The next record of the stream."""
        following = self.node.store.following
        self.node.stream(following.position + 1, record, previous)
        if isinstance(record, r.PlaceStated):
            assert following.place is not None
            self.comparing.placed(following.place)

    async def surveyed(self) -> None:
        """The survey under way has ended, if there is one."""
        if self.comparing._surveying is not None:
            await self.comparing._surveying


async def three(bus: Bus) -> list[Member]:
    """Members with the same fifty sessions, at their first place."""
    members = [Member(bus, node_id) for node_id in MEMBERS]
    now_ms = members[0].clock.now_ms()
    for member in members:
        await member.comparing.listen()
        for number in range(50):
            member.apply(stated(number, created_at_ms=now_ms, expires_at_ms=now_ms + DAY_MS))
    await place(members)
    return members


async def place(members: list[Member]) -> None:
    record = r.PlaceStated(members[0].clock.now_ms())
    for member in members:
        member.apply(record)
    for member in members:
        await member.surveyed()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def test_equal_tables_are_compared_from_the_second_place_on_while_they_change() -> None:
    async def work() -> None:
        bus = Bus()
        members = await three(bus)
        assert bus.reports == 0, "the first place is not exact"
        for number in range(4):
            record = r.PlaceStated(members[0].clock.now_ms())
            for member in members:
                member.apply(record)
                member.apply(r.SessionsRevoked(record.time_ms, [ulid(number)]))  # amid the survey
            for member in members:
                await member.surveyed()
        assert bus.reports == 12 and all(member.comparing.compared_total == 3 for member in members)
        assert not any(member.comparing.differing or member.outvoted for member in members)
        assert members[0].comparing.age_ns(members[0].clock.monotonic_ns()) < 60e9

    run(work)


def test_a_table_that_differs_is_told_by_all_and_gives_way_itself() -> None:
    async def work() -> None:
        members = await three(Bus())
        members[1].node.table.update(ulid(7), b'{"a":"forged"}', members[1].clock.now_ms())
        members[1].node.table.set_version(ulid(7), 1)
        for _ in range(3):
            await place(members)
            assert not any(member.outvoted or member.comparing.differing for member in members)
        await place(members)
        assert [member.comparing.differing for member in members] == [{"tmnd-b": 1}, {"tmnd-a": 1, "tmnd-c": 1}, {"tmnd-b": 1}]
        assert [len(member.outvoted) for member in members] == [0, 1, 0]
        await place(members)
        assert len(members[1].outvoted) == 1, "once"

    run(work)


def key_created(number: int, **fields: object) -> r.KeyCreated:
    values = {
        "time_ms": 5, "key_id": ulid(number), "role": "issuer", "description": "d", "allowedlist": ("10.0.0.0/8",),
        "rate_limit": 7.0, "expires_at_ms": 9, "argon2_hash": "$argon2id$", "salt": bytes(16), "tag": bytes(32),
    }  # fmt: skip
    return r.KeyCreated(**{**values, **fields})  # type: ignore[arg-type]


def key_sum(keyring: KeyRing, budget: int = 100) -> int:
    survey = KeySurvey(keyring, bytes(16))
    while (found := survey.step(budget)) is None:
        pass
    return found


def ring(*records: r.KeyCreated, disabled: tuple[int, ...] = ()) -> KeyRing:
    made = KeyRing()
    for record in records:
        made.apply_created(record)
    for number in disabled:
        made.apply_status(r.KeyStatusChanged(6, ulid(number), False))
    return made


def test_the_sum_of_the_keys_is_of_all_that_the_stream_says_of_them_and_of_nothing_else() -> None:
    keys = [key_created(number) for number in range(7)]
    whole = key_sum(ring(*keys))
    assert key_sum(ring(*reversed(keys)), 1) == key_sum(ring(*keys), 3) == whole
    used = ring(*keys)
    assert used.all()[0].api_key.active and Grant(used.all()[0].api_key, 8).refusal(7) == Refusal.GRANTED
    used.apply_status(r.KeyStatusChanged(6, ulid(1), False))
    used.apply_status(r.KeyStatusChanged(7, ulid(1), True))
    assert key_sum(used) == whole, "its generation, and what is left of its rate, are its own"
    others: list[dict[str, object]] = [
        {"time_ms": 6}, {"role": "admin"}, {"description": "e"}, {"allowedlist": ()}, {"rate_limit": 8.0}, {"expires_at_ms": 10},
        {"argon2_hash": "$argon2i$"}, {"salt": b"s" * 16}, {"tag": b"t" * 32}, {"key_id": ulid(99)},
    ]  # fmt: skip
    found = {key_sum(ring(*keys[1:], key_created(0, **fields))) for fields in others}
    found |= {key_sum(ring(*keys[1:])), key_sum(ring(*keys, disabled=(3,))), key_sum(ring()), whole}
    assert len(found) == len(others) + 4


def test_keys_are_summed_as_of_the_place_while_they_change() -> None:
    members = [ring(key_created(1), key_created(2)), ring(key_created(1), key_created(2))]
    surveys = [KeySurvey(each, bytes(16)) for each in members]
    assert surveys[0].step(1) is None
    for each in members:
        each.apply_created(key_created(3))
        each.apply_status(r.KeyStatusChanged(6, ulid(1), False))
    assert surveys[0].step(1) == surveys[1].step(10) == key_sum(ring(key_created(1), key_created(2)))


def test_a_key_that_differs_is_told_by_all_and_gives_way_itself() -> None:
    async def work() -> None:
        members = await three(Bus())
        for member in members:
            member.apply(r.KeyStated(5, True, key_created(1)))
        members[2].node.keyring.apply_status(r.KeyStatusChanged(6, ulid(1), False))  # by nobody
        for _ in range(4):
            await place(members)
        assert [member.comparing.differing for member in members] == [{"tmnd-c": 1}, {"tmnd-c": 1}, {"tmnd-a": 1, "tmnd-b": 1}]
        assert [len(member.outvoted) for member in members] == [0, 0, 1]

    run(work)


def test_who_is_late_or_lacks_a_record_or_is_busy_tells_nothing() -> None:
    async def work() -> None:
        bus = Bus()
        a, b, c = await three(bus)
        a.clock.shift(LATE_MS_MAX + 1_000)
        c.apply(r.PlaceStated(b.clock.now_ms()))
        c.node.stream(99, stated(99))
        c.apply(r.PlaceStated(b.clock.now_ms()))
        await c.surveyed()
        assert bus.reports == 1, "what was before 99 may have been replaced from behind the place"
        a.apply(r.PlaceStated(b.clock.now_ms()))
        await a.surveyed()
        assert bus.reports == 1, "its clock is too far ahead to know what the others still count"
        assert a.comparing._comparison._judged < c.comparing._comparison._judged, "and it makes one of its own in its turn"
        b.apply(r.PlaceStated(b.clock.now_ms()))
        b.apply(r.PlaceStated(b.clock.now_ms()))
        await b.surveyed()
        assert bus.reports == 2, "of the first of the two"

    run(work)


def test_a_place_of_the_far_future_harms_nobody() -> None:
    """Whoever may publish can make one, and it is applied in every node's log."""

    async def work() -> None:
        bus = Bus()
        a, _, _ = await three(bus)
        a.apply(r.PlaceStated(a.clock.now_ms()))
        await a.surveyed()
        for time_ms in (a.clock.now_ms() + LATE_MS_MAX + 1_000, 2**63 - 1):
            a.apply(r.PlaceStated(time_ms))
            await a.surveyed()
        assert bus.reports == 1

    run(work)


def test_a_report_of_another_stream_and_what_is_none_count_for_nothing() -> None:
    async def work() -> None:
        bus = Bus()
        a, b, c = await three(bus)
        position = a.node.store.following.position + 1
        for data in (
            b"junk",
            encode_report(Report("tmnd-b", 78, position, False, ALL_SHARDS, (1,) * 65)),
            encode_report(Report("tmnd-a", 77, position, False, ALL_SHARDS, (1,) * 65)),  # a copy of this node
        ):
            await a.comparing._heard(cast(Any, SimpleNamespace(data=data)))
        assert a.comparing.undecodable == 1
        for _ in range(2):
            a.apply(r.PlaceStated(a.clock.now_ms()))
            await a.surveyed()
        assert a.comparing.compared_total == 0
        assert c.comparing.undecodable == b.comparing.undecodable == 0

    run(work)


def test_a_long_survey_is_taken_in_many_steps_and_makes_places_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_ENTRIES", 1)
    monkeypatch.setattr(module, "SHARE_MAX", 1e-9)

    async def work() -> None:
        [a, *_] = await three(Bus())
        assert a.comparing._interval_ns == module.INTERVAL_NS
        a.apply(r.PlaceStated(a.clock.now_ms()))
        await asyncio.sleep(0)
        assert a.comparing._surveying is not None and not a.comparing._surveying.done()
        await a.surveyed()
        assert a.comparing._interval_ns > 100 * module.INTERVAL_NS

    run(work)


def test_an_end_amid_a_survey_leaves_none() -> None:
    async def work() -> None:
        [a, *_] = await three(Bus())
        a.apply(r.PlaceStated(a.clock.now_ms()))
        assert a.node.table.image.survey.active
        await a.comparing.stop()
        assert not a.node.table.image.survey.active

    run(work)


def test_the_first_of_the_active_makes_places_and_the_next_only_if_that_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_NS", 200_000_000)
    monkeypatch.setattr(module, "TICK_S", 0.002)

    async def work() -> None:
        bus = Bus()
        members = [Member(bus, node_id, rank) for rank, node_id in enumerate(MEMBERS)]
        for member in members[1:]:
            member.comparing.start()
        await until(lambda: bus.places, "the second makes one")
        waited_ns = members[1].clock.monotonic_ns() - members[0].comparing._waited_since_ns
        assert waited_ns >= 2 * module.INTERVAL_NS
        members[1].rank = members[2].rank = None
        bus.places.clear()
        members[0].comparing.start()
        await until(lambda: len(bus.places) >= 2, "the first makes them, one an interval")
        assert isinstance(bus.places[0], r.PlaceStated)
        members[0].rank = None
        made = len(bus.places)
        await asyncio.sleep(2 * module.INTERVAL_NS / 1e9)
        assert len(bus.places) == made, "nobody is to make any"
        for member in members:
            await member.comparing.stop()

    run(work)

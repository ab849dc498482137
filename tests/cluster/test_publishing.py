"""What servers answer to a record, and what is made of it: a definite no only where it is not stored and never will be."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh.cluster.publishing import Publication, Publishing
from tokmesh.cluster.stream import Stored
from tokmesh.errors import ApiError

EXPECTED = 7
WAIT_MS = 400


class Answer:
    """A message of a server."""

    def __init__(self, subject: str, answer: dict[str, Any]) -> None:
        self.subject = subject
        self.data = json.dumps(answer).encode()


class FakeLink:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []  # where the answer goes to, the message id
        self.handler: Callable[[Any], Awaitable[None]] | None = None
        self.connected = True

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, subject: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        self.handler = handler

    async def publish(self, subject: str, payload: bytes, reply: str, headers: dict[str, str]) -> None:
        assert headers["Nats-Expected-Last-Subject-Sequence"] == str(EXPECTED)
        self.sent.append((reply, headers["Nats-Msg-Id"]))


class FakeStream:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.found: Stored | None = None
        self.dropped = False
        self.asked = 0

    async def last(self, subject: str) -> Stored | None:
        self.asked += 1
        return self.found

    async def has_dropped(self, subject: str, sequence: int) -> bool:
        assert sequence == EXPECTED
        return self.dropped


class World:
    """One record on its way."""

    def __init__(self) -> None:
        self.link, self.stream, clock = FakeLink(), FakeStream(), Clock()
        self.publishing = Publishing(self.link, self.stream, clock)  # type: ignore[arg-type]
        self.outcomes: list[int | str] = []
        self._deadline_ns = clock.monotonic_ns() + WAIT_MS * 1_000_000

    async def start(self) -> None:
        await self.publishing.start()

        def failed(error: ApiError) -> None:
            self.outcomes.append(f"{error.code} {(error.details or {}).get('outcome', '')}".strip())

        self.publishing.put(
            Publication(
                1, "subject", b"record", EXPECTED, 0, "TM-SESS-4091", 50, self._deadline_ns, "ours", self.outcomes.append, failed
            )
        )
        await until(lambda: self.link.sent, "it is sent")

    async def answer(self, **answer: object) -> None:
        assert self.link.handler is not None
        await self.link.handler(Answer(self.link.sent[-1][0], answer))

    async def refuse(self, code: int, words: str) -> None:
        await self.answer(error={"code": 400, "err_code": code, "description": words})

    async def outcome(self) -> int | str:
        await until(lambda: self.outcomes, "an outcome")
        await self.publishing.stop()
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def play(script: Callable[[World], Awaitable[None]]) -> World:
    """What became of a record to which the servers answer so."""

    async def inside() -> World:
        world = World()
        await world.start()
        await script(world)
        await world.outcome()
        return world

    return asyncio.run(inside())


def test_a_newer_record_is_a_conflict_at_once() -> None:
    async def script(world: World) -> None:
        await world.refuse(10071, "wrong last sequence: 9")

    world = play(script)
    assert (world.outcomes, world.stream.asked, len(world.link.sent)) == (["TM-SESS-4091"], 0, 1)


def test_a_server_that_leads_no_more_refuses_nothing_for_good() -> None:
    async def script(world: World) -> None:
        await world.refuse(10071, "wrong last sequence: 6")  # it lacks the record that the change was decided on
        await world.answer(seq=12)  # the one that leads

    assert play(script).outcomes == [12]


def test_what_only_a_server_that_leads_no_more_has_answered_is_unknown() -> None:
    async def script(world: World) -> None:
        await world.refuse(10071, "wrong last sequence: 6")

    assert play(script).outcomes == ["TM-CLST-5030 unknown"]


def test_what_follows_on_a_record_that_the_stream_has_dropped_is_refused_for_good() -> None:
    """Else each change of that session would have an unknown outcome, and the stream would be taken for stuck."""

    async def script(world: World) -> None:
        world.stream.dropped = True
        await world.refuse(10071, "wrong last sequence: 0")

    assert play(script).outcomes == ["TM-SESS-4091"]


def test_a_server_that_has_nothing_yet_refuses_nothing_for_good() -> None:
    async def script(world: World) -> None:
        await world.refuse(10071, "wrong last sequence: 0")
        await world.answer(seq=12)

    assert play(script).outcomes == [12]


def test_a_conflict_with_a_record_that_is_being_stored_is_one_when_that_is_stored() -> None:
    async def script(world: World) -> None:
        world.stream.found = Stored(9, "theirs", b"", EXPECTED)
        await world.refuse(10164, "wrong last sequence")

    world = play(script)
    assert (world.outcomes, world.stream.asked) == (["TM-SESS-4091"], 1)


def test_a_conflict_with_a_record_that_comes_to_nothing_is_none() -> None:
    async def script(world: World) -> None:
        world.stream.found = Stored(EXPECTED, "before", b"")
        await world.refuse(10164, "wrong last sequence")
        await until(lambda: len(world.link.sent) == 2, "it is sent again")
        await world.answer(seq=13)

    world = play(script)
    assert world.outcomes == [13]
    assert {message_id for _, message_id in world.link.sent} == {"ours"}


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (Stored(9, "ours", b"", EXPECTED), 9),
        (Stored(9, "theirs", b"", EXPECTED), "TM-SESS-4091"),
        (Stored(9, "theirs", b"", 8), "TM-CLST-5030 unknown"),  # 8 may be ours
        (Stored(9, "theirs", b""), "TM-CLST-5030 unknown"),  # a revocation, of whatever was there
    ],
)
def test_a_conflict_told_to_a_second_sending_may_be_with_the_first(found: Stored, outcome: int | str) -> None:
    async def script(world: World) -> None:
        world.stream.found = Stored(EXPECTED, "before", b"")
        await world.refuse(10164, "wrong last sequence")
        await until(lambda: len(world.link.sent) == 2, "it is sent again")
        world.stream.found = found
        await world.refuse(10071, "wrong last sequence: 9")

    assert play(script).outcomes == [outcome]


@pytest.mark.parametrize("code", [(10158, 409), (10008, 503)])
def test_a_server_that_cannot_say_yet_is_waited_for(code: tuple[int, int]) -> None:
    async def script(world: World) -> None:
        await world.answer(error={"code": code[1], "err_code": code[0], "description": "not now"})
        await world.answer(seq=14)

    assert play(script).outcomes == [14]


def test_a_stream_that_takes_nothing_is_told_at_once() -> None:
    async def script(world: World) -> None:
        await world.refuse(10077, "maximum bytes exceeded")

    assert play(script).outcomes == ["TM-CLST-5030"]

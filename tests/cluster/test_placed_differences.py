"""Nodes that hold a part of the sessions each answer as one that holds all: the same random operations come to the same answers.

Ids and tokens are random, so answers are compared by which of the sessions they are about.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.cluster.placed import EVEN, ODD, Node, World, run
from tests.support.nats import NatsCluster
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, RandomSource, new_token, parse_session_id, token_hash
from tokmesh.sessions import SessionFilter
from tokmesh.sessions import query as session_query

USERS = ["ann", "bob", "cy", ""]
KINDS = ["create"] * 6 + ["get", "touch", "renew", "update", "revoke", "rotate", "verdicts", "user", "list", "list"]
STEPS = 400


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


@dataclass
class Side:
    """A world, and what has come of the operations in it."""

    nodes: list[Node]
    ids: list[bytes] = field(default_factory=list)
    tokens: list[list[str]] = field(default_factory=list)

    def plain(self, result: Any) -> Any:
        """The result with sessions by their number, without secrets."""
        if isinstance(result, bytes):
            session = orjson.loads(result) if result else {}
            if "id" in session:
                session["id"] = self.number(session["id"])
            return session
        if isinstance(result, ApiError):
            return result.code, result.details
        if isinstance(result, tuple | list):
            return [self.plain(each) for each in result]
        return result

    def number(self, text: str) -> int:
        """Of a session, in order of creation."""
        session_id = parse_session_id(text)
        assert session_id is not None
        return self.ids.index(session_id)


async def outcome(call: Any) -> Any:
    try:
        return await call
    except ApiError as error:
        return error


async def step(side: Side, number: int, choice: random.Random) -> Any:
    """One operation, the same for the same number and choices, on any of the nodes."""
    node = side.nodes[number % len(side.nodes)]
    sessions = node.sessions
    kind = choice.choice(KINDS)
    user = choice.choice(USERS)
    at = choice.randrange(len(side.ids)) if side.ids else -1
    if kind == "create" or at < 0:
        known = choice.choice(side.tokens)[0] if side.tokens else None
        own = choice.choice([None, None, None, None, new_token(RandomSource()), known])
        device_id, ip_address = choice.choice(["", "d1", "d2"]), choice.choice(["", "10.0.0.1", "::1", "?"])
        ttl_seconds = choice.choice([1, 60, 0, None])
        result = await outcome(sessions.create(user, device_id, ip_address, ttl_seconds=ttl_seconds, token=own))
        if isinstance(result, ApiError):
            return result
        side.ids.append(parse_session_id(result.session_id) or b"")
        side.tokens.append([result.token])
        return result.expires_at
    session_id, token = side.ids[at], choice.choice(side.tokens[at])
    if kind == "get":
        return await outcome(sessions.get(session_id))
    if kind == "touch":
        return await outcome(sessions.touch(session_id, choice.choice([None, "10.0.0.2", "x"]), choice.choice([None, "agent"])))
    if kind == "renew":
        return await outcome(sessions.renew(session_id, choice.choice([1, 60, -1])))
    if kind == "update":
        return await outcome(sessions.update(session_id, {"k": str(number)}, choice.choice([None, 1, 2])))
    if kind == "revoke":
        return await outcome(sessions.revoke(session_id, choice.random() < 0.5))
    if kind == "rotate":
        result = await outcome(sessions.rotate(token, choice.choice([0, 30, 61])))
        if isinstance(result, ApiError):
            return result
        side.tokens[at].append(result.token)
        return result[1:]
    if kind == "verdicts":
        tokens = [each for of_one in side.tokens[-5:] for each in of_one] + [token, token]
        return await outcome(sessions.verdicts([token_hash(each) for each in tokens], choice.random() < 0.5))
    if kind == "user":
        return await outcome(sessions.revoke_user(user, choice.choice([None, session_id]), choice.random() < 0.5))
    wanted = SessionFilter(
        user_id=choice.choice([None, *USERS]), device_id=choice.choice([None, None, "d1", ""]), size=choice.choice([1, 3, 100]),
        sort_by=choice.choice(session_query.SORT_FIELDS), descending=choice.random() < 0.5, page=choice.choice([1, 1, 2, 50]),
    )  # fmt: skip
    pages = []
    for turn in range(200):
        page = await outcome(side.nodes[(number + turn) % len(side.nodes)].sessions.list(wanted))
        pages.append(page if isinstance(page, ApiError) else (page.items, page.total_items, page.next_cursor is None))
        if isinstance(page, ApiError) or page.next_cursor is None:
            return pages
        wanted = wanted._replace(cursor=page.next_cursor, page=1)
    raise AssertionError("the cursor does not end")


@pytest.mark.parametrize("policy", ["reject", "evict_oldest"])
@pytest.mark.parametrize("seed", range(3))
def test_random_operations_come_to_the_same_as_on_a_node_that_holds_all(url: str, policy: str, seed: int) -> None:
    options: dict[str, Any] = {"quota": 6, "policy": policy}
    parts = World(url, **options, a=EVEN, b=ODD, c=0)
    whole = World(url, **options, all=ALL_SHARDS)
    whole.clock = parts.clock
    for node in whole.nodes:
        node.own._clock = node.own.query._clock = parts.clock  # type: ignore[assignment]
        node.everywhere = parts.nodes[0].everywhere  # type: ignore[method-assign]
        node.own._spread = node.everywhere

    async def work(*nodes: Node) -> None:
        one, many = Side(whole.nodes), Side(list(nodes))
        source = random.Random(seed)
        for number in range(STEPS):
            parts.clock.time_ms += source.choice([1, 1, 7, 700])
            drawn = source.random()
            results = [side.plain(await step(side, number, random.Random(drawn))) for side in (one, many)]
            assert results[0] == results[1], number
        assert sum(nodes[0].answered.values()) and sum(nodes[1].answered.values())

    async def inside() -> None:
        await whole.begin()
        try:
            await parts.begin()
            await work(*parts.nodes)
        finally:
            await parts.end()
            await whole.end()

    asyncio.run(asyncio.wait_for(inside(), 120))


@pytest.mark.parametrize("window", [4, 16])
def test_a_list_of_tables_larger_than_a_window_shows_each_session_exactly_once(
    url: str, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(session_query, "WINDOW_ENTRIES", window)

    async def work(first: Node, second: Node, third: Node) -> None:
        world = first.world
        made = set()
        for number in range(60):
            world.clock.time_ms += 1
            created = await world.nodes[number % 3].sessions.create(f"u{number % 3}")
            made.add(created.session_id)
        by_user = SessionFilter(size=7, sort_by="user_id", descending=False)
        for wanted in (SessionFilter(size=7), by_user, SessionFilter(user_id="u1", size=4)):
            seen: list[str] = []
            for _ in range(100):
                page = await first.sessions.list(wanted)
                assert len(page.items) <= wanted.size
                seen += [orjson.loads(item)["id"] for item in page.items]
                if page.next_cursor is None:
                    break
                wanted = wanted._replace(cursor=page.next_cursor)
            assert len(seen) == len(set(seen)) == (60 if wanted.user_id is None else 20)

    run(World(url, a=EVEN, b=ODD, c=0), work)


def test_a_list_whose_node_does_not_hold_its_part_any_more_begins_anew(url: str) -> None:
    async def work(first: Node, second: Node) -> None:
        for _ in range(6):
            await first.sessions.create("ann")
            await second.sessions.create("ann")
        cursors = {}
        for name, wanted in {"all": SessionFilter(size=3), "user": SessionFilter(user_id="ann", size=3)}.items():
            cursors[name] = (await first.sessions.list(wanted)).next_cursor
        third = first.world.nodes[2]
        third.shards, second.shards = ODD, 0  # which has no sessions of it here
        first.world.announced = {"tmnd-a": EVEN, "tmnd-c": ODD}
        with pytest.raises(ApiError) as caught:
            await first.sessions.list(SessionFilter(size=3, cursor=cursors["all"]))
        assert (caught.value.code, caught.value.details) == ("TM-ARG-1001", {"field": "cursor", "reason": "moved"})
        assert len((await first.sessions.list(SessionFilter(user_id="ann", size=3, cursor=cursors["user"]))).items) == 3

    async def with_third(first: Node, second: Node, third: Node) -> None:
        await work(first, second)

    run(World(url, a=EVEN, b=ODD, c=0), with_third)

"""What was asked of others comes late, or this node's standing changes meanwhile: nothing is said that is out of date by then."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson
import pytest

from tests.cluster.placed import EVEN, ODD, Node, World, run
from tests.cluster.test_elsewhere import HERE, THERE, VALID, begun, id_of, refused
from tests.support.nats import NatsCluster
from tokmesh._core.table import Verdict
from tokmesh.cluster.reach import SLACK_NS
from tokmesh.ids import ALL_SHARDS, token_hash
from tokmesh.sessions import SessionFilter


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with NatsCluster(tmp_path_factory.mktemp("nats"), 1) as nats:
        yield nats.urls[0]


class KeptBack:
    """Keeps back what a node answers until it is let go."""

    def __init__(self, node: Node) -> None:
        self._publish = node.link.publish
        self.answered, self.let_go = asyncio.Event(), asyncio.Event()
        node.link.publish = self._later  # type: ignore[method-assign, assignment]

    async def _later(self, subject: str, payload: bytes, *rest: Any) -> None:
        self.answered.set()
        await self.let_go.wait()
        await self._publish(subject, payload, *rest)


def test_a_yes_that_comes_later_than_a_sync_revocation_waits_for_answers_under_way_is_none(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        kept = KeptBack(there)
        loop = asyncio.get_running_loop()
        for read in (
            here.sessions.get(id_of(created)),
            here.sessions.verdicts([token_hash(created.token)], False),
        ):
            asked_s = loop.time()
            reading = asyncio.ensure_future(read)
            await kept.answered.wait()
            loop.call_at(asked_s + SLACK_NS / 1e9 + 0.2, kept.let_go.set)
            error = await refused(reading)
            assert (error.code, error.details) == ("TM-CLST-5030", {"reason": "holder_silent"})
            await kept.let_go.wait()
            kept.answered.clear()
            kept.let_go.clear()

    run(world, work)


def test_what_this_node_holds_is_judged_when_the_others_have_answered(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        own, other = await begun(here, HERE), await begun(here, THERE)
        kept = KeptBack(there)
        reading = asyncio.ensure_future(here.sessions.verdicts([token_hash(each.token) for each in (own, other)], False))
        await kept.answered.wait()
        await here.sessions.revoke(id_of(own))
        kept.let_go.set()
        assert [verdict for verdict, _ in await reading] == [int(Verdict.VERDICT_REVOKED), VALID]

    run(world, work)


def test_what_is_left_to_others_meanwhile_is_asked_of_them(url: str) -> None:
    world = World(url, a=EVEN, b=ODD, c=ALL_SHARDS)

    async def work(here: Node, there: Node, third: Node) -> None:
        own, other = await begun(here, HERE), await begun(here, THERE)
        kept = KeptBack(there)
        reading = asyncio.ensure_future(here.sessions.verdicts([token_hash(each.token) for each in (own, other)], False))
        await kept.answered.wait()
        here.shards = here.table.held_shards = 0
        kept.let_go.set()
        assert [verdict for verdict, _ in await reading] == [VALID, VALID]

    run(world, work)


@pytest.mark.parametrize("read", ["get", "verdicts", "list"])
def test_a_node_that_may_answer_no_more_when_it_is_answered_says_so(url: str, read: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        created = await begun(here, THERE)
        reads: dict[str, Callable[[], Awaitable[Any]]] = {
            "get": lambda: here.sessions.get(id_of(created)),
            "verdicts": lambda: here.sessions.verdicts([token_hash(created.token)], False),
            "list": lambda: here.sessions.list(SessionFilter()),
        }
        kept = KeptBack(there)
        reading = asyncio.ensure_future(reads[read]())
        await kept.answered.wait()
        here.may_answer = False
        kept.let_go.set()
        error = await refused(reading)
        assert (error.code, error.details) == ("TM-CLST-5030", {"reason": "stale"})

    run(world, work)


def test_what_a_list_shows_of_this_node_is_read_when_the_others_have_answered(url: str) -> None:
    world = World(url, a=EVEN, b=ODD)

    async def work(here: Node, there: Node) -> None:
        own, other = await begun(here, HERE), await begun(here, THERE)
        kept = KeptBack(there)
        reading = asyncio.ensure_future(here.sessions.list(SessionFilter()))
        await kept.answered.wait()  # which ones
        kept.answered.clear()
        kept.let_go.set()
        await asyncio.sleep(0)
        kept.let_go.clear()
        await kept.answered.wait()  # and what they are
        await here.sessions.revoke(id_of(own))
        kept.let_go.set()
        page = await reading
        assert [orjson.loads(each)["id"] for each in page.items] == [other.session_id]

    run(world, work)

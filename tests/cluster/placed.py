"""Nodes that hold a part of the sessions each, in one process: real tables, real questions over a real NATS server.

In place of the stream is a log that all of them share: a record is applied at once by every node that holds the shard of its
session. One clock stands still for all of them. Who holds what, and who is in reach, is the test's to say.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tests.support.domain import T0, TOMBSTONE_TTL_MS, QuotaSettings, SessionSettings
from tokmesh._core.clock import Clock
from tokmesh._core.counters import CounterBlock
from tokmesh._core.table import Table
from tokmesh.cluster.elsewhere import Elsewhere
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.subjects import Subjects
from tokmesh.config.keys import NatsSettings
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, SHARDS, shard_of
from tokmesh.keyring import KeyRing
from tokmesh.log.interface import Proposal, Reached
from tokmesh.log.record import AnyRecord, SessionCreated, SessionsRevoked, decode
from tokmesh.sessions import Sessions
from tokmesh.store import Store

SUBJECTS = Subjects("test")
EVEN = sum(1 << shard for shard in range(0, SHARDS, 2))
ODD = ALL_SHARDS ^ EVEN


class StillClock:
    """Unix ms that the test moves."""

    def __init__(self) -> None:
        self.time_ms = T0

    def now_ms(self) -> int:
        return self.time_ms


class Node:
    """`sessions` is what its handlers would talk to. It is its own placement and its own log."""

    def __init__(self, world: "World", node_id: str, shards: int) -> None:
        self.world = world
        self.node_id = node_id
        self.shards = shards
        self.table = Table(tombstone_ttl_ms=TOMBSTONE_TTL_MS, seed=bytes(16))
        self.table.held_shards = shards
        self.store = Store(self.table, KeyRing())
        self.applied = 0
        self.counters = CounterBlock()
        self.may_answer = True
        self.refusing: ApiError | None = None  # what its log answers
        self.held_up: asyncio.Event | None = None  # its log commits when this is set
        self.request_id = ""
        self.asked_for: list[str] = []  # the requests that records were proposed for
        self.own = Sessions(self.table, self, cast(Clock, world.clock), world.settings, self.counters, self.everywhere)
        self.link = Link(NatsSettings(servers=(world.url,)), node_id)
        self.elsewhere = Elsewhere(
            self.link, SUBJECTS, self.own, self, node_id,
            may_answer=lambda: self.may_answer, request_id=lambda: self.request_id, max_staleness_ms=2000,
        )  # fmt: skip
        self.sessions = self.elsewhere.sessions
        self.asked = self.elsewhere.asking.outcomes
        self.answered = self.elsewhere.answering.outcomes

    async def everywhere(self) -> Reached:
        ids = [node.node_id for node in self.world.nodes]
        return Reached(ids, [], 7)

    # ── as a placement ──

    @property
    def all_here(self) -> bool:
        return self.shards == ALL_SHARDS

    @property
    def held(self) -> int:
        return self.shards

    def holds(self, shard: int) -> bool:
        return bool(self.shards >> shard & 1)

    def holders(self, shard: int) -> list[str]:
        return [node_id for node_id, shards in self.world.announced.items() if node_id != self.node_id and shards >> shard & 1]

    def cover(self) -> dict[str, int] | None:
        parts: dict[str, int] = {}
        for shard in range(SHARDS):
            holders = [self.node_id] if self.holds(shard) else self.holders(shard)
            if not holders:
                return None
            parts[holders[0]] = parts.get(holders[0], 0) | 1 << shard
        return parts

    # ── as a log ──

    def propose(self, record: AnyRecord) -> Proposal:
        assert decode(record.encode()) == record
        future = Proposal(loop=asyncio.get_running_loop())
        if self.refusing is not None:
            future.set_exception(self.refusing)
        elif self.held_up is not None:
            task = asyncio.get_running_loop().create_task(self._commit_later(record, future))
            self.world.tasks.append(task)
        else:
            future.set_result(self.world.commit(record, self))
        return future

    async def _commit_later(self, record: AnyRecord, future: Proposal) -> None:
        assert self.held_up is not None
        await self.held_up.wait()
        future.set_result(self.world.commit(record, self))

    def apply(self, record: AnyRecord) -> Any:
        self.applied += 1
        return self.store.apply(self.applied, record)


class World:
    """announced: what each node is said to hold, by those in reach."""

    def __init__(self, url: str, *, quota: int = 50, policy: str = "reject", **shards: int) -> None:
        self.url = url
        self.clock = StillClock()
        self.settings = SessionSettings(quota=QuotaSettings(quota, policy))
        self.announced = {f"tmnd-{name}": held for name, held in shards.items()}
        self.tasks: list[asyncio.Task[None]] = []
        self.nodes = [Node(self, node_id, held) for node_id, held in self.announced.items()]

    def commit(self, record: Any, proposer: Node) -> Any:
        """Applied by all that hold it; what it came to at its proposer, or else at the first that holds it."""
        from tokmesh.cluster.answering import asked_request_id

        proposer.asked_for.append(asked_request_id.get())
        if isinstance(record, SessionsRevoked):
            return sum(self._revoke(session_id, record.time_ms) for session_id in record.session_ids)
        if not hasattr(record, "session_id"):
            return proposer.apply(record)
        shard = shard_of(record.session_id)
        outcomes = {node.node_id: node.apply(record) for node in self.nodes if node.holds(shard)}
        if isinstance(record, SessionCreated):
            for session_id in record.evicts:
                self._revoke(session_id, record.time_ms)
        return outcomes.get(proposer.node_id, next(iter(outcomes.values())))

    def _revoke(self, session_id: bytes, time_ms: int) -> int:
        holders = [node for node in self.nodes if node.holds(shard_of(session_id))]
        ended: list[int] = [node.apply(SessionsRevoked(time_ms, (session_id,))) for node in holders]
        return max(ended)

    async def begin(self) -> None:
        for node in self.nodes:
            await node.link.connect()
            await node.elsewhere.start()
            await self.settle(node.link)

    async def settle(self, link: Link) -> None:
        """The server knows what is heard by that link: it has answered what came after that."""
        with pytest.raises(LinkDown, match="no responders"):
            await link.request("nobody", b"", 10)

    async def end(self) -> None:
        for node in self.nodes:
            if node.held_up is not None:
                node.held_up.set()
        for node in self.nodes:
            await node.elsewhere.stop()
            await node.link.close()
            assert len(node.elsewhere.asking) == len(node.elsewhere.answering) == 0


def run(world: World, work: Callable[..., Awaitable[None]], timeout_s: float = 60.0) -> None:
    """`work` with the nodes of the world."""

    async def inside() -> None:
        try:
            await world.begin()
            await work(*world.nodes)
        finally:
            await world.end()

    asyncio.run(asyncio.wait_for(inside(), timeout_s))


def shards_of(*shards: int) -> int:
    """As bits."""
    return sum(1 << shard for shard in shards)

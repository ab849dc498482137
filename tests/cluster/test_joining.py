"""A node catches up to what there is, and becomes a member beside the others, as many as there may be, never in their place."""

import asyncio

import pytest

from tests.cluster.test_bad_records import envelope
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.cluster.joining import Joining
from tokmesh.cluster.link import LinkDown
from tokmesh.cluster.quorum import Quorum
from tokmesh.cluster.statement import Statement
from tokmesh.cluster.stream import Stored
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import Following
from tokmesh.ids import MEMBERS_MAX
from tokmesh.log.record import ClusterStated, NodeStated, StreamBound, decode_enveloped

T0 = 1_734_567_890_000
NODE = "tmnd-new"
CLUSTER = bytes(range(16))
SEQUENCE, POSITION = 5, 9  # of the record of the members, and how far the node has come


def stated(members: tuple[str, ...], cluster_id: bytes = CLUSTER) -> bytes:
    return envelope(ClusterStated(T0, cluster_id, members).encode())


class World:
    """A node that has caught up, on the way to become a member. members: those that it knows; record: the stream's own of them."""

    def __init__(self, members: tuple[str, ...], record: bytes | None) -> None:
        self.record = record
        self.proposed: list[tuple[str, ...]] = []
        self.takes_none: str | None = None  # why the stream takes no records
        self.stored: list[str] = []  # ids of messages
        self.following = Following(Table(tombstone_ttl_ms=600_000, seed=bytes(16)))
        self.following.bind(StreamBound(T0, CLUSTER, 1, POSITION))
        self.following.apply_cluster(ClusterStated(T0, CLUSTER, members))
        quorum = Quorum(NODE, 1, max_staleness_ns=2_000_000_000)
        quorum.set_members(members, 0)
        quorum.majority_applied = POSITION
        self.joining = Joining(
            self, self, Subjects("tokmesh"), self.following, self, quorum, Clock(anchor_ms=T0), None,  # type: ignore[arg-type]
        )  # fmt: skip

    async def last(self, _: str) -> Stored | None:
        """As Stream's."""
        return None if self.record is None else Stored(SEQUENCE, "", self.record)

    async def propose_alone(self, statement: Statement) -> None:
        """As JetStreamLog's: it is in the stream, and applied."""
        record = statement.record
        assert isinstance(record, ClusterStated) and statement.expected == SEQUENCE
        self.proposed.append(record.members)
        self.following.apply_cluster(record)

    async def store(self, subject: str, payload: bytes, message_id: str, timeout_s: float) -> int:
        """As Link's: behind all that the node has."""
        assert subject == Subjects("tokmesh").node(NODE) and isinstance(decode_enveloped(payload), NodeStated)
        if self.takes_none is not None:
            raise LinkDown(self.takes_none)
        self.stored.append(message_id)
        return POSITION + 1

    async def joins(self) -> str:
        """Tries to join; "" when it has, or what it waits for."""
        joining = asyncio.ensure_future(self.joining.join())
        await until(lambda: joining.done() or self.joining.phase.startswith("joining: "), "it joins, or says why not")
        if joining.done():
            await joining
            return ""
        joining.cancel()
        return self.joining.phase


def test_a_node_catches_up_to_its_own_start_and_says_why_while_the_stream_takes_none() -> None:
    async def run() -> None:
        world = World((), stated(()))
        world.takes_none = "the stream has no leader"
        catching_up = asyncio.ensure_future(world.joining.catch_up())
        await until(lambda: world.joining.phase == "catching up: the stream has no leader", "it says why")
        world.takes_none = None
        await until(lambda: world.joining.phase == f"catching up: {POSITION} of {POSITION + 1}", "it says how far")
        assert not catching_up.done()
        world.following.advance_to(POSITION + 1, T0, 0)
        await asyncio.wait_for(catching_up, 1)
        assert world.stored == [f"{NODE}.1.start"]

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, MEMBERS_MAX - 1])
def test_a_node_becomes_a_member_beside_the_others(count: int) -> None:
    members = tuple(f"tmnd-{number:03}" for number in range(count))
    world = World(members, stated(members))
    assert asyncio.run(world.joins()) == ""
    assert world.proposed == [(*members, NODE)]


def test_a_node_more_than_there_may_be_leaves_the_record_of_the_members_as_it_is() -> None:
    members = tuple(f"tmnd-{number:03}" for number in range(MEMBERS_MAX))
    world = World(members, stated(members))
    assert f"has {MEMBERS_MAX} members" in asyncio.run(world.joins())
    assert world.proposed == []


def test_the_first_node_of_a_cluster_becomes_its_only_member() -> None:
    world = World((), stated(()))
    assert asyncio.run(world.joins()) == ""
    assert world.proposed == [(NODE,)]


@pytest.mark.parametrize(
    "record",
    [
        b"\x01garbage",
        stated(("tmnd-a", "tmnd-b"), b"another cluster!"),
        stated((), b"another cluster!"),
        envelope(NodeStated(T0, "tmnd-a", 1).encode()),
        stated(("tmnd-a", "tmnd-b")),  # which it passed over
        None,
    ],
    ids=["no record", "members of another cluster", "another cluster", "another record", "passed over", "nothing"],
)
def test_a_node_that_knows_no_members_does_not_take_their_place(record: bytes | None) -> None:
    world = World((), record)
    assert "TM-CLST-5050" in asyncio.run(world.joins())
    assert world.proposed == []

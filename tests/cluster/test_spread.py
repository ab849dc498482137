"""Revocations that are not everywhere yet: all are counted, with the age of the oldest; some have no figure of their own."""

import asyncio

from tests.cluster.hand_made import MS, SECOND, SELF, STALENESS_NS, T0, B, C, HandMade
from tokmesh._core.histogram import HistogramBlock
from tokmesh.cluster.spread import Spread

LATER = T0 + 100 * SECOND
PENDING_MAX = 3


class Spreading:
    """A node that has applied everything, beside B, which has told of 10."""

    def __init__(self) -> None:
        self.node = HandMade([B])
        self.node.hear(B, T0)
        self.node.quorum.reach(1, LATER)
        self.node.quorum.advance(100, True, LATER)
        self.node.hear(B, LATER, applied=10)
        self.histogram = HistogramBlock(1, [SECOND])
        self.spread = Spread(self.node.quorum, self.histogram, PENDING_MAX)

    def told(self, applied: int, now_ns: int) -> tuple[int, int]:
        """What is pending, and the oldest's age in ms, once B has told that it applied so far."""
        self.node.hear(B, now_ns, applied=applied)
        self.spread.look(now_ns)
        return self.spread.pending, self.spread.oldest_ns(now_ns) // MS

    @property
    def measured(self) -> int:
        """How many have a figure."""
        return self.histogram.snapshot(0)[0][-1]


def test_what_is_not_everywhere_is_counted_until_it_is() -> None:
    spreading = Spreading()
    assert spreading.told(10, LATER) == (0, 0)
    for sequence in (11, 12):
        spreading.spread.committed(sequence, LATER + sequence * MS)
    assert spreading.told(10, LATER + 20 * MS) == (2, 9)
    assert spreading.told(11, LATER + 20 * MS) == (1, 8)
    assert spreading.told(12, LATER + 20 * MS) == (0, 0)
    assert spreading.measured == 2


def test_those_beyond_the_bound_are_pending_until_the_last_of_them_is_everywhere() -> None:
    spreading = Spreading()
    for sequence in (11, 12, 13, 14, 16, 15):
        spreading.spread.committed(sequence, LATER + sequence * MS)
    assert spreading.told(10, LATER + 20 * MS) == (6, 9)
    assert spreading.told(13, LATER + 20 * MS) == (3, 6)
    assert spreading.told(15, LATER + 20 * MS) == (3, 6)  # which of them are everywhere is not known
    spreading.spread.committed(17, LATER + 17 * MS)  # there is room again
    assert spreading.told(15, LATER + 20 * MS) == (4, 6)
    assert spreading.told(16, LATER + 20 * MS) == (1, 3)
    assert spreading.told(17, LATER + 20 * MS) == (0, 0)
    assert spreading.measured == PENDING_MAX + 1


class OfThree(Spreading):
    """The same, with C, which has told of 10 while B has told of 11: that is with a majority."""

    def __init__(self) -> None:
        super().__init__()
        self.node = HandMade([B, C])
        for node_id in (B, C):
            self.node.hear(node_id, T0)
        self.node.quorum.reach(1, LATER)
        self.node.quorum.advance(100, True, LATER)
        self.spread = Spread(self.node.quorum, self.histogram, PENDING_MAX)
        self.node.hear(B, LATER, applied=11)
        self.node.hear(C, LATER)


def test_who_waits_for_everywhere_is_told_once_it_is() -> None:
    async def run() -> None:
        three = OfThree()
        future = three.spread.everywhere(LATER)
        three.spread.look(LATER + MS)
        assert not future.done()
        three.node.hear(C, LATER + 5 * MS, applied=11)
        three.spread.look(LATER + 5 * MS)
        reached = await asyncio.wait_for(future, 1)
        assert (set(reached.applied), reached.fenced, reached.took_ms) == ({SELF, B, C}, [], 5)

    asyncio.run(run())


def test_who_waits_for_everywhere_is_told_when_the_majority_falls_silent_too() -> None:
    async def run() -> None:
        three = OfThree()
        future = three.spread.everywhere(LATER)
        three.spread.look(LATER + STALENESS_NS + SECOND - MS)
        assert not future.done()
        three.spread.look(LATER + STALENESS_NS + SECOND)
        reached = await asyncio.wait_for(future, 1)
        assert (set(reached.applied), reached.fenced) == ({SELF, B}, [C])

    asyncio.run(run())

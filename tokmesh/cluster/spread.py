"""How far revocations have come: from their commit to the moment when no node says yes any more.

What is not everywhere yet is counted, with the age of the oldest: a dead node hides none, it is fenced or waited for. Bounded: of
more than `pending_max` at once only the number grows. Those beyond have no figure of their own: they count until the last of them
is everywhere, and are in no histogram.
"""

import asyncio
import heapq
from typing import Final

from tokmesh._core.histogram import HistogramBlock
from tokmesh.cluster.quorum import Quorum
from tokmesh.log.interface import Reached

PENDING_MAX: Final = 65_536


class Spread:
    """histogram: one row, nanoseconds."""

    def __init__(self, quorum: Quorum, histogram: HistogramBlock, pending_max: int = PENDING_MAX) -> None:
        self._pending_max = pending_max
        self._quorum = quorum
        self._histogram = histogram
        self._pending: list[tuple[int, int]] = []  # heap of (sequence, when it was committed)
        self._waiters: list[tuple[int, int, asyncio.Future[Reached]]] = []
        self._beyond_count = 0
        self._beyond_last = 0  # the greatest sequence among them
        self._beyond_since_ns = 0  # when the first of them was committed

    def committed(self, sequence: int, now_ns: int) -> None:
        """A revocation of this node is in force here and at a majority."""
        if len(self._pending) < self._pending_max:
            heapq.heappush(self._pending, (sequence, now_ns))
        else:
            if self._beyond_count == 0:
                self._beyond_last, self._beyond_since_ns = sequence, now_ns
            self._beyond_count += 1
            self._beyond_last = max(self._beyond_last, sequence)
        self.look(now_ns)

    def everywhere(self, now_ns: int) -> "asyncio.Future[Reached]":
        """Done when no node can answer without knowing what a majority has applied by now, as it has all that is acknowledged.
        What is beyond that might never come to a majority, and be waited for without an end."""
        future: asyncio.Future[Reached] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._quorum.majority_applied, now_ns, future))
        self.look(now_ns)
        return future

    def look(self, now_ns: int) -> None:
        """To be called when anything was heard, and several times a second."""
        while self._pending and not self._quorum.reach(self._pending[0][0], now_ns).waiting:
            _, since_ns = heapq.heappop(self._pending)
            self._histogram.record(0, max(0, now_ns - since_ns))
        if self._beyond_count and not self._quorum.reach(self._beyond_last, now_ns).waiting:
            self._beyond_count = 0
        if self._waiters:
            self._waiters = [each for each in self._waiters if not self._tell(*each, now_ns)]

    def _tell(self, sequence: int, since_ns: int, future: "asyncio.Future[Reached]", now_ns: int) -> bool:
        reach = self._quorum.reach(sequence, now_ns)
        if reach.waiting:
            return future.done()
        if not future.done():
            future.set_result(Reached(sorted(reach.applied), sorted(reach.fenced), (now_ns - since_ns) // 1_000_000))
        return True

    @property
    def pending(self) -> int:
        """Revocations that are not everywhere yet."""
        return len(self._pending) + self._beyond_count

    def oldest_ns(self, now_ns: int) -> int:
        """How long the oldest of them has been committed; 0 without one."""
        since_ns = min((since_ns for _, since_ns in self._pending), default=now_ns)
        return now_ns - (min(since_ns, self._beyond_since_ns) if self._beyond_count else since_ns)

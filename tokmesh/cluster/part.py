"""This node's part of the cluster's sessions: put together from who decides what it holds, who gets it, and who leaves it.

Where every node holds everything, none of it does anything.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from tokmesh._core.clock import Clock
from tokmesh.cluster.holding import Holding, Placement
from tokmesh.cluster.jetstream_log import JetStreamLog
from tokmesh.cluster.link import Link
from tokmesh.cluster.loading import Loading
from tokmesh.cluster.quorum import Quorum
from tokmesh.cluster.rebalancing import Rebalancing
from tokmesh.cluster.statement import Statement
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import Following
from tokmesh.ids import ALL_SHARDS


class Part:
    """factor: `cluster.replication_factor`; copies: how many nodes hold a session, None: all. start_stated, heard_activity: as
    Loading's; may_move: as Rebalancing's; announced: what this node can be asked about is another, and is to be told at once."""

    def __init__(
        self,
        factor: int | str,
        table: Any,
        link: Link,
        subjects: Subjects,
        following: Following,
        log: JetStreamLog,
        quorum: Quorum,
        clock: Clock,
        *,
        start_stated: Callable[[], Statement],
        heard_activity: Callable[[], Awaitable[None]],
        may_move: Callable[[], bool],
        announced: Callable[[], None],
    ) -> None:
        self.copies = factor if isinstance(factor, int) else None
        self._table = table
        self._following = following
        self._clock = clock
        self._announced = announced
        self.holding = Holding(quorum, following, self.copies, clock.monotonic_ns(), self._announcing)
        self.placement = Placement(self.holding, clock)
        self.loading = Loading(link, subjects, following, log, clock, start_stated, heard_activity)
        self.rebalancing = Rebalancing(link, subjects.rebalance, self.holding, self.loading, table, clock, may_move)

    async def begin(self) -> None:
        """Before the stream is followed. A node that holds a part, and is to hold everything, gets the rest. Raises ApiError."""
        if self._following.held != ALL_SHARDS:
            self.holding.hold_parts()
        if self.holding.is_partial:
            await self.loading.begin()

    def start(self) -> None:
        """When the node belongs to the cluster."""
        if self.holding.is_partial:
            self.holding.announce()
            self.rebalancing.start()

    async def stop(self) -> None:
        """Nothing is moved any more."""
        await self.rebalancing.stop()

    @property
    def primary_count(self) -> int:
        """Live sessions of shards that this node is primary for; 0 where every node holds everything, as all know then."""
        if not self.holding.is_partial:
            return 0
        return self.holding.primary_count(self._table.shard_counts(), self._clock.monotonic_ns())

    def _announcing(self, shards: int) -> None:
        self._table.held_shards = shards
        self._announced()

"""The cluster for administrators: how it is as this node sees it, nodes taken out of it or not waited for, and this node's own
leaving.

Nothing is decided by what `overview` tells. A removal is a record of the stream: it is done when this node has applied it, and
whoever waited too long for that is told that the outcome is unknown.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from tokmesh.cluster.node import ClusterNode
from tokmesh.cluster.status import MemberStatus
from tokmesh.cluster.view import ClusterView
from tokmesh.errors import ApiError

DEADLINE_S: Final = 10.0  # for a change of members: a failover of the stream's leader and some


class Administration:
    """Of the cluster of that name."""

    def __init__(self, node: ClusterNode, name: str) -> None:
        self._node = node
        self._name = name
        self._changes: set[asyncio.Task[None]] = set()

    def overview(self) -> dict[str, Any]:
        """The cluster and its members, as JSON takes it."""
        node = self._node
        view = node.view()
        members = view.members
        down = sum(member.state == "down" for member in members)
        reasons = self._reasons(view, down)
        return {
            "status": "DEGRADED" if reasons else "OK",
            "reasons": reasons,
            "cluster": {
                "name": self._name,
                "id": node.following.cluster_id.hex(),
                "stream": node.stream.name,
                "applied": node.following.position,
                "quorum": "lost" if node.quorum_lost else "ok",
                "majority": node.quorum.majority,
                "parity": "odd" if len(members) % 2 else "even",
                "active": len(members) - down,
                "down": down,
                "shards": {
                    "held": view.shards_held,
                    "loading": view.shards_loading,
                    "leaving": view.shards_leaving,
                    "unheld": view.shards_unheld,
                },
                "nats_server_version": node.link.server_version or None,
                "nats": {"state": node.link.state, "reason": node.link.reason},
            },
            "items": [_shown(member) for member in members],
            "total_items": len(members),
            "next_cursor": None,
        }

    async def remove(self, node_id: str) -> None:
        """Takes another node out of the members. Raises ApiError: TM-ADMIN-4041, TM-ADMIN-4091 for this node itself, TM-CLST-5030
        without a quorum, TM-CLST-5040 when it took too long."""
        if node_id not in self._node.quorum.members:
            raise ApiError("TM-ADMIN-4041", {"reason": "no_such_node"})
        if node_id == self._node.quorum.node_id:
            raise ApiError("TM-ADMIN-4091", {"reason": "this_node", "cure": "tokmesh cluster leave"})
        await self._change(self._node.remove(node_id))

    async def rebalance(self) -> list[str]:
        """Members that are away, which no node waits for any longer before others are given their shards. Raises ApiError:
        TM-ADMIN-4091 where every node holds all sessions, TM-CLST-5030 without a quorum."""
        if not self._node.part.holding.is_partial:
            raise ApiError("TM-ADMIN-4091", {"reason": "every_node_holds_all"})
        if self._node.quorum_lost:
            raise self._node.no_quorum()
        return await self._node.rebalance()

    async def leave(self) -> None:
        """Takes this node out of the members; it answers nothing about sessions from then on. Raises ApiError as `remove`, and
        TM-ADMIN-4091 for the last node: a cluster of none could not be joined by what it knows."""
        own = self._node.quorum.node_id
        if self._node.quorum.members == (own,):
            raise ApiError("TM-ADMIN-4091", {"reason": "last_node"})
        if own in self._node.quorum.members:
            await self._change(self._node.remove(own))

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        # In a task of its own: who asked may go away, the change goes on to its end.
        if self._node.quorum_lost:
            change.close()
            raise self._node.no_quorum()
        task = asyncio.get_running_loop().create_task(_within(change, DEADLINE_S), name="tokmesh-members")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await task

    def _reasons(self, view: ClusterView, down: int) -> list[str]:
        node = self._node
        if node.is_removed:
            return ["removed"]  # how the others are is not this node's any more
        found = {
            "stream_lost": node.lost is not None,
            "stands_apart": node.apart.reason is not None,
            "tables_differ": bool(node.differing),
            "quorum_lost": node.quorum_lost,
            "shards_unheld": view.shards_unheld > 0 and not view.is_fenced,  # who is cut off knows nothing of who holds what
            "node_down": down > 0,
            "even_number": len(node.quorum.members) % 2 == 0,
        }
        return [reason for reason, holds in found.items() if holds]


async def _within(change: Coroutine[Any, Any, None], seconds: float) -> None:
    try:
        await asyncio.wait_for(change, seconds)
    except TimeoutError:
        raise ApiError("TM-CLST-5040", {"outcome": "unknown"}) from None


def _shown(member: MemberStatus) -> dict[str, Any]:
    known = member.incarnation is not None
    return {
        "node_id": member.node_id,
        "state": member.state,
        "self": member.is_self,
        "heard_seconds_ago": _seconds(member.silent_ns),
        "incarnation": member.incarnation,
        "counted": member.is_counted,
        "applied": member.applied,
        "lag_seconds": _seconds(member.lag_to_ns),
        "ahead_seconds": _seconds(member.lag_from_ns),
        "round_trip_seconds": _seconds(member.round_trip_ns),
        "shards": member.figures.held.bit_count() if known else None,
        "sessions": member.figures.sessions if known else None,
        "pending": member.figures.pending if known else None,
        "version": member.figures.version if known else None,
    }


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else round(time_ns / 1e9, 6)

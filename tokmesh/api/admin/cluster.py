"""`/admin/v1/cluster`: the nodes as this one sees them, one taken out, those away not waited for, this one leaving."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from tokmesh.api.admin.audited import Audited
from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.api.route import Route
from tokmesh.errors import ApiError

_NO_FIELDS: Final = BodySpec()


class Cluster(Protocol):
    """What is asked of the cluster; all but `overview` raise ApiError. rebalance: which members are away."""

    def overview(self) -> dict[str, Any]: ...
    async def remove(self, node_id: str) -> None: ...
    async def rebalance(self) -> list[str]: ...
    async def leave(self) -> None: ...


class ClusterHandlers:
    """The routes of the cluster. cluster: None for a node alone, which answers TM-ADMIN-4041. stop: begins this server's end."""

    def __init__(self, cluster: Cluster | None, node_id: str, stop: Callable[[], None]) -> None:
        self._found = cluster
        self._node_id = node_id
        self._stop = stop

    async def nodes(self, request: Request) -> Reply:
        """GET /admin/v1/cluster/nodes: every member, in order of node id, all on one page."""
        NO_QUERY.parse(request)
        return self._cluster().overview()

    async def remove(self, request: Request) -> Reply:
        """POST /admin/v1/cluster/nodes/{node_id}/remove."""
        NO_QUERY.parse(request)
        _NO_FIELDS.parse(request.body)
        node_id = request.params[0]
        await self._cluster().remove(node_id)
        return {"node_id": node_id, "removed": True}

    async def rebalance(self, request: Request) -> Reply:
        """POST /admin/v1/cluster/rebalance."""
        NO_QUERY.parse(request)
        _NO_FIELDS.parse(request.body)
        return {"away": await self._cluster().rebalance()}

    async def leave(self, request: Request) -> Reply:
        """POST /admin/v1/cluster/leave: then this server stops, as by SIGTERM; this answer still goes out."""
        NO_QUERY.parse(request)
        _NO_FIELDS.parse(request.body)
        await self._cluster().leave()
        self._stop()
        return {"node_id": self._node_id, "left": True}

    def _cluster(self) -> Cluster:
        if self._found is None:
            raise ApiError("TM-ADMIN-4041", {"reason": "no_cluster"})
        return self._found


def _away(request: Request, data: dict[str, Any]) -> dict[str, object]:
    return {"away": data["away"]}


def cluster_routes(handlers: ClusterHandlers, audited: Audited) -> tuple[Route, ...]:
    """What is here, as rows of the table of routes."""
    return (
        Route("GET", "/admin/v1/cluster/nodes", "admin", handlers.nodes),
        Route("POST", "/admin/v1/cluster/nodes/{node_id}/remove", "admin", audited("cluster.node_removed", handlers.remove)),
        Route("POST", "/admin/v1/cluster/rebalance", "admin", audited("cluster.rebalanced", handlers.rebalance, facts=_away)),
        Route("POST", "/admin/v1/cluster/leave", "admin", audited("cluster.left", handlers.leave, target="node_id")),
    )

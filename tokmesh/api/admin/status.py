"""The status of this node, for administrators: one object, always of this moment."""

from collections.abc import Awaitable, Callable
from typing import Any

from tokmesh.api.answer import Reply, Request
from tokmesh.api.query import NO_QUERY


class StatusHandlers:
    """summary: the status as JSON takes it; it reads off the serving loop."""

    def __init__(self, summary: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._summary = summary

    async def summary(self, request: Request) -> Reply:
        """GET /admin/v1/status/summary."""
        NO_QUERY.parse(request)
        return await self._summary()

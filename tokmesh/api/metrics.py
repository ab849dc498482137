"""`/metrics`: the exposition, in the format the scraper asked for."""

from collections.abc import Awaitable, Callable

from tokmesh.api.answer import Answer, Reply, Request
from tokmesh.api.query import NO_QUERY


class MetricsHandler:
    """render: Accept header ("" if absent) → body and content type; it does its work off the serving loop."""

    def __init__(self, render: Callable[[str], Awaitable[tuple[bytes, str]]]) -> None:
        self._render = render

    async def scrape(self, request: Request) -> Reply:
        """GET /metrics."""
        NO_QUERY.parse(request)
        body, content_type = await self._render(request.header("accept") or "")
        return Answer(200, content_type, body)

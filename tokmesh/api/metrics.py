"""`/metrics`: the exposition, in the format and coding that the scraper asked for."""

from collections.abc import Awaitable, Callable

from tokmesh.api.answer import Answer, Reply, Request
from tokmesh.api.query import NO_QUERY
from tokmesh.telemetry.exposition import Scrape

RenderMetrics = Callable[[str, str], Awaitable[Scrape]]


class MetricsHandler:
    """render: Accept and Accept-Encoding headers ("" if absent) → the scrape; it does its work off the serving loop."""

    def __init__(self, render: RenderMetrics) -> None:
        self._render = render

    async def scrape(self, request: Request) -> Reply:
        """GET /metrics."""
        NO_QUERY.parse(request)
        scrape = await self._render(request.header("accept") or "", request.header("accept-encoding") or "")
        headers = [("Vary", "Accept, Accept-Encoding")]
        if scrape.encoding:
            headers.append(("Content-Encoding", scrape.encoding))
        return Answer(200, scrape.content_type, scrape.body, headers)

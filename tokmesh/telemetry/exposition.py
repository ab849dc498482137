"""Answers scrapes: reads and renders all metrics in the format asked for, off the serving loop.

Invariants:
- One render at a time, in a thread of its own; scrapes of the same format and coding that arrive meanwhile share its
  result, the very bytes. So however many scrapers there are, at most six pages are under way or waiting.
- Reading and rendering hold the interpreter for about a millisecond; compressing does not hold it.
- Native histograms cost nothing until they are asked for: without them no fine bucket is kept and protobuf is not offered.
"""

import asyncio
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

from tokmesh.telemetry.cluster_figures import ClusterFigures
from tokmesh.telemetry.negotiation import OPENMETRICS, PROTOBUF, TEXT, accepts_gzip, choose_format
from tokmesh.telemetry.protobuf_page import ProtobufPage
from tokmesh.telemetry.readings import Family, Scrapes, Sources, duration_blocks, read
from tokmesh.telemetry.text_page import TextPage

T = TypeVar("T")

GZIP_LEVEL: Final = 1  # a page becomes a twentieth of its size; higher levels take several times longer for little
GZIP_BYTES_MIN: Final = 1024
_GZIP_FORMAT: Final = 31  # zlib's way of asking for gzip with the largest window


class Scrape(NamedTuple):
    """An answer to a scrape. encoding: "gzip", or "" for none."""

    body: bytes
    content_type: str
    encoding: str


class Page(Protocol):
    def render(self, families: list[Family]) -> bytes: ...


class Exposition:
    """Renders pages for one serving loop.

    Making one renders every format, so that no scrape has to learn, and a source that does not fit stops the start. With
    native_histograms it makes all histograms of durations count in fine buckets too, which none may have begun to do
    without.
    """

    def __init__(self, sources: Sources, *, native_histograms: bool = False) -> None:
        self._sources = sources
        self._scrapes = Scrapes()
        self._pages: dict[str, Page] = {chosen.content_type: TextPage(chosen) for chosen in (TEXT, OPENMETRICS)}
        self._offers = [TEXT, OPENMETRICS]
        if native_histograms:
            for block in duration_blocks(sources, self._scrapes):
                block.enable_native()
            self._pages[PROTOBUF.content_type] = ProtobufPage()
            self._offers.append(PROTOBUF)
        self._under_way: dict[tuple[str, bool], asyncio.Future[Scrape]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokmesh-metrics")
        for page in self._pages.values():
            page.render(read(sources, self._scrapes))

    async def render(self, accept: str, accept_encoding: str = "") -> Scrape:
        """The answer to a scrape with these headers ("" for one that it has not). Awaits one future only."""
        key = choose_format(accept, self._offers).content_type, accepts_gzip(accept_encoding)
        render = self._under_way.get(key)
        self._scrapes.outcomes.increment(0 if render is None else 1)
        if render is None:
            render = asyncio.get_running_loop().run_in_executor(self._thread, self._render_and_encode, *key, self._look())
            self._under_way[key] = render
            render.add_done_callback(lambda _: self._under_way.pop(key, None))
        # A scraper that goes away must not cancel the render for the others.
        return await asyncio.shield(render)

    def _look(self) -> ClusterFigures | None:
        """What the node knows of its cluster, which changes in the loop's thread: taken there, before another thread reads."""
        return None if self._sources.cluster is None else self._sources.cluster()

    def _render_and_encode(self, content_type: str, with_gzip: bool, cluster: ClusterFigures | None) -> Scrape:
        body = self.render_now(content_type, cluster)
        if with_gzip and len(body) >= GZIP_BYTES_MIN:
            return Scrape(zlib.compress(body, GZIP_LEVEL, _GZIP_FORMAT), content_type, "gzip")
        return Scrape(body, content_type, "")

    async def examine(self, look: Callable[[list[Family]], T]) -> T:
        """What `look` makes of all families of this moment, in the thread that reads for scrapes. Awaits one future only."""
        cluster = self._look()
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: look(read(self._sources, self._scrapes, cluster))
        )

    def render_now(self, content_type: str, cluster: ClusterFigures | None = None) -> bytes:
        """Reads and renders in the calling thread; one at a time. cluster: as for `read`."""
        started_ns = time.perf_counter_ns()
        body = self._pages[content_type].render(read(self._sources, self._scrapes, cluster))
        self._scrapes.durations.record(0, time.perf_counter_ns() - started_ns)
        return body

    def close(self) -> None:
        """Ends the thread after the render under way; those still waiting are cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)

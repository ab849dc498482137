"""Renders the metrics for a scrape, in the format its Accept header asks for, off the serving loop.

Invariants:
- One render at a time, in a thread of its own; scrapes of the same format that arrive meanwhile share its result.
- What a line looks like is prometheus-client's decision: a family's HELP, TYPE and UNIT lines and each series' lines
  come from its encoders, once, with the values cut off, and are remembered. Later renders fill values in. Rendering
  all series with it takes the interpreter from the serving loop for 10 ms (5.4 µs a line); this takes 0.5 ms.
- What is remembered is bounded by the closed sets of label values.

Formats: text 0.0.4 and OpenMetrics 1.0.0. The Accept header is read with its q values; an unknown type or version is
passed over, and a scrape that accepts neither still gets text 0.0.4, as Prometheus expects. prometheus-client's own
choice is not used: it ignores q, echoes the scraper's version, and raises TypeError for a version such as "1.x".
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from prometheus_client import exposition as text_format
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tokmesh.telemetry.catalog import MetricSpec
from tokmesh.telemetry.readings import Family, Scrapes, Series, Sources, read

T = TypeVar("T")

ACCEPT_ITEMS_MAX: Final = 32
SERIES_MAX: Final = 10_000  # a family with more has an open label: our bug


class Format(NamedTuple):
    """An exposition format. version: None accepts any, for wildcards. closing: what ends the page."""

    content_type: str
    encode: Callable[[Collector], bytes]
    closing: str


# prometheus-client types only a part of itself.
_ENCODE_OPENMETRICS: Final[Callable[[Collector], bytes]] = openmetrics_format.generate_latest
_FLOAT_TEXT: Final[Callable[[float], str]] = floatToGoString

TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", text_format.generate_latest, "")
OPENMETRICS: Final = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8", _ENCODE_OPENMETRICS, "# EOF\n"
)
# Media type → format and the versions that mean it; "" is a type without a version.
_OFFERED: Final[dict[str, tuple[Format, tuple[str, ...]]]] = {
    "application/openmetrics-text": (OPENMETRICS, ("1.0.0", "")),
    "text/plain": (TEXT, ("0.0.4", "")),
    "text/*": (TEXT, ("",)),
    "*/*": (TEXT, ("",)),
}


def choose_format(accept: str) -> Format:
    """The format with the highest q (RFC 9110 §12.5.1), the first named among equals; text 0.0.4 if there is none."""
    best, best_q = TEXT, 0.0
    for item in accept.split(",")[:ACCEPT_ITEMS_MAX]:
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        offered, versions = _OFFERED.get(media_type, (TEXT, ()))
        named = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        q = _q(named.get("q", "1"))
        if named.get("version", "").strip('"') in versions and q > best_q:
            best, best_q = offered, q
    return best


def _q(text: str) -> float:
    try:
        q = float(text)
    except ValueError:
        return 0.0
    return q if 0.0 <= q <= 1.0 else 0.0


class _Families(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def to_metric(family: Family) -> Metric:
    """The family as prometheus-client's type."""
    spec = family.spec
    # Only a name that ends in its unit may declare it; prometheus-client would else append it.
    unit = spec.unit if spec.name.removesuffix("_total").endswith("_" + spec.unit) else ""
    if spec.type == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.label_names, unit=unit)
        bounds = [_FLOAT_TEXT(bound / spec.divisor) for bound in family.bounds] + ["+Inf"]
        for labels, values in family.series:
            histogram.add_metric(labels, list(zip(bounds, values[: len(bounds)], strict=True)), values[-1])
        return histogram
    kind = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    metric = kind(spec.name, spec.help, labels=spec.label_names, unit=unit)
    for labels, values in family.series:
        metric.add_metric(labels, values[0])
    return metric


class Page:
    """The remembered parts of one format, and rendering with them. Used by one thread."""

    def __init__(self, chosen: Format) -> None:
        self._format = chosen
        self._headers: dict[str, str] = {}
        self._lines: dict[str, dict[tuple[str, ...], str]] = {}

    def render(self, families: Iterable[Family]) -> bytes:
        """The whole page. AssertionError for a label value outside its closed set."""
        parts: list[str] = []
        values: list[float] = []
        for family in families:
            name = family.spec.name
            header = self._headers.get(name)
            if header is None:
                header = self._headers[name] = self._learn_header(family)
                self._lines[name] = {}
            parts.append(header)
            lines = self._lines[name]
            for series in family.series:
                text = lines.get(series.labels)
                if text is None:
                    assert len(lines) < SERIES_MAX, name
                    text = lines[series.labels] = self._learn_lines(family, series)
                parts.append(text)
                values.extend(series.values)
        parts.append(self._format.closing)
        # An integer is written as such: prometheus-client would make it a float, and large ones an exponent.
        return ("".join(parts) % tuple([v if isinstance(v, int) else _FLOAT_TEXT(v) for v in values])).encode()

    def _encode(self, family: Family) -> list[str]:
        return self._format.encode(_Families([to_metric(family)])).decode().splitlines(keepends=True)

    def _learn_header(self, family: Family) -> str:
        lines = self._encode(family._replace(series=[]))
        return "".join(line for line in lines if line != self._format.closing).replace("%", "%%")

    def _learn_lines(self, family: Family, series: Series) -> str:
        _check_labels(family.spec, series.labels)
        lines = [line for line in self._encode(family._replace(series=[series])) if not line.startswith("#")]
        assert len(lines) == len(series.values), family.spec.name
        return "".join(line[: line.rindex(" ")].replace("%", "%%") + " %s\n" for line in lines)


def _check_labels(spec: MetricSpec, labels: tuple[str, ...]) -> None:
    for label, value in zip(spec.labels, labels, strict=True):
        assert not label.values or value in label.values, f"{spec.name}: {label.name} has no value {value!r}"


class Exposition:
    """Renders pages for one serving loop.

    Making one renders both formats, so that no scrape has to learn, and a source that does not fit stops the start.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._scrapes = Scrapes()
        self._pages = {chosen.content_type: Page(chosen) for chosen in (TEXT, OPENMETRICS)}
        self._under_way: dict[str, asyncio.Future[bytes]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokmesh-metrics")
        for page in self._pages.values():
            page.render(read(sources, self._scrapes))

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for a scrape with this Accept header ("" if it has none). Awaits one future only."""
        content_type = choose_format(accept).content_type
        render = self._under_way.get(content_type)
        self._scrapes.outcomes.increment(0 if render is None else 1)
        if render is None:
            render = asyncio.get_running_loop().run_in_executor(self._thread, self.render_now, content_type)
            self._under_way[content_type] = render
            render.add_done_callback(lambda _: self._under_way.pop(content_type, None))
        # A scraper that goes away must not cancel the render for the others.
        return await asyncio.shield(render), content_type

    async def examine(self, look: Callable[[list[Family]], T]) -> T:
        """What `look` makes of all families of this moment, in the thread that reads for scrapes. Awaits one future only."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: look(read(self._sources, self._scrapes))
        )

    def render_now(self, content_type: str) -> bytes:
        """Reads and renders in the calling thread; one at a time."""
        started_ns = time.perf_counter_ns()
        body = self._pages[content_type].render(read(self._sources, self._scrapes))
        self._scrapes.durations.record(0, time.perf_counter_ns() - started_ns)
        return body

    def close(self) -> None:
        """Ends the thread after the render under way; those still waiting are cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)

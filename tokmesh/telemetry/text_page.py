"""Renders families as text 0.0.4 or OpenMetrics 1.0.0.

Invariants: what a line looks like is prometheus-client's decision. A family's HELP, TYPE and UNIT lines and each series'
lines come from its encoders, once, with the values cut off, and are remembered; later renders fill values in. Rendering
all series with it takes the interpreter from the serving loop for 10 ms (5.4 µs a line); this takes 0.5 ms. What is
remembered is bounded by the closed sets of label values.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import exposition as text_format
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tokmesh.telemetry.catalog import MetricSpec, bound_text
from tokmesh.telemetry.negotiation import OPENMETRICS, TEXT, Format
from tokmesh.telemetry.readings import Family, Series

SERIES_MAX: Final = 10_000  # a family with more has an open label: our bug

# prometheus-client types only a part of itself.
_FLOAT_TEXT: Final[Callable[[float], str]] = floatToGoString
_ENCODE_OPENMETRICS: Final[Callable[[Collector], bytes]] = openmetrics_format.generate_latest
ENCODERS: Final[dict[Format, Callable[[Collector], bytes]]] = {
    TEXT: text_format.generate_latest,
    OPENMETRICS: _ENCODE_OPENMETRICS,
}
_CLOSING: Final = {TEXT: "", OPENMETRICS: "# EOF\n"}


class Families(Collector):
    """Families as prometheus-client's encoders want them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return map(_to_metric, self._families)


def _to_metric(family: Family) -> Metric:
    spec = family.spec
    # Only a name that ends in its unit may declare it; prometheus-client would else append it.
    unit = spec.unit if spec.name.removesuffix("_total").endswith("_" + spec.unit) else ""
    if spec.type == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.label_names, unit=unit)
        bounds = [bound_text(spec, bound) for bound in family.bounds] + ["+Inf"]
        for series in family.series:
            buckets = list(zip(bounds, series.values[: len(bounds)], strict=True))
            histogram.add_metric(series.labels, buckets, series.values[-1])
        return histogram
    kind = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    metric = kind(spec.name, spec.help, labels=spec.label_names, unit=unit)
    for series in family.series:
        metric.add_metric(series.labels, series.values[0])
    return metric


def check_labels(spec: MetricSpec, labels: tuple[str, ...]) -> None:
    """AssertionError for a label value outside its closed set."""
    for label, value in zip(spec.labels, labels, strict=True):
        assert not label.values or value in label.values, f"{spec.name}: {label.name} has no value {value!r}"


class TextPage:
    """The remembered parts of one format, and rendering with them. Used by one thread."""

    def __init__(self, chosen: Format) -> None:
        self._encoder = ENCODERS[chosen]
        self._closing = _CLOSING[chosen]
        self._shows_exemplars = chosen is OPENMETRICS
        self._headers: dict[str, str] = {}
        self._lines: dict[str, dict[tuple[str, ...], str]] = {}

    def render(self, families: Iterable[Family]) -> bytes:
        """The whole page. AssertionError for a label value outside its closed set."""
        parts: list[str] = []
        values: list[float | str] = []
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
                values.extend(_with_exemplars(series) if self._shows_exemplars and series.exemplars else series.values)
        parts.append(self._closing)
        # An integer is written as such: prometheus-client would make it a float, and large ones an exponent.
        texts = [v if isinstance(v, (int, str)) else _FLOAT_TEXT(v) for v in values]
        return ("".join(parts) % tuple(texts)).encode()

    def _encode(self, family: Family) -> list[str]:
        return self._encoder(Families([family])).decode().splitlines(keepends=True)

    def _learn_header(self, family: Family) -> str:
        lines = self._encode(family._replace(series=[]))
        return "".join(line for line in lines if line != self._closing).replace("%", "%%")

    def _learn_lines(self, family: Family, series: Series) -> str:
        check_labels(family.spec, series.labels)
        lines = [line for line in self._encode(family._replace(series=[series])) if not line.startswith("#")]
        assert len(lines) == len(series.values), family.spec.name
        return "".join(line[: line.rindex(" ")].replace("%", "%%") + " %s\n" for line in lines)


def _with_exemplars(series: Series) -> Iterator[float | str]:
    """The values, those of buckets with an exemplar as text that has it behind them."""
    for position, value in enumerate(series.values):
        exemplar = series.exemplars.get(position)
        if exemplar is None:
            yield value
        else:
            yield f'{value} # {{trace_id="{exemplar.trace_id}"}} {_FLOAT_TEXT(exemplar.value)} {exemplar.at:.3f}'

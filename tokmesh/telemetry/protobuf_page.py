"""Renders families as length-delimited protobuf messages, `io.prometheus.client.MetricFamily`: the one format that carries
native histograms.

The messages are written by hand. The format is nine small messages that no longer change, of which a writer needs varints,
doubles and lengths; the protobuf package would be a dependency of a megabyte with generated code in this tree, and building
its objects costs a scrape several times what joining remembered bytes does. Tests decode the pages with protoc and the
published metrics.proto, and a real Prometheus reads them.

Field numbers: MetricFamily name 1, help 2, type 3, metric 4 · Metric label 1, gauge 2, counter 3, histogram 7 · LabelPair
name 1, value 2 · Gauge and Counter value 1 · Histogram sample_count 1, sample_sum 2, bucket 3, schema 5, zero_threshold 6,
zero_count 7, positive_span 12, positive_delta 13 · Bucket cumulative_count 1, upper_bound 2, exemplar 3 · BucketSpan
offset 1, length 2 · Exemplar label 1, value 2, timestamp 3 · Timestamp seconds 1, nanos 2.

Invariants: classic buckets are always there; the exponential ones are beside them, hold the same observations, and are
marked as native even when empty. What is remembered is bounded by the closed sets of label values.
"""

import functools
import math
import struct
from collections.abc import Iterable
from typing import Final

from tokmesh._core.exponential import SCHEMA
from tokmesh.telemetry.protobuf_wire import nested, varint
from tokmesh.telemetry.readings import Exemplar, Exponential, Family, Series
from tokmesh.telemetry.text_page import SERIES_MAX, check_labels

TYPES: Final = {"counter": 0, "gauge": 1, "histogram": 4}
_VALUE_FIELDS: Final = {"counter": 3, "gauge": 2}
_HISTOGRAM_FIELD: Final = 7
# Only zeros are in the zero bucket; its width is the one Prometheus's own clients use, far below a nanosecond. A width above
# 0 is also what marks a histogram without observations as native.
ZERO_THRESHOLD: Final = 2.0**-128

_DOUBLE: Final = struct.Struct("<d")


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _unsigned(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number)


def _double(field: int, number: float) -> bytes:
    return varint(field << 3 | 1) + _DOUBLE.pack(number)


def _label(name: str, value: str) -> bytes:
    return nested(1, nested(1, name.encode()) + nested(2, value.encode()))


class ProtobufPage:
    """The remembered parts of the format, and rendering with them. Used by one thread."""

    def __init__(self) -> None:
        self._headers: dict[str, bytes] = {}
        self._labels: dict[str, dict[tuple[str, ...], bytes]] = {}
        self._bounds: dict[str, list[bytes]] = {}

    def render(self, families: Iterable[Family]) -> bytes:
        """The whole page. AssertionError for a label value outside its closed set."""
        page: list[bytes] = []
        for family in families:
            if not family.series:
                continue  # readers of this format pass over a family without metrics
            spec = family.spec
            header = self._headers.get(spec.name)
            if header is None:
                header = self._headers[spec.name] = (
                    nested(1, spec.name.encode()) + nested(2, spec.help.encode()) + _unsigned(3, TYPES[spec.type])
                )
                self._labels[spec.name] = {}
                ends = [bound / spec.divisor for bound in family.bounds] + [math.inf]
                self._bounds[spec.name] = [_double(2, end) for end in ends]
            message = [header]
            for series in family.series:
                if spec.type == "histogram":
                    value = nested(_HISTOGRAM_FIELD, _histogram(series, self._bounds[spec.name]))
                else:
                    value = nested(_VALUE_FIELDS[spec.type], _double(1, series.values[0]))
                message.append(nested(4, self._label_bytes(family, series.labels) + value))
            content = b"".join(message)
            page += (varint(len(content)), content)
        return b"".join(page)

    def _label_bytes(self, family: Family, labels: tuple[str, ...]) -> bytes:
        remembered = self._labels[family.spec.name]
        found = remembered.get(labels)
        if found is None:
            check_labels(family.spec, labels)
            assert len(remembered) < SERIES_MAX, family.spec.name
            found = b"".join(_label(*pair) for pair in zip(family.spec.label_names, labels, strict=True))
            remembered[labels] = found
        return found


# What precedes the count of a bucket without an exemplar, by the count's length: field 3, the bucket's length, field 1.
_BUCKET_STARTS: Final = [varint(3 << 3 | 2) + varint(1 + size + 9) + varint(1 << 3) for size in range(11)]


def _histogram(series: Series, bounds: list[bytes]) -> bytes:
    parts = [_unsigned(1, int(series.values[-2])), _double(2, series.values[-1])]
    if series.exemplars:
        for position, bound in enumerate(bounds):
            exemplar = series.exemplars.get(position)
            bucket = _unsigned(1, int(series.values[position])) + bound
            parts.append(nested(3, bucket if exemplar is None else bucket + nested(3, _exemplar(exemplar))))
    else:
        for value, bound in zip(series.values, bounds, strict=False):
            count = varint(int(value))
            parts += (_BUCKET_STARTS[len(count)], count, bound)
    if series.exponential is not None:
        parts.append(_exponential(series.exponential))
    return b"".join(parts)


def _exemplar(exemplar: Exemplar) -> bytes:
    whole, fraction = divmod(round(exemplar.at * 1000), 1000)
    timestamp = _unsigned(1, whole) + _unsigned(2, fraction * 1_000_000)
    return _label("trace_id", exemplar.trace_id) + _double(2, exemplar.value) + nested(3, timestamp)


@functools.lru_cache(1024)
def _span(offset: int, length: int) -> bytes:
    return nested(12, _unsigned(1, _zigzag(offset)) + _unsigned(2, length))


def _exponential(histogram: Exponential) -> bytes:
    """Runs of neighbouring buckets as spans (the first by its index, others by the gap before them), counts as differences."""
    spans: list[tuple[int, int]] = []
    deltas = bytearray()
    expected, previous = 0, 0
    for index, count in histogram.buckets:
        if spans and index == expected:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index - expected, 1))
        deltas += varint(_zigzag(count - previous))
        expected, previous = index + 1, count
    parts = [_unsigned(5, _zigzag(SCHEMA)), _double(6, ZERO_THRESHOLD), _unsigned(7, histogram.zeros)]
    parts += [_span(*span) for span in spans]
    if deltas:
        parts.append(nested(13, bytes(deltas)))
    return b"".join(parts)

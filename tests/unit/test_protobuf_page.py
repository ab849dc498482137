"""The protobuf page, decoded by protoc with the message definitions that Prometheus publishes (both Debian's)."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.observability.fakes import Fakes
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.negotiation import PROTOBUF, TEXT

PROTO = Path("/usr/share/gocode/src/github.com/prometheus/client_model/io/prometheus/client/metrics.proto")
Message = dict[str, list[Any]]


def messages(page: bytes) -> Iterator[bytes]:
    """The length-delimited messages of a page."""
    position = 0
    while position < len(page):
        size = shift = 0
        while True:
            byte = page[position]
            position += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        assert position + size <= len(page)
        yield page[position : position + size]
        position += size


def decode(message: bytes) -> Message:
    """One MetricFamily as protoc's text, read into field → values."""
    result = subprocess.run(
        [
            "protoc", f"--proto_path={PROTO.parent}", "--proto_path=/usr/include",
            "--decode=io.prometheus.client.MetricFamily", PROTO.name,
        ],
        input=message, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    stack: list[Message] = [{}]
    for line in result.stdout.decode().splitlines():
        line = line.strip()
        if line == "}":
            stack.pop()
        elif line.endswith(" {"):
            inner: Message = {}
            stack[-1].setdefault(line[:-2], []).append(inner)
            stack.append(inner)
        else:
            name, value = line.split(": ", 1)
            assert not name.isdigit(), f"unknown field {line}"
            stack[-1].setdefault(name, []).append(value[1:-1] if value.startswith('"') else _number(value))
    return stack[0]


def decoded(exposition: Exposition, *names: str) -> dict[str, Message]:
    """The families of a page by name: those named, or all."""
    page = messages(exposition.render_now(PROTOBUF.content_type))
    families = [decode(message) for message in page if not names or any(name.encode() in message[:100] for name in names)]
    return {family["name"][0]: family for family in families}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def labels_of(metric: Message) -> dict[str, str]:
    return {label["name"][0]: label["value"][0] for label in metric.get("label", [])}


def histogram_of(families: dict[str, Message], name: str, **labels: str) -> Message:
    [metric] = [metric for metric in families[name]["metric"] if labels.items() <= labels_of(metric).items()]
    histogram: Message = metric["histogram"][0]
    return histogram


def native_buckets(histogram: Message) -> list[tuple[int, int]]:
    """(index, count) from spans and deltas, as the definition says."""
    found, count, index, deltas = [], 0.0, 0.0, iter(histogram.get("positive_delta", []))
    for position, span in enumerate(histogram.get("positive_span", [])):
        index = span["offset"][0] if position == 0 else index + span["offset"][0]
        for _ in range(int(span["length"][0])):
            count += next(deltas)
            found.append((int(index), int(count)))
            index += 1
    assert next(deltas, None) is None
    return found


def test_page_says_what_the_text_says_and_native_histograms_besides(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources, native_histograms=True)
    for index in range(fakes.counters.size):
        fakes.counters.increment(index, 2**index)
    for value_ns in (0, 250_000, 251_000, 300_000, 3_000_000_000, 70_000_000_000):
        fakes.meter.latency.record(1, value_ns)
    fakes.meter.others = [("GET", '/a"\\{ü}', "404", 7)]
    families = decoded(exposition)
    text = exposition.render_now(TEXT.content_type).decode()
    expected, found = {}, {}
    moving = re.compile(r"^(process_|tokmesh_(mem|cpu|disk|metrics|pressure))")  # differ from one reading to the next
    for parsed in parse_text(text):
        for sample in parsed.samples:
            if not moving.match(sample.name):
                expected[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    for name, family in families.items():
        if moving.match(name):
            continue
        for metric in family["metric"]:
            labels = {label: _unescaped(value) for label, value in labels_of(metric).items()}
            key = tuple(sorted(labels.items()))
            if family["type"] != ["HISTOGRAM"]:
                found[name, key] = metric[family["type"][0].lower()][0]["value"][0]
                continue
            histogram = metric["histogram"][0]
            found[name + "_count", key] = histogram["sample_count"][0]
            found[name + "_sum", key] = histogram["sample_sum"][0]
            for bucket in histogram["bucket"]:
                le = {"le": f"{bucket['upper_bound'][0]!r}".replace("inf", "+Inf")}
                found[name + "_bucket", tuple(sorted((labels | le).items()))] = bucket["cumulative_count"][0]
    assert {(name, _exact(key)): value for (name, key), value in found.items()} == {
        (name, _exact(key)): value for (name, key), value in expected.items()
    }
    helps = dict(line.split(" ", 3)[2:] for line in text.splitlines() if line.startswith("# HELP"))
    assert {name: family["help"][0].replace("\\'", "'") for name, family in families.items()} == {
        name: helps[name] for name in families
    }
    exposition.close()


def _unescaped(text: str) -> str:
    """A string as protoc prints it."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1").decode()


def _exact(key: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str | float], ...]:
    """Bounds as numbers: 1e-04 and 0.0001 are one."""
    return tuple((label, float(value)) if label == "le" else (label, value) for label, value in key)


def test_native_buckets_are_those_of_the_core(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources, native_histograms=True)
    values_ns = [0, 0, 1, 250_000, 251_000, 252_000, 10**9, 10**9, 10**9 + 1, 2**64 - 1]
    for value_ns in values_ns:
        fakes.loop_lag.histogram.record(0, value_ns)
    native = fakes.loop_lag.histogram.native
    assert native is not None
    families = decoded(exposition, "tokmesh_event_loop_lag_seconds")
    histogram = histogram_of(families, "tokmesh_event_loop_lag_seconds")
    assert native_buckets(histogram) == native.snapshot(0)[1]
    assert (histogram["schema"], histogram["zero_count"], histogram["sample_count"]) == ([3.0], [2.0], [10.0])
    assert 0 < histogram["zero_threshold"][0] < 1e-9
    assert histogram["bucket"][-1] == {"cumulative_count": [10.0], "upper_bound": [float("inf")]}
    exposition.close()


def test_an_empty_histogram_is_native_too_and_one_of_records_never_is(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources, native_histograms=True)
    families = decoded(exposition, "tokmesh_gossip_propagation_lag_seconds", "tokmesh_wal_group_size_records")
    empty = histogram_of(families, "tokmesh_gossip_propagation_lag_seconds")
    assert empty["zero_threshold"][0] > 0 and "positive_span" not in empty and empty["sample_count"] == [0.0]
    assert "schema" not in histogram_of(families, "tokmesh_wal_group_size_records")
    exposition.close()


def test_exemplars_are_in_their_classic_buckets(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources, native_histograms=True)
    fakes.meter.latency.record(1, 99_000_000)
    fakes.meter.latency.note_exemplar(1, 99_000_000, "0af7651916cd43dd8448eb211c80319c", 1_766_050_200_123)
    families = decoded(exposition, "tokmesh_api_request_duration_seconds")
    histogram = histogram_of(families, "tokmesh_api_request_duration_seconds", route="/tokens/validate")
    [(bound, exemplar)] = [(b["upper_bound"][0], b["exemplar"][0]) for b in histogram["bucket"] if "exemplar" in b]
    assert bound == 0.1
    assert labels_of(exemplar) == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert exemplar["value"] == [0.099]
    assert exemplar["timestamp"] == [{"seconds": [1_766_050_200.0], "nanos": [123_000_000.0]}]
    exposition.close()


def test_label_value_outside_its_closed_set_stops_the_scrape(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources, native_histograms=True)
    fakes.meter.others = [("BREW", "unmatched", "404", 1)]
    with pytest.raises(AssertionError, match="BREW"):
        exposition.render_now(PROTOBUF.content_type)
    exposition.close()

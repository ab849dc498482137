"""One render of all metrics, as for a scrape, with every route of the table counted in several statuses."""

import dataclasses
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.conftest import insert
from tests.observability.fakes import Fakes
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock
from tokmesh._core.table import Table
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.negotiation import OPENMETRICS, PROTOBUF, TEXT, Format

ROUTES = 24
STATUSES = ("200", "400", "401", "403", "404", "429", "500", "503")
CLASSES = ("2xx", "4xx", "5xx")


class BusyMeter:
    """As many series as a server shows whose every route has been used."""

    def __init__(self) -> None:
        self.latency = HistogramBlock(ROUTES * len(CLASSES), LATENCY_BOUNDS_NS)
        self._names = [("POST", f"/route/{{parameter}}/{number}") for number in range(ROUTES)]

    def fill(self) -> None:
        """Ten values a row, each in a bucket of its own."""
        for row in range(self.latency.rows):
            for value in range(1, 10**9, 10**8):
                self.latency.record(row, value)

    def series(self) -> list[tuple[str, str, str, int]]:
        return [(*name, status, 1234) for name in self._names for status in STATUSES]

    def durations(self) -> list[tuple[str, str, str, int]]:
        rows = [(*name, status_class) for name in self._names for status_class in CLASSES]
        return [(*labels, row) for row, labels in enumerate(rows)]


@pytest.mark.parametrize("chosen", [TEXT, OPENMETRICS, PROTOBUF], ids=["text", "openmetrics", "protobuf"])
def test_render_all_series(benchmark: BenchmarkFixture, tmp_path: Path, chosen: Format) -> None:
    fakes = Fakes(tmp_path)
    table = Table(tombstone_ttl_ms=600_000)
    insert(table, 1)
    meter = BusyMeter()
    sources = dataclasses.replace(fakes.sources, meter=meter, table=table)
    exposition = Exposition(sources, native_histograms=chosen is PROTOBUF)
    meter.fill()
    page = benchmark(exposition.render_now, chosen.content_type)
    exposition.close()
    if chosen is PROTOBUF:
        assert page.count(b"/route/{parameter}/") == ROUTES * (len(STATUSES) + len(CLASSES))
    else:
        assert page.count(b"\n") > ROUTES * (len(STATUSES) + len(CLASSES) * len(LATENCY_BOUNDS_NS))

"""The exposition: prometheus-client's own text, negotiated, coalesced, off the loop, and closed to new series."""

import asyncio
import gzip
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.observability.fakes import NODE_ID, Fakes, of_a_cluster
from tokmesh._core.counters import Counter
from tokmesh._core.histogram import HistogramBlock
from tokmesh.telemetry.catalog import METRICS
from tokmesh.telemetry.exposition import GZIP_BYTES_MIN, Exposition, Scrape
from tokmesh.telemetry.negotiation import OPENMETRICS, PROTOBUF, TEXT, Format
from tokmesh.telemetry.readings import Scrapes, duration_blocks, read
from tokmesh.telemetry.text_page import ENCODERS, Families, TextPage

PARSE: dict[Format, Callable[[str], Iterable[Metric]]] = {TEXT: parse_text, OPENMETRICS: parse_openmetrics}
# Counted by the kernel, some since before this process began.
PLACEMENT = (
    "shards_held", "shards_loading", "shards_leaving", "shards_unheld", "shard_records_loaded_total", "shard_loads_failed_total",
)  # fmt: skip
OF_THE_MACHINE = ("process_cpu_seconds_total", "tokmesh_pressure_waiting_seconds_total")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def samples_of(metrics: Iterable[Metric]) -> Samples:
    return {(s.name, tuple(sorted(s.labels.items()))): float(s.value) for metric in metrics for s in metric.samples}


def scrape(fakes: Fakes, chosen: Format = TEXT) -> Samples:
    body = Exposition(fakes.sources).render_now(chosen.content_type).decode()
    return samples_of(PARSE[chosen](body))


@pytest.mark.parametrize("chosen", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_page_says_what_prometheus_client_says(fakes: Fakes, chosen: Format) -> None:
    for index in range(fakes.counters.size):
        fakes.counters.increment(index, 3**index)
    fakes.meter.latency.record(0, 250_000)
    fakes.log.fsync_histogram.record(0, 3_000_000_000)
    fakes.meter.others = [("other", "unmatched", "404", 3)]
    families = read(fakes.sources, Scrapes())
    body = TextPage(chosen).render(families).decode()
    oracle = ENCODERS[chosen](Families(families)).decode()
    parse = PARSE[chosen]
    assert samples_of(parse(body)) == samples_of(parse(oracle))
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        line for line in oracle.splitlines() if line.startswith("#")
    ]
    assert [line.rsplit(" ", 1)[0] for line in body.splitlines()] == [
        line.rsplit(" ", 1)[0] for line in oracle.splitlines()
    ]


def test_every_metric_of_the_catalogue_is_there_from_the_first_scrape(fakes: Fakes) -> None:
    names = {name for name, _ in scrape(fakes)}
    for metric in METRICS:
        if metric.absent_when and metric.name not in names:
            continue
        assert (metric.name if metric.type != "histogram" else metric.name + "_count") in names, metric.name


def test_counters_start_at_zero_with_every_value_of_closed_labels(fakes: Fakes) -> None:
    samples = scrape(fakes)
    for metric in METRICS:
        if metric.type != "counter" or metric.name in OF_THE_MACHINE:
            continue
        series = {labels: value for (name, labels), value in samples.items() if name == metric.name}
        assert set(series.values()) == {0.0}, metric.name
        if len(metric.labels) == 1:
            assert {labels[0][1] for labels in series} == set(metric.labels[0].values)


def test_a_node_alone_tells_its_truth_about_the_cluster(fakes: Fakes) -> None:
    fakes.table.figures["sessions_active"] = 12
    samples = scrape(fakes)
    assert samples["tokmesh_sessions_active_total", ()] == 12
    assert samples["tokmesh_cluster_nodes_total", (("status", "active"),)] == 1
    assert samples["tokmesh_cluster_nodes_total", (("status", "down"),)] == 0
    assert samples["tokmesh_cluster_nodes_parity", ()] == 0
    assert samples["tokmesh_cluster_quorum_lost", ()] == 0
    assert samples["tokmesh_shard_keys_count", (("node_id", NODE_ID),)] == 12
    assert [samples[f"tokmesh_cluster_{name}", ()] for name in PLACEMENT] == [64, 0, 0, 0, 0, 0]
    assert samples["tokmesh_replication_lag_seconds", (("from_node", NODE_ID), ("to_node", NODE_ID))] == 0
    assert samples["tokmesh_gossip_propagation_lag_seconds_count", ()] == 0
    assert samples["tokmesh_session_revoke_propagation_lag_seconds_count", ()] == 0
    assert samples["tokmesh_session_revoke_pending", ()] == 0


def test_a_node_of_many_tells_what_it_sees_of_them(fakes: Fakes) -> None:
    samples = samples_of(parse_text(Exposition(of_a_cluster(fakes)).render_now(TEXT.content_type).decode()))
    assert [samples["tokmesh_cluster_nodes_total", (("status", status),)] for status in ("active", "down")] == [2, 1]
    assert samples["tokmesh_cluster_nodes_parity", ()] == 0
    assert {labels[0][1]: value for (name, labels), value in samples.items() if name == "tokmesh_cluster_member_up"} == {
        "tmnd-one": 1, "tmnd-two": 1, "tmnd-three": 0,
    }  # fmt: skip
    lags = {labels: value for (name, labels), value in samples.items() if name == "tokmesh_replication_lag_seconds"}
    assert lags == {
        (("from_node", "tmnd-one"), ("to_node", "tmnd-one")): 0,
        (("from_node", "tmnd-two"), ("to_node", "tmnd-one")): 0.5,
        (("from_node", "tmnd-one"), ("to_node", "tmnd-two")): 1.5,
    }, "and none of a node that is not heard"
    assert samples["tokmesh_shard_keys_count", (("node_id", "tmnd-two"),)] == 5
    assert [samples[f"tokmesh_cluster_{name}", ()] for name in PLACEMENT] == [40, 3, 2, 1, 1234, 6]
    assert (samples["tokmesh_cluster_quorum_lost", ()], samples["tokmesh_cluster_fenced", ()]) == (1, 1)
    assert samples["tokmesh_cluster_staleness_seconds", ()] == 2.5
    assert samples["tokmesh_session_revoke_oldest_pending_seconds", ()] == 4
    assert samples["tokmesh_cluster_publications_total", (("outcome", "conflict"),)] == 2
    assert samples["tokmesh_cluster_nats_state", (("state", "lost"),)] == 1
    assert samples["tokmesh_cluster_nats_info", (("version", "2.14.0"),)] == 1


def test_a_cluster_is_looked_at_in_the_loop_s_thread_only(fakes: Fakes) -> None:
    """What a node knows of it changes there, between two lines of whoever reads it elsewhere."""
    taken: list[str] = []
    sources = of_a_cluster(fakes, lambda: taken.append(threading.current_thread().name))
    exposition = Exposition(sources)
    taken.clear()

    async def look() -> None:
        await asyncio.gather(*(exposition.render("") for _ in range(5)))
        await exposition.examine(len)

    asyncio.run(look())
    exposition.close()
    assert taken == [threading.current_thread().name] * 2


def test_figures_reach_their_series(fakes: Fakes) -> None:
    fakes.counters.increment(Counter.VALIDATE_INVALID, 5)
    fakes.counters.increment(Counter.AUTH_RATE_LIMITED, 2)
    fakes.counters.increment(Counter.REJECT_TRANSFER_ENCODING, 3)
    fakes.counters.increment(Counter.HEAD_REPEATED, 9)
    fakes.counters.increment(Counter.CONNECTION_OPENED, 4)
    fakes.counters.increment(Counter.CONNECTION_CLOSED, 1)
    fakes.log.figures["state"] = "failed"
    fakes.log.figures["fsync_failed_total"] = 1
    fakes.log_lines.add("WARN")
    fakes.meter.latency.record(1, 100_000_000)
    samples = scrape(fakes)
    assert samples["tokmesh_token_validate_calls_total", (("result", "invalid"),)] == 5
    assert samples["tokmesh_api_key_auth_total", (("result", "rate_limited"),)] == 2
    assert samples["tokmesh_http_rejects_total", (("reason", "transfer_encoding"),)] == 3
    assert samples["tokmesh_http_heads_total", (("source", "remembered"),)] == 9
    assert samples["tokmesh_connections_open", ()] == 3
    assert samples["tokmesh_wal_state", (("state", "failed"),)] == 1
    assert samples["tokmesh_wal_state", (("state", "open"),)] == 0
    assert samples["tokmesh_wal_fsync_failed_total", ()] == 1
    assert samples["tokmesh_log_lines_total", (("level", "WARN"),)] == 1
    assert samples["tokmesh_start_time_seconds", ()] == 1_766_050_200.5
    route = (("method", "POST"), ("route", "/tokens/validate"), ("status", "2xx"))
    name = "tokmesh_api_request_duration_seconds"
    assert samples[name + "_bucket", (("le", "0.05"), *route)] == 0
    assert samples[name + "_bucket", (("le", "0.1"), *route)] == 1
    assert samples[name + "_sum", route] == 0.1


def test_a_yes_or_no_is_a_number(fakes: Fakes) -> None:
    """`True` is an int to Python, and a parse error to Prometheus."""
    fakes.log.figures["encrypted"] = True
    assert scrape(fakes)["tokmesh_storage_encryption_enabled", ()] == 1


def test_label_value_outside_its_closed_set_stops_the_scrape(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    fakes.meter.others = [("BREW", "unmatched", "404", 1)]
    with pytest.raises(AssertionError, match="BREW"):
        exposition.render_now(TEXT.content_type)


def test_label_values_are_escaped_and_percent_signs_kept(fakes: Fakes) -> None:
    route = '/a%s"\\{x}'
    fakes.meter.others = [("GET", route, "200", 4)]
    assert scrape(fakes)["tokmesh_api_requests_total", (("method", "GET"), ("route", route), ("status", "200"))] == 4


def test_concurrent_scrapes_share_one_render_off_the_loop(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    threads: list[str] = []
    release = threading.Event()

    def stats() -> MappingProxyType[str, float]:
        threads.append(threading.current_thread().name)
        assert release.wait(10)
        return MappingProxyType(fakes.table.figures)

    fakes.table.stats = stats  # type: ignore[assignment,method-assign]

    async def storm() -> list[Scrape]:
        scrapes = [asyncio.ensure_future(exposition.render("")) for _ in range(50)]
        await asyncio.sleep(0.01)
        scrapes[0].cancel()  # the first scraper leaves; its render is the others'
        release.set()
        return [
            answer for answer in await asyncio.gather(*scrapes, return_exceptions=True) if isinstance(answer, Scrape)
        ]

    answers = asyncio.run(storm())
    assert len(answers) == 49 and len({id(answer.body) for answer in answers}) == 1
    assert len(threads) == 1 and threads[0].startswith("tokmesh-metrics")
    assert answers[0][1:] == ("text/plain; version=0.0.4; charset=utf-8", "")
    release.set()
    samples = samples_of(parse_text(exposition.render_now(TEXT.content_type).decode()))
    assert samples["tokmesh_metrics_scrapes_total", (("outcome", "rendered"),)] == 1
    assert samples["tokmesh_metrics_scrapes_total", (("outcome", "shared"),)] == 49
    assert samples["tokmesh_metrics_render_duration_seconds_count", ()] == 1
    exposition.close()


def test_each_format_and_coding_is_rendered_once_and_one_after_the_other(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    running, most = 0, 0
    figures = MappingProxyType(fakes.table.figures)

    def stats() -> MappingProxyType[str, float]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)  # long enough for another to begin, were it let
        running -= 1
        return figures

    fakes.table.stats = stats  # type: ignore[assignment,method-assign]
    headers = [(accept, coding) for accept in ("", "application/openmetrics-text") for coding in ("", "gzip")]

    async def storm() -> list[Scrape]:
        return await asyncio.gather(*(exposition.render(*headers[index % 4]) for index in range(200)))

    answers = asyncio.run(storm())
    assert most == 1
    assert len({id(answer.body) for answer in answers}) == 4
    assert exposition._scrapes.outcomes.read_all() == [4, 196]
    assert exposition._under_way == {}
    exposition.close()


def test_gzip_holds_the_same_page_in_a_fraction_of_its_bytes(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    fakes.meter.others = [("GET", f"/{index}", "200", 1) for index in range(20)]

    async def both() -> tuple[Scrape, Scrape]:
        return await exposition.render("", "gzip"), await exposition.render("", "identity")

    packed, plain = asyncio.run(both())
    assert (packed.encoding, plain.encoding) == ("gzip", "")
    unpacked = gzip.decompress(packed.body)
    assert samples_of(parse_text(unpacked.decode())).keys() == samples_of(parse_text(plain.body.decode())).keys()
    assert len(packed.body) * 4 < len(plain.body)
    exposition.close()


@pytest.mark.parametrize(("size", "encoding"), [(GZIP_BYTES_MIN - 1, ""), (GZIP_BYTES_MIN, "gzip")])
def test_small_pages_are_not_compressed(fakes: Fakes, size: int, encoding: str) -> None:
    class SmallPage:
        def render(self, families: object) -> bytes:
            return b"#" * size

    exposition = Exposition(fakes.sources)
    exposition._pages[TEXT.content_type] = SmallPage()
    assert asyncio.run(exposition.render("", "gzip")).encoding == encoding
    exposition.close()


def test_exemplars_are_in_openmetrics_with_their_trace_and_nowhere_else(fakes: Fakes) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    exposition = Exposition(fakes.sources)
    for elapsed_ns in (100_000_000, 70_000_000_000):
        fakes.meter.latency.record(1, elapsed_ns)
        fakes.meter.latency.note_exemplar(1, elapsed_ns, trace_id, 1_766_050_200_123)
    page = exposition.render_now(OPENMETRICS.content_type).decode()
    exemplars = [
        (sample.labels["route"], sample.labels["le"], sample.exemplar)
        for family in PARSE[OPENMETRICS](page)
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert [(route, le, exemplar.labels, exemplar.value) for route, le, exemplar in exemplars] == [
        ("/tokens/validate", "0.1", {"trace_id": trace_id}, 0.1),
        ("/tokens/validate", "+Inf", {"trace_id": trace_id}, 70.0),
    ]
    assert all(str(exemplar.timestamp) == "1766050200.123000000" for _, _, exemplar in exemplars)
    assert trace_id not in exposition.render_now(TEXT.content_type).decode()
    assert samples_of(PARSE[OPENMETRICS](page)).keys() == scrape(fakes, OPENMETRICS).keys()


def test_native_histograms_cost_nothing_until_they_are_asked_for(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    assert all(block.native is None for block in duration_blocks(fakes.sources, exposition._scrapes))
    assert PROTOBUF.content_type not in exposition._pages
    other = Exposition(fakes.sources, native_histograms=True)
    assert all(block.native is not None for block in duration_blocks(fakes.sources, other._scrapes))
    fakes.loop_lag.histogram.record(0, 5)
    with pytest.raises(AssertionError, match="before"):
        late = Fakes(Path("."))
        late.log.fsync_histogram.record(0, 5)
        Exposition(late.sources, native_histograms=True)


def test_every_histogram_of_durations_can_be_native() -> None:
    fakes, scrapes = Fakes(Path(".")), Scrapes()
    for block in duration_blocks(fakes.sources, scrapes):
        block.enable_native()
    for family in read(fakes.sources, scrapes):
        if family.spec.type == "histogram":
            native = [series.exponential is not None for series in family.series]
            assert native and all(native) == any(native) == (family.spec.unit == "seconds"), family.spec.name


def test_source_whose_bounds_are_not_the_catalogues_stops_the_start(fakes: Fakes) -> None:
    fakes.log.group_histogram = HistogramBlock(1, (1, 2))
    with pytest.raises(AssertionError, match="tokmesh_wal_group_size_records"):
        Exposition(fakes.sources)


def test_failed_render_is_told_to_its_scrapers_and_the_next_one_works(fakes: Fakes) -> None:
    exposition = Exposition(fakes.sources)
    active = fakes.table.figures.pop("sessions_active")

    async def twice() -> bytes:
        with pytest.raises(KeyError):
            await exposition.render("")
        fakes.table.figures["sessions_active"] = active
        return (await exposition.render("")).body

    assert b"tokmesh_sessions_active_total 0\n" in asyncio.run(twice())
    exposition.close()


def test_source_that_does_not_fit_stops_the_start(fakes: Fakes) -> None:
    del fakes.log.figures["pending"]
    with pytest.raises(KeyError, match="pending"):
        Exposition(fakes.sources)

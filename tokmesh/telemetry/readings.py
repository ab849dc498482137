"""Reads every source once and gives the families of the catalogue with their values of this moment.

Invariants: every metric of the catalogue is given exactly once, in its order; a label value outside a closed set is our
bug and stops the scrape. Reading computes nothing that the hot path would have to prepare for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from platform import python_version
from typing import NamedTuple, Protocol

from tokmesh._core.counters import NAMES, Counter, CounterBlock
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock
from tokmesh._core.sampling import Sampler
from tokmesh.telemetry.catalog import (
    AUTH_RESULTS,
    GC_GENERATIONS,
    LOG_STATES,
    METRICS,
    PROPAGATION_BOUNDS_NS,
    REJECT_REASONS,
    MetricSpec,
)
from tokmesh.telemetry.cluster_figures import ClusterFigures
from tokmesh.telemetry.cluster_metrics import read_cluster
from tokmesh.telemetry.gc_pauses import GcPauses
from tokmesh.telemetry.logs import LogStats
from tokmesh.telemetry.logs.audit import AuditTrail
from tokmesh.telemetry.loop_lag import LoopLag
from tokmesh.telemetry.resources import ResourceFigures
from tokmesh.telemetry.snapshot_metrics import read_snapshots
from tokmesh.telemetry.tracing.figures import TracingFigures


class HasStats(Protocol):
    """Table, log, snapshots and authenticator: figures by name, cheap to take."""

    def stats(self) -> Mapping[str, object]: ...


class LogSource(HasStats, Protocol):
    """The log: also its histograms, one row each, in nanoseconds and in records."""

    @property
    def fsync_histogram(self) -> HistogramBlock: ...
    @property
    def group_histogram(self) -> HistogramBlock: ...


class Meter(Protocol):
    """Requests by (method, route template, status), all from closed sets.

    series: (method, route, exact status, count). durations: (method, route, class of status such as "2xx", row of
    `latency`, in nanoseconds).
    """

    @property
    def latency(self) -> HistogramBlock: ...
    def series(self) -> list[tuple[str, str, str, int]]: ...
    def durations(self) -> list[tuple[str, str, str, int]]: ...


class Buffers(Protocol):
    """What connections hold of requests, in bytes."""

    @property
    def buffered_bytes(self) -> int: ...


class ResourceSource(Protocol):
    def read(self) -> ResourceFigures: ...


class HasStalls(Protocol):
    """The watchdog: how often the serving loop was held for too long."""

    @property
    def stalls(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Propagation:
    """Histograms that need a cluster to fill, one row each, in nanoseconds."""

    gossip: HistogramBlock = field(default_factory=lambda: HistogramBlock(1, PROPAGATION_BOUNDS_NS))
    revoke: HistogramBlock = field(default_factory=lambda: HistogramBlock(1, PROPAGATION_BOUNDS_NS))


@dataclass(frozen=True, slots=True)
class Sources:
    """What the exposition reads. started_at: Unix time in seconds at which serving began. connections_max: the limit on
    client connections. cluster: for the loop's thread only, as the node changes there; None on a node alone.
    """

    counters: CounterBlock
    meter: Meter
    buffers: Buffers
    table: HasStats
    log: LogSource
    snapshots: HasStats
    authenticator: HasStats
    resources: ResourceSource
    loop_lag: LoopLag
    watchdog: HasStalls
    gc_pauses: GcPauses
    log_lines: LogStats
    connections_max: int
    audit: AuditTrail
    sampler: Sampler
    tracing: TracingFigures
    started_at: float
    version: str
    node_id: str
    propagation: Propagation
    cluster: Callable[[], ClusterFigures] | None


@dataclass(frozen=True, slots=True)
class Scrapes:
    """The exposition's own figures."""

    outcomes: CounterBlock = field(default_factory=lambda: CounterBlock(2))  # rendered, shared
    durations: HistogramBlock = field(default_factory=lambda: HistogramBlock(1, LATENCY_BOUNDS_NS))


class Exemplar(NamedTuple):
    """One traced observation: its trace id (32 hex digits), value in units, and Unix time in seconds."""

    trace_id: str
    value: float
    at: float


class Exponential(NamedTuple):
    """A histogram in exponential buckets (see `_core.exponential`): zeros, and (index, count) of each that is not empty."""

    zeros: int
    buckets: list[tuple[int, int]]


class Series(NamedTuple):
    """One label set. values: one number, or a histogram's cumulative count of every bound and +Inf, count, sum.

    exemplars: a histogram's, by position of their bucket. exponential: the same observations, where it is asked for.
    """

    labels: tuple[str, ...]
    values: Sequence[float]
    exemplars: Mapping[int, Exemplar] = {}
    exponential: Exponential | None = None


class Family(NamedTuple):
    """A metric and its series. bounds: a histogram's, in what it records (see MetricSpec.divisor)."""

    spec: MetricSpec
    series: list[Series]
    bounds: tuple[int, ...] = ()


class Rows(NamedTuple):
    """Histograms of one metric: a block, and the label sets of its rows that are shown."""

    block: HistogramBlock
    labels: Sequence[tuple[tuple[str, ...], int]]


# A metric's reading before it is matched with its spec: one value, values by label set, or histograms.
Value = float | Sequence[tuple[tuple[str, ...], float]] | Rows
Values = dict[str, Value]


def duration_blocks(sources: Sources, scrapes: Scrapes) -> list[HistogramBlock]:
    """Every histogram of durations, which may be native; others count what has no fraction."""
    return [
        sources.meter.latency,
        sources.log.fsync_histogram,
        sources.loop_lag.histogram,
        sources.gc_pauses.histogram,
        scrapes.durations,
        sources.propagation.gossip,
        sources.propagation.revoke,
    ]


def _number(stats: Mapping[str, object], key: str) -> float:
    value = stats[key]
    assert isinstance(value, (int, float)), key
    return int(value) if isinstance(value, bool) else value  # whose text would be a word


def read(sources: Sources, scrapes: Scrapes, cluster: ClusterFigures | None = None) -> list[Family]:
    """All families, in the catalogue's order. cluster: what the node knew of it; if not given, asked for in this thread."""
    values: Values = {}
    counters = sources.counters.read_all()
    table, log, keys = sources.table.stats(), sources.log.stats(), sources.authenticator.stats()
    _read_sessions(values, counters, table)
    _read_keys(values, counters, keys)
    _read_connections(values, counters, sources.buffers, sources.connections_max)
    _read_log(values, log, sources.log)
    read_snapshots(values, sources.snapshots.stats())
    _read_table(values, table)
    if cluster is None and sources.cluster is not None:
        cluster = sources.cluster()
    read_cluster(values, sources.node_id, _number(table, "sessions_active"), cluster)
    _read_resources(values, sources.resources.read())
    _read_server(values, sources, scrapes)
    _read_tracing(values, sources)
    values["tokmesh_gossip_propagation_lag_seconds"] = _single(sources.propagation.gossip)
    values["tokmesh_session_revoke_propagation_lag_seconds"] = _single(sources.propagation.revoke)
    values["tokmesh_api_requests_total"] = [
        ((m, route, status), count) for m, route, status, count in sources.meter.series()
    ]
    values["tokmesh_api_request_duration_seconds"] = Rows(
        sources.meter.latency, [((m, route, status), row) for m, route, status, row in sources.meter.durations()]
    )
    families = [_family(spec, values.pop(spec.name)) for spec in METRICS]
    assert not values, f"not in the catalogue: {sorted(values)}"
    return families


def _family(spec: MetricSpec, value: Value) -> Family:
    if isinstance(value, Rows):
        assert value.block.bounds == spec.bounds, f"{spec.name}: bounds are not those of the catalogue"
        return Family(spec, [_histogram(spec, value.block, row, labels) for labels, row in value.labels], spec.bounds)
    if isinstance(value, (int, float)):
        return Family(spec, [Series((), (value,))])
    return Family(spec, [Series(labels, (number,)) for labels, number in value])


def _histogram(spec: MetricSpec, block: HistogramBlock, row: int, labels: tuple[str, ...]) -> Series:
    # The exponential buckets first: the log's thread observes meanwhile, and they must not have more than the count.
    exponential = None if block.native is None else Exponential(*block.native.snapshot(row))
    cumulative, total = block.snapshot(row)
    exemplars = {
        bucket: Exemplar(trace_id, value / spec.divisor, at_ms / 1000)
        for bucket, (trace_id, value, at_ms) in block.exemplars(row).items()
    }
    return Series(labels, [*cumulative, cumulative[-1], total / spec.divisor], exemplars, exponential)


def _single(block: HistogramBlock) -> Rows:
    return Rows(block, [((), 0)])


def _read_sessions(values: Values, counters: list[int], table: Mapping[str, object]) -> None:
    values["tokmesh_sessions_active_total"] = _number(table, "sessions_active")
    values["tokmesh_token_validate_calls_total"] = [
        (("valid",), counters[Counter.VALIDATE_VALID]),
        (("invalid",), counters[Counter.VALIDATE_INVALID]),
        (("error",), counters[Counter.VALIDATE_ERROR]),
    ]
    values["tokmesh_session_create_total"] = counters[Counter.SESSION_CREATE]
    values["tokmesh_session_renew_total"] = counters[Counter.SESSION_RENEW]
    values["tokmesh_session_update_total"] = counters[Counter.SESSION_UPDATE]
    values["tokmesh_session_revoke_total"] = counters[Counter.SESSION_REVOKE]
    values["tokmesh_session_evict_total"] = counters[Counter.SESSION_EVICT]
    values["tokmesh_token_rotate_total"] = counters[Counter.SESSION_ROTATE]
    values["tokmesh_session_expiry_backlog"] = _number(table, "expiry_backlog")


def _read_keys(values: Values, counters: list[int], keys: Mapping[str, object]) -> None:
    values["tokmesh_api_key_auth_total"] = [
        ((result,), counters[NAMES.index(f"auth_{result}")]) for result in AUTH_RESULTS
    ]
    values["tokmesh_api_key_argon2_runs_total"] = _number(keys, "argon2_runs_total")
    values["tokmesh_api_key_prefilter_rejects_total"] = _number(keys, "prefilter_rejects_total")
    values["tokmesh_api_key_cache_hits_total"] = _number(keys, "cache_hits")
    values["tokmesh_api_key_cache_misses_total"] = _number(keys, "cache_misses")
    values["tokmesh_api_key_cache_entries"] = _number(keys, "cache_entries")
    values["tokmesh_api_key_argon2_pending"] = _number(keys, "argon2_pending")


def _read_connections(values: Values, counters: list[int], buffers: Buffers, connections_max: int) -> None:
    opened, closed = counters[Counter.CONNECTION_OPENED], counters[Counter.CONNECTION_CLOSED]
    values["tokmesh_connections_opened_total"] = opened
    values["tokmesh_connections_closed_total"] = closed
    values["tokmesh_connections_refused_total"] = counters[Counter.CONNECTION_REFUSED]
    values["tokmesh_connections_max"] = connections_max
    values["tokmesh_connections_open"] = max(0, opened - closed)
    values["tokmesh_http_rejects_total"] = [
        ((reason,), counters[NAMES.index(f"reject_{reason}")]) for reason in REJECT_REASONS
    ]
    values["tokmesh_http_heads_total"] = [
        (("parsed",), counters[Counter.HEAD_PARSED]),
        (("remembered",), counters[Counter.HEAD_REPEATED]),
    ]
    values["tokmesh_http_buffered_bytes"] = buffers.buffered_bytes
    values["tokmesh_http_received_bytes_total"] = counters[Counter.RECEIVED_BYTES]
    values["tokmesh_http_sent_bytes_total"] = counters[Counter.SENT_BYTES]


def _read_log(values: Values, log: Mapping[str, object], source: LogSource) -> None:
    for name, key in (
        ("wal_write_bytes_total", "write_bytes_total"),
        ("wal_fsync_total", "fsync_total"),
        ("wal_fsync_failed_total", "fsync_failed_total"),
        ("wal_append_errors_total", "append_errors_total"),
        ("wal_records_total", "records_total"),
        ("wal_groups_total", "groups_total"),
        ("wal_pending_records", "pending"),
        ("wal_segments", "segments"),
        ("wal_segment_bytes", "segment_bytes"),
        ("storage_encryption_enabled", "encrypted"),
        ("wal_last_sequence", "last_sequence"),
        ("wal_durable_sequence", "durable_sequence"),
        ("recovery_duration_seconds", "recovery_seconds"),
        ("recovery_records", "recovery_records"),
        ("recovery_torn_tails_total", "torn_tail_total"),
    ):
        values[f"tokmesh_{name}"] = _number(log, key)
    state = log["state"]
    assert state in LOG_STATES, state
    values["tokmesh_wal_state"] = [((name,), int(name == state)) for name in LOG_STATES]
    values["tokmesh_wal_fsync_duration_seconds"] = _single(source.fsync_histogram)
    values["tokmesh_wal_group_size_records"] = _single(source.group_histogram)


def _read_table(values: Values, table: Mapping[str, object]) -> None:
    for name, key in (
        ("entries", "entries_used"),
        ("tombstones", "tombstones"),
        ("aliases", "aliases"),
        ("memory_bytes", "memory_bytes"),
        ("memory_reserved_bytes", "memory_reserved_bytes"),
        ("arena_free_bytes", "arena_free_bytes"),
        ("index_load_ratio", "index_load"),
        ("interned_strings", "interned_strings"),
    ):
        values[f"tokmesh_table_{name}"] = _number(table, key)
    values["tokmesh_table_index_rebuilding"] = int(_number(table, "index_rebuilding") > 0)


def _read_resources(values: Values, figures: ResourceFigures) -> None:
    values["tokmesh_cpu_usage_ratio"] = figures.cpu_usage_ratio
    values["tokmesh_cpu_available_cores"] = figures.cpu_available_cores
    values["tokmesh_mem_usage_bytes"] = figures.resident_bytes
    values["tokmesh_mem_limit_bytes"] = figures.memory_limit_bytes
    values["tokmesh_disk_free_bytes"] = figures.disk_free_bytes
    values["tokmesh_disk_total_bytes"] = figures.disk_total_bytes
    values["tokmesh_pressure_waiting_seconds_total"] = figures.pressure
    values["process_start_time_seconds"] = figures.process_start_seconds
    values["process_cpu_seconds_total"] = figures.cpu_seconds
    values["process_resident_memory_bytes"] = figures.resident_bytes
    values["process_virtual_memory_bytes"] = figures.virtual_bytes
    values["process_open_fds"] = figures.open_fds
    values["process_max_fds"] = figures.max_fds


def _read_server(values: Values, sources: Sources, scrapes: Scrapes) -> None:
    values["tokmesh_build_info"] = [((sources.version, python_version()), 1)]
    values["tokmesh_start_time_seconds"] = sources.started_at
    values["tokmesh_event_loop_lag_seconds"] = _single(sources.loop_lag.histogram)
    values["tokmesh_event_loop_stalls_total"] = sources.watchdog.stalls
    pauses = sources.gc_pauses
    values["tokmesh_gc_pause_seconds"] = Rows(pauses.histogram, [((name,), int(name)) for name in GC_GENERATIONS])
    values["tokmesh_gc_collected_objects_total"] = _by_generation(pauses.collected)
    values["tokmesh_gc_uncollectable_objects_total"] = _by_generation(pauses.uncollectable)
    values["tokmesh_log_lines_total"] = [((level,), count) for level, count in sources.log_lines.lines().items()]
    values["tokmesh_log_lines_dropped_total"] = sources.log_lines.dropped
    values["tokmesh_log_lines_suppressed_total"] = sources.log_lines.suppressed
    values["tokmesh_audit_entries_lost_total"] = sources.audit.lost
    rendered, shared = scrapes.outcomes.read_all()
    values["tokmesh_metrics_scrapes_total"] = [(("rendered",), rendered), (("shared",), shared)]
    values["tokmesh_metrics_render_duration_seconds"] = _single(scrapes.durations)


def _by_generation(block: CounterBlock) -> list[tuple[tuple[str, ...], int]]:
    return [((name,), count) for name, count in zip(GC_GENERATIONS, block.read_all(), strict=True)]


def _read_tracing(values: Values, sources: Sources) -> None:
    sampler, figures = sources.sampler, sources.tracing
    values["tokmesh_trace_requests_total"] = [
        (("sampled",), sampler.sampled), (("rate_limited",), sampler.rate_limited),
    ]  # fmt: skip
    values["tokmesh_trace_spans_exported_total"] = figures.exported
    values["tokmesh_trace_spans_dropped_total"] = [((reason,), count) for reason, count in figures.dropped.items()]
    values["tokmesh_trace_export_failures_total"] = [((reason,), count) for reason, count in figures.failures.items()]
    values["tokmesh_trace_queue_spans"] = figures.queued

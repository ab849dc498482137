"""The catalogue of metrics: every metric this server exposes, once.

Invariants: a name is here exactly once; a label either lists all its values or says what bounds them, and no value is
ever an identifier of a session, token, key or user (contract §5). `readings.py` fills the families in, `exposition.py`
renders them, and `docs/metrics.md` is this table as a page: `python -m tokmesh.telemetry.catalog > docs/metrics.md`.

Series that need a cluster are here too and tell the truth of one node: it is active, its number is odd, it has its own
quorum, it holds every session, it replicates to itself without lag, and there is nobody to gossip with (those
histograms stay empty).
"""

import sys
from dataclasses import dataclass
from typing import Final, Literal

from tokmesh.telemetry.tracing.figures import DROP_REASONS, FAILURE_REASONS

PREFIX: Final = "tokmesh_"  # of all but the process_* metrics, whose names every Prometheus client shares

MetricType = Literal["counter", "gauge", "histogram"]
Group = Literal[
    "Sessions and tokens", "API", "API keys", "Connections", "Log", "Table", "Cluster", "Resources", "Server", "Tracing"
]


@dataclass(frozen=True, slots=True)
class Label:
    """A label. `values` is its closed set; empty where only the running server knows it, and `bound` names it."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family.

    name: as exposed, with prefix and (for a counter) `_total`. unit: base unit that the values are in, "" for plain
    counts and 0/1. stable: a name of the contract, which never changes. divisor: what a histogram's recorded integers
    are divided by to give units (1e9 where it records nanoseconds).
    """

    name: str
    type: MetricType
    unit: str
    labels: tuple[Label, ...]
    help: str
    group: Group
    stable: bool = False
    divisor: float = 1

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


NS_PER_SECOND: Final = 1_000_000_000
# Bounds of what crosses the network, perhaps often: up to 30 s, with the objective's 2 s exact.
PROPAGATION_BOUNDS_NS: Final = (
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000,
    1_000_000_000, 2_000_000_000, 5_000_000_000, 10_000_000_000, 30_000_000_000,
)  # fmt: skip

METHOD: Final = Label("method", ("GET", "POST", "other"))
ROUTE: Final = Label("route", bound="the templates of the route table, and `unmatched`")
NODE_BOUND: Final = "the nodes of the cluster; on one node, itself"
AUTH_RESULTS: Final = (
    "ok", "missing", "malformed", "invalid", "disabled", "expired", "role", "address", "rate_limited", "overloaded",
)  # fmt: skip
REJECT_REASONS: Final = (
    "parse", "head_size", "header_count", "host", "target", "version", "transfer_encoding", "expect", "upgrade",
    "body_size", "head_timeout", "body_rate", "write_buffer", "buffered_bytes",
)  # fmt: skip
LOG_STATES: Final = ("open", "full", "failed", "closed")
LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")


def _counter(
    group: Group, name: str, text: str, *labels: Label, stable: bool = False, unit: str = "", prefix: str = PREFIX
) -> MetricSpec:
    return MetricSpec(prefix + name, "counter", unit, labels, text, group, stable)


def _gauge(
    group: Group, name: str, text: str, *labels: Label, stable: bool = False, unit: str = "", prefix: str = PREFIX
) -> MetricSpec:
    return MetricSpec(prefix + name, "gauge", unit, labels, text, group, stable)


def _seconds(group: Group, name: str, text: str, *labels: Label, stable: bool = False) -> MetricSpec:
    return MetricSpec(PREFIX + name, "histogram", "seconds", labels, text, group, stable, NS_PER_SECOND)


def _session_metrics() -> list[MetricSpec]:
    group: Group = "Sessions and tokens"
    return [
        _gauge(group, "sessions_active_total", "Sessions that are valid now, exact to one second.", stable=True),
        _counter(
            group, "token_validate_calls_total",
            "Tokens validated: valid; invalid (a definite no: unknown, expired, revoked or malformed); error (no "
            "answer given).",
            Label("result", ("valid", "invalid", "error")), stable=True,
        ),
        _counter(group, "session_create_total", "Sessions created.", stable=True),
        _counter(group, "session_renew_total", "Sessions renewed."),
        _counter(group, "session_update_total", "Sessions whose data was updated."),
        _counter(group, "session_revoke_total", "Sessions revoked, one by one or all of a user."),
        _counter(group, "session_evict_total", "Sessions ended to make room for a new one under quota policy evict_oldest."),
        _counter(group, "token_rotate_total", "Tokens replaced by rotation."),
        _gauge(
            group, "session_expiry_backlog",
            "Sessions past their end that the sweeper has yet to clear; they are already invalid.",
        ),
        _gauge(
            group, "session_revoke_pending",
            "Revocations committed but not yet known to be refused on every live node.",
            stable=True,
        ),
        _gauge(
            group, "session_revoke_oldest_pending_seconds",
            "Age of the oldest revocation counted by tokmesh_session_revoke_pending; 0 when there is none.",
            stable=True, unit="seconds",
        ),
        _seconds(
            group, "session_revoke_propagation_lag_seconds",
            "Time from a revocation's commit until every live node refuses the session. Empty on one node, which "
            "refuses at commit.",
            stable=True,
        ),
    ]  # fmt: skip


def _api_metrics() -> list[MetricSpec]:
    group: Group = "API"
    return [
        _counter(
            group, "api_requests_total",
            "Requests answered, by the template of their route.",
            METHOD, ROUTE, Label("status", bound="the HTTP status codes this server sends, and `other`"), stable=True,
        ),
        _seconds(
            group, "api_request_duration_seconds",
            "Time from a complete request to its answer, by class of status.",
            METHOD, ROUTE, Label("status", ("1xx", "2xx", "3xx", "4xx", "5xx")), stable=True,
        ),
    ]  # fmt: skip


def _key_metrics() -> list[MetricSpec]:
    group: Group = "API keys"
    return [
        _counter(
            group, "api_key_auth_total",
            "Checks of an API key: ok, or why the request was refused.",
            Label("result", AUTH_RESULTS), stable=True,
        ),
        _counter(group, "api_key_argon2_runs_total", "Argon2id verifications run; each costs milliseconds of CPU and 16 MiB."),
        _counter(group, "api_key_prefilter_rejects_total", "Wrong secrets turned away by the keyed hash, without running Argon2id."),
        _counter(group, "api_key_cache_hits_total", "Credentials found in the cache of verified credentials."),
        _counter(group, "api_key_cache_misses_total", "Credentials not found in the cache of verified credentials."),
        _gauge(group, "api_key_cache_entries", "Verified credentials in the cache."),
        _gauge(
            group, "api_key_argon2_pending",
            "Argon2id verifications running or waiting; bounded, beyond which requests get 503.",
        ),
    ]  # fmt: skip


def _connection_metrics() -> list[MetricSpec]:
    group: Group = "Connections"
    return [
        _counter(group, "connections_opened_total", "Client connections accepted."),
        _counter(group, "connections_closed_total", "Client connections closed, by either side."),
        _counter(
            group, "connections_refused_total",
            "Client connections refused because server.http.max_connections were open.",
        ),
        _gauge(group, "connections_open", "Client connections open now."),
        _counter(
            group, "http_rejects_total",
            "Requests refused before they reached a route, by the rule they broke.",
            Label("reason", REJECT_REASONS),
        ),
        _counter(
            group, "http_heads_total",
            "Request heads: parsed, or equal byte for byte to the one before and remembered.",
            Label("source", ("parsed", "remembered")),
        ),
        _gauge(
            group, "http_buffered_bytes",
            "Room taken by request bodies that are coming or being worked on; server.http.body_buffer_size bounds it.",
            unit="bytes",
        ),
        _counter(group, "http_received_bytes_total", "Bytes received from clients.", unit="bytes"),
        _counter(group, "http_sent_bytes_total", "Bytes sent to clients.", unit="bytes"),
    ]  # fmt: skip


def _log_metrics() -> list[MetricSpec]:
    group: Group = "Log"
    return [
        _counter(group, "wal_write_bytes_total", "Bytes written to the write-ahead log.", stable=True, unit="bytes"),
        _counter(group, "wal_fsync_total", "fdatasync calls on the write-ahead log."),
        _counter(
            group, "wal_fsync_failed_total",
            "Failed fdatasync calls. After one, this node takes no more writes until it is restarted.",
            stable=True,
        ),
        _counter(
            group, "wal_append_errors_total",
            "Writes to the log that failed or came up short, such as on a full disk.",
        ),
        _counter(group, "wal_records_total", "Records committed to the log since the start."),
        _counter(group, "wal_groups_total", "Commit groups written; one fdatasync makes a whole group durable."),
        _seconds(group, "wal_fsync_duration_seconds", "Duration of fdatasync on the log."),
        MetricSpec(PREFIX + "wal_group_size_records", "histogram", "records", (), "Records in a commit group.", group),
        _gauge(group, "wal_pending_records", "Records proposed and not yet durable.", unit="records"),
        _gauge(group, "wal_segments", "Segment files of the log."),
        _gauge(group, "wal_segment_bytes", "Bytes used in the segment being written.", unit="bytes"),
        _gauge(group, "wal_last_sequence", "Sequence of the newest record."),
        _gauge(group, "wal_durable_sequence", "Sequence of the newest durable record."),
        _gauge(
            group, "wal_state",
            "1 for the state the log is in: open; full (no disk space); failed (for good); closed.",
            Label("state", LOG_STATES),
        ),
        _gauge(group, "recovery_duration_seconds", "Time the last start took to replay the log.", unit="seconds"),
        _gauge(group, "recovery_records", "Records replayed by the last start.", unit="records"),
        _counter(group, "recovery_torn_tails_total", "Torn tails repaired at start; a .broken copy of each was kept."),
    ]  # fmt: skip


def _table_metrics() -> list[MetricSpec]:
    group: Group = "Table"
    return [
        _gauge(group, "table_entries", "Entries in use: sessions, tombstones and aliases of rotated tokens."),
        _gauge(
            group, "table_tombstones",
            "Ended sessions still remembered, so that an answer can say expired or revoked.",
        ),
        _gauge(group, "table_aliases", "Former tokens of rotated sessions."),
        _gauge(group, "table_memory_bytes", "Memory the table has touched.", unit="bytes"),
        _gauge(
            group, "table_memory_reserved_bytes",
            "Address space reserved for the table; costs nothing until touched.",
            unit="bytes",
        ),
        _gauge(
            group, "table_arena_free_bytes",
            "Memory of the table free for reuse by strings and data.",
            unit="bytes",
        ),
        _gauge(group, "table_index_load_ratio", "Load of the fullest index; it grows at 0.75.", unit="ratio"),
        _gauge(group, "table_index_rebuilding", "1 while an index is growing or being cleared of tombstones."),
        _gauge(group, "table_interned_strings", "Distinct user agents and key ids held once for all sessions."),
    ]  # fmt: skip


def _cluster_metrics() -> list[MetricSpec]:
    group: Group = "Cluster"
    return [
        _gauge(
            group, "cluster_nodes_total",
            "Nodes of the cluster as this node sees them. A node alone is 1 active, 0 down.",
            Label("status", ("active", "down")), stable=True,
        ),
        _gauge(group, "cluster_nodes_parity", "0 if the number of nodes is odd, 1 if it is even.", stable=True),
        _gauge(
            group, "cluster_quorum_lost",
            "1 if this node cannot reach a majority; a node alone always has it.",
            stable=True,
        ),
        _gauge(
            group, "shard_keys_count",
            "Active sessions in the shards this node is primary for.",
            Label("node_id", bound=NODE_BOUND), stable=True,
        ),
        _gauge(
            group, "replication_lag_seconds",
            "How far to_node is behind from_node. A node alone shows the pair with itself, at 0.",
            Label("from_node", bound=NODE_BOUND), Label("to_node", bound=NODE_BOUND), stable=True, unit="seconds",
        ),
        _seconds(
            group, "gossip_propagation_lag_seconds",
            "Time for a message to reach a peer, by one clock: half the round trip of an echo. Empty on one node.",
            stable=True,
        ),
    ]  # fmt: skip


def _resource_metrics() -> list[MetricSpec]:
    group: Group = "Resources"
    return [
        _gauge(
            group, "cpu_usage_ratio",
            "CPU used, over the cores this process may use (affinity and cgroup quota), 0 to 1.",
            stable=True, unit="ratio",
        ),
        _gauge(
            group, "cpu_available_cores",
            "Cores this process may use; a fraction under a cgroup quota.",
            unit="cores",
        ),
        _gauge(group, "mem_usage_bytes", "Resident memory of the process.", stable=True, unit="bytes"),
        _gauge(
            group, "mem_limit_bytes",
            "Memory the process may use: the cgroup's limit, else the machine's RAM.",
            stable=True, unit="bytes",
        ),
        _gauge(
            group, "disk_free_bytes",
            "Space that this process may still use in the data directory's file system.",
            stable=True, unit="bytes",
        ),
        _gauge(group, "disk_total_bytes", "Size of the data directory's file system.", stable=True, unit="bytes"),
        _gauge(group, "process_start_time_seconds", "Start of the process, as Unix time.", unit="seconds", prefix=""),
        _counter(group, "process_cpu_seconds_total", "User and system CPU time used.", unit="seconds", prefix=""),
        _gauge(group, "process_resident_memory_bytes", "Resident memory.", unit="bytes", prefix=""),
        _gauge(group, "process_virtual_memory_bytes", "Virtual memory.", unit="bytes", prefix=""),
        _gauge(group, "process_open_fds", "Open file descriptors.", prefix=""),
        _gauge(group, "process_max_fds", "Limit on open file descriptors.", prefix=""),
    ]  # fmt: skip


def _server_metrics() -> list[MetricSpec]:
    group: Group = "Server"
    return [
        _gauge(
            group, "build_info",
            "Always 1; the labels say which build this is.",
            Label("version", bound="one per build"), Label("python", bound="one per build"), stable=True,
        ),
        _gauge(group, "start_time_seconds", "When this server began to serve, as Unix time.", unit="seconds"),
        _seconds(
            group, "event_loop_lag_seconds",
            "How late the serving loop woke up for a timer, sampled ten times a second.",
        ),
        _counter(group, "log_lines_total", "Log lines, by level.", Label("level", LEVELS)),
        _counter(group, "log_lines_dropped_total", "Log lines lost because standard output was closed or too slow."),
        _counter(group, "log_lines_suppressed_total", "Log lines that repeated others and were told by their number."),
        _counter(group, "audit_entries_lost_total", "Audit entries that could not be written to the audit file."),
        _counter(
            group, "metrics_scrapes_total",
            "Scrapes answered: rendered, or shared with one under way.",
            Label("outcome", ("rendered", "shared")),
        ),
        _seconds(group, "metrics_render_duration_seconds", "Time to read and render all metrics once."),
    ]  # fmt: skip


def _tracing_metrics() -> list[MetricSpec]:
    group: Group = "Tracing"
    return [
        _counter(group, "trace_requests_total", "Requests chosen for tracing: sampled, or let go because of telemetry.tracing.max_traces_per_second.", Label("outcome", ("sampled", "rate_limited"))),
        _counter(group, "trace_spans_exported_total", "Spans that the receiver took."),
        _counter(group, "trace_spans_dropped_total", "Spans lost: the queue was full; the receiver took the request without them, or refused it; the server ended first; they could not be encoded (a bug).", Label("reason", DROP_REASONS)),
        _counter(group, "trace_export_failures_total", "Failed requests to the receiver of spans: no connection; no answer in time; busy (429, 502, 503, 504: sent again); another status; a good status with an answer that is not OTLP.", Label("reason", FAILURE_REASONS)),
        _gauge(group, "trace_queue_spans", "Spans waiting for the receiver.", unit="spans"),
    ]  # fmt: skip


METRICS: Final[tuple[MetricSpec, ...]] = (
    *_session_metrics(), *_api_metrics(), *_key_metrics(), *_connection_metrics(), *_log_metrics(),
    *_table_metrics(), *_cluster_metrics(), *_resource_metrics(), *_server_metrics(),
    *_tracing_metrics(),
)  # fmt: skip


def _label_text(label: Label) -> str:
    values = " ".join(f"`{value}`" for value in label.values) if label.values else label.bound
    return f"`{label.name}`: {values}"


def page() -> str:
    """The catalogue as a Markdown page, one table a group, ending in a newline."""
    lines = [
        "# Metrics",
        "",
        "Made from the catalogue by `python -m tokmesh.telemetry.catalog > docs/metrics.md`; a test compares the two.",
        "",
        "Every series with a fixed set of labels exists from the first scrape, counters at 0. No label carries an",
        "identifier of a session, token, key or user. Names marked * are part of the contract and do not change. A",
        "cluster's series are present on a node alone and tell its truth. `promtool check metrics` objects to three",
        "names (`tokmesh_sessions_active_total`, `tokmesh_cluster_nodes_total`, `tokmesh_shard_keys_count`): they are",
        "kept as they were asked for.",
    ]
    for group in dict.fromkeys(metric.group for metric in METRICS):
        lines += ["", f"## {group}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in METRICS:
            if metric.group != group:
                continue
            name = f"`{metric.name}`" + (" *" if metric.stable else "")
            labels = "; ".join(_label_text(label) for label in metric.labels)
            lines.append(f"| {name} | {metric.type} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())

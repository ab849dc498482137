"""The catalogue of metrics: every metric this server exposes, once.

Invariants: a name is here exactly once; a label either lists all its values or says what bounds them, and no value is ever an
identifier of a session, token, key or user (contract §5). `readings.py` fills the families in, `exposition.py` renders them, and
`docs/metrics.md` is this table as a page: `python -m tokmesh.telemetry.catalog > docs/metrics.md`.

Series that need a cluster are here too and tell the truth of one node: it is active, its number is odd, it has its own quorum,
it holds every session, it replicates to itself without lag, and there is nobody to gossip with (those histograms stay empty).
"""

import sys
from dataclasses import dataclass
from typing import Final, Literal

from tokmesh._core.histogram import LATENCY_BOUNDS_NS

PREFIX: Final = "tokmesh_"

MetricType = Literal["counter", "gauge", "histogram"]
Group = Literal["Sessions and tokens", "API", "API keys", "Connections", "Log", "Table", "Cluster", "Resources", "Server"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label. `values` is its closed set; where only the running server knows the set, it is empty and `bound` says what closes it."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family.

    name: as exposed, with prefix and (for a counter) `_total`. unit: base unit that the values are in, "" for plain counts and 0/1.
    bounds: for a histogram, the upper bounds of its buckets in `bound_unit`s. stable: a name of the contract, which never changes.
    """

    name: str
    type: MetricType
    unit: str
    labels: tuple[Label, ...]
    help: str
    group: Group
    stable: bool = False
    bounds: tuple[int, ...] = ()
    bound_unit: float = 1.0

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


NS: Final = 1e-9
# Waits of the loop and fsyncs: finer at the low end than a request's latency, same bounds above.
WAIT_BOUNDS_NS: Final = (25_000, 50_000, *LATENCY_BOUNDS_NS)
GROUP_BOUNDS_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# A propagation is a network round trip or many: to 30 s, with the objective's 2 s exact.
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
    "parse", "head_size", "header_count", "host", "target", "version", "transfer_encoding", "expect", "upgrade", "body_size",
    "head_timeout", "body_rate", "write_buffer",
)  # fmt: skip
LOG_STATES: Final = ("open", "full", "failed", "closed")
LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")


def _counter(group: Group, name: str, text: str, *labels: Label, stable: bool = False, unit: str = "") -> MetricSpec:
    return MetricSpec(name, "counter", unit, labels, text, group, stable)


def _gauge(group: Group, name: str, text: str, *labels: Label, stable: bool = False, unit: str = "") -> MetricSpec:
    return MetricSpec(name, "gauge", unit, labels, text, group, stable)


def _seconds(group: Group, name: str, text: str, *labels: Label, bounds: tuple[int, ...], stable: bool = False) -> MetricSpec:
    return MetricSpec(name, "histogram", "seconds", labels, text, group, stable, bounds, NS)


def _session_metrics() -> list[MetricSpec]:
    group: Group = "Sessions and tokens"
    return [
        _gauge(group, "tokmesh_sessions_active_total", "Sessions that are valid now, exact to one second.", stable=True),
        _counter(group, "tokmesh_token_validate_calls_total",
                 "Tokens validated: valid; invalid (a definite no: unknown, expired, revoked or malformed); error (no answer given).",
                 Label("result", ("valid", "invalid", "error")), stable=True),
        _counter(group, "tokmesh_session_create_total", "Sessions created.", stable=True),
        _counter(group, "tokmesh_session_renew_total", "Sessions renewed."),
        _counter(group, "tokmesh_session_update_total", "Sessions whose data was updated."),
        _counter(group, "tokmesh_session_revoke_total", "Sessions revoked, one by one or all of a user."),
        _counter(group, "tokmesh_session_evict_total", "Sessions ended to make room for a new one under quota policy evict_oldest."),
        _counter(group, "tokmesh_token_rotate_total", "Tokens replaced by rotation."),
        _gauge(group, "tokmesh_session_expiry_backlog", "Sessions past their end that the sweeper has yet to clear; they are already invalid."),
        _gauge(group, "tokmesh_session_revoke_pending", "Revocations committed but not yet known to be refused on every live node.", stable=True),
        _gauge(group, "tokmesh_session_revoke_oldest_pending_seconds",
               "Age of the oldest revocation counted by tokmesh_session_revoke_pending; 0 when there is none.", stable=True, unit="seconds"),
        _seconds(group, "tokmesh_session_revoke_propagation_lag_seconds",
                 "Time from a revocation's commit until every live node refuses the session. Empty on one node, which refuses at commit.",
                 bounds=PROPAGATION_BOUNDS_NS, stable=True),
    ]  # fmt: skip


def _api_metrics() -> list[MetricSpec]:
    group: Group = "API"
    return [
        _counter(group, "tokmesh_api_requests_total", "Requests answered, by the template of their route.",
                 METHOD, ROUTE, Label("status", bound="the HTTP status codes this server sends"), stable=True),
        _seconds(group, "tokmesh_api_request_duration_seconds", "Time from a complete request to its answer, by class of status.",
                 METHOD, ROUTE, Label("status", ("2xx", "3xx", "4xx", "5xx")), bounds=LATENCY_BOUNDS_NS, stable=True),
    ]  # fmt: skip


def _key_metrics() -> list[MetricSpec]:
    group: Group = "API keys"
    return [
        _counter(group, "tokmesh_api_key_auth_total", "Checks of an API key: ok, or why the request was refused.",
                 Label("result", AUTH_RESULTS), stable=True),
        _counter(group, "tokmesh_api_key_argon2_runs_total", "Argon2id verifications run; each costs milliseconds of CPU and 16 MiB."),
        _counter(group, "tokmesh_api_key_prefilter_rejects_total", "Wrong secrets turned away by the keyed hash, without running Argon2id."),
        _counter(group, "tokmesh_api_key_cache_hits_total", "Credentials found in the cache of verified credentials."),
        _counter(group, "tokmesh_api_key_cache_misses_total", "Credentials not found in the cache of verified credentials."),
        _gauge(group, "tokmesh_api_key_cache_entries", "Verified credentials in the cache."),
        _gauge(group, "tokmesh_api_key_argon2_pending", "Argon2id verifications running or waiting; bounded, beyond which requests get 503."),
    ]  # fmt: skip


def _connection_metrics() -> list[MetricSpec]:
    group: Group = "Connections"
    return [
        _counter(group, "tokmesh_connections_opened_total", "Client connections accepted."),
        _counter(group, "tokmesh_connections_closed_total", "Client connections closed, by either side."),
        _counter(group, "tokmesh_connections_refused_total", "Client connections refused because server.http.max_connections were open."),
        _gauge(group, "tokmesh_connections_open", "Client connections open now."),
        _counter(group, "tokmesh_http_rejects_total", "Requests refused before they reached a route, by the rule they broke.",
                 Label("reason", REJECT_REASONS)),
        _counter(group, "tokmesh_http_heads_total", "Request heads: parsed, or equal byte for byte to the one before and remembered.",
                 Label("source", ("parsed", "remembered"))),
        _counter(group, "tokmesh_http_received_bytes_total", "Bytes received from clients.", unit="bytes"),
        _counter(group, "tokmesh_http_sent_bytes_total", "Bytes sent to clients.", unit="bytes"),
    ]  # fmt: skip


def _log_metrics() -> list[MetricSpec]:
    group: Group = "Log"
    return [
        _counter(group, "tokmesh_wal_write_bytes_total", "Bytes written to the write-ahead log.", stable=True, unit="bytes"),
        _counter(group, "tokmesh_wal_fsync_total", "fdatasync calls on the write-ahead log."),
        _counter(group, "tokmesh_wal_fsync_failed_total",
                 "Failed fdatasync calls. After one, this node takes no more writes until it is restarted.", stable=True),
        _counter(group, "tokmesh_wal_append_errors_total", "Writes to the log that failed or came up short, such as on a full disk."),
        _counter(group, "tokmesh_wal_records_total", "Records committed to the log since the start."),
        _counter(group, "tokmesh_wal_groups_total", "Commit groups written; one fdatasync makes a whole group durable."),
        _seconds(group, "tokmesh_wal_fsync_duration_seconds", "Duration of fdatasync on the log.", bounds=WAIT_BOUNDS_NS),
        MetricSpec("tokmesh_wal_group_size_records", "histogram", "records", (), "Records in a commit group.", group,
                   bounds=GROUP_BOUNDS_RECORDS),
        _gauge(group, "tokmesh_wal_pending_records", "Records proposed and not yet durable.", unit="records"),
        _gauge(group, "tokmesh_wal_segments", "Segment files of the log."),
        _gauge(group, "tokmesh_wal_segment_bytes", "Bytes used in the segment being written.", unit="bytes"),
        _gauge(group, "tokmesh_wal_last_sequence", "Sequence of the newest record."),
        _gauge(group, "tokmesh_wal_durable_sequence", "Sequence of the newest durable record."),
        _gauge(group, "tokmesh_wal_state", "1 for the state the log is in: open; full (no disk space); failed (for good); closed.",
               Label("state", LOG_STATES)),
        _gauge(group, "tokmesh_recovery_duration_seconds", "Time the last start took to replay the log.", unit="seconds"),
        _gauge(group, "tokmesh_recovery_records", "Records replayed by the last start.", unit="records"),
        _counter(group, "tokmesh_recovery_torn_tails_total", "Torn tails repaired at start; a .broken copy of each was kept."),
    ]  # fmt: skip


def _table_metrics() -> list[MetricSpec]:
    group: Group = "Table"
    return [
        _gauge(group, "tokmesh_table_entries", "Entries in use: sessions, tombstones and aliases of rotated tokens."),
        _gauge(group, "tokmesh_table_tombstones", "Ended sessions still remembered, so that an answer can say expired or revoked."),
        _gauge(group, "tokmesh_table_aliases", "Former tokens of rotated sessions."),
        _gauge(group, "tokmesh_table_memory_bytes", "Memory the table has touched.", unit="bytes"),
        _gauge(group, "tokmesh_table_memory_reserved_bytes", "Address space reserved for the table; costs nothing until touched.", unit="bytes"),
        _gauge(group, "tokmesh_table_arena_free_bytes", "Memory of the table free for reuse by strings and data.", unit="bytes"),
        _gauge(group, "tokmesh_table_index_load_ratio", "Load of the fullest index; it grows at 0.75.", unit="ratio"),
        _gauge(group, "tokmesh_table_index_rebuilding", "1 while an index is growing or being cleared of tombstones."),
        _gauge(group, "tokmesh_table_interned_strings", "Distinct user agents and key ids held once for all sessions."),
    ]  # fmt: skip


def _cluster_metrics() -> list[MetricSpec]:
    group: Group = "Cluster"
    return [
        _gauge(group, "tokmesh_cluster_nodes_total", "Nodes of the cluster as this node sees them. A node alone is 1 active, 0 down.",
               Label("status", ("active", "down")), stable=True),
        _gauge(group, "tokmesh_cluster_nodes_parity", "0 if the number of nodes is odd, 1 if it is even.", stable=True),
        _gauge(group, "tokmesh_cluster_quorum_lost", "1 if this node cannot reach a majority; a node alone always has it.", stable=True),
        _gauge(group, "tokmesh_shard_keys_count", "Active sessions in the shards this node is primary for.",
               Label("node_id", bound=NODE_BOUND), stable=True),
        _gauge(group, "tokmesh_replication_lag_seconds", "How far to_node is behind from_node. A node alone shows the pair with itself, at 0.",
               Label("from_node", bound=NODE_BOUND), Label("to_node", bound=NODE_BOUND), stable=True, unit="seconds"),
        _seconds(group, "tokmesh_gossip_propagation_lag_seconds",
                 "Time for a message to reach a peer, by one clock: half the round trip of an echo. Empty on one node.",
                 bounds=PROPAGATION_BOUNDS_NS, stable=True),
    ]  # fmt: skip


def _resource_metrics() -> list[MetricSpec]:
    group: Group = "Resources"
    return [
        _gauge(group, "tokmesh_cpu_usage_ratio", "CPU used, over the cores this process may use (affinity and cgroup quota), 0 to 1.",
               stable=True, unit="ratio"),
        _gauge(group, "tokmesh_cpu_available_cores", "Cores this process may use; a fraction under a cgroup quota.", unit="cores"),
        _gauge(group, "tokmesh_mem_usage_bytes", "Resident memory of the process.", stable=True, unit="bytes"),
        _gauge(group, "tokmesh_mem_limit_bytes", "Memory the process may use: the cgroup's limit, else the machine's RAM.",
               stable=True, unit="bytes"),
        _gauge(group, "tokmesh_disk_free_bytes", "Space that this process may still use in the data directory's file system.",
               stable=True, unit="bytes"),
        _gauge(group, "tokmesh_disk_total_bytes", "Size of the data directory's file system.", stable=True, unit="bytes"),
        _gauge(group, "process_start_time_seconds", "Start of the process, as Unix time.", unit="seconds"),
        _counter(group, "process_cpu_seconds_total", "User and system CPU time used.", unit="seconds"),
        _gauge(group, "process_resident_memory_bytes", "Resident memory.", unit="bytes"),
        _gauge(group, "process_virtual_memory_bytes", "Virtual memory.", unit="bytes"),
        _gauge(group, "process_open_fds", "Open file descriptors."),
        _gauge(group, "process_max_fds", "Limit on open file descriptors."),
    ]  # fmt: skip


def _server_metrics() -> list[MetricSpec]:
    group: Group = "Server"
    return [
        _gauge(group, "tokmesh_build_info", "Always 1; the labels say which build this is.",
               Label("version", bound="one per build"), Label("python", bound="one per build"), stable=True),
        _gauge(group, "tokmesh_start_time_seconds", "When this server began to serve, as Unix time.", unit="seconds"),
        _seconds(group, "tokmesh_event_loop_lag_seconds", "How late the serving loop woke up for a timer, sampled ten times a second.",
                 bounds=WAIT_BOUNDS_NS),
        _counter(group, "tokmesh_log_lines_total", "Log lines, by level.", Label("level", LEVELS)),
        _counter(group, "tokmesh_log_lines_dropped_total", "Log lines lost because standard output was closed or too slow."),
        _counter(group, "tokmesh_metrics_scrapes_total", "Scrapes answered: rendered, or shared with one under way.",
                 Label("outcome", ("rendered", "shared"))),
        _seconds(group, "tokmesh_metrics_render_duration_seconds", "Time to read and render all metrics once.", bounds=LATENCY_BOUNDS_NS),
    ]  # fmt: skip


METRICS: Final[tuple[MetricSpec, ...]] = (
    *_session_metrics(), *_api_metrics(), *_key_metrics(), *_connection_metrics(), *_log_metrics(),
    *_table_metrics(), *_cluster_metrics(), *_resource_metrics(), *_server_metrics(),
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
        "Every series with a fixed set of labels exists from the first scrape, counters at 0. No label carries an identifier of a",
        "session, token, key or user. Names marked * are part of the contract and do not change. A cluster's series are present on",
        "a node alone and tell its truth. `promtool check metrics` objects to three names (`tokmesh_sessions_active_total`,",
        "`tokmesh_cluster_nodes_total`, `tokmesh_shard_keys_count`): they are kept as they were asked for.",
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

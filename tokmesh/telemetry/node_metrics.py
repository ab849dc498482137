"""Rows of the catalogue about the node itself: log, table, resources, the process that serves.

`catalog.py` puts them together with the others and says what holds for all of them.
"""

from typing import Final

from tokmesh._core.histogram import LATENCY_BOUNDS_NS
from tokmesh._core.tail import GROUP_BOUNDS
from tokmesh.telemetry.logs.levels import LEVELS
from tokmesh.telemetry.metric import Group, Label, MetricSpec, Usage, counter, gauge, seconds

LOG_STATES: Final = ("open", "full", "failed", "closed")
PRESSURE_RESOURCES: Final = ("cpu", "memory", "io")
PRESSURE_EXTENTS: Final = ("some", "full")
GC_GENERATIONS: Final = ("0", "1", "2")


def log_metrics() -> list[MetricSpec]:
    group: Group = "Log"
    return [
        counter(
            group, "wal_write_bytes_total", "Bytes written to the write-ahead log.",
            stability="stable", unit="bytes",
            usage=Usage(
                "rate(tokmesh_wal_write_bytes_total[5m])",
                "What the disk must take. Divided by tokmesh_disk_free_bytes it tells how long there is room.",
            ),
        ),
        counter(group, "wal_fsync_total", "fdatasync calls on the write-ahead log."),
        counter(
            group, "wal_fsync_failed_total",
            "Failed fdatasync calls. After one, this node takes no more writes until it is restarted.",
            stability="stable",
            usage=Usage(
                "increase(tokmesh_wal_fsync_failed_total[5m]) > 0",
                "Any is a failing disk: the node is not ready and answers writes with 503. Replace the disk first, "
                "then restart.",
            ),
        ),
        counter(
            group, "wal_append_errors_total",
            "Writes to the log that failed or came up short, such as on a full disk.",
        ),
        counter(group, "wal_records_total", "Records committed to the log since the start."),
        counter(group, "wal_groups_total", "Commit groups written; one fdatasync makes a whole group durable."),
        seconds(
            group, "wal_fsync_duration_seconds", "Duration of fdatasync on the log.",
            bounds_ns=LATENCY_BOUNDS_NS,
            usage=Usage(
                "histogram_quantile(0.99, sum by (le) (rate(tokmesh_wal_fsync_duration_seconds_bucket[5m])))",
                "The floor of every write's latency. Above 10 ms the disk is slow or shared.",
            ),
        ),
        MetricSpec(
            "tokmesh_wal_group_size_records", "histogram", "records", (), "Records in a commit group.", group,
            bounds=GROUP_BOUNDS,
        ),
        gauge(group, "wal_pending_records", "Records proposed and not yet durable.", unit="records"),
        gauge(group, "wal_segments", "Segment files of the log."),
        gauge(group, "wal_segment_bytes", "Bytes used in the segment being written.", unit="bytes"),
        gauge(group, "storage_encryption_enabled", "1 while what is written to the log is encrypted."),
        gauge(group, "wal_last_sequence", "Sequence of the newest record."),
        gauge(group, "wal_durable_sequence", "Sequence of the newest durable record."),
        gauge(
            group, "wal_state",
            "1 for the state the log is in: open; full (no disk space); failed (for good); closed.",
            Label("state", LOG_STATES),
        ),
        gauge(group, "recovery_duration_seconds", "Time the last start took to replay the log.", unit="seconds"),
        gauge(group, "recovery_records", "Records replayed by the last start.", unit="records"),
        counter(group, "recovery_torn_tails_total", "Torn tails repaired at start; a .broken copy of each was kept."),
    ]  # fmt: skip


def table_metrics() -> list[MetricSpec]:
    group: Group = "Table"
    return [
        gauge(group, "table_entries", "Entries in use: sessions, tombstones and aliases of rotated tokens."),
        gauge(
            group, "table_tombstones",
            "Ended sessions still remembered, so that an answer can say expired or revoked.",
        ),
        gauge(group, "table_aliases", "Former tokens of rotated sessions."),
        gauge(group, "table_memory_bytes", "Memory the table has touched.", unit="bytes"),
        gauge(
            group, "table_memory_reserved_bytes",
            "Address space reserved for the table; costs nothing until touched.",
            unit="bytes",
        ),
        gauge(
            group, "table_arena_free_bytes",
            "Memory of the table free for reuse by strings and data.",
            unit="bytes",
        ),
        gauge(group, "table_index_load_ratio", "Load of the fullest index; it grows at 0.75.", unit="ratio"),
        gauge(group, "table_index_rebuilding", "1 while an index is growing or being cleared of tombstones."),
        gauge(group, "table_interned_strings", "Distinct user agents and key ids held once for all sessions."),
    ]  # fmt: skip


def resource_metrics() -> list[MetricSpec]:
    group: Group = "Resources"
    return [
        gauge(
            group, "cpu_usage_ratio",
            "CPU used, over the cores this process may use (affinity and cgroup quota), 0 to 1.",
            stability="stable", unit="ratio",
            usage=Usage(
                "tokmesh_cpu_usage_ratio > 0.85",
                "Sustained, latency follows. One event loop uses one core: with more cores allowed, "
                "rate(process_cpu_seconds_total[5m]) near 1 is the limit.",
            ),
        ),
        gauge(
            group, "cpu_available_cores",
            "Cores this process may use; a fraction under a cgroup quota.",
            unit="cores",
        ),
        gauge(
            group, "mem_usage_bytes", "Resident memory of the process.",
            stability="stable", unit="bytes",
            usage=Usage(
                "tokmesh_mem_usage_bytes / tokmesh_mem_limit_bytes > 0.85",
                "Near 1 the kernel ends the process. tokmesh_table_memory_bytes tells how much of it is sessions.",
            ),
        ),
        gauge(
            group, "mem_limit_bytes",
            "Memory the process may use: the tightest limit of its cgroups, else the machine's RAM.",
            stability="stable", unit="bytes",
            usage=Usage(
                "min(tokmesh_mem_limit_bytes)", "What operators believe they have granted, as the kernel sees it."
            ),
        ),
        gauge(
            group, "disk_free_bytes",
            "Space that this process may still use in the data directory's file system.",
            stability="stable", unit="bytes",
            usage=Usage(
                "tokmesh_disk_free_bytes / tokmesh_disk_total_bytes < 0.1",
                "At 0 writes are answered 503, revocations last of all. Make room or enlarge the file system.",
            ),
        ),
        gauge(
            group, "disk_total_bytes", "Size of the data directory's file system.",
            stability="stable", unit="bytes",
            usage=Usage("tokmesh_disk_total_bytes", "The denominator of the share that is free."),
        ),
        counter(
            group, "pressure_waiting_seconds_total",
            "Time in which some, or all (full), tasks of this process's cgroup, else of the machine, waited for the "
            "resource.",
            Label("resource", PRESSURE_RESOURCES), Label("extent", PRESSURE_EXTENTS), unit="seconds",
            usage=Usage(
                'rate(tokmesh_pressure_waiting_seconds_total{extent="some"}[5m]) > 0.2',
                "The share of time lost to waiting. cpu: neighbours or a quota; io: the disk; memory: pages are "
                "reclaimed, the limit is near.",
            ),
            absent_when="the kernel gives no pressure stall information for the resource and extent",
        ),
    ]  # fmt: skip


def process_metrics() -> list[MetricSpec]:
    group: Group = "Resources"
    return [
        gauge(group, "process_start_time_seconds", "Start of the process, as Unix time.", unit="seconds", prefix=""),
        counter(group, "process_cpu_seconds_total", "User and system CPU time used.", unit="seconds", prefix=""),
        gauge(group, "process_resident_memory_bytes", "Resident memory.", unit="bytes", prefix=""),
        gauge(group, "process_virtual_memory_bytes", "Virtual memory.", unit="bytes", prefix=""),
        gauge(
            group, "process_open_fds", "Open file descriptors.",
            prefix="",
            usage=Usage(
                "process_open_fds / process_max_fds > 0.8",
                "Each connection is one; at the limit none is accepted and the log cannot start a new file.",
            ),
        ),
        gauge(group, "process_max_fds", "Limit on open file descriptors.", prefix=""),
    ]  # fmt: skip


def server_metrics() -> list[MetricSpec]:
    group: Group = "Server"
    return [
        gauge(
            group, "build_info",
            "Always 1; the labels say which build this is.",
            Label("version", bound="one per build"), Label("python", bound="one per build"), stability="stable",
            usage=Usage("count by (version) (tokmesh_build_info)", "More than one version outside of an upgrade."),
        ),
        gauge(group, "start_time_seconds", "When this server began to serve, as Unix time.", unit="seconds"),
        seconds(
            group, "event_loop_lag_seconds",
            "How late the serving loop woke up for a timer, sampled ten times a second.",
            bounds_ns=LATENCY_BOUNDS_NS,
            usage=Usage(
                "histogram_quantile(0.99, sum by (instance, le) (rate(tokmesh_event_loop_lag_seconds_bucket[5m])))",
                "Every request waits this long. Above 50 ms: too little CPU, or something holds the loop.",
            ),
        ),
        counter(
            group, "event_loop_stalls_total",
            "Times the serving loop was held longer than telemetry.watchdog.threshold.",
            usage=Usage(
                "increase(tokmesh_event_loop_stalls_total[10m]) > 0",
                "Nobody was answered for that long. The log has the stack that held the loop, and for how long.",
            ),
        ),
        seconds(
            group, "gc_pause_seconds",
            "How long a collection of Python's garbage stopped the process.",
            Label("generation", GC_GENERATIONS), bounds_ns=LATENCY_BOUNDS_NS,
            usage=Usage(
                'histogram_quantile(0.99, sum by (le) (rate(tokmesh_gc_pause_seconds_bucket{generation="2"}[1h])))',
                "A full collection looks at every object made since the start; sessions are not among them.",
            ),
        ),
        counter(
            group, "gc_collected_objects_total", "Objects that the garbage collector freed.",
            Label("generation", GC_GENERATIONS),
        ),
        counter(
            group, "gc_uncollectable_objects_total", "Objects that the garbage collector found but could not free.",
            Label("generation", GC_GENERATIONS),
        ),
        counter(group, "log_lines_total", "Log lines, by level.", Label("level", LEVELS)),
        counter(group, "log_lines_dropped_total", "Log lines lost because standard output was closed or too slow."),
        counter(group, "log_lines_suppressed_total", "Log lines that repeated others and were told by their number."),
        counter(group, "audit_entries_lost_total", "Audit entries that could not be written to the audit file."),
        counter(
            group, "metrics_scrapes_total",
            "Scrapes answered: rendered, or shared with one under way.",
            Label("outcome", ("rendered", "shared")),
        ),
        seconds(
            group, "metrics_render_duration_seconds", "Time to read and render all metrics once.",
            bounds_ns=LATENCY_BOUNDS_NS,
        ),
    ]  # fmt: skip

"""The Grafana dashboard as a table of panels: `python deploy/grafana/dashboard.py > deploy/grafana/tokmesh.json`.

A dashboard's JSON is long and repeats itself; this is what a person reviews, and a test compares the two. Every panel has
a title, words that say what it shows and what is normal, a unit, and expressions over metrics of the catalogue, limited to
the nodes chosen at the top. `{at}` in an expression stands for that limit, `{rate}` for Grafana's rate interval.
"""

import json
import sys
from typing import Any, Final, NamedTuple

SCHEMA_VERSION: Final = 41  # Grafana 12; older ones from 10 on read it too
WIDTH: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
AT: Final = 'instance=~"$instance"'
RATE: Final = "$__rate_interval"
GREEN: Final = "green"
YELLOW: Final = "#EAB839"
RED: Final = "red"

Steps = tuple[tuple[float | None, str], ...]


class Panel(NamedTuple):
    """One panel. queries: (expression, legend) pairs. steps: thresholds, (from, colour), the first from None.

    words: mappings of a value to (text, colour). width: of WIDTH; height in Grafana's units.
    """

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: Steps = ((None, GREEN),)
    words: tuple[tuple[str, str, str], ...] = ()
    maximum: float | None = None
    stacked: bool = False


class Row(NamedTuple):
    title: str
    panels: tuple[Panel, ...]


def _stat(title: str, description: str, unit: str, expression: str, **options: Any) -> Panel:
    return Panel(title, description, unit, ((expression, options.pop("legend", "")),), "stat", 4, 4, **options)


def _quantiles(metric: str, *labels: str, legend: str = "") -> tuple[tuple[str, str], ...]:
    """P50, P99, P99.9."""
    at = ", ".join(["{at}", *labels])
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{at}}}[{{rate}}])))", legend or name)
        for q, name in ((0.5, "P50"), (0.99, "P99"), (0.999, "P99.9"))
    )


def _p99(metric: str, by: str, legend: str) -> tuple[str, str]:
    return f"histogram_quantile(0.99, sum by (le, {by}) (rate({metric}_bucket{{{{at}}}}[{{rate}}])))", legend


def _ratio(part: str, whole: str) -> str:
    """0 rather than nothing where nothing happened."""
    return f"{part} / clamp_min({whole}, 0.000001)"


DURATION: Final = "tokmesh_api_request_duration_seconds"
FREE_STEPS: Final[Steps] = ((None, RED), (0.1, YELLOW), (0.2, GREEN))
BUSY_STEPS: Final[Steps] = ((None, GREEN), (0.7, YELLOW), (0.85, RED))
ERROR_STEPS: Final[Steps] = ((None, GREEN), (0.001, YELLOW), (0.05, RED))
NONE_STEPS: Final[Steps] = ((None, GREEN), (1, RED))

OVERVIEW: Final = Row("Overview", (
    _stat("Active sessions", "Sessions that are valid now, as the node with the most sees it.", "short",
          "max(tokmesh_sessions_active_total{{at}})"),
    _stat("Requests", "Requests answered a second, all routes and nodes.", "reqps",
          "sum(rate(tokmesh_api_requests_total{{at}}[{rate}]))"),
    _stat("Error ratio", "Share of requests answered 5xx. Normal: 0. An alert fires beyond 5 %.", "percentunit",
          _ratio('sum(rate(tokmesh_api_requests_total{{at}, status=~"5.."}[{rate}]))',
                 "sum(rate(tokmesh_api_requests_total{{at}}[{rate}]))"), steps=ERROR_STEPS),
    _stat("Validate P99", "One validation in a hundred takes longer. Normal: below 1 ms. An alert fires beyond 100 ms.", "s",
          f'histogram_quantile(0.99, sum by (le) (rate({DURATION}_bucket{{{{at}}, route="/tokens/validate"}}[{{rate}}])))',
          steps=((None, GREEN), (0.01, YELLOW), (0.1, RED))),
    _stat("Log", "1 where every node's write-ahead log takes writes; else some node's is full, failed or closed.", "none",
          'min(tokmesh_wal_state{{at}, state="open"})', steps=((None, RED), (1, GREEN)),
          words=(("0", "not writing", RED), ("1", "open", GREEN))),
    _stat("Youngest start", "Time since the last start of any node. A small value that nobody planned is a crash.", "s",
          "time() - max(tokmesh_start_time_seconds{{at}})"),
    Panel("Requests by route", "Requests answered a second, by the template of their route.", "reqps",
          (("sum by (method, route) (rate(tokmesh_api_requests_total{{at}}[{rate}]))", "{{method}} {{route}}"),), stacked=True),
    Panel("Answers by status", "Requests answered a second, by exact HTTP status. 503: overload, or a log without writes.",
          "reqps", (("sum by (status) (rate(tokmesh_api_requests_total{{at}}[{rate}]))", "{{status}}"),), stacked=True),
    Panel("Validations", "Verdicts a second. Invalid is a definite no; error means that no answer was given. Normal: no errors.",
          "ops", (("sum by (result) (rate(tokmesh_token_validate_calls_total{{at}}[{rate}]))", "{{result}}"),), stacked=True),
    Panel("Changes of sessions", "What happens to sessions, a second.", "ops", tuple(
        (f"sum(rate(tokmesh_{name}_total{{{{at}}}}[{{rate}}]))", legend) for name, legend in (
            ("session_create", "create"), ("session_renew", "renew"), ("session_update", "update"), ("session_revoke", "revoke"),
            ("session_evict", "evict"), ("token_rotate", "rotate")))),
    Panel("CPU", "Share of the cores each node may use (affinity and cgroup quota). An alert fires beyond 85 % for 5 minutes.",
          "percentunit", (("tokmesh_cpu_usage_ratio{{at}}", "{{instance}}"),), steps=BUSY_STEPS, maximum=1),
    Panel("Memory", "Share of the memory each node may use (cgroup, else RAM). An alert fires beyond 85 % for 5 minutes.",
          "percentunit", (("tokmesh_mem_usage_bytes{{at}} / tokmesh_mem_limit_bytes{{at}}", "{{instance}}"),), steps=BUSY_STEPS,
          maximum=1),
))  # fmt: skip

LATENCY: Final = Row("Latency", (
    Panel("Validate", "Quantiles of POST /tokens/validate over all nodes. An alert fires beyond a P99 of 100 ms.",
          "s", _quantiles(DURATION, 'route="/tokens/validate"'), steps=((None, GREEN), (0.1, RED))),
    Panel("All routes", "Quantiles of all requests over all nodes.", "s", _quantiles(DURATION)),
    Panel("P99 by route", "Which route is slow. Routes that write wait for a sync of the log.", "s",
          (_p99(DURATION, "route", "{{route}}"),)),
    Panel("Distribution", "How many requests took how long: a second band above the first is a second population.", "s",
          ((f"sum by (le) (increase({DURATION}_bucket{{{{at}}}}[{{rate}}]))", "{{le}}"),), "heatmap"),
    Panel("Event loop lag, P99", "How late the serving loop woke up, which requests wait for. Normal: below 5 ms.", "s",
          (_p99("tokmesh_event_loop_lag_seconds", "instance", "{{instance}}"),), steps=((None, GREEN), (0.1, RED))),
    Panel("Within 100 ms", "Share of validations answered within 100 ms, the objective.", "percentunit",
          ((f'sum(rate({DURATION}_bucket{{{{at}}, route="/tokens/validate", le="0.1"}}[{{rate}}]))'
            f' / sum(rate({DURATION}_count{{{{at}}, route="/tokens/validate"}}[{{rate}}]))', "within"),), maximum=1),
))  # fmt: skip

STORAGE: Final = Row("Storage", (
    Panel("Disk free", "Share of the data directory's file system that is free. An alert fires below 10 %.", "percentunit",
          (("tokmesh_disk_free_bytes{{at}} / tokmesh_disk_total_bytes{{at}}", "{{instance}}"),), steps=FREE_STEPS, maximum=1),
    Panel("Log writes", "Bytes written to the write-ahead log a second, by node.", "Bps",
          (("rate(tokmesh_wal_write_bytes_total{{at}}[{rate}])", "{{instance}}"),)),
    Panel("Failed syncs and writes", "fdatasync calls that failed (after one the node takes no more writes) and writes "
          "that did not fit or failed. Normal: 0.", "short",
          (("tokmesh_wal_fsync_failed_total{{at}}", "{{instance}} syncs"),
           ("tokmesh_wal_append_errors_total{{at}}", "{{instance}} writes")), steps=NONE_STEPS),
    Panel("Sync duration", "Quantiles of fdatasync on the log: every write waits for one. It is the disk's.", "s",
          _quantiles("tokmesh_wal_fsync_duration_seconds")),
    Panel("Records a sync", "How many records share an fdatasync, on average: grows with concurrent writers.", "short",
          ((_ratio("sum by (instance) (rate(tokmesh_wal_records_total{{at}}[{rate}]))",
                   "sum by (instance) (rate(tokmesh_wal_groups_total{{at}}[{rate}]))"), "{{instance}}"),)),
    Panel("Records waiting", "Records proposed and not yet durable. Growing without end: the disk cannot keep up.", "short",
          (("tokmesh_wal_pending_records{{at}}", "{{instance}}"),)),
    Panel("Log state", "The state each node's log is in: open; full (no disk space); failed (for good); closed.", "none",
          (('tokmesh_wal_state{{at}, state!="open"}', "{{instance}} {{state}}"),), steps=NONE_STEPS, maximum=1),
    Panel("Table memory", "Memory the session table has touched, by node.", "bytes",
          (("tokmesh_table_memory_bytes{{at}}", "{{instance}}"),)),
    Panel("Table entries", "Entries in use: sessions, ended sessions still remembered, former tokens of rotated sessions.", "short",
          (("sum(tokmesh_table_entries{{at}})", "all"), ("sum(tokmesh_table_tombstones{{at}})", "ended"),
           ("sum(tokmesh_table_aliases{{at}})", "former tokens"),
           ("sum(tokmesh_session_expiry_backlog{{at}})", "waiting to expire"))),
))  # fmt: skip

SNAPSHOTS: Final = Row("Snapshots", (
    Panel("Due", "Share of the interval, or of the log's threshold, that has gone by since the newest snapshot. Normal: up to 1. "
          "An alert fires beyond 3.", "percentunit", (("tokmesh_snapshot_due_ratio{{at}}", "{{instance}}"),),
          steps=((None, GREEN), (1.5, YELLOW), (3, RED))),
    Panel("Log behind the newest", "Bytes of the log written since the newest snapshot: what a start would replay.", "bytes",
          (("tokmesh_snapshot_log_bytes{{at}}", "{{instance}}"),)),
    Panel("Attempts that failed", "Attempts that failed since the last snapshot that was taken, and snapshots that the last start "
          "could not use. Normal: 0.", "short",
          (("tokmesh_snapshot_failed_attempts{{at}}", "{{instance}} failed"),
           ("tokmesh_snapshot_unusable_files{{at}}", "{{instance}} unusable")), steps=NONE_STEPS),
    Panel("Size", "Size of the newest snapshot, compressed.", "bytes", (("tokmesh_snapshot_last_bytes{{at}}", "{{instance}}"),)),
    Panel("Time to take one", "How long taking the last snapshot took. Requests go on meanwhile.", "s",
          (("tokmesh_snapshot_last_duration_seconds{{at}}", "{{instance}}"),)),
    Panel("Kept", "Snapshots kept, by node: at most storage.snapshot.retention_count, none but the newest older than "
          "retention_days.", "short", (("tokmesh_snapshot_files{{at}}", "{{instance}}"),)),
))  # fmt: skip

CLUSTER: Final = Row("Cluster", (
    _stat("Nodes active", "Nodes that are heard, as the node that hears most sees it.", "short",
          'max(tokmesh_cluster_nodes_total{{at}, status="active"})'),
    _stat("Nodes down", "Nodes that are not heard, as those see it that are not cut off. Normal: 0.", "short",
          'max(tokmesh_cluster_nodes_total{{at}, status="down"} unless on (job, instance) tokmesh_cluster_fenced{{at}} == 1) or '
          'max(tokmesh_cluster_nodes_total{{at}, status="down"})', steps=NONE_STEPS),
    _stat("Number of nodes", "An even number of nodes survives no more failures than one node less.", "none",
          "max(tokmesh_cluster_nodes_parity{{at}})", steps=((None, GREEN), (1, YELLOW)),
          words=(("0", "odd", GREEN), ("1", "even", YELLOW))),
    _stat("Quorum", "Whether any node cannot reach a majority. Without one it refuses writes.", "none",
          "max(tokmesh_cluster_quorum_lost{{at}})", steps=NONE_STEPS, words=(("0", "yes", GREEN), ("1", "lost", RED))),
    _stat("Revocations pending", "Revocations committed and not yet known to be refused on every live node.", "short",
          "sum(tokmesh_session_revoke_pending{{at}})"),
    _stat("Oldest pending", "Age of the oldest pending revocation. Growing: a node does not confirm.", "s",
          "max(tokmesh_session_revoke_oldest_pending_seconds{{at}})", steps=((None, GREEN), (2, YELLOW), (30, RED))),
    Panel("Shards", "Shards, of 64, that a node holds, and that nobody holds whom it hears. Normal for the latter: 0.", "short",
          (("max by (instance) (tokmesh_cluster_shards_held{{at}})", "held, {{instance}}"),
           ("max by (instance) (tokmesh_cluster_shards_unheld{{at}})", "by nobody, {{instance}}"))),
    Panel("Sessions by node", "Active sessions by primary node. An alert fires when nodes differ by more than 30 %.", "short",
          (("max by (node_id) (tokmesh_shard_keys_count{{at}} unless on (job, instance) tokmesh_cluster_fenced{{at}} == 1)",
            "{{node_id}}"),)),
    Panel("Replication lag", "How far each node is behind each other. Normal: below 1 s.", "s",
          (("max by (from_node, to_node) (tokmesh_replication_lag_seconds{{at}})", "{{from_node}} to {{to_node}}"),)),
    Panel("Propagation, P99", "Time for a message to reach a peer, and from a revocation's commit until every live node refuses. "
          "Empty on a node alone. An alert fires beyond 2 s for revocations.", "s",
          (_quantiles("tokmesh_gossip_propagation_lag_seconds", legend="gossip")[1],
           _quantiles("tokmesh_session_revoke_propagation_lag_seconds", legend="revocation")[1])),
    Panel("Proved current", "Time since each node was proved to know of what others have acknowledged. Beyond 2 s "
          "(cluster.max_staleness) it answers no reads. Normal: below 0.5 s.", "s",
          (("max by (instance) (tokmesh_cluster_staleness_seconds{{at}})", "{{instance}}"),),
          steps=((None, GREEN), (1, YELLOW), (2, RED))),
    Panel("Stream position", "How far each node has applied the stream. Lines that part: one does not follow.", "none",
          (("max by (instance) (tokmesh_cluster_stream_position{{at}})", "{{instance}}"),)),
    Panel("Publications", "Records published to the stream a second, by outcome, or again. unknown: it had no leader.", "ops",
          (("sum by (outcome) (rate(tokmesh_cluster_publications_total{{at}}[{rate}]))", "{{outcome}}"),
           ("sum(rate(tokmesh_cluster_publications_resent_total{{at}}[{rate}]))", "sent again"))),
    Panel("NATS", "Nodes by the state of their connection to NATS; none: a node alone. Normal: all connected.", "short",
          (("sum by (state) (tokmesh_cluster_nats_state{{at}})", "{{state}}"),)),
    Panel("Trouble with the stream", "What a node could not read, tables that differ, ways around a leader. Normal: flat.", "short",
          (("max by (instance) (tokmesh_cluster_quarantined_records{{at}})", "unread, {{instance}}"),
           ("max by (instance, node_id) (tokmesh_cluster_table_differences{{at}})", "differ, {{instance}}, {{node_id}}"),
           ("sum(increase(tokmesh_cluster_consumers_made_total{{at}}[{rate}]))", "consumers made"),
           ("sum(increase(tokmesh_cluster_fetches_total{{at}}[{rate}]))", "fetches"),
           ("sum(increase(tokmesh_cluster_writes_unproved_total{{at}}[{rate}]))", "not proved"))),
))  # fmt: skip

SECURITY: Final = Row("Security", (
    Panel("API key checks", "Checks of API keys a second, by result. Anything but ok was refused.", "ops",
          (("sum by (result) (rate(tokmesh_api_key_auth_total{{at}}[{rate}]))", "{{result}}"),), stacked=True),
    Panel("Failed key checks", "Share of keys presented that are malformed, wrong, disabled or expired. Alert: 5 %.", "percentunit",
          ((_ratio('sum(rate(tokmesh_api_key_auth_total{{at}, result=~"malformed|invalid|disabled|expired"}[{rate}]))',
                   'sum(rate(tokmesh_api_key_auth_total{{at}, result!~"missing|overloaded"}[{rate}]))'), "failed"),),
          steps=ERROR_STEPS),
    Panel("Verifications of secrets", "Argon2id runs a second, each costing milliseconds of CPU, and wrong secrets turned away "
          "before one. Many of the latter: somebody guesses.", "ops",
          (("sum(rate(tokmesh_api_key_argon2_runs_total{{at}}[{rate}]))", "Argon2id"),
           ("sum(rate(tokmesh_api_key_prefilter_rejects_total{{at}}[{rate}]))", "turned away"))),
    Panel("Refused requests", "Answers 401, 403 and 429 a second.", "reqps",
          (('sum by (status) (rate(tokmesh_api_requests_total{{at}, status=~"401|403|429"}[{rate}]))', "{{status}}"),)),
    Panel("Rejected before a route", "Requests refused by the rule of HTTP they broke, a second. Normal: 0.",
          "reqps", (("sum by (reason) (rate(tokmesh_http_rejects_total{{at}}[{rate}]))", "{{reason}}"),)),
    Panel("Connections", "Open client connections, and those refused a second because the most allowed were open.", "short",
          (("sum(tokmesh_connections_open{{at}})", "open"),
           ("sum(rate(tokmesh_connections_refused_total{{at}}[{rate}]))", "refused a second"))),
    Panel("Credential cache", "Share of verified credentials found in the cache. A low share costs CPU.", "percentunit",
          ((_ratio("sum(rate(tokmesh_api_key_cache_hits_total{{at}}[{rate}]))",
                   "(sum(rate(tokmesh_api_key_cache_hits_total{{at}}[{rate}]))"
                   " + sum(rate(tokmesh_api_key_cache_misses_total{{at}}[{rate}])))"), "found"),), maximum=1),
    Panel("Log lines", "Lines logged a second, by level, and lines lost. A burst of WARN or ERROR is worth reading.", "ops",
          (("sum by (level) (rate(tokmesh_log_lines_total{{at}}[{rate}]))", "{{level}}"),
           ("sum(rate(tokmesh_log_lines_dropped_total{{at}}[{rate}]))", "lost"))),
    Panel("Versions", "Which build each node runs. More than one: an update under way, or forgotten.", "none",
          (("max by (instance, version, python) (tokmesh_build_info{{at}})", "{{instance}}: {{version}}, Python {{python}}"),)),
))  # fmt: skip

ROWS: Final = (OVERVIEW, LATENCY, STORAGE, SNAPSHOTS, CLUSTER, SECURITY)


def expression(template: str) -> str:
    """A query as Grafana gets it."""
    return template.replace("{at}", AT).replace("{rate}", RATE)


def _targets(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expression(template),
            "legendFormat": legend or "__auto",
            "refId": chr(ord("A") + place),
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for place, (template, legend) in enumerate(panel.queries)
    ]


def _field_config(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in panel.steps]},
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": color, "index": place}}}
            for place, (value, text, color) in enumerate(panel.words)
        ],
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
    return {"defaults": defaults, "overrides": []}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
            "yAxis": {"unit": panel.unit},
            "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
        }
    return {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _panels() -> list[dict[str, Any]]:
    """Rows and panels, laid out from left to right and top to bottom."""
    made: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        left = line_height = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, line_height = top + line_height, 0, 0
            made.append(
                {
                    "id": len(made) + 1,
                    "type": panel.kind,
                    "title": panel.title,
                    "description": panel.description,
                    "datasource": DATASOURCE,
                    "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
                    "fieldConfig": _field_config(panel),
                    "options": _options(panel),
                    "targets": _targets(panel),
                }
            )
            left += panel.width
            line_height = max(line_height, panel.height)
        top += line_height
    return made


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        {
            "name": "instance",
            "label": "Node",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(tokmesh_build_info, instance)", "refId": "instances"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "tokmesh",
        "title": "TokMesh",
        "description": "Sessions and tokens: load, latency, log, cluster, keys.",
        "tags": ["tokmesh"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {
            "list": [
                {
                    "name": "Starts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "expr": expression("changes(tokmesh_start_time_seconds{{at}}[{rate}]) > 0"),
                    "iconColor": "purple",
                    "titleFormat": "{{instance}} started",
                }
            ]
        },
        "links": [],
        "panels": _panels(),
    }


def page() -> str:
    """The file, ending in a newline."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())

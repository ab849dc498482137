"""The catalogue: complete, consistent in itself, and the same as its page."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tokmesh._core.counters import NAMES
from tokmesh._core.histogram import LATENCY_BOUNDS_NS
from tokmesh.telemetry import catalog
from tokmesh.telemetry.catalog import METRICS, MetricSpec, series_labels
from tokmesh.telemetry.metric import NS_PER_SECOND

REPOSITORY = Path(__file__).resolve().parents[2]

# What clients and alerts rely on, whatever else there is: name, type, labels with their closed values ("" for open ones).
RELIED_ON = {
    "tokmesh_sessions_active_total": ("gauge", {}),
    "tokmesh_token_validate_calls_total": ("counter", {"result": "valid|invalid|error"}),
    "tokmesh_session_create_total": ("counter", {}),
    "tokmesh_api_request_duration_seconds": (
        "histogram",
        {"method": "GET|POST|other", "route": "", "status": "1xx|2xx|3xx|4xx|5xx"},
    ),
    "tokmesh_cluster_nodes_total": ("gauge", {"status": "active|down"}),
    "tokmesh_cluster_nodes_parity": ("gauge", {}),
    "tokmesh_gossip_propagation_lag_seconds": ("histogram", {}),
    "tokmesh_shard_keys_count": ("gauge", {"node_id": ""}),
    "tokmesh_replication_lag_seconds": ("gauge", {"from_node": "", "to_node": ""}),
    "tokmesh_session_revoke_propagation_lag_seconds": ("histogram", {}),
    "tokmesh_cpu_usage_ratio": ("gauge", {}),
    "tokmesh_mem_usage_bytes": ("gauge", {}),
    "tokmesh_wal_write_bytes_total": ("counter", {}),
    "tokmesh_wal_fsync_failed_total": ("counter", {}),
    "tokmesh_cluster_quorum_lost": ("gauge", {}),
    "tokmesh_api_key_auth_total": (
        "counter",
        {"result": "ok|missing|malformed|invalid|disabled|expired|role|address|rate_limited|overloaded"},
    ),
    "tokmesh_disk_free_bytes": ("gauge", {}),
    "tokmesh_disk_total_bytes": ("gauge", {}),
    "tokmesh_mem_limit_bytes": ("gauge", {}),
    "tokmesh_api_requests_total": (
        "counter",
        {
            "method": "GET|POST|other",
            "route": "",
            "status": "200|400|401|403|404|405|408|409|413|417|422|429|431|500|501|503|504|505|other",
        },
    ),
    "tokmesh_session_revoke_pending": ("gauge", {}),
    "tokmesh_session_revoke_oldest_pending_seconds": ("gauge", {}),
    "tokmesh_build_info": ("gauge", {"version": "", "python": ""}),
}

FORBIDDEN_LABELS = {
    "session_id",
    "token",
    "token_hash",
    "user_id",
    "api_key",
    "key_id",
    "path",
    "ip",
    "ip_address",
    "request_id",
}


def test_has_every_metric_that_is_relied_on_and_marks_it_stable() -> None:
    stable = {
        metric.name: (metric.type, {label.name: "|".join(label.values) for label in metric.labels})
        for metric in METRICS
        if metric.stable
    }
    assert stable == RELIED_ON


def test_stable_metrics_say_how_to_use_them() -> None:
    assert [metric.name for metric in METRICS if metric.stable and metric.usage is None] == []


def test_series_are_found_by_the_names_that_queries_use() -> None:
    assert series_labels("tokmesh_token_validate_calls_total") == {"result": ("valid", "invalid", "error")}
    assert series_labels("tokmesh_wal_fsync_duration_seconds_sum") == {}
    assert series_labels("tokmesh_wal_fsync_duration_seconds_bucket")["le"][:2] == ("0.0001", "0.00025")
    bounds = series_labels("tokmesh_api_request_duration_seconds_bucket")["le"]
    assert {"0.1", "5.0", "+Inf"} <= set(bounds)
    assert "le" not in series_labels("tokmesh_api_request_duration_seconds_count")
    assert series_labels("tokmesh_api_request_duration_seconds")["route"] == ()
    for unknown in ("tokmesh_wal_fsync_total_bucket", "tokmesh_sessions_active", "_count", "", "up"):
        with pytest.raises(KeyError):
            series_labels(unknown)


def test_queries_are_valid_and_name_only_what_exists(tmp_path: Path) -> None:
    queries = {metric.name: metric.usage.query for metric in METRICS if metric.usage}
    rules = [{"record": f"check:{name}", "expr": query} for name, query in queries.items()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "usage", "rules": rules}]}))
    result = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0 and f"{len(rules)} rules found" in result.stdout, result.stdout + result.stderr
    for name, query in queries.items():
        used = re.findall(r"\b(?:tokmesh|process)_\w+", query)
        assert any(series.startswith(name) for series in used), name
        for series in used:
            labels = series_labels(series)
            for label, value in re.findall(series + r'\{(\w+)="([^"]*)"', query):
                assert not labels[label] or value in labels[label], query


def test_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_is_well_formed(metric: MetricSpec) -> None:
    assert metric.stability in ("stable", "evolving")
    assert bool(metric.bounds) == (metric.type == "histogram")
    assert re.fullmatch(r"(tokmesh|process)_[a-z][a-z0-9_]*[a-z]", metric.name)
    assert (metric.type == "counter") == (metric.name.endswith("_total")) or metric.name in (
        "tokmesh_sessions_active_total",
        "tokmesh_cluster_nodes_total",
    )
    assert metric.help.endswith(".") and "\n" not in metric.help and "|" not in metric.help
    if metric.unit:
        assert metric.name.removesuffix("_total").endswith("_" + metric.unit)
    assert metric.divisor == (NS_PER_SECOND if metric.type == "histogram" and metric.unit == "seconds" else 1)
    for label in metric.labels:
        assert label.name not in FORBIDDEN_LABELS
        assert bool(label.values) != bool(label.bound), "either a closed set or what bounds it"
        assert len(label.values) == len(set(label.values))


def test_buckets_hold_the_thresholds_of_the_alerts() -> None:
    assert {100_000_000, 5_000_000_000} <= set(LATENCY_BOUNDS_NS)
    assert (LATENCY_BOUNDS_NS[0], LATENCY_BOUNDS_NS[-1]) == (100_000, 10_000_000_000)
    assert 2_000_000_000 in catalog.PROPAGATION_BOUNDS_NS


def test_label_values_follow_the_counters_of_the_core() -> None:
    assert tuple(name.removeprefix("auth_") for name in NAMES if name.startswith("auth_")) == catalog.AUTH_RESULTS
    assert tuple(name.removeprefix("reject_") for name in NAMES if name.startswith("reject_")) == catalog.REJECT_REASONS


def test_page_is_up_to_date() -> None:
    committed = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert committed == catalog.page(), "run: python -m tokmesh.telemetry.catalog > docs/metrics.md"


def test_page_has_every_metric_with_its_labels_and_uses() -> None:
    page = catalog.page()
    for metric in METRICS:
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` ")]
        assert metric.help in row and all(f"`{value}`" in row for label in metric.labels for value in label.values)
        assert metric.usage is None or f"\n    {metric.usage.query}\n" in page

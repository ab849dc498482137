"""The catalogue: complete against the contract, consistent in itself, and the same as its page."""

import re
from pathlib import Path

import pytest

from tokmesh._core.counters import NAMES
from tokmesh._core.histogram import LATENCY_BOUNDS_NS
from tokmesh.telemetry import catalog
from tokmesh.telemetry.catalog import METRICS, MetricSpec

REPOSITORY = Path(__file__).resolve().parents[2]

# Contract §5, the seed's table and what its alerts need: name, type, labels.
CONTRACT = {
    ("tokmesh_sessions_active_total", "gauge", ()),
    ("tokmesh_token_validate_calls_total", "counter", ("result",)),
    ("tokmesh_session_create_total", "counter", ()),
    ("tokmesh_api_request_duration_seconds", "histogram", ("method", "route", "status")),
    ("tokmesh_cluster_nodes_total", "gauge", ("status",)),
    ("tokmesh_cluster_nodes_parity", "gauge", ()),
    ("tokmesh_gossip_propagation_lag_seconds", "histogram", ()),
    ("tokmesh_shard_keys_count", "gauge", ("node_id",)),
    ("tokmesh_replication_lag_seconds", "gauge", ("from_node", "to_node")),
    ("tokmesh_session_revoke_propagation_lag_seconds", "histogram", ()),
    ("tokmesh_cpu_usage_ratio", "gauge", ()),
    ("tokmesh_mem_usage_bytes", "gauge", ()),
    ("tokmesh_wal_write_bytes_total", "counter", ()),
    ("tokmesh_wal_fsync_failed_total", "counter", ()),
    ("tokmesh_cluster_quorum_lost", "gauge", ()),
    ("tokmesh_api_key_auth_total", "counter", ("result",)),
    ("tokmesh_disk_free_bytes", "gauge", ()),
    ("tokmesh_disk_total_bytes", "gauge", ()),
    ("tokmesh_mem_limit_bytes", "gauge", ()),
    ("tokmesh_api_requests_total", "counter", ("method", "route", "status")),
    ("tokmesh_session_revoke_pending", "gauge", ()),
    ("tokmesh_session_revoke_oldest_pending_seconds", "gauge", ()),
    ("tokmesh_build_info", "gauge", ("version", "python")),
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


def test_has_every_metric_of_the_contract_and_marks_it_stable() -> None:
    stable = {(metric.name, metric.type, metric.label_names) for metric in METRICS if metric.stable}
    assert stable == CONTRACT


def test_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_is_well_formed(metric: MetricSpec) -> None:
    assert re.fullmatch(r"(tokmesh|process)_[a-z][a-z0-9_]*[a-z]", metric.name)
    assert (metric.type == "counter") == (metric.name.endswith("_total")) or metric.name in (
        "tokmesh_sessions_active_total",
        "tokmesh_cluster_nodes_total",
    )
    assert metric.help.endswith(".") and "\n" not in metric.help and "|" not in metric.help
    if metric.unit:
        assert metric.name.removesuffix("_total").endswith("_" + metric.unit)
    assert metric.divisor == (catalog.NS_PER_SECOND if metric.type == "histogram" and metric.unit == "seconds" else 1)
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

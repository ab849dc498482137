"""The acceptance criteria of the observability requirement (RQ-0403 §6), item by item against a real server, and every name, label
and threshold it states.

The rest of the requirement is tested where it is at home: tracing (§2) in test_tracing*.py, labels (§3.2.0) for the whole catalogue
in tests/unit/test_catalog.py, log lines (§4) in tests/unit/test_logs.py, how each alert fires, stays silent and resolves (§5) in
deploy/prometheus/tests, and that it reaches whom it should in test_alerts.py. On one node nobody else can be stopped: what the
cluster's series say then is checked here, what happens when a node goes down by the unit tests of TokMeshNodeDown.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.observability.test_alerts import failing_call
from tests.observability.test_conditions_and_alerts import ALERTS
from tests.observability.test_rules import ALL
from tests.observability.test_server import scrape, value
from tests.support.server import TokMeshProcess
from tokmesh.telemetry.catalog import METRICS

# §3.2.1 … §3.2.3, and the counter that §5.1 names without the prefix. None: the values are the nodes', not a closed set.
SEED_METRICS: Final[dict[str, tuple[str, dict[str, set[str] | None]]]] = {
    "tokmesh_sessions_active_total": ("gauge", {}),
    "tokmesh_token_validate_calls_total": ("counter", {"result": {"valid", "invalid", "error"}}),
    "tokmesh_session_create_total": ("counter", {}),
    "tokmesh_api_request_duration_seconds": ("histogram", {"method": None, "route": None, "status": None}),
    "tokmesh_cluster_nodes_total": ("gauge", {"status": {"active", "down"}}),
    "tokmesh_cluster_nodes_parity": ("gauge", {}),
    "tokmesh_gossip_propagation_lag_seconds": ("histogram", {}),
    "tokmesh_shard_keys_count": ("gauge", {"node_id": None}),
    "tokmesh_replication_lag_seconds": ("gauge", {"from_node": None, "to_node": None}),
    "tokmesh_session_revoke_propagation_lag_seconds": ("histogram", {}),
    "tokmesh_cpu_usage_ratio": ("gauge", {}),
    "tokmesh_mem_usage_bytes": ("gauge", {}),
    "tokmesh_wal_write_bytes_total": ("counter", {}),
    "tokmesh_wal_fsync_failed_total": ("counter", {}),
}
# §5: alert → (severity, what its expression compares, how long it must last).
SEED_ALERTS: Final = {
    "TokMeshWalFsyncFailed": ("critical", "increase(tokmesh_wal_fsync_failed_total[10m]) > 0", None),
    "TokMeshQuorumLost": ("critical", "tokmesh_cluster_quorum_lost == 1", "30s"),
    "TokMeshApiKeyFailures": ("critical", "[5m])) > 0.05", None),
    "TokMeshDiskSpaceLow": ("critical", "tokmesh_disk_free_bytes / tokmesh_disk_total_bytes < 0.10", "1m"),
    "TokMeshTokenValidateSlow": ("warning", "instance:tokmesh_validate_duration_seconds:p99_rate5m > 0.1", "5m"),
    "TokMeshMemoryHigh": ("warning", "tokmesh_mem_usage_bytes / tokmesh_mem_limit_bytes > 0.85", "5m"),
    "TokMeshCpuHigh": ("warning", "tokmesh_cpu_usage_ratio > 0.85", "5m"),
    "TokMeshShardSkew": ("warning", "avg by (job) (node:tokmesh_shard_keys:max) > 0.30", "10m"),
}
LEVELS: Final = {"DEBUG", "INFO", "WARN", "ERROR"}


def families(server: TokMeshProcess) -> dict[str, Metric]:
    """By the name that the page declares: prometheus-client takes `_total` off a counter's."""
    return {family.name + "_total" * (family.type == "counter"): family for family in parse_text(scrape(server)[2])}


def error_ratio(server: TokMeshProcess) -> float:
    """The share of 5xx among all answers on guarded routes so far, from what the alert on it reads."""
    counts = {True: 0.0, False: 0.0}
    for sample in families(server)["tokmesh_api_requests_total"].samples:
        if sample.labels["route"] not in ("/health", "/ready", "/metrics", "unmatched"):
            counts[sample.labels["status"].startswith("5")] += sample.value
    return counts[True] / max(1.0, sum(counts.values()))


# §6.1, exposition.


@pytest.mark.parametrize("name", SEED_METRICS)
def test_metrics_has_every_metric_with_its_type_and_labels(shared_server: TokMeshProcess, name: str) -> None:
    kind, labels = SEED_METRICS[name]
    family = families(shared_server)[name]
    assert family.type == kind and family.samples
    for label, values in labels.items():
        assert values is None or values == {sample.labels[label] for sample in family.samples}
    assert {key for sample in family.samples for key in sample.labels} - {"le"} == set(labels)
    suffix = "_bucket" if kind == "histogram" else ""
    assert any(sample.name == name + suffix for sample in family.samples), "by the name the requirement gives"


def test_every_name_has_the_prefix_but_those_of_any_process() -> None:
    assert [metric.name for metric in METRICS if not metric.name.startswith(("tokmesh_", "process_"))] == []


def test_routes_are_templates_and_never_paths(shared_server: TokMeshProcess) -> None:
    session_id = shared_server.create_session()["session_id"]
    assert shared_server.request("GET", f"/sessions/{session_id}")[0] == 200
    page = scrape(shared_server)[2]
    assert session_id not in page
    labels = {"method": "GET", "route": "/sessions/{session_id}", "status": "200"}
    assert value(shared_server, "tokmesh_api_requests_total", **labels) >= 1


def test_by_default_metrics_without_a_key_are_refused(shared_server: TokMeshProcess) -> None:
    assert scrape(shared_server, key=None)[0] == 401
    assert scrape(shared_server, key=shared_server.admin_key[:-1] + "!")[0] == 401


@pytest.mark.parametrize("role", ["metrics", "admin"])
def test_a_metrics_or_admin_key_may_read_metrics_in_either_header(shared_server: TokMeshProcess, role: str) -> None:
    key = shared_server.create_key(role)
    assert scrape(shared_server, key=key)[0] == 200
    assert shared_server.exchange("GET", "/metrics", key=None, headers={"X-API-Key": key})[0] == 200


@pytest.mark.parametrize("role", ["validator", "issuer"])
def test_a_key_of_another_role_may_not_read_metrics(shared_server: TokMeshProcess, role: str) -> None:
    assert scrape(shared_server, key=shared_server.create_key(role))[0] == 403


def test_auth_enabled_false_opens_metrics_and_nothing_else(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--telemetry.metrics.auth_enabled=false") as server:
        assert scrape(server, key=None)[0] == 200
        assert server.request("GET", "/admin/v1/keys", key=None)[0] == 401


# §6.2, health.


@pytest.fixture(name="failed", scope="module")
def _failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokMeshProcess]:
    """A server at level debug whose log has failed after it was ready."""
    with TokMeshProcess(tmp_path_factory.mktemp("failed"), "--telemetry.logging.level=debug") as server:
        assert (server.request("GET", "/health", key=None)[0], server.request("GET", "/ready", key=None)[0]) == (200, 200)
        with failing_call(server, "fdatasync"):
            assert server.request("POST", "/sessions", json={"user_id": "u"})[0] == 503
        yield server


def test_health_is_200_while_the_process_lives_whatever_the_storage_does(failed: TokMeshProcess) -> None:
    assert failed.request("GET", "/health", key=None)[0] == 200


def test_ready_is_200_only_while_storage_and_cluster_can_serve(failed: TokMeshProcess) -> None:
    status, answer = failed.request("GET", "/ready", key=None)
    assert (status, answer["details"]["failed"]) == (503, ["storage"])
    assert value(failed, "tokmesh_wal_fsync_failed_total") >= 1


# §6.3, alerts.


def test_a_node_alone_counts_itself_as_active_and_nobody_as_down(shared_server: TokMeshProcess) -> None:
    assert value(shared_server, "tokmesh_cluster_nodes_total", status="active") == 1
    assert value(shared_server, "tokmesh_cluster_nodes_total", status="down") == 0
    assert value(shared_server, "tokmesh_cluster_nodes_parity") == 0, "an odd number"
    assert "tokmesh_cluster_nodes_total" in ALERTS["TokMeshNodeDown"]["expr"]


def test_an_injected_error_raises_the_ratio_of_5xx(server: TokMeshProcess) -> None:
    for number in range(10):
        server.create_session(f"user-{number}")
    assert error_ratio(server) == 0
    failures = 0
    with failing_call(server, "getrandom"):  # a create cannot make its identifiers; at first there is a block of random bytes left
        for number in range(1000):
            failures += server.request("POST", "/sessions", json={"user_id": f"other-{number}"})[0] == 500
            if failures == 10:
                break
    assert failures == 10 and error_ratio(server) > 0.005
    assert value(server, "tokmesh_api_requests_total", method="POST", route="/sessions", status="500") == 10


@pytest.mark.parametrize("name", SEED_ALERTS)
def test_an_alert_has_the_threshold_that_is_required(name: str) -> None:
    severity, comparison, lasting = SEED_ALERTS[name]
    alert = ALERTS[name]
    assert alert["labels"]["severity"] == severity and alert.get("for") == lasting
    assert comparison in re.sub(r"\s+", " ", alert["expr"])


def test_the_failed_syncs_are_also_there_under_the_name_without_prefix() -> None:
    assert [rule.body["expr"] for rule in ALL if rule.body.get("record") == "wal_fsync_failed_total"] == [
        "tokmesh_wal_fsync_failed_total"
    ]


# §4, logs.


def test_the_log_is_json_lines_of_the_four_levels(failed: TokMeshProcess) -> None:
    lines = failed.log_lines()
    assert len(lines) == len(failed.stdout.splitlines())
    assert {"INFO", "ERROR"} <= {line["level"] for line in lines} <= LEVELS
    samples = families(failed)["tokmesh_log_lines_total"].samples
    assert {sample.labels["level"] for sample in samples} == LEVELS

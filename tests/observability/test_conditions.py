"""The judgement of a node: both sides of each threshold, and silence about what is not known."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tokmesh.telemetry.conditions import RULES, Condition, Readings, judge

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"

# What a node says of its configuration and its host, which no metric tells.
WITHOUT_ALERT = ("TokMeshMetricsExposed", "TokMeshPlainHttpExposed", "TokMeshSyncOff", "TokMeshClockUnsynchronised")


class Case(NamedTuple):
    """well: readings just good enough; wrong: the nearest that are not."""

    code: str
    well: dict[str, Any]
    wrong: dict[str, Any]


CASES = (
    Case("TokMeshWalFsyncFailed", {"log_state": "open", "sync_failures": 0}, {"log_state": "open", "sync_failures": 1}),
    Case("TokMeshWalFsyncFailed", {"log_state": "full"}, {"log_state": "failed"}),
    Case("TokMeshLogFull", {"log_state": "open"}, {"log_state": "full"}),
    Case("TokMeshSnapshotUnusable", {"snapshots_unusable": 0}, {"snapshots_unusable": 1}),
    Case("TokMeshSnapshotFailing", {"snapshot_failed_attempts": 0}, {"snapshot_failed_attempts": 1}),
    Case("TokMeshSnapshotOverdue", {"snapshot_due_ratio": 3}, {"snapshot_due_ratio": 3.01}),
    Case("TokMeshQuorumLost", {"quorum_lost": False}, {"quorum_lost": True}),
    Case("TokMeshClusterStale", {"cluster_fenced": False}, {"cluster_fenced": True}),
    Case("TokMeshDivergence", {"cluster_diverged": False}, {"cluster_diverged": True}),
    Case("TokMeshTablesDiffer", {"differing_parts": 0}, {"differing_parts": 1}),
    Case("TokMeshTablesDiffer", {"stands_apart": False}, {"stands_apart": True}),
    Case("TokMeshShardsUnheld", {"unheld_shards": 0}, {"unheld_shards": 1}),
    Case("TokMeshStreamRecordsQuarantined", {"quarantined_records": 0}, {"quarantined_records": 1}),
    Case("TokMeshNatsOld", {"nats_old": False}, {"nats_old": True}),
    Case("TokMeshNatsSyncOff", {"nats_sync_off": False}, {"nats_sync_off": True}),
    Case(
        "TokMeshApiKeyFailures",
        {"key_checks_recently": 400, "key_failures_recently": 20},
        {"key_checks_recently": 400, "key_failures_recently": 21},
    ),
    Case(  # too few to say anything
        "TokMeshApiKeyFailures",
        {"key_checks_recently": 9, "key_failures_recently": 9},
        {"key_checks_recently": 10, "key_failures_recently": 10},
    ),
    Case(
        "TokMeshDiskSpaceLow",
        {"disk_free_bytes": 100, "disk_total_bytes": 1000},
        {"disk_free_bytes": 99, "disk_total_bytes": 1000},
    ),
    Case("TokMeshRevokeStuck", {"revoke_pending_seconds": 30}, {"revoke_pending_seconds": 30.1}),
    Case(
        "TokMeshTokenValidateSlow",
        {"validate_p99_seconds_recently": 0.1, "validate_answers_recently": 100},
        {"validate_p99_seconds_recently": 0.1001, "validate_answers_recently": 100},
    ),
    Case(
        "TokMeshTokenValidateSlow",
        {"validate_p99_seconds_recently": 9, "validate_answers_recently": 99},
        {"validate_p99_seconds_recently": 9, "validate_answers_recently": 100},
    ),
    Case("TokMeshWalSlow", {"sync_p99_seconds_recently": 0.5}, {"sync_p99_seconds_recently": 0.501}),
    Case("TokMeshEventLoopLag", {"loop_lag_p99_seconds_recently": 0.1}, {"loop_lag_p99_seconds_recently": 0.101}),
    Case("TokMeshTableNearLimit", {"table_bytes": 85, "table_bytes_max": 100}, {"table_bytes": 86, "table_bytes_max": 100}),
    Case("TokMeshExpiryBacklog", {"expiry_backlog": 100_000}, {"expiry_backlog": 100_001}),
    Case("TokMeshConnectionsRefused", {"connections_refused_recently": 0}, {"connections_refused_recently": 1}),
    Case("TokMeshApiKeyChecksOverloaded", {"key_checks_overloaded_recently": 0}, {"key_checks_overloaded_recently": 1}),
    Case("TokMeshReplicationLag", {"replication_lag_seconds": 2}, {"replication_lag_seconds": 2.1}),
    Case(
        "TokMeshMemoryHigh",
        {"memory_used_bytes": 850, "memory_limit_bytes": 1000},
        {"memory_used_bytes": 851, "memory_limit_bytes": 1000},
    ),
    Case("TokMeshCpuHigh", {"cpu_ratio_recently": 0.85}, {"cpu_ratio_recently": 0.851}),
    Case("TokMeshEvenNodeCount", {"nodes_active": 3, "nodes_down": 0}, {"nodes_active": 4, "nodes_down": 0}),
    Case("TokMeshNodeDown", {"nodes_active": 3, "nodes_down": 0}, {"nodes_active": 2, "nodes_down": 1}),
    Case(
        "TokMeshErrorRatioHigh",
        {"requests_recently": 400, "errors_recently": 20},
        {"requests_recently": 400, "errors_recently": 21},
    ),
    Case(
        "TokMeshErrorRatioHigh",
        {"requests_recently": 9, "errors_recently": 9},
        {"requests_recently": 10, "errors_recently": 10},
    ),
    Case("TokMeshFileDescriptorsHigh", {"open_files": 85, "open_files_max": 100}, {"open_files": 86, "open_files_max": 100}),
    Case("TokMeshLogLinesDropped", {"log_lines_dropped_recently": 0}, {"log_lines_dropped_recently": 1}),
    Case(
        "TokMeshMetricsExposed",
        {"http_beyond_loopback": False, "metrics_open": True},
        {"http_beyond_loopback": True, "metrics_open": True},
    ),
    Case("TokMeshPlainHttpExposed", {"http_beyond_loopback": False}, {"http_beyond_loopback": True}),
    Case("TokMeshSyncOff", {"sync_mode": "always"}, {"sync_mode": "interval"}),
    Case("TokMeshClockUnsynchronised", {"clock_synchronised": True}, {"clock_synchronised": False}),
)


def found(**readings: Any) -> dict[str, Condition]:
    return {condition.code: condition for condition in judge(Readings(**readings))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_a_condition_holds_beyond_its_threshold_only(case: Case) -> None:
    assert case.code not in found(**case.well)
    condition = found(**case.wrong)[case.code]
    assert condition.words.endswith(".") and len(condition.words) > 20


def test_every_rule_has_a_case() -> None:
    assert {rule.code for rule in RULES} == {case.code for case in CASES}


def test_nothing_is_judged_that_is_not_known() -> None:
    assert judge(Readings()) == []
    numbers = [field.name for field in fields(Readings) if "float" in str(field.type)]
    assert len(numbers) > 10
    assert found(**dict.fromkeys(numbers, math.nan)) == {}
    for case in CASES:  # half of a ratio says nothing
        if len(case.wrong) == 2 and case.code not in ("TokMeshWalFsyncFailed", "TokMeshMetricsExposed", "TokMeshNodeDown"):
            for name, value in case.wrong.items():
                assert case.code not in found(**{name: value})
    assert found(disk_free_bytes=0, disk_total_bytes=0) == {}
    assert found(unheld_shards=21, cluster_fenced=True).keys() == {"TokMeshClusterStale"}, "who is cut off hears of no holder"


def test_critical_conditions_come_first() -> None:
    everything = {name: value for case in CASES for name, value in case.wrong.items()}
    severities = [condition.severity for condition in judge(Readings(**everything))]
    assert "critical" in severities and "warning" in severities
    assert severities == sorted(severities, key=lambda severity: severity != "critical")


@pytest.mark.parametrize("code", WITHOUT_ALERT)
def test_a_condition_that_no_alert_knows_has_a_runbook(code: str) -> None:
    text = (RUNBOOKS / next(rule for rule in RULES if rule.code == code).runbook).read_text(encoding="utf-8")
    assert text.startswith(f"# {code}\n")

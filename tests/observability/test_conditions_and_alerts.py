"""The conditions of a node and the alert rules are one judgement: same names, severities, thresholds and runbooks."""

import re
from pathlib import Path

import pytest
import yaml

from tests.observability.test_conditions import WITHOUT_ALERT
from tokmesh import console
from tokmesh.telemetry import conditions
from tokmesh.telemetry.conditions import RULES

RULES_FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
ALERTS = {
    rule["alert"]: rule
    for file in sorted(RULES_FOLDER.glob("*.yaml"))
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
# Which numbers of a condition its alert compares with.
THRESHOLDS = {
    "TokMeshApiKeyFailures": (conditions.KEY_FAILURE_RATIO_MAX, conditions.KEY_FAILURES_MIN),
    "TokMeshDiskSpaceLow": (conditions.DISK_FREE_RATIO_MIN,),
    "TokMeshRevokeStuck": (conditions.REVOKE_PENDING_SECONDS_MAX,),
    "TokMeshTokenValidateSlow": (conditions.VALIDATE_P99_SECONDS_MAX, conditions.VALIDATE_ANSWERS_MIN),
    "TokMeshMemoryHigh": (conditions.BUSY_RATIO_MAX,),
    "TokMeshCpuHigh": (conditions.BUSY_RATIO_MAX,),
    "TokMeshErrorRatioHigh": (conditions.ERROR_RATIO_MAX, conditions.ERRORS_MIN),
    "TokMeshWalSlow": (conditions.SYNC_P99_SECONDS_MAX,),
    "TokMeshEventLoopLag": (conditions.LOOP_LAG_P99_SECONDS_MAX,),
    "TokMeshTableNearLimit": (conditions.TABLE_RATIO_MAX,),
    "TokMeshExpiryBacklog": (conditions.EXPIRY_BACKLOG_MAX,),
    "TokMeshFileDescriptorsHigh": (conditions.OPEN_FILES_RATIO_MAX,),
    "TokMeshSnapshotOverdue": (conditions.SNAPSHOT_DUE_RATIO_MAX,),
    "TokMeshReplicationLag": (conditions.REPLICATION_LAG_SECONDS_MAX,),
}
WITH_ALERT = [rule.code for rule in RULES if rule.code not in WITHOUT_ALERT]


@pytest.mark.parametrize("code", WITH_ALERT)
def test_a_condition_is_judged_as_its_alert_is(code: str) -> None:
    [rule] = [each for each in RULES if each.code == code]
    alert = ALERTS[code]
    assert alert["labels"]["severity"] == rule.severity
    compared = {float(number) for number in re.findall(r"(?:<|>|>=|<=|==)\s*([0-9.]+)", alert["expr"])}
    assert compared >= set(THRESHOLDS.get(code, ())), (code, compared)
    assert alert["annotations"]["runbook_url"].endswith(f"docs/runbooks/{rule.runbook}")


def test_conditions_without_an_alert_have_none() -> None:
    assert not set(WITHOUT_ALERT) & set(ALERTS)
    assert set(THRESHOLDS) <= set(WITH_ALERT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_condition_has_a_runbook_that_is_served(rule: conditions.Rule) -> None:
    assert console.load_runbooks()[rule.runbook].body.startswith(f"# {rule.code}\n".encode())

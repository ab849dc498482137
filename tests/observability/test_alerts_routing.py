"""Who hears of what: the shipped routing as amtool reads it, and its inhibitions in a real Alertmanager."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.observability.alerting import AlertmanagerProcess, Webhook
from tests.observability.time_scale import ALERTMANAGER, scaled_routing

FACTOR = 100  # group_wait 0.3 s, group_interval 3 s
QUIET_S = 4.0  # longer than a group_interval: what has not come by then is inhibited


def amtool(*arguments: str) -> str:
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_amtool_finds_no_fault() -> None:
    assert "SUCCESS" in amtool("check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("severity=critical", "alertname=TokMeshDown"), "pager"),
        (("severity=warning", "alertname=TokMeshCpuHigh"), "chat"),
        (("alertname=SomethingElse",), "chat"),
    ],
)
def test_severity_chooses_the_receiver(labels: tuple[str, ...], receiver: str) -> None:
    assert amtool("config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels) == receiver


def alert(name: str, instance: str = "", severity: str = "warning", job: str = "tokmesh", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, "job": job, **({"instance": instance} if instance else {}), **labels}


def test_a_cause_silences_its_consequences_and_nothing_else(tmp_path: Path) -> None:
    told = [
        alert("TokMeshDown", "down", "critical"),
        alert("TokMeshMemoryHigh", "up"),
        alert("TokMeshDiskSpaceLow", "full", "critical"),
        alert("TokMeshDiskFillingUp", "filling"),
        alert("TokMeshWalFsyncFailed", "broken", "critical"),
        alert("TokMeshErrorRatioHigh", "failing"),
        alert("TokMeshQuorumLost", "cut-off", "critical", job="cut"),
        alert("TokMeshEvenNodeCount", job="even"),
        alert("TokMeshNodeDown", job="less"),
        alert("TokMeshRevokeStuck", "stuck", "critical"),
        alert("TokMeshAvailabilityBudgetBurn", slo="availability", window="1h"),
        alert("TokMeshLatencyBudgetBurn", slo="latency", window="6h"),
        alert("TokMeshLatencyBudgetBurn", job="even", slo="latency", window="3d"),
    ]
    silenced = [
        alert("TokMeshMemoryHigh", "down"),
        alert("TokMeshQuorumLost", "down", "critical"),
        alert("TokMeshDiskFillingUp", "full"),
        alert("TokMeshErrorRatioHigh", "broken"),
        alert("TokMeshWalSlow", "broken"),
        alert("TokMeshErrorRatioHigh", "cut-off", job="cut"),
        alert("TokMeshNodeDown", job="cut"),
        alert("TokMeshEvenNodeCount", job="less"),
        alert("TokMeshRevokeSlow", "stuck"),
        alert("TokMeshAvailabilityBudgetBurn", slo="availability", window="6h"),
        alert("TokMeshAvailabilityBudgetBurn", slo="availability", window="3d"),
        alert("TokMeshLatencyBudgetBurn", slo="latency", window="1d"),
    ]
    with (
        Webhook() as webhook,
        AlertmanagerProcess(tmp_path, scaled_routing(ALERTMANAGER, FACTOR), webhook) as alertmanager,
    ):
        alertmanager.send(*told, *silenced)
        deadline = time.monotonic() + 30
        while not all(any(each.labels == labels for each in webhook.deliveries()) for labels in told):
            assert time.monotonic() < deadline, f"not delivered\n{alertmanager.log}"
            time.sleep(0.1)
        time.sleep(QUIET_S)
        assert not [each.labels for each in webhook.deliveries() if each.labels in silenced]
        channels = {each.labels["severity"]: each.channel for each in webhook.deliveries()}
        assert channels == {"critical": "pager", "warning": "chat"}

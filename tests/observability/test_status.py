"""`status/summary`: its figures are those of /metrics, its rates are right, and it tells no secret."""

import asyncio
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from tests.observability.fakes import Fakes, cluster_figures, of_a_cluster
from tests.observability.test_server import value
from tests.support.server import TokMeshProcess
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.numbers import Buckets, Numbers
from tokmesh.telemetry.status import Posture, Status
from tokmesh.telemetry.trends import SAMPLE_SECONDS, WINDOW_SECONDS, Sample, Trends

SUMMARY = "/admin/v1/status/summary"
BOUNDS = (0.1, 0.2, 0.4)
OF_THE_HOST = {  # what the machine that runs the tests may have to complain of, whatever the server does
    "TokMeshClockUnsynchronised", "TokMeshDiskSpaceLow", "TokMeshMemoryHigh", "TokMeshCpuHigh", "TokMeshEventLoopLag",
    "TokMeshWalSlow",
}  # fmt: skip


def buckets(*counts: int) -> Buckets:
    return Buckets(BOUNDS, counts, 0.0)


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((10, 10, 10, 10), 0.5, 0.05),
        ((10, 20, 20, 20), 0.5, 0.1),
        ((10, 20, 20, 20), 0.75, 0.15),
        ((0, 0, 8, 8), 0.5, 0.3),
        ((5, 5, 5, 10), 0.99, 0.4),  # beyond the last bound: at least that
        ((7, 7, 7, 7), 1.0, 0.1),
    ],
)
def test_a_quantile_is_what_prometheus_would_say(counts: tuple[int, ...], q: float, expected: float | None) -> None:
    assert buckets(*counts).quantile(q) == (None if expected is None else pytest.approx(expected))


def test_a_difference_of_histograms_is_what_was_observed_between() -> None:
    assert Buckets(BOUNDS, (3, 5, 9, 9), 2.5).since(Buckets(BOUNDS, (1, 2, 4, 4), 1.0)) == Buckets(BOUNDS, (2, 3, 5, 5), 1.5)


def test_numbers_sum_what_was_asked_for(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.meter.others = [("GET", "unmatched", "404", 7), ("POST", "unmatched", "404", 2)]
    fakes.meter.latency.record(1, 3_000_000)
    numbers = asyncio.run(Exposition(fakes.sources).examine(Numbers))
    assert numbers.number("tokmesh_api_requests_total", status="404") == 9
    assert numbers.number("tokmesh_api_requests_total", status="404", method="GET") == 7
    assert numbers.number("tokmesh_api_requests_total", status="4*", route="unmatched") == 9
    assert numbers.by("tokmesh_api_requests_total", "status")["404"] == 9
    assert numbers.by("tokmesh_api_requests_total", "method", status="404") == {"GET": 7, "POST": 2}
    durations = "tokmesh_api_request_duration_seconds"
    assert numbers.buckets(durations, route="/tokens/validate").counts[-1] == 1
    assert numbers.buckets(durations, route="/sessions/{session_id}").counts[-1] == 0
    assert numbers.buckets(durations).sum == pytest.approx(0.003)
    with pytest.raises(KeyError):
        numbers.number("tokmesh_no_such_metric")
    with pytest.raises(ValueError):
        numbers.number("tokmesh_api_requests_total", color="red")


def at(seconds: float) -> Sample:
    none = buckets(0, 0, 0, 0)
    return Sample(seconds, 0, 0, 0, 0, {}, 0, 0, 0, 0, 0, 0, none, none, none, none)


def test_trends_remember_a_window_and_no_more() -> None:
    trends = Trends()
    assert trends.before(at(100.0), 60) == at(100.0)
    for tenth in range(0, 10_000, 5):
        trends.note(at(tenth / 10))
    now = at(1000.0)
    assert trends.before(now, WINDOW_SECONDS).at == 1000 - WINDOW_SECONDS
    assert trends.before(now, 60).at == 940
    assert trends.before(now, 10 * WINDOW_SECONDS).at >= 1000 - WINDOW_SECONDS - SAMPLE_SECONDS


def test_what_cannot_be_read_is_null_and_no_condition(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path / "gone")  # no such directory: no disk figures
    posture = Posture(sync_mode="always", http_beyond_loopback=False, metrics_open=False, connections_max=10)
    exposition = Exposition(fakes.sources)
    status = Status("tmnd-one", posture, exposition.examine, lambda: {"storage": "why"}, lambda: None)
    summary = asyncio.run(status.summary())
    assert math.isnan(asyncio.run(exposition.examine(Numbers)).number("tokmesh_disk_free_bytes"))
    assert summary["disk"] == {"free_bytes": None, "total_bytes": None}
    codes = [condition["code"] for condition in summary["conditions"]]
    assert "TokMeshDiskSpaceLow" not in codes and "TokMeshClockUnsynchronised" not in codes
    assert summary["readiness"] == {"ready": False, "checks": [{"name": "storage", "ok": False, "reason": "why"}]}
    assert summary["rates"]["requests"] is None


def test_a_node_of_many_shows_its_members_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    posture = Posture(sync_mode="always", http_beyond_loopback=False, metrics_open=False, connections_max=10)
    exposition = Exposition(of_a_cluster(fakes))
    figures = cluster_figures(quarantined=2)
    status = Status("tmnd-one", posture, exposition.examine, dict, lambda: None, lambda: figures)
    summary = asyncio.run(status.summary())
    cluster = summary["cluster"]
    assert [(node["id"], node["status"], node["lag_seconds"]) for node in cluster["nodes"]] == [
        ("tmnd-one", "active", 0), ("tmnd-two", "active", 1.5), ("tmnd-three", "down", 9),
    ]  # fmt: skip
    assert (cluster["active"], cluster["down"], cluster["parity"], cluster["quorum"]) == (2, 1, "odd", False)
    assert (cluster["fenced"], cluster["staleness_seconds"], cluster["quarantined_records"]) == (True, 2.5, 2)
    assert cluster["shards"] == {"held": 40, "loading": 3, "leaving": 2, "unheld": 1}
    assert [node["shards"] for node in cluster["nodes"]] == [8, 8, 8]
    assert cluster["nats"]["state"] == "lost" and cluster["nats"]["is_old"] is True
    codes = {condition["code"] for condition in summary["conditions"]}
    assert {"TokMeshQuorumLost", "TokMeshClusterStale", "TokMeshNodeDown", "TokMeshNatsOld", "TokMeshNatsSyncOff"} <= codes
    json.dumps(summary)


def summary_of(server: TokMeshProcess) -> dict[str, Any]:
    data: dict[str, Any] = server.data("GET", SUMMARY)
    return data


def test_the_summary_follows_what_happens(server: TokMeshProcess) -> None:
    first = summary_of(server)
    tokens = [server.create_session(f"user-{index}")["token"] for index in range(3)]
    for token in tokens:
        server.validate(token)
    server.validate("tmtk_" + "A" * 43)
    server.request("GET", "/no/such/route")
    summary = summary_of(server)
    assert summary["sessions"]["active"] == summary["sessions"]["created_total"] == 3
    verdicts = {"valid": 3, "invalid": 1, "error": 0}
    assert summary["requests"]["validations_total"] == verdicts
    assert summary["requests"]["total"] - first["requests"]["total"] == 9  # with the first summary itself
    latency = summary["requests"]["validate_latency"]
    assert latency["counts"][-1] == 4 and len(latency["counts"]) == len(latency["bounds_seconds"]) + 1
    assert summary["log"]["state"] == "open" and summary["log"]["records_total"] >= 4
    assert summary["log"]["sync_latency"]["counts"][-1] == summary["log"]["sync_total"] > 0
    assert summary["memory"]["used_bytes"] > 1_000_000 and 0 < summary["disk"]["free_bytes"] < summary["disk"]["total_bytes"]
    assert summary["connections"]["max"] == 10_000 and summary["connections"]["open"] >= 1
    [node] = summary["cluster"]["nodes"]
    assert (node["id"], node["status"], node["is_self"], node["sessions"]) == (summary["node"]["id"], "active", True, 3)
    assert (summary["cluster"]["enabled"], summary["cluster"]["nats"]) == (False, None)
    assert (summary["cluster"]["parity"], summary["cluster"]["quorum"]) == ("odd", True)
    assert summary["readiness"]["ready"] is True
    assert {condition["code"] for condition in summary["conditions"]} <= OF_THE_HOST
    assert summary["node"]["id"] == (server.directory / "node_id").read_text().strip()
    assert abs(summary["node"]["started_at"] / 1000 - time.time()) < 120
    assert value(server, "tokmesh_sessions_active_total") == 3
    text = json.dumps(summary)
    assert all(secret not in text for secret in [*tokens, server.admin_key, server.admin_key.split(":")[1], "user-1"])


def test_rates_are_of_the_last_minute(server: TokMeshProcess) -> None:
    token = server.create_session("u")["token"]
    summary_of(server)
    for _ in range(20):
        server.validate(token)
    rates = summary_of(server)["rates"]
    assert 0 < rates["window_seconds"] <= 60
    assert rates["validations"]["valid"] * rates["window_seconds"] == pytest.approx(20, rel=0.05)
    assert 0 < rates["validate_latency_seconds"]["p50"] <= rates["validate_latency_seconds"]["p99"]


def test_how_a_server_is_configured_is_judged(tmp_path: Path) -> None:
    arguments = (
        "--server.http.address=0.0.0.0:0", "--telemetry.metrics.auth_enabled=false", "--storage.wal.sync_mode=interval",
    )  # fmt: skip
    with TokMeshProcess(tmp_path, *arguments) as server:
        codes = {condition["code"]: condition for condition in summary_of(server)["conditions"]}
        assert {"TokMeshMetricsExposed", "TokMeshPlainHttpExposed", "TokMeshSyncOff"} <= set(codes)
        condition = codes["TokMeshSyncOff"]
        assert condition.keys() == {"code", "severity", "words", "runbook"}
        status, page = server.request("GET", f"/console/runbooks/{condition['runbook']}", key=None)
        assert status == 200 and page.startswith("# TokMeshSyncOff\n")


def test_wrong_keys_are_noticed(server: TokMeshProcess) -> None:
    for _ in range(12):
        server.request("GET", SUMMARY, key=server.admin_key[:-4] + "AAAA")
    condition = next(each for each in summary_of(server)["conditions"] if each["code"] == "TokMeshApiKeyFailures")
    assert condition["severity"] == "critical"

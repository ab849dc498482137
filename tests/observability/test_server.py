"""Metrics of a real server: complete, true, and read by a real Prometheus with a Bearer key. Who may read them: see
test_seed_acceptance."""

import gzip
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.observability.prometheus import PrometheusProcess
from tests.observability.test_promtool import GOLDEN, OBJECTIONS, promtool_objections
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until
from tokmesh.telemetry.catalog import METRICS

# prometheus-client types only a part of itself.
parse_openmetrics_page: Callable[[str], Iterable[Metric]] = parse_openmetrics
UNKNOWN_TOKEN = "tmtk_" + "A" * 43


def scrape(server: TokMeshProcess, key: str | None = "admin", accept: str = "") -> tuple[int, str, str]:
    """Status, content type and text of GET /metrics."""
    headers = {"Accept": accept} if accept else {}
    status, answer_headers, body = server.exchange("GET", "/metrics", key=key, headers=headers)
    return status, answer_headers["content-type"], body.decode()


def value(server: TokMeshProcess, name: str, **labels: str) -> float:
    """One sample of a scrape; 0.0 if there is no such series."""
    for family in parse_text(scrape(server)[2]):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


def test_prometheus_scrapes_with_a_metrics_key_and_answers_for_active_sessions(
    tmp_path: Path, server: TokMeshProcess
) -> None:
    key = server.create_key("metrics")
    sessions = [server.create_session(f"user-{index}") for index in range(3)]
    with PrometheusProcess(tmp_path / "prometheus", f"127.0.0.1:{server.port}", key) as prometheus:
        assert prometheus.wait_for("tokmesh_sessions_active_total")[0][1] == 3
        server.data("POST", f"/sessions/{sessions[0]['session_id']}/revoke", {})
        assert prometheus.wait_for("tokmesh_sessions_active_total == 2")
        assert prometheus.wait_for("tokmesh_session_create_total")[0][1] == 3
        assert prometheus.wait_for('up{job="tokmesh"} == 1')
        server.kill()
        assert prometheus.wait_for('up{job="tokmesh"} == 0')


def test_promtool_and_the_golden_list_agree_with_the_server(shared_server: TokMeshProcess) -> None:
    page = scrape(shared_server)[2]
    assert promtool_objections(page.encode()) == OBJECTIONS
    types = [tuple(line.split()[2:]) for line in page.splitlines() if line.startswith("# TYPE ")]
    golden = [tuple(line.split()[:2]) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert sorted(types) == golden


def test_formats_are_negotiated(shared_server: TokMeshProcess) -> None:
    status, content_type, page = scrape(shared_server, accept="application/openmetrics-text;version=1.0.0")
    assert (status, content_type) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert len(list(parse_openmetrics_page(page))) == len(METRICS)
    status, content_type, _ = scrape(shared_server, accept="application/json;q=1, text/plain;q=0.1")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_gzip_is_given_to_those_who_accept_it(shared_server: TokMeshProcess) -> None:
    status, headers, packed = shared_server.exchange("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept, Accept-Encoding")
    assert len(list(parse_text(gzip.decompress(packed).decode()))) == len(METRICS)
    status, headers, plain = shared_server.exchange("GET", "/metrics", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert (status, headers["vary"]) == (200, "Accept, Accept-Encoding") and "content-encoding" not in headers
    assert plain.startswith(b"# HELP ") and len(packed) * 5 < len(plain)


def test_headers_of_every_kind_get_a_page_and_head_is_refused(shared_server: TokMeshProcess) -> None:
    protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    for accept in ("", ";", "text/plain;version=1.x", "application/json", '"' * 900, "a/b;q=0", "*/*;q=nan", protobuf):
        status, headers, page = shared_server.exchange("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": accept})
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8"), accept
        assert page.startswith(b"# HELP "), accept
    status, headers, body = shared_server.exchange("HEAD", "/metrics")
    assert (status, headers["allow"], body) == (405, "GET", b"")
    assert shared_server.request("POST", "/metrics")[0] == 405


def test_every_series_of_closed_labels_exists_on_the_first_scrape_and_counters_are_zero(server: TokMeshProcess) -> None:
    page = scrape(server)[2]
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value for family in parse_text(page) for sample in family.samples
    }
    for metric in METRICS:
        if metric.absent_when:
            continue
        name = metric.name + ("_count" if metric.type == "histogram" else "")
        if all(label.values for label in metric.labels):
            for values in itertools.product(*(label.values for label in metric.labels)):
                assert (name, frozenset(zip(metric.label_names, values, strict=True))) in samples, (name, values)
        found = [(labels, value) for (sample, labels), value in samples.items() if sample == name]
        assert found and all({label for label, _ in labels} == set(metric.label_names) for labels, _ in found), name
    for name in ("session_create", "session_revoke", "wal_fsync_failed", "token_validate_calls", "http_rejects", "api_requests"):
        counted = {
            value for (sample, labels), value in samples.items()
            if sample == f"tokmesh_{name}_total" and not labels & {("route", "/ready"), ("route", "/metrics")}
        }  # fmt: skip
        assert counted == {0}, name


def test_a_failed_request_without_a_route_counts_from_zero(server: TokMeshProcess) -> None:
    page = scrape(server)[2]
    for status in ("404", "500", "503"):
        assert f'tokmesh_api_requests_total{{method="GET",route="unmatched",status="{status}"}} 0\n' in page
    assert 'tokmesh_api_requests_total{method="POST",route="/sessions",status="409"} 0\n' in page


def test_all_series_of_declared_routes_exist_before_any_request(server: TokMeshProcess) -> None:
    names = {"method": "POST", "route": "/sessions/{session_id}/renew"}
    page = scrape(server)[2]
    samples = {(s.name, tuple(sorted(s.labels.items()))) for f in parse_text(page) for s in f.samples}
    assert ("tokmesh_api_requests_total", tuple(sorted({**names, "status": "200"}.items()))) in samples
    duration = ("tokmesh_api_request_duration_seconds_count", tuple(sorted({**names, "status": "2xx"}.items())))
    assert duration in samples
    assert value(server, "tokmesh_session_create_total") == 0


def test_figures_follow_what_happens(server: TokMeshProcess) -> None:
    session = server.create_session("u")
    assert server.validate(session["token"])["valid"] is True
    for _ in range(2):
        assert server.validate(UNKNOWN_TOKEN)["valid"] is False
    server.request("GET", f"/sessions/{session['session_id']}", key=None)
    server.request("BREW", "/coffee/42")
    calls = "tokmesh_token_validate_calls_total"
    assert value(server, calls, result="valid") == 1
    assert value(server, calls, result="invalid") == 2
    assert value(server, "tokmesh_session_create_total") == 1
    assert value(server, "tokmesh_api_key_auth_total", result="missing") == 1
    assert value(server, "tokmesh_api_key_auth_total", result="ok") >= 4
    requests = "tokmesh_api_requests_total"
    assert value(server, requests, method="POST", route="/tokens/validate", status="200") == 3
    assert value(server, requests, method="GET", route="/sessions/{session_id}", status="401") == 1
    durations = "tokmesh_api_request_duration_seconds_count"
    assert value(server, durations, method="POST", route="/tokens/validate", status="2xx") == 3
    assert value(server, "tokmesh_wal_records_total") >= 2
    assert value(server, "tokmesh_wal_fsync_duration_seconds_count") >= 1
    assert value(server, "tokmesh_wal_group_size_records_count") >= 1
    assert value(server, "tokmesh_wal_state", state="open") == 1
    assert value(server, "tokmesh_metrics_render_duration_seconds_count") >= 1
    assert value(server, "tokmesh_mem_usage_bytes") > 1_000_000
    assert value(server, "tokmesh_disk_free_bytes") > 0
    wait_until(lambda: value(server, "tokmesh_event_loop_lag_seconds_count") >= 1, "the loop's lag is sampled")


def test_requests_without_a_route_do_not_add_series_of_their_own(server: TokMeshProcess) -> None:
    for index in range(5):
        server.request("GET", f"/no/such/{index}")
        server.request(f"BREW{index}", "/tokens/validate")
    page = scrape(server)[2]
    assert "/no/such" not in page and "BREW" not in page
    assert value(server, "tokmesh_api_requests_total", method="GET", route="unmatched", status="404") == 5


def test_recovery_figures_tell_of_the_last_start(server: TokMeshProcess) -> None:
    for index in range(5):
        server.create_session(f"user-{index}")
    server.kill()
    server.start()
    assert value(server, "tokmesh_recovery_records") >= 6
    assert value(server, "tokmesh_recovery_duration_seconds") > 0
    assert value(server, "tokmesh_sessions_active_total") == 5


@pytest.mark.parametrize("level", ["debug", "info"])
def test_log_is_json_lines_without_secrets(tmp_path: Path, level: str) -> None:
    with TokMeshProcess(tmp_path, f"--telemetry.logging.level={level}") as server:
        session = server.create_session("u")
        server.validate(session["token"])
        server.request("POST", "/tokens/validate", "not json " + session["token"])
        server.request("GET", f"/sessions/{session['token']}")
        server.request("GET", "/metrics", key=server.admin_key[:-1] + "x")
        assert server.stop() == 0
        lines = server.log_lines()
        assert len(lines) == len(server.stdout.splitlines()) > 0
        assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in lines)
        for secret in (session["token"][5:], server.admin_key.split("tmas_")[1][:-1]):
            assert secret not in server.stdout

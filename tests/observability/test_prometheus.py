"""A real Prometheus reads the exposition whole, in each format it may ask for."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observability.fakes import NODE_ID, Fakes
from tests.observability.prometheus import PrometheusProcess
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.negotiation import OPENMETRICS, TEXT, Format, choose_format


class Target:
    """Serves an exposition's pages at /metrics on a free port, in the format asked for or in `forced`."""

    def __init__(self, exposition: Exposition, forced: Format | None) -> None:
        asked: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                chosen = forced or choose_format(self.headers.get("Accept", ""))
                asked.add(chosen.content_type)
                body = exposition.render_now(chosen.content_type)
                self.send_response(200)
                self.send_header("Content-Type", chosen.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.content_types = asked
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    fakes = Fakes(tmp_path)
    fakes.table.figures["sessions_active"] = 42
    fakes.meter.latency.record(1, 3_000_000)
    yield fakes


@pytest.mark.parametrize("forced", [None, TEXT], ids=["its choice", "text"])
def test_prometheus_reads_every_line(tmp_path: Path, fakes: Fakes, forced: Format | None) -> None:
    target = Target(Exposition(fakes.sources), forced)
    address = f"127.0.0.1:{target.server.server_port}"
    try:
        with PrometheusProcess(tmp_path / "prometheus", address) as prometheus:
            assert prometheus.wait_for("tokmesh_sessions_active_total")[0][1] == 42
            [(labels, value)] = prometheus.wait_for("tokmesh_shard_keys_count")
            assert (labels["node_id"], value) == (NODE_ID, 42)
            [(_, quantile)] = prometheus.wait_for(
                'tokmesh_api_request_duration_seconds_bucket{route="/tokens/validate",le="0.005"}'
            )
            assert quantile == 1
            [target_state] = prometheus.targets()
            assert (target_state["health"], target_state["lastError"]) == ("up", "")
            lines = Exposition(fakes.sources).render_now(TEXT.content_type).decode().splitlines()
            [(_, scraped)] = prometheus.wait_for("scrape_samples_scraped > 0")
            assert scraped == sum(not line.startswith("#") for line in lines)
            metadata = prometheus.get("/api/v1/metadata")
            assert metadata["tokmesh_sessions_active_total"][0]["type"] == "gauge"
    finally:
        target.close()
    assert target.content_types == {(forced or OPENMETRICS).content_type}

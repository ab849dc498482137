"""Native histograms of a real server, read by a real Prometheus that asks for them and by one that does not."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.observability.prometheus import PrometheusProcess
from tests.support.server import TokMeshProcess
from tokmesh._core.histogram import LATENCY_BOUNDS_NS

LATENCY = "tokmesh_api_request_duration_seconds"
OF_VALIDATE = 'route="/tokens/validate",status="2xx"'
VALIDATIONS = 200
NATIVE_GROWTH = 2 ** (1 / 8)  # width of a native bucket


@contextmanager
def watched(server: TokMeshProcess, directory: Path, *features: str) -> Iterator[PrometheusProcess]:
    target = f"127.0.0.1:{server.port}"
    with PrometheusProcess(directory, target, server.create_key("metrics"), features=features) as prometheus:
        yield prometheus


def classic_bucket(seconds: float) -> tuple[float, float]:
    """The classic bucket that holds a value."""
    ends = [0.0, *(bound / 1e9 for bound in LATENCY_BOUNDS_NS), float("inf")]
    return next((low, high) for low, high in itertools.pairwise(ends) if low < seconds <= high)


def test_native_and_classic_quantiles_agree_within_a_bucket(tmp_path: Path) -> None:
    with TokMeshProcess(tmp_path, "--telemetry.metrics.native_histograms=true") as server:
        token = server.create_session()["token"]
        for _ in range(VALIDATIONS):
            server.validate(token)
        with watched(server, tmp_path / "native", "native-histograms") as native:
            count = native.wait_for(f"histogram_count({LATENCY}{{{OF_VALIDATE}}})")[0][1]
            assert count == VALIDATIONS
            [target] = native.targets()
            assert (target["health"], target["lastError"]) == ("up", "")
            assert native.query(f"{LATENCY}_bucket") == [], "this Prometheus keeps one of the two forms"
            assert native.query("histogram_count(tokmesh_gossip_propagation_lag_seconds)")[0][1] == 0
            assert native.wait_for("histogram_count(tokmesh_wal_fsync_duration_seconds) >= 2")
            assert native.query("tokmesh_wal_group_size_records_count")[0][1] >= 2
            natives = {
                q: native.query(f"histogram_quantile({q}, {LATENCY}{{{OF_VALIDATE}}})")[0][1] for q in (0.5, 0.9, 0.99)
            }
        with watched(server, tmp_path / "classic") as classic:
            assert classic.wait_for(f"{LATENCY}_count{{{OF_VALIDATE}}}")[0][1] == VALIDATIONS
            for q, seconds in natives.items():
                expected = classic.query(f"histogram_quantile({q}, {LATENCY}_bucket{{{OF_VALIDATE}}})")[0][1]
                low, high = classic_bucket(expected)
                assert low / NATIVE_GROWTH < seconds <= high * NATIVE_GROWTH, (q, seconds, expected)


def test_a_prometheus_that_asks_for_protobuf_gets_text_where_it_is_not_enabled(tmp_path: Path, server: TokMeshProcess) -> None:
    with watched(server, tmp_path / "prometheus", "native-histograms") as prometheus:
        assert prometheus.wait_for(f'{LATENCY}_bucket{{{OF_VALIDATE},le="0.1"}}')[0][1] == 0
        [target] = prometheus.targets()
        assert (target["health"], target["lastError"]) == ("up", "")

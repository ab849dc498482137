"""What monitoring relies on: promtool's verdict, the golden list of names and types, and closed labels."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.fakes import NODE_ID, Fakes, of_a_cluster
from tokmesh.telemetry import catalog
from tokmesh.telemetry.catalog import METRICS
from tokmesh.telemetry.exposition import Exposition
from tokmesh.telemetry.negotiation import OPENMETRICS, TEXT

GOLDEN = Path(__file__).with_name("golden_metrics.txt")
# Names that clients rely on; promtool may complain of nothing else.
OBJECTIONS = {
    'tokmesh_cluster_nodes_total non-counter metrics should not have "_total" suffix',
    'tokmesh_sessions_active_total non-counter metrics should not have "_total" suffix',
    'tokmesh_shard_keys_count non-histogram and non-summary metrics should not have "_count" suffix',
}


def promtool_objections(page: bytes) -> set[str]:
    """What `promtool check metrics` prints for a page in text format."""
    result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60, check=False)
    return set((result.stdout + result.stderr).decode().splitlines())


@pytest.fixture
def exposition(tmp_path: Path) -> Exposition:
    fakes = Fakes(tmp_path)
    fakes.meter.others = [("other", "unmatched", "404", 1)]
    return Exposition(fakes.sources)


def test_promtool_complains_of_the_three_names_only(exposition: Exposition) -> None:
    assert promtool_objections(exposition.render_now(TEXT.content_type)) == OBJECTIONS


def test_promtool_would_find_a_defect() -> None:
    page = b"# HELP tokmesh_latency_ms Wrong unit.\n# TYPE tokmesh_latency_ms gauge\ntokmesh_latency_ms 1\n"
    assert any("tokmesh_latency_ms" in line for line in promtool_objections(page))


def test_names_types_and_labels_are_the_golden_ones(exposition: Exposition) -> None:
    """A change here is a change of what monitoring relies on: change the list in the same commit, knowingly
    (python -m tokmesh.telemetry.catalog golden > tests/observability/golden_metrics.txt).
    """
    golden = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert catalog.golden() == golden
    page = exposition.render_now(TEXT.content_type).decode()
    types = [line.split()[2:] for line in page.splitlines() if line.startswith("# TYPE ")]
    assert sorted(types) == [line.split()[:2] for line in golden]


@pytest.mark.parametrize("node_ids", [{NODE_ID}, {NODE_ID, "tmnd-two", "tmnd-three"}], ids=["alone", "of a cluster"])
def test_label_values_are_closed(tmp_path: Path, node_ids: set[str]) -> None:
    fakes = Fakes(tmp_path)
    fakes.meter.others = [("other", "unmatched", "404", 1)]
    exposition = Exposition(fakes.sources if len(node_ids) == 1 else of_a_cluster(fakes))
    closed = {(metric.name, label.name): set(label.values) for metric in METRICS for label in metric.labels}
    open_labels = {
        ("tokmesh_api_requests_total", "route"): {"/sessions/{session_id}", "/tokens/validate", "unmatched"},
        ("tokmesh_api_request_duration_seconds", "route"): {"/sessions/{session_id}", "/tokens/validate"},
        ("tokmesh_shard_keys_count", "node_id"): node_ids,
        ("tokmesh_cluster_member_up", "node_id"): node_ids,
        ("tokmesh_cluster_table_differences", "node_id"): node_ids,
        ("tokmesh_replication_lag_seconds", "from_node"): node_ids,
        ("tokmesh_replication_lag_seconds", "to_node"): node_ids,
        ("tokmesh_cluster_nats_info", "version"): {"2.14.0"},
    }
    page = exposition.render_now(TEXT.content_type).decode()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = family.name + "_total" if family.type == "counter" else family.name
            for label, value in sample.labels.items():
                if label == "le" or name == "tokmesh_build_info":
                    continue
                assert value in (closed[name, label] or open_labels[name, label]), (name, label, value)


def test_openmetrics_page_ends_with_eof_and_declares_units(exposition: Exposition) -> None:
    page = exposition.render_now(OPENMETRICS.content_type).decode()
    assert page.endswith("\n# EOF\n") and page.count("# EOF") == 1
    assert "# UNIT tokmesh_wal_write_bytes bytes\n" in page
    assert "# UNIT tokmesh_api_request_duration_seconds seconds\n" in page

"""The Grafana dashboard: complete, about metrics that exist, and answered by a real Prometheus that scrapes a real server."""

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.observability.prometheus import PrometheusProcess
from tests.observability.test_rules import faults
from tests.support.server import TokMeshProcess

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
MADE = runpy.run_path(str(FOLDER / "dashboard.py"))
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "tokmesh.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Grafana fills in, as a Prometheus of a test may have it: it scrapes twice a second.
VARIABLES = {"$__rate_interval": "5s", "$instance": ".*"}
UNITS = frozenset({"short", "none", "reqps", "ops", "percentunit", "s", "Bps", "bytes"})  # of Grafana

SELECTOR = re.compile(r"\b([a-z_]\w*)\{([^}]*)\}")
METRIC = re.compile(r"\b(?:tokmesh|process)_\w+")


def expressions() -> Iterator[str]:
    """Every expression of the dashboard with its variables filled in."""
    texts = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for text in [*texts, *(each["expr"] for each in DASHBOARD["annotations"]["list"])]:
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        yield text


def test_the_file_is_what_the_table_of_panels_makes() -> None:
    assert (FOLDER / "tokmesh.json").read_text(encoding="utf-8") == MADE["page"]()


def test_the_rows_are_those_an_operator_looks_for() -> None:
    titles = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert titles == ["Overview", "Latency", "Storage", "Snapshots", "Cluster", "Security"]
    assert DASHBOARD["schemaVersion"] >= 41 and DASHBOARD["uid"] == "tokmesh"


def test_every_panel_says_what_it_shows() -> None:
    assert len(PANELS) > 30
    for panel in PANELS:
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"] and all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None and all(step["color"] for step in steps), panel["title"]
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_source_and_nodes_are_chosen_at_the_top() -> None:
    source, node = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert (node["name"], node["multi"], node["includeAll"]) == ("instance", True, True)
    for panel in PANELS:
        for target in panel["targets"]:
            assert panel["datasource"]["uid"] == target["datasource"]["uid"] == "${datasource}"
            selectors = SELECTOR.findall(target["expr"])
            assert len(selectors) == len(METRIC.findall(target["expr"])) > 0, target["expr"]
            assert all('instance=~"$instance"' in matchers for _, matchers in selectors), target["expr"]
            for width in re.findall(r"\[([^\]]*)\]", target["expr"]):
                assert width == "$__rate_interval", target["expr"]


def test_every_metric_and_label_is_in_the_catalogue() -> None:
    assert [fault for expression in expressions() for fault in faults(expression, set())] == []


def promtool_check(tmp_path: Path, texts: list[str]) -> subprocess.CompletedProcess[str]:
    rules = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(texts)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    return subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False)


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    checked = promtool_check(tmp_path, list(expressions()))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert promtool_check(tmp_path, ["sum(rate(tokmesh_wal_fsync_total[5m])"]).returncode != 0


def test_a_prometheus_that_scrapes_a_server_answers_every_expression(tmp_path: Path, server: TokMeshProcess) -> None:
    """Also those of counters at 0: a panel that is empty until something goes wrong cannot be told from a broken one."""
    key = server.create_key("metrics")
    token = server.create_session("u")["token"]
    with PrometheusProcess(tmp_path / "prometheus", f"127.0.0.1:{server.port}", key) as prometheus:
        server.validate(token)
        prometheus.wait_for("count_over_time(tokmesh_sessions_active_total[5s]) > 3")
        server.validate(token)
        for expression in expressions():
            if " > 0" in expression:  # an annotation: empty unless something happened
                assert prometheus.wait_for(expression.removesuffix(" > 0"))
            else:
                assert prometheus.wait_for(expression), expression
        [target] = prometheus.targets()
        assert (target["health"], target["lastError"]) == ("up", "")


def test_the_provisioning_examples_are_of_grafanas_form() -> None:
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/tokmesh.yaml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"].startswith("/var/lib/grafana/")
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")

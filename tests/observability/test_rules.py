"""The rules that ship: they parse, behave as their promtool tests say, name only what a scrape has, and tell whoever is woken
what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.observability.test_conditions import WITHOUT_ALERT
from tests.observability.time_scale import ALERTMANAGER, NATIVE, RULES, duration_ms, scaled_routing, scaled_rules, write_scaled
from tests.support.server import ROOT
from tokmesh._core.histogram import LATENCY_BOUNDS_NS
from tokmesh.telemetry.catalog import METRICS

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
HEADINGS: Final = ("## Meaning", "## Impact", "## Checks", "## Cure")
RULE_FILES: Final = sorted(RULES.glob("*.yaml"))
TEST_FILES: Final = sorted((RULES / "tests").glob("*.yaml"))
WHOLE_NUMBERS: Final = {"TokMeshNodeDown", "TokMeshRestarting", "TokMeshVersionMismatch"}
PRIORITIES: Final = {"critical": "P0", "warning": "P1"}

# Names that are relied on; the rest is beyond them.
CRITICAL: Final = {
    "TokMeshWalFsyncFailed", "TokMeshQuorumLost", "TokMeshApiKeyFailures", "TokMeshDiskSpaceLow", "TokMeshRevokeStuck",
    "TokMeshDown",
}  # fmt: skip
WARNING: Final = {
    "TokMeshTokenValidateSlow", "TokMeshMemoryHigh", "TokMeshCpuHigh", "TokMeshShardSkew", "TokMeshRevokeSlow",
    "TokMeshEvenNodeCount", "TokMeshNodeDown", "TokMeshErrorRatioHigh", "TokMeshAvailabilityBudgetBurn", "TokMeshLatencyBudgetBurn",
}  # fmt: skip
BEYOND: Final = {
    "TokMeshClusterStale": "critical", "TokMeshDivergence": "critical", "TokMeshTablesDiffer": "critical",
    "TokMeshShardsUnheld": "critical",
    "TokMeshStreamRecordsQuarantined": "critical",
    "TokMeshNatsOld": "warning", "TokMeshNatsSyncOff": "warning",
    "TokMeshLogFull": "critical", "TokMeshSnapshotUnusable": "critical", "TokMeshSnapshotFailing": "warning",
    "TokMeshSnapshotOverdue": "warning", "TokMeshDiskFillingUp": "warning", "TokMeshWalSlow": "warning",
    "TokMeshTornTailRepaired": "warning", "TokMeshTableNearLimit": "warning", "TokMeshExpiryBacklog": "warning",
    "TokMeshEventLoopLag": "warning", "TokMeshFileDescriptorsHigh": "warning", "TokMeshConnectionsRefused": "warning",
    "TokMeshApiKeyChecksOverloaded": "warning", "TokMeshApiKeyForeignAddress": "warning",
    "TokMeshReplicationLag": "warning", "TokMeshRestarting": "warning", "TokMeshVersionMismatch": "warning",
    "TokMeshLogLinesDropped": "warning", "TokMeshScrapeUnreliable": "warning",
}  # fmt: skip

_OPERATORS: Final = {"and", "or", "unless", "on", "by", "without", "offset"}
_FUNCTIONS: Final = {
    "sum", "max", "min", "avg", "count", "rate", "increase", "changes", "absent", "time", "predict_linear", "avg_over_time",
    "clamp_min", "histogram_quantile", "histogram_fraction",
}  # fmt: skip
_WORDS: Final = _OPERATORS | _FUNCTIONS
_TARGET_LABELS: Final = {"job", "instance"}  # Prometheus adds them to whatever it scrapes
_LOOSE_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_LISTED_LABELS: Final = re.compile(r"\b(?:by|without|on)\s*\(([^)]*)\)")


class Rule(NamedTuple):
    """One rule, and the file it is in."""

    file: str
    body: dict[str, Any]


def read_rules() -> list[Rule]:
    return [
        Rule(path.name, body)
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for body in group["rules"]
    ]


ALL: Final = read_rules()
ALERTS: Final = [rule.body for rule in ALL if "alert" in rule.body]
NAMES: Final = sorted({alert["alert"] for alert in ALERTS})
RECORDS: Final = {rule.body["record"] for rule in ALL if "record" in rule.body}
UNIT_TESTS: Final = [test for path in TEST_FILES for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def series_labels() -> dict[str, dict[str, tuple[str, ...]]]:
    """Every series a rule may name, with its labels and their closed values; () where the values are not closed here."""
    known: dict[str, dict[str, tuple[str, ...]]] = {"up": {}}
    for metric in METRICS:
        labels = {label.name: tuple(label.values) for label in metric.labels}
        known[metric.name] = labels  # a histogram too: as a native one
        if metric.type == "histogram":
            known[f"{metric.name}_count"] = known[f"{metric.name}_sum"] = labels
            known[f"{metric.name}_bucket"] = {**labels, "le": ()}
    return known


KNOWN: Final = series_labels()
ANY_LABEL: Final = {name for labels in KNOWN.values() for name in labels} | _TARGET_LABELS


def names_in(expression: str) -> set[str]:
    """The series an expression names."""
    bare = _LISTED_LABELS.sub("", re.sub(r"\{[^}]*\}", "", expression))
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", "", bare)
    return {name for name in _LOOSE_NAME.findall(bare) if name not in _WORDS and not name[0].isdigit()}


def faults(expression: str, records: set[str]) -> list[str]:
    """What an expression names that no scrape and no record has."""
    found = [f"no such series: {name}" for name in sorted(names_in(expression)) if name not in KNOWN and name not in records]
    for listed in _LISTED_LABELS.findall(expression):
        found += [f"no such label: {name}" for name in listed.replace(" ", "").split(",") if name not in ANY_LABEL]
    for series, matchers in _SELECTOR.findall(expression):
        labels = KNOWN.get(series)
        for name, operator, value in _MATCHER.findall(matchers):
            if labels is None or name in _TARGET_LABELS:
                continue
            if name not in labels:
                found.append(f"{series} has no label {name}")
                continue
            for each in value.split("|") if "~" in operator else [re.escape(value)]:
                if labels[name] and not any(re.fullmatch(each, known) for known in labels[name]):
                    found.append(f"{series} has no {name} {each}")
    return found


def promtool(*arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_promtool_finds_no_fault(path: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_rules_fire_stay_silent_and_resolve(path: Path) -> None:
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_and_severities_are_those_promised() -> None:
    promised = {**dict.fromkeys(CRITICAL, "critical"), **dict.fromkeys(WARNING, "warning"), **BEYOND}
    assert {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS} == promised


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: "-".join(filter(None, (alert["alert"], alert["labels"].get("window")))))
def test_an_alert_tells_whoever_it_wakes_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["priority"] == PRIORITIES[alert["labels"]["severity"]]
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    assert "{{" in alert["annotations"]["summary"], "says where"
    assert "{{ $value }}" not in str(alert["annotations"]) or alert["alert"] in WHOLE_NUMBERS, "a value without a format"
    lines = (RUNBOOKS / f"{alert['alert']}.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {alert['alert']}"
    assert [line for line in lines if line.startswith("## ")] == list(HEADINGS)
    assert any(line.startswith("```") for line in lines), "checks can be copied"


def test_every_runbook_has_its_alert_or_condition() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == sorted([*NAMES, *WITHOUT_ALERT])


def test_runbooks_ask_for_what_there_is() -> None:
    """The queries of a runbook are held to the same rules as those of an alert."""
    for path in RUNBOOKS.glob("*.md"):
        queries = re.findall(r"```promql\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        assert queries, path.name
        for query in "".join(queries).splitlines():
            assert not faults(query, RECORDS | {"ALERTS", "scrape_duration_seconds"}), path.name


def windows_of(name: str) -> list[str]:
    return sorted(alert["labels"].get("window", "") for alert in ALERTS if alert["alert"] == name)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_shown_to_fire_to_be_silent_and_to_resolve(name: str) -> None:
    """In time: silent, firing, silent again; and beside it a trouble just too small, in which it never fires."""
    fired: set[str] = set()
    silent = 0
    for test in UNIT_TESTS:
        steps = [step for step in test["alert_rule_test"] if step["alertname"] == name]
        steps.sort(key=lambda step: duration_ms(step["eval_time"]))
        if not steps or test["name"].split(" ")[0] != name:
            continue
        assert len(steps) == len(test["alert_rule_test"]), "one alert a test"
        outcomes = [bool(step["exp_alerts"]) for step in steps]
        if any(outcomes):
            assert not outcomes[0] and not outcomes[-1], f"{test['name']}: begins and ends in silence"
            fired |= {alert["exp_labels"].get("window", "") for step in steps for alert in step["exp_alerts"]}
        else:
            assert " silent: " in test["name"] and test["input_series"]
            silent += 1
    assert sorted(fired) == sorted(set(windows_of(name)))
    assert silent >= len(windows_of(name))


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: f"{rule.file}-{rule.body.get('alert') or rule.body['record']}")
def test_a_rule_names_only_what_a_scrape_has(rule: Rule) -> None:
    assert not faults(rule.body["expr"], RECORDS)


def test_unit_tests_feed_only_what_a_scrape_has() -> None:
    for test in UNIT_TESTS:
        for series in test["input_series"]:
            name, _, matchers = series["series"].partition("{")
            assert name in KNOWN
            assert not faults(f"{name}{{{matchers}", RECORDS), test["name"]


def test_the_check_of_names_bites() -> None:
    assert faults("tokmesh_no_such_total > 0", RECORDS) == ["no such series: tokmesh_no_such_total"]
    assert faults("job:tokmesh_no_record > 0", RECORDS) == ["no such series: job:tokmesh_no_record"]
    assert faults('tokmesh_wal_state{state="broken"}', RECORDS) == ["tokmesh_wal_state has no state broken"]
    assert faults('tokmesh_wal_state{status="failed"}', RECORDS) == ["tokmesh_wal_state has no label status"]
    assert faults("sum by (jobs) (up)", RECORDS) == ["no such label: jobs"]
    assert faults('tokmesh_api_key_auth_total{result=~"ok|wrong"}', RECORDS) == ["tokmesh_api_key_auth_total has no result wrong"]


def test_the_objective_of_latency_lies_on_a_bound_of_the_buckets() -> None:
    bounds = {f"{bound_ns / 1e9:g}" for bound_ns in LATENCY_BOUNDS_NS}
    used = {value for rule in ALL for value in re.findall(r'le="([^"]+)"', rule.body["expr"])}
    assert used == {"0.1"} <= bounds


def test_both_forms_of_histograms_record_the_same_names() -> None:
    def recorded(file: str) -> list[str]:
        return [rule.body["record"] for rule in ALL if rule.file == file]

    assert recorded(NATIVE) == recorded("tokmesh-quantiles.yaml")
    assert not [rule for rule in ALL if rule.file == NATIVE and "_bucket" in rule.body["expr"]]


def timeless(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule without its durations."""
    return {**rule, "expr": re.sub(r"(?:(?<=\[)|(?<=\boffset ))\w+", "TIME", rule["expr"]), "for": ""}


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_scaling_changes_durations_only(path: Path) -> None:
    duration = re.compile(r"(?:\[|\boffset )(\d+\w+)")
    original = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for before, after in zip(original, scaled_rules(path, 60)["groups"], strict=True):
        for old, new in zip(before["rules"], after["rules"], strict=True):
            assert timeless(old) == timeless(new)
            spans = [old.get("for", "0s"), *duration.findall(old["expr"])]
            shorter = [new.get("for", "0s"), *duration.findall(new["expr"])]
            assert [duration_ms(span) / 60 for span in spans] == [duration_ms(span) for span in shorter]


def test_a_rehearsal_gets_every_file_once(tmp_path: Path) -> None:
    write_scaled(tmp_path, 60)
    rules = {path.name for path in RULE_FILES if path.name != NATIVE}
    assert {path.name for path in tmp_path.iterdir()} == rules | {ALERTMANAGER.name}
    assert scaled_routing(ALERTMANAGER, 60)["route"]["group_interval"] == "5000ms"

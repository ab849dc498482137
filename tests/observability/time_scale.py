"""The shipped rules and routing with every duration divided by a factor, for rehearsals: an hour's window in two minutes.

    python -m tests.observability.time_scale 30 DIRECTORY

Only time is scaled: windows (`[5m]`), offsets, `for`, and the waits of Alertmanager. Thresholds, labels, names and all else are
those of the files in deploy/, so that what a rehearsal shows is what is installed. A window must stay longer than a few scrapes.
"""

import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.server import ROOT

RULES: Final = ROOT / "deploy" / "prometheus"
ALERTMANAGER: Final = ROOT / "deploy" / "alertmanager" / "alertmanager.yaml"
NATIVE: Final = "tokmesh-quantiles-native.yaml"  # records the same names as the classic file: one of the two is loaded

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"\d+(?:ms|[smhd])")
_IN_EXPRESSION: Final = re.compile(r"(?<=\[)\d+(?:ms|[smhd])(?=\])|(?<=\boffset )\d+(?:ms|[smhd])\b")
_WAITS: Final = ("group_wait", "group_interval", "repeat_interval")


def duration_ms(text: str) -> int:
    """Milliseconds of a duration of one unit, such as "5m"; all that the shipped files use."""
    assert _DURATION.fullmatch(text), text
    number, unit = re.split(r"(?<=\d)(?=\D)", text)
    return int(number) * _UNIT_MS[unit]


def scaled(text: str, factor: float) -> str:
    """A duration divided by `factor`, at least a millisecond."""
    return f"{max(1, round(duration_ms(text) / factor))}ms"


def scaled_rules(path: Path, factor: float) -> dict[str, Any]:
    """A file of rules, its durations divided by `factor`."""
    rules: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _IN_EXPRESSION.sub(lambda found: scaled(found[0], factor), rule["expr"])
            if "for" in rule:
                rule["for"] = scaled(rule["for"], factor)
    return rules


def scaled_routing(path: Path, factor: float) -> dict[str, Any]:
    """A configuration of Alertmanager, the waits of its routes divided by `factor`."""
    routing: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for route in (routing["route"], *routing["route"]["routes"]):
        for wait in _WAITS:
            if wait in route:
                route[wait] = scaled(route[wait], factor)
    return routing


def write_scaled(directory: Path, factor: float) -> None:
    """Writes every file of rules but the native variant, and alertmanager.yaml, into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(RULES.glob("*.yaml")):
        if path.name != NATIVE:
            (directory / path.name).write_text(yaml.safe_dump(scaled_rules(path, factor), sort_keys=False), encoding="utf-8")
    routing = scaled_routing(ALERTMANAGER, factor)
    (directory / "alertmanager.yaml").write_text(yaml.safe_dump(routing, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.observability.time_scale FACTOR DIRECTORY")
    write_scaled(Path(sys.argv[2]), float(sys.argv[1]))

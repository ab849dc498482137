"""The result of a run as a table for people, as JSON for machines, as Markdown for docs/performance.md."""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.load.measure import Sample, median
from benchmarks.load.rows import Outcome

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass
class Report:
    """`rounds` by subject; `figures` holds single numbers that are no rows."""

    machine: dict[str, str]
    settings: dict[str, object]
    names: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, list[Sample]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def medians(self) -> dict[str, Sample]:
        return {name: median(samples) for name, samples in self.rounds.items() if samples}

    def to_json(self) -> str:
        document = {
            "machine": self.machine,
            "settings": self.settings,
            "subjects": {
                name: {
                    "what": self.names[name],
                    "median": fields_of(sample),
                    "rounds": [fields_of(one) for one in self.rounds[name]],
                }
                for name, sample in self.medians().items()
            },
            "figures": {name: None if math.isnan(value) else value for name, value in self.figures.items()},
            "rows": [asdict(outcome) for outcome in self.outcomes],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def milliseconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def spread(rounds: list[Sample]) -> float:
    """How far the rounds' rates lie apart, as a share of their median. Large: something else used the cores."""
    rates = [one.operations_per_s for one in rounds]
    return (max(rates) - min(rates)) / statistics.median(rates)


def fields_of(sample: Sample) -> dict[str, float | None]:
    """For JSON, which has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in asdict(sample).items()}


def subject_cells(
    names: Mapping[str, str], medians: Mapping[str, Sample], rounds: Mapping[str, list[Sample]]
) -> list[list[str]]:
    header = [
        "subject",
        "per second",
        "CPU µs",
        "user",
        "system",
        "P50 ms",
        "P99 ms",
        "P99.9 ms",
        "core busy",
        "spread",
    ]
    cells = [header]
    for name, one in medians.items():
        cpu = [f"{one.cpu_us:.2f}", f"{one.user_us:.2f}", f"{one.system_us:.2f}"]
        latency = [milliseconds(value) for value in (one.p50_ms, one.p99_ms, one.p999_ms)]
        cells.append(
            [
                names[name],
                f"{one.operations_per_s:,.0f}",
                *cpu,
                *latency,
                f"{one.cpu_busy:.0%}",
                f"{spread(rounds[name]):.0%}",
            ]
        )
    return cells


def outcome_cells(outcomes: list[Outcome]) -> list[list[str]]:
    cells = [["what", "against", "measured", "goal", "", "detail"]]
    for one in outcomes:
        measured = f"{one.value:.3g} {one.unit}"
        cells.append([one.what, one.against, measured, one.goal, "met" if one.met else "missed", one.note])
    return cells


def plain_table(cells: list[list[str]]) -> str:
    """Columns under one another, numbers to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = [
            text.rjust(width) if text[:1].isdigit() else text.ljust(width)
            for text, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join([*padded[:-1], row[-1]]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    return "\n".join(lines)


def plain(report: Report) -> str:
    parts = []
    if report.rounds:
        parts.append(plain_table(subject_cells(report.names, report.medians(), report.rounds)))
    if report.figures:
        parts.append("\n".join(f"{name}: {value:,.2f}" for name, value in report.figures.items()))
    if report.outcomes:
        parts.append(plain_table(outcome_cells(report.outcomes)))
    return "\n\n".join(parts)


def markdown(report: Report) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    figures = "\n".join(f"- {name}: {value:,.2f}" for name, value in report.figures.items())
    parts = [f"Machine: {machine}.", markdown_table(outcome_cells(report.outcomes))]
    parts += [markdown_table(subject_cells(report.names, report.medians(), report.rounds)), figures]
    return "\n\n".join(part for part in parts if part)


def publish(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Puts `text` between the two marks of a page. The page must have both."""
    page = path.read_text()
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    assert found_begin and found_end, f"{path} has lost its marks {begin} and {end}"
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")

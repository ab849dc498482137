"""What a metric is: the form of a row of the catalogue, and the few shapes that rows have.

Invariants: a label either lists all its values or says what bounds them; a histogram has its bounds here, as the integers
it records, and nowhere else in telemetry. What a row promises to those who build on it is its stability.
"""

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "tokmesh_"  # of all but the process_* metrics, whose names every Prometheus client shares
NS_PER_SECOND: Final = 1_000_000_000

MetricType = Literal["counter", "gauge", "histogram"]
Group = Literal[
    "Sessions and tokens",
    "API",
    "API keys",
    "Connections",
    "Log",
    "Snapshots",
    "Table",
    "Cluster",
    "Resources",
    "Server",
    "Tracing",
]
# stable: name, labels and meaning never change. evolving: a minor release may change them, and its changelog says so.
Stability = Literal["stable", "evolving"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label. `values` is its closed set; empty where only the running server knows it, and `bound` names it."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """How to use a metric: a query for Prometheus, and what to look for in its answer."""

    query: str
    look_for: str


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family.

    name: as exposed, with prefix and (for a counter) `_total`. unit: base unit that the values are in, "" for plain
    counts and 0/1. bounds: a histogram's, as the integers it records; divisor: what those are divided by to give units
    (1e9 where it records nanoseconds). absent_when: why its series may be missing; "" where they never are.
    """

    name: str
    type: MetricType
    unit: str
    labels: tuple[Label, ...]
    help: str
    group: Group
    stability: Stability = "evolving"
    usage: Usage | None = None
    bounds: tuple[int, ...] = ()
    divisor: int = 1
    absent_when: str = ""

    @property
    def stable(self) -> bool:
        return self.stability == "stable"

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


def counter(
    group: Group,
    name: str,
    text: str,
    *labels: Label,
    unit: str = "",
    prefix: str = PREFIX,
    stability: Stability = "evolving",
    usage: Usage | None = None,
    absent_when: str = "",
) -> MetricSpec:
    """A row for what only grows."""
    return MetricSpec(prefix + name, "counter", unit, labels, text, group, stability, usage, absent_when=absent_when)


def gauge(
    group: Group,
    name: str,
    text: str,
    *labels: Label,
    unit: str = "",
    prefix: str = PREFIX,
    stability: Stability = "evolving",
    usage: Usage | None = None,
    absent_when: str = "",
) -> MetricSpec:
    """A row for what goes up and down."""
    return MetricSpec(prefix + name, "gauge", unit, labels, text, group, stability, usage, absent_when=absent_when)


def seconds(
    group: Group,
    name: str,
    text: str,
    *labels: Label,
    bounds_ns: tuple[int, ...],
    stability: Stability = "evolving",
    usage: Usage | None = None,
) -> MetricSpec:
    """A row for a distribution of durations, which are recorded in nanoseconds."""
    return MetricSpec(PREFIX + name, "histogram", "seconds", labels, text, group, stability, usage, bounds_ns, NS_PER_SECOND)

"""All metrics at one moment, as numbers: what /metrics says, asked by name.

Made from families, so that the server can use those it has read and a client those it has parsed. Invariant: a name or
label that the catalogue does not have is our bug, not a 0.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tokmesh.telemetry.readings import Family, Series


class Buckets(NamedTuple):
    """A histogram. bounds: upper ends in units, without +Inf; counts: cumulative, one more; sum in units."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    def since(self, earlier: "Buckets") -> "Buckets":
        """What was observed after `earlier`, of the same histogram."""
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Buckets(self.bounds, counts, self.sum - earlier.sum)

    def quantile(self, q: float) -> float | None:
        """As Prometheus's histogram_quantile: linear within a bucket, at most the last bound; None if it is empty."""
        count = self.counts[-1]
        if count <= 0:
            return None
        rank = q * count
        position = next(index for index, value in enumerate(self.counts) if value >= rank)
        if position == len(self.bounds):
            return self.bounds[-1]
        lower = self.bounds[position - 1] if position else 0.0
        below = self.counts[position - 1] if position else 0
        within = self.counts[position] - below
        return lower + (self.bounds[position] - lower) * ((rank - below) / within if within else 1.0)


class Numbers:
    """Answers for the families it was given. A label's value may end in `*`, which stands for any end."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.spec.name: family for family in families}

    def number(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these label values; 0 if there are none."""
        return sum(series.values[0] for series in self._matching(name, labels))

    def largest(self, name: str) -> float:
        """The largest of a metric's series."""
        return max(series.values[0] for series in self._families[name].series)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Sums of a metric's series that have these label values, by the values of one label."""
        place = self._families[name].spec.label_names.index(label)
        sums: dict[str, float] = {}
        for series in self._matching(name, labels):
            sums[series.labels[place]] = sums.get(series.labels[place], 0) + series.values[0]
        return sums

    def buckets(self, name: str, **labels: str) -> Buckets:
        """The sum of a histogram's series that have these label values."""
        family = self._families[name]
        divisor = family.spec.divisor
        columns = [0.0] * (len(family.bounds) + 3)  # the bounds, +Inf, count, sum
        for series in self._matching(name, labels):
            columns = [total + value for total, value in zip(columns, series.values, strict=True)]
        counts = tuple(int(count) for count in columns[: len(family.bounds) + 1])
        return Buckets(tuple(bound / divisor for bound in family.bounds), counts, columns[-1])

    def label_values(self, name: str) -> tuple[str, ...]:
        """The label values of a metric that has one series."""
        [series] = self._families[name].series
        return series.labels

    def _matching(self, name: str, labels: dict[str, str]) -> Iterator[Series]:
        family = self._families[name]
        wanted = [(family.spec.label_names.index(label), value) for label, value in labels.items()]
        for series in family.series:
            if all(_fits(series.labels[place], value) for place, value in wanted):
                yield series


def _fits(value: str, wanted: str) -> bool:
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted

"""The page docs/metrics.md, written from the catalogue. A test compares the two."""

from collections.abc import Iterable
from typing import Final

from tokmesh.telemetry.metric import Label, MetricSpec

_HEAD: Final = """\
# Metrics

*Written by `python -m tokmesh.telemetry.catalog > docs/metrics.md`; edit the rows in `tokmesh/telemetry/service_metrics.py`
and its neighbours there instead. A test compares the two.*

**Series.** Every series with a closed set of label values exists from the first scrape, counters at 0, unless its row says
when it is absent. No label carries an identifier of a session, token, key or user, and nothing a client sends can add a value.
A cluster's series are present on a node alone and tell its truth. Of many nodes each exposes its own view: what all see alike
(members, sessions by primary) is never summed over instances.

**Stability.** Metrics marked *stable* keep their name, labels and meaning. The others may change in a minor release; the
changelog then says so. `promtool check metrics` objects to three names (`tokmesh_sessions_active_total`,
`tokmesh_cluster_nodes_total`, `tokmesh_shard_keys_count`): they are kept as they were asked for.

**Formats.** Text 0.0.4, OpenMetrics 1.0.0 and, with `telemetry.metrics.native_histograms`, protobuf, by the `Accept` header;
gzip by `Accept-Encoding`. A scrape that accepts none of them gets text. Only OpenMetrics and protobuf carry exemplars, and
only protobuf carries native histograms (schema 3: eight buckets an octave), beside the classic buckets. A Prometheus that
reads native histograms keeps the classic buckets only if its scrape configuration says so (`scrape_classic_histograms`).
"""


def _label_text(label: Label) -> str:
    values = " ".join(f"`{value}`" for value in label.values) if label.values else label.bound
    return f"`{label.name}`: {values}"


def _row(metric: MetricSpec) -> str:
    labels = "; ".join(_label_text(label) for label in metric.labels)
    absent = f" Absent where {metric.absent_when}." if metric.absent_when else ""
    stability = "stable" if metric.stable else ""
    return f"| `{metric.name}` | {metric.type} | {metric.unit} | {labels} | {stability} | {metric.help}{absent} |"


def metrics_markdown(metrics: Iterable[MetricSpec]) -> str:
    """One table a group, and below it how to use those that say so; ends in a newline."""
    metrics = tuple(metrics)
    lines = [_HEAD]
    for group in dict.fromkeys(metric.group for metric in metrics):
        members = [metric for metric in metrics if metric.group == group]
        lines += [f"## {group}", "", "| metric | type | unit | labels | stability | meaning |", "|---|---|---|---|---|---|"]
        lines += [_row(metric) for metric in members]
        lines.append("")
        for metric in members:
            if metric.usage:
                lines += [f"`{metric.name}`: {metric.usage.look_for}", "", f"    {metric.usage.query}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"

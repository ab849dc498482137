"""The catalogue of metrics: every metric this server exposes, once.

Invariants: a name is here exactly once; a label either lists all its values or says what bounds them, and no value is
ever an identifier of a session, token, key or user (docs/metrics.md). The rows are in `service_metrics.py`,
`node_metrics.py` and others beside them; `readings.py` fills the families in, `exposition.py` renders them, and `metrics_page.py` writes the
reference: `python -m tokmesh.telemetry.catalog > docs/metrics.md`. Whatever names a metric elsewhere, such as a rule or a
dashboard, is checked with `series_labels`.

Series of a cluster are here too, and tell the truth of a node alone: it is active, its number is odd, it has its own
quorum, it holds every session, it replicates to itself without lag, and there is nobody to gossip with (those
histograms stay empty).
"""

import sys
from collections.abc import Callable
from typing import Final

from prometheus_client.utils import floatToGoString

from tokmesh.telemetry.cluster_metrics import (
    comparison_metrics,
    membership_metrics,
    placement_metrics,
    question_metrics,
    standing_metrics,
    stream_metrics,
)
from tokmesh.telemetry.metric import MetricSpec
from tokmesh.telemetry.metrics_page import metrics_markdown
from tokmesh.telemetry.node_metrics import (
    GC_GENERATIONS,
    LOG_STATES,
    log_metrics,
    process_metrics,
    resource_metrics,
    server_metrics,
    table_metrics,
)
from tokmesh.telemetry.service_metrics import (
    AUTH_RESULTS,
    PROPAGATION_BOUNDS_NS,
    REJECT_REASONS,
    api_metrics,
    connection_metrics,
    key_metrics,
    revocation_metrics,
    session_metrics,
)
from tokmesh.telemetry.snapshot_metrics import snapshot_metrics
from tokmesh.telemetry.tracing_metrics import tracing_metrics

__all__ = [
    "AUTH_RESULTS",
    "GC_GENERATIONS",
    "LOG_STATES",
    "METRICS",
    "METRICS_BY_NAME",
    "PROPAGATION_BOUNDS_NS",
    "REJECT_REASONS",
    "MetricSpec",
    "bound_text",
    "golden",
    "page",
    "series_labels",
]

METRICS: Final[tuple[MetricSpec, ...]] = (
    *session_metrics(), *revocation_metrics(), *api_metrics(), *key_metrics(), *connection_metrics(), *log_metrics(),
    *snapshot_metrics(), *table_metrics(), *membership_metrics(), *standing_metrics(), *comparison_metrics(),
    *placement_metrics(), *question_metrics(), *stream_metrics(), *resource_metrics(),
    *process_metrics(), *server_metrics(), *tracing_metrics(),
)  # fmt: skip
METRICS_BY_NAME: Final = {metric.name: metric for metric in METRICS}

_FLOAT_TEXT: Final[Callable[[float], str]] = floatToGoString  # which prometheus-client leaves untyped
_HISTOGRAM_SERIES: Final = ("_bucket", "_sum", "_count")


def series_labels(name: str) -> dict[str, tuple[str, ...]]:
    """The labels of a series as a query names it (a histogram's with `_bucket`, `_sum` or `_count`, or bare where it is
    native), each with its closed set of values; an empty set where only the running server knows it.

    KeyError for a name that no scrape has. What Prometheus itself adds (`job`, `instance`) is not included.
    """
    metric = METRICS_BY_NAME.get(name)
    for suffix in _HISTOGRAM_SERIES:
        if metric is None and name.endswith(suffix):
            metric = METRICS_BY_NAME.get(name.removesuffix(suffix))
            if metric is not None and metric.type != "histogram":
                metric = None
    if metric is None:
        raise KeyError(name)
    labels = {label.name: label.values for label in metric.labels}
    if metric.type == "histogram" and name.endswith("_bucket"):
        labels["le"] = (*(bound_text(metric, bound) for bound in metric.bounds), "+Inf")
    return labels


def bound_text(metric: MetricSpec, bound: int) -> str:
    """A bound of a histogram as the value of `le`."""
    return _FLOAT_TEXT(bound / metric.divisor)


def golden() -> list[str]:
    """The catalogue in brief, a line a metric, sorted: name, type, stability, labels with their closed values."""
    lines = []
    for metric in METRICS:
        labels = [f"{label.name}={'|'.join(label.values) or '*'}" for label in metric.labels]
        lines.append(" ".join((metric.name, metric.type, metric.stability, *labels)))
    return sorted(lines)


def page() -> str:
    """The catalogue as a Markdown page (docs/metrics.md)."""
    return metrics_markdown(METRICS)


if __name__ == "__main__":
    # `golden`: the list that a test holds against the catalogue, instead of the page.
    sys.stdout.write("".join(f"{line}\n" for line in golden()) if sys.argv[1:] == ["golden"] else page())

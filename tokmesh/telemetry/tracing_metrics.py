"""Rows of the catalogue about tracing: what was chosen, what became of it. They are 0 while tracing is off.

`catalog.py` puts them together with the others and says what holds for all of them.
"""

from tokmesh.telemetry.metric import Group, Label, MetricSpec, Usage, counter, gauge
from tokmesh.telemetry.tracing.figures import DROP_REASONS, FAILURE_REASONS


def tracing_metrics() -> list[MetricSpec]:
    group: Group = "Tracing"
    return [
        counter(
            group, "trace_requests_total",
            "Requests chosen for tracing: sampled, or let go because of telemetry.tracing.max_traces_per_second.",
            Label("outcome", ("sampled", "rate_limited")),
        ),
        counter(group, "trace_spans_exported_total", "Spans that the receiver took."),
        counter(
            group, "trace_spans_dropped_total",
            "Spans lost: the queue was full; the receiver took the request without them, or refused it; the server ended "
            "first; they could not be encoded (a bug).",
            Label("reason", DROP_REASONS),
            usage=Usage(
                "sum by (instance, reason) (increase(tokmesh_trace_spans_dropped_total[10m])) > 0",
                "Traces have holes. queue_full: the receiver is too slow or down; refused: look at its answer and credentials.",
            ),
        ),
        counter(
            group, "trace_export_failures_total",
            "Failed requests to the receiver of spans: no connection; no answer in time; busy (429, 502, 503, 504: sent again); "
            "another status; a good status with an answer that is not OTLP.",
            Label("reason", FAILURE_REASONS),
        ),
        gauge(group, "trace_queue_spans", "Spans waiting for the receiver."),
    ]  # fmt: skip

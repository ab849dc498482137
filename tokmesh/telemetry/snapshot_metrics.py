"""Rows of the catalogue about snapshots, and how they are read.

`catalog.py` puts them together with the others and says what holds for all of them.
"""

from collections.abc import Mapping
from typing import Any

from tokmesh.telemetry.metric import Group, Label, MetricSpec, Usage, counter, gauge


def snapshot_metrics() -> list[MetricSpec]:
    group: Group = "Snapshots"
    return [
        counter(
            group, "snapshot_total", "Snapshots taken, and attempts that failed; a failed one is tried again after a minute.",
            Label("result", ("ok", "failed")),
        ),
        gauge(
            group, "snapshot_failed_attempts",
            "Attempts that failed since the last snapshot that was taken, or since the start; 0: the last attempt succeeded.",
            usage=Usage(
                "max by (instance) (tokmesh_snapshot_failed_attempts) > 0",
                "The log cannot shrink while no snapshot succeeds: the disk fills, and a start takes longer. The log says why.",
            ),
        ),
        gauge(
            group, "snapshot_due_ratio",
            "Share of storage.snapshot.interval, or of its threshold, that has gone by since the newest snapshot, the larger "
            "of both. A snapshot is due at 1; 0 while nothing was recorded since.",
            unit="ratio",
            usage=Usage(
                "max by (instance) (tokmesh_snapshot_due_ratio) > 3",
                "Snapshots are due and are not taken, or take too long: the log grows, and so does the time that a start takes.",
            ),
        ),
        gauge(
            group, "snapshot_log_bytes", "Bytes of the log written since the newest snapshot: what a start has to replay.",
            unit="bytes",
        ),
        gauge(group, "snapshot_running", "1 while a snapshot is being taken."),
        gauge(group, "snapshot_files", "Snapshots kept."),
        gauge(
            group, "snapshot_last_timestamp_seconds", "When the newest snapshot was taken, in Unix time; 0 without one.",
            unit="seconds",
        ),
        gauge(group, "snapshot_last_sequence", "Sequence of the newest record that the newest snapshot covers."),
        gauge(group, "snapshot_last_bytes", "Size of the newest snapshot.", unit="bytes"),
        gauge(group, "snapshot_last_duration_seconds", "Time that taking the last snapshot took.", unit="seconds"),
        gauge(
            group, "snapshot_unusable_files",
            "Snapshots that the last start could not use, and passed over for an older one; until they are gone and another is "
            "taken.",
            usage=Usage(
                "max by (instance) (tokmesh_snapshot_unusable_files) > 0",
                "A disk that alters what it keeps. The state is right: an older snapshot and the log made it.",
            ),
        ),
    ]  # fmt: skip


def read_snapshots(values: dict[str, Any], stats: Mapping[str, Any]) -> None:
    """Fills the families in. stats: of `snapshots.taking.Snapshots`."""
    values["tokmesh_snapshot_total"] = [(("ok",), stats["taken"]), (("failed",), stats["failed"])]
    values["tokmesh_snapshot_failed_attempts"] = stats["failed_since"]
    values["tokmesh_snapshot_due_ratio"] = stats["due_ratio"]
    values["tokmesh_snapshot_log_bytes"] = stats["log_bytes"]
    values["tokmesh_snapshot_running"] = int(stats["running"])
    values["tokmesh_snapshot_files"] = stats["count"]
    values["tokmesh_snapshot_last_timestamp_seconds"] = stats["last_time_ms"] / 1000
    values["tokmesh_snapshot_last_sequence"] = stats["last_sequence"]
    values["tokmesh_snapshot_last_bytes"] = stats["last_bytes"]
    values["tokmesh_snapshot_last_duration_seconds"] = stats["last_seconds"]
    values["tokmesh_snapshot_unusable_files"] = stats["unusable"]

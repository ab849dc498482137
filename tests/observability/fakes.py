"""Sources for the exposition without a server: every figure settable, the route table of a small API."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokmesh._core.counters import CounterBlock
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock
from tokmesh._core.sampling import Sampler
from tokmesh._core.tail import GROUP_BOUNDS
from tokmesh.telemetry.gc_pauses import GcPauses
from tokmesh.telemetry.logs import LogStats
from tokmesh.telemetry.logs.audit import AuditTrail
from tokmesh.telemetry.loop_lag import LoopLag
from tokmesh.telemetry.readings import Propagation, Sources
from tokmesh.telemetry.resources import Resources
from tokmesh.telemetry.tracing.figures import TracingFigures
from tokmesh.telemetry.watchdog import Watchdog

NODE_ID = "tmnd-one"


class FakeMeter:
    """Two declared routes; `others` holds whatever else has counted."""

    def __init__(self) -> None:
        self.routes = [("GET", "/sessions/{session_id}"), ("POST", "/tokens/validate")]
        self.latency = HistogramBlock(len(self.routes), LATENCY_BOUNDS_NS)
        self.others: list[tuple[str, str, str, int]] = []

    def series(self) -> list[tuple[str, str, str, int]]:
        return [(*route, status, 0) for route in self.routes for status in ("200", "400", "503")] + self.others

    def durations(self) -> list[tuple[str, str, str, int]]:
        return [(*route, "2xx", row) for row, route in enumerate(self.routes)]


class FakeStats:
    """stats() of the table or the authenticator."""

    def __init__(self, **figures: float) -> None:
        self.figures: dict[str, float] = figures

    def stats(self) -> dict[str, float]:
        return self.figures


class FakeLog:
    """stats() and histograms of the log."""

    def __init__(self) -> None:
        names = (
            "write_bytes_total fsync_total fsync_failed_total append_errors_total records_total groups_total segments "
            "last_sequence durable_sequence segment_bytes encrypted pending recovery_seconds recovery_records torn_tail_total"
        )
        self.figures: dict[str, object] = dict.fromkeys(names.split(), 0)
        self.figures["state"] = "open"
        self.figures["encrypted"] = False  # as the log tells it
        self.fsync_histogram = HistogramBlock(1, LATENCY_BOUNDS_NS)
        self.group_histogram = HistogramBlock(1, GROUP_BOUNDS)

    def stats(self) -> dict[str, object]:
        return self.figures


def member(node_id: str, *, is_self: bool = False, state: str = "active", lags_ns: tuple[int, int] = (0, 0)) -> SimpleNamespace:
    """Of a cluster."""
    return SimpleNamespace(
        node_id=node_id, state=state, is_self=is_self, silent_ns=0, applied=7, round_trip_ns=0, lag_from_ns=lags_ns[0],
        lag_to_ns=lags_ns[1], figures=SimpleNamespace(sessions=11, pending=0, version="1.2.3", held=0xFF),
    )  # fmt: skip


def cluster_figures(**changes: Any) -> Any:
    """What the node tmnd-one knows, cut off from two others, of which one is down."""
    figures: dict[str, Any] = {
        "members": (
            member(NODE_ID, is_self=True),
            member("tmnd-two", lags_ns=(500_000_000, 1_500_000_000)),
            member("tmnd-three", state="down", lags_ns=(0, 9_000_000_000)),
        ),
        "quorum_lost": True, "is_fenced": True, "is_diverged": False, "is_apart": False, "began_anew_ms": 1_734_567_890_000,
        "table_differences": {"tmnd-two": 2}, "table_comparisons": 8, "table_comparison_ns": 3_000_000_000,
        "staleness_ns": 2_500_000_000, "position": 7, "majority_position": 6,
        "shard_keys": {NODE_ID: 6, "tmnd-two": 5}, "shards_held": 40, "shards_loading": 3, "shards_leaving": 2, "shards_unheld": 1,
        "shard_records_loaded": 1234, "shard_loads_failed": 6, "revokes_pending": 3, "revoke_oldest_ns": 4_000_000_000,
        "publications": {"stored": 5, "conflict": 2, "refused": 1, "unknown": 0}, "publications_resent": 1,
        "publications_pending": 4, "writes_unproved": 1, "consumers_made": 2, "fetches": 3, "quarantined": 0, "beats_sent": 9,
        "own_id_beats": 0, "undecodable": {"beat": 0, "touch": 1, "report": 0, "question": 0},
        "questions": {"answered": 5, "silent": 1}, "questions_answered": {"answered": 3}, "nats_state": "lost",
        "nats_reason": "the connection is lost", "nats_reconnects": 1, "nats_version": "2.14.0", "nats_is_old": True,
        "is_removed": False, "nats_sync": "off",
    }  # fmt: skip
    return SimpleNamespace(**{**figures, **changes})


class Fakes:
    """All of them, and the `Sources` made of them."""

    def __init__(self, directory: Path) -> None:
        self.counters = CounterBlock()
        self.meter = FakeMeter()
        self.log = FakeLog()
        self.table = FakeStats(
            sessions_active=0, entries_used=0, tombstones=0, aliases=0, memory_bytes=0, memory_reserved_bytes=1 << 40,
            index_load=0.0, index_rebuilding=0, expiry_backlog=0, interned_strings=0, arena_free_bytes=0,
        )  # fmt: skip
        self.snapshots = FakeStats(
            taken=0, failed=0, failed_since=0, log_bytes=0, due_ratio=0, running=0, count=0, last_time_ms=0, last_sequence=0,
            last_bytes=0, last_seconds=0.0, unusable=0,
        )
        self.authenticator = FakeStats(
            argon2_runs_total=0, prefilter_rejects_total=0, cache_hits=0, cache_misses=0, cache_entries=0,
            argon2_pending=0,
        )  # fmt: skip
        self.log_lines = LogStats()
        self.audit = AuditTrail(lambda: 0)
        self.loop_lag = LoopLag()
        self.buffers = SimpleNamespace(buffered_bytes=0)
        self.gc_pauses = GcPauses()
        self.watchdog = Watchdog(self.loop_lag, 1.0)
        self.sources = Sources(
            counters=self.counters,
            meter=self.meter,
            buffers=self.buffers,
            table=self.table,
            log=self.log,
            snapshots=self.snapshots,
            authenticator=self.authenticator,
            resources=Resources(directory),
            loop_lag=self.loop_lag,
            watchdog=self.watchdog,
            gc_pauses=self.gc_pauses,
            log_lines=self.log_lines,
            connections_max=10_000,
            audit=self.audit,
            sampler=Sampler(),
            tracing=TracingFigures(),
            started_at=1_766_050_200.5,
            version="1.2.3",
            node_id=NODE_ID,
            propagation=Propagation(),
            cluster=None,
        )


def of_a_cluster(fakes: Fakes, taken: Callable[[], object] = lambda: None) -> Sources:
    """The same sources on a node of a cluster; `taken` is called when its view is."""

    def view() -> Any:
        taken()
        return cluster_figures()

    return replace(fakes.sources, cluster=view)

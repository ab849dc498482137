"""A node's status in one object: what an operator asks first, for `status/summary`, the status page and `tokmesh top`.

Every figure is one of the catalogue's, read in the thread that reads for scrapes; nothing is measured twice. Rates are
over the last minute, conditions over the last five, both less while the process is younger. Figures that a client wants
to watch change are there as counters and cumulative buckets, so that it can take differences of its own.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tokmesh.telemetry.cluster_figures import ClusterFigures
from tokmesh.telemetry.cluster_summary import cluster_summary
from tokmesh.telemetry.conditions import Condition, Readings, judge
from tokmesh.telemetry.numbers import Buckets, Numbers
from tokmesh.telemetry.readings import Family
from tokmesh.telemetry.trends import SAMPLE_SECONDS, WINDOW_SECONDS, Sample, Trends, sample

RATE_SECONDS: Final = 60.0
QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

# As Exposition.examine; the status has one way to look.
Examine = Callable[[Callable[[list[Family]], tuple[Numbers, Sample]]], Awaitable[tuple[Numbers, Sample]]]

_logger = logging.getLogger("tokmesh.server")


@dataclass(frozen=True, slots=True)
class Posture:
    """How a process was configured, as far as conditions judge it; none of it changes while it runs."""

    sync_mode: str
    http_beyond_loopback: bool
    metrics_open: bool
    connections_max: int

    def conditions(self) -> list[Condition]:
        """What the configuration alone says; known before there is anything to measure."""
        return judge(self.readings())

    def readings(self) -> Readings:
        """What the configuration knows of a node."""
        return Readings(
            sync_mode=self.sync_mode, http_beyond_loopback=self.http_beyond_loopback, metrics_open=self.metrics_open
        )


class Status:
    """Answers `summary`; samples from `start` to `stop`.

    node_id, posture: of this process. examine: runs a function over the families of this moment, off the loop. checks:
    readiness by name, None where it holds, else why not. clock_synchronised: whether the host keeps its clock right; None: unknown.
    cluster: what the node knows of it; None on a node alone.
    """

    def __init__(
        self,
        node_id: str,
        posture: Posture,
        examine: Examine,
        checks: Callable[[], Mapping[str, str | None]],
        clock_synchronised: Callable[[], bool | None],
        cluster: Callable[[], ClusterFigures] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_id = node_id
        self._posture = posture
        self._examine = examine
        self._checks = checks
        self._cluster = cluster
        self._clock_synchronised = clock_synchronised
        self._monotonic = monotonic
        self._started = monotonic()
        self._trends = Trends()
        self._sampler: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to sample; once."""
        assert self._sampler is None
        self._sampler = loop.create_task(self._sample_always(), name="tokmesh-trends")

    async def stop(self) -> None:
        """Ends sampling."""
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.wait([self._sampler])

    async def _sample_always(self) -> None:
        while True:  # ends by cancellation
            try:
                await self._take()
            except Exception:  # a bug of ours; the next sample may fare better
                _logger.exception("no sample was taken")
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _take(self) -> tuple[Numbers, Sample]:
        numbers, taken = await self._examine(self._look)
        self._trends.note(taken)
        return numbers, taken

    def _look(self, families: list[Family]) -> tuple[Numbers, Sample]:
        numbers = Numbers(families)
        return numbers, sample(numbers, self._monotonic())

    async def summary(self) -> dict[str, Any]:
        """The status as JSON takes it; what cannot be read is null."""
        numbers, now = await self._take()
        checks = self._checks()
        cluster = None if self._cluster is None else self._cluster()
        readings = self._readings(numbers, now)
        node = self._node(numbers)
        return {
            "node": node,
            "readiness": {
                "ready": not any(checks.values()),
                "checks": [{"name": name, "ok": reason is None, "reason": reason} for name, reason in checks.items()],
            },
            "conditions": [_shown(condition) for condition in judge(readings)],
            "sessions": _sessions(numbers),
            "requests": _requests(now),
            "rates": _rates(self._trends.before(now, RATE_SECONDS), now),
            "log": self._log(numbers, now),
            "snapshots": _snapshots(numbers),
            "disk": _named(numbers, free_bytes="disk_free_bytes", total_bytes="disk_total_bytes"),
            "memory": {
                **_named(numbers, used_bytes="mem_usage_bytes", limit_bytes="mem_limit_bytes"),
                **_named(numbers, table_bytes="table_memory_bytes"),
            },
            "cpu": _named(numbers, usage_ratio="cpu_usage_ratio", available_cores="cpu_available_cores"),
            "connections": {
                **_named(numbers, open="connections_open", opened_total="connections_opened_total"),
                **_named(numbers, refused_total="connections_refused_total"),
                "max": self._posture.connections_max,
            },
            "cluster": cluster_summary(
                self._node_id, node["version"], int(numbers.number("tokmesh_sessions_active_total")), cluster
            ),
        }

    def _node(self, numbers: Numbers) -> dict[str, Any]:
        version, python = numbers.label_values("tokmesh_build_info")
        return {
            "id": self._node_id,
            "version": version,
            "python": python,
            "started_at": int(numbers.number("tokmesh_start_time_seconds") * 1000),
            "uptime_seconds": round(self._monotonic() - self._started, 3),
        }

    def _log(self, numbers: Numbers, now: Sample) -> dict[str, Any]:
        return {
            "state": _state(numbers),
            "sync_mode": self._posture.sync_mode,
            **_named(
                numbers,
                segments="wal_segments",
                segment_bytes="wal_segment_bytes",
                pending_records="wal_pending_records",
                last_sequence="wal_last_sequence",
                durable_sequence="wal_durable_sequence",
                write_bytes_total="wal_write_bytes_total",
                records_total="wal_records_total",
                sync_total="wal_fsync_total",
                sync_failed_total="wal_fsync_failed_total",
            ),
            "sync_latency": _buckets(now.sync_latency),
        }

    def _readings(self, numbers: Numbers, now: Sample) -> Readings:
        then = self._trends.before(now, WINDOW_SECONDS)
        seconds = now.at - then.at
        cores = numbers.number("tokmesh_cpu_available_cores")
        nodes = numbers.by("tokmesh_cluster_nodes_total", "status")
        validated = now.validate_latency.since(then.validate_latency)
        return replace(
            self._posture.readings(),
            log_state=_state(numbers),
            sync_failures=numbers.number("tokmesh_wal_fsync_failed_total"),
            snapshots_unusable=numbers.number("tokmesh_snapshot_unusable_files"),
            snapshot_failed_attempts=numbers.number("tokmesh_snapshot_failed_attempts"),
            snapshot_due_ratio=numbers.number("tokmesh_snapshot_due_ratio"),
            disk_free_bytes=numbers.number("tokmesh_disk_free_bytes"),
            disk_total_bytes=numbers.number("tokmesh_disk_total_bytes"),
            memory_used_bytes=numbers.number("tokmesh_mem_usage_bytes"),
            memory_limit_bytes=numbers.number("tokmesh_mem_limit_bytes"),
            cpu_ratio_recently=(now.cpu_seconds - then.cpu_seconds) / seconds / cores if seconds > 0 else None,
            open_files=numbers.number("process_open_fds"),
            open_files_max=numbers.number("process_max_fds"),
            nodes_active=nodes["active"],
            nodes_down=nodes["down"],
            quorum_lost=numbers.number("tokmesh_cluster_quorum_lost") > 0,
            cluster_fenced=numbers.number("tokmesh_cluster_fenced") > 0,
            cluster_diverged=numbers.number("tokmesh_cluster_diverged") > 0,
            stands_apart=numbers.number("tokmesh_cluster_stands_apart") > 0,
            differing_parts=numbers.largest("tokmesh_cluster_table_differences"),
            unheld_shards=numbers.number("tokmesh_cluster_shards_unheld"),
            quarantined_records=numbers.number("tokmesh_cluster_quarantined_records"),
            cluster_removed=numbers.number("tokmesh_cluster_removed") > 0,
            nats_old=numbers.number("tokmesh_cluster_nats_old") > 0,
            nats_sync_off=numbers.by("tokmesh_cluster_nats_sync", "state").get("off", 0) > 0,
            revoke_pending_seconds=numbers.number("tokmesh_session_revoke_oldest_pending_seconds"),
            replication_lag_seconds=numbers.largest("tokmesh_replication_lag_seconds"),
            expiry_backlog=numbers.number("tokmesh_session_expiry_backlog"),
            table_bytes=numbers.number("tokmesh_table_memory_bytes"),
            table_bytes_max=numbers.number("tokmesh_table_memory_reserved_bytes"),
            key_checks_recently=now.key_checks - then.key_checks,
            key_failures_recently=now.key_failures - then.key_failures,
            key_checks_overloaded_recently=now.key_checks_overloaded - then.key_checks_overloaded,
            requests_recently=now.guarded_requests - then.guarded_requests,
            errors_recently=now.guarded_errors - then.guarded_errors,
            validate_answers_recently=validated.counts[-1],
            validate_p99_seconds_recently=validated.quantile(0.99),
            sync_p99_seconds_recently=now.sync_latency.since(then.sync_latency).quantile(0.99),
            loop_lag_p99_seconds_recently=now.loop_lag.since(then.loop_lag).quantile(0.99),
            connections_refused_recently=now.connections_refused - then.connections_refused,
            log_lines_dropped_recently=now.log_lines_dropped - then.log_lines_dropped,
            clock_synchronised=self._clock_synchronised(),
        )


def _shown(condition: Condition) -> dict[str, str]:
    return condition._asdict()


def _named(numbers: Numbers, **names: str) -> dict[str, float | None]:
    """Field → metric without its prefix; null for what could not be read or has no bound."""
    found = {field: numbers.number(f"tokmesh_{name}") for field, name in names.items()}
    return {field: number if math.isfinite(number) else None for field, number in found.items()}


def _state(numbers: Numbers) -> str:
    return next(state for state, on in numbers.by("tokmesh_wal_state", "state").items() if on)


def _buckets(buckets: Buckets) -> dict[str, Any]:
    """bounds_seconds has one entry less than counts, which are cumulative and end with all."""
    return {"bounds_seconds": buckets.bounds, "counts": buckets.counts, "sum_seconds": buckets.sum}


def _sessions(numbers: Numbers) -> dict[str, Any]:
    return _named(
        numbers,
        active="sessions_active_total",
        created_total="session_create_total",
        revoked_total="session_revoke_total",
        tombstones="table_tombstones",
        expiry_backlog="session_expiry_backlog",
    )


def _snapshots(numbers: Numbers) -> dict[str, Any]:
    return {
        "running": numbers.number("tokmesh_snapshot_running") > 0,
        "last_taken_at": int(numbers.number("tokmesh_snapshot_last_timestamp_seconds") * 1000) or None,
        **_named(
            numbers,
            kept="snapshot_files",
            unusable="snapshot_unusable_files",
            failed_attempts="snapshot_failed_attempts",
            due_ratio="snapshot_due_ratio",
            log_bytes="snapshot_log_bytes",
            last_bytes="snapshot_last_bytes",
        ),
    }


def _requests(now: Sample) -> dict[str, Any]:
    return {
        "total": now.requests,
        "errors_total": now.errors,
        "validations_total": now.validations,
        "latency": _buckets(now.latency),
        "validate_latency": _buckets(now.validate_latency),
    }


def _rates(then: Sample, now: Sample) -> dict[str, Any]:
    """Per second, and quantiles in seconds, between two samples; null without two."""
    seconds = now.at - then.at

    def rate(difference: float) -> float | None:
        return round(difference / seconds, 3) if seconds > 0 else None

    def quantiles(buckets: Buckets) -> dict[str, float | None]:
        return {name: buckets.quantile(q) for name, q in QUANTILES.items()}

    return {
        "window_seconds": round(seconds, 3),
        "requests": rate(now.requests - then.requests),
        "errors": rate(now.errors - then.errors),
        "validations": {verdict: rate(count - then.validations[verdict]) for verdict, count in now.validations.items()},
        "latency_seconds": quantiles(now.latency.since(then.latency)),
        "validate_latency_seconds": quantiles(now.validate_latency.since(then.validate_latency)),
    }

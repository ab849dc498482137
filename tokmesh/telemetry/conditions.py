"""What is wrong with a node, in words, judged from readings: one set of rules for whoever asks.

A server judges its figures, its configuration and its host's clock, and everybody shows that verdict: the administration
API, the status page, `tokmesh top`, and `tokmesh doctor`, which judges configuration and clock when no server answers. The
thresholds are those of the alert rules in deploy/prometheus, and a condition that has an alert carries its name as its
code, so that one runbook serves both.

Invariants: judging is a pure function of `Readings`. What is not known (None, or NaN) is not judged: no condition is
ever raised, or denied, by a guess. A condition is a fact about now; that alerts wait for some minutes before they fire
is theirs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

DISK_FREE_RATIO_MIN: Final = 0.10
BUSY_RATIO_MAX: Final = 0.85  # memory and CPU
OPEN_FILES_RATIO_MAX: Final = 0.85
TABLE_RATIO_MAX: Final = 0.85
KEY_FAILURE_RATIO_MAX: Final = 0.05
KEY_FAILURES_MIN: Final = 10  # with fewer a ratio says nothing
ERROR_RATIO_MAX: Final = 0.05
ERRORS_MIN: Final = 10
VALIDATE_P99_SECONDS_MAX: Final = 0.1
VALIDATE_ANSWERS_MIN: Final = 100  # with fewer a single slow one is a P99
SYNC_P99_SECONDS_MAX: Final = 0.5
LOOP_LAG_P99_SECONDS_MAX: Final = 0.1
REVOKE_PENDING_SECONDS_MAX: Final = 30
REPLICATION_LAG_SECONDS_MAX: Final = 2
EXPIRY_BACKLOG_MAX: Final = 100_000
SNAPSHOT_DUE_RATIO_MAX: Final = 3

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What is known of a node. Sizes in bytes, times in seconds; None: not known.

    Fields that end in `_recently` are over the last minutes (the alerts look at five).
    """

    log_state: str | None = None  # a value of catalog.LOG_STATES
    sync_failures: float | None = None  # since the start of the process
    sync_mode: str | None = None
    snapshots_unusable: float | None = None  # that the last start passed over
    snapshot_failed_attempts: float | None = None  # since the last that succeeded
    snapshot_due_ratio: float | None = None  # 1: one is due
    disk_free_bytes: float | None = None
    disk_total_bytes: float | None = None
    memory_used_bytes: float | None = None
    memory_limit_bytes: float | None = None
    cpu_ratio_recently: float | None = None
    open_files: float | None = None
    open_files_max: float | None = None
    nodes_active: float | None = None
    nodes_down: float | None = None
    quorum_lost: bool | None = None
    cluster_fenced: bool | None = None  # answers no reads
    cluster_diverged: bool | None = None  # the stream has lost what was acknowledged
    stands_apart: bool | None = None  # its table differs from those of a majority
    differing_parts: float | None = None  # of the member whose table differs most from this node's
    unheld_shards: float | None = None  # that nobody in reach holds
    quarantined_records: float | None = None  # of the stream, passed over
    cluster_removed: bool | None = None  # this node was taken out of the cluster
    nats_old: bool | None = None
    nats_sync_off: bool | None = None  # a NATS server that holds the stream does not sync each record
    revoke_pending_seconds: float | None = None  # age of the oldest; 0: none
    replication_lag_seconds: float | None = None  # of the pair of nodes that is farthest apart
    expiry_backlog: float | None = None
    table_bytes: float | None = None
    table_bytes_max: float | None = None
    key_checks_recently: float | None = None  # keys presented and judged
    key_failures_recently: float | None = None  # of those: malformed, wrong, disabled, expired
    key_checks_overloaded_recently: float | None = None
    requests_recently: float | None = None  # on guarded routes, without scrapes
    errors_recently: float | None = None  # of those: answers of class 5xx
    validate_answers_recently: float | None = None
    validate_p99_seconds_recently: float | None = None
    sync_p99_seconds_recently: float | None = None
    loop_lag_p99_seconds_recently: float | None = None
    connections_refused_recently: float | None = None
    log_lines_dropped_recently: float | None = None
    http_beyond_loopback: bool | None = None  # plain HTTP can be reached from other hosts
    metrics_open: bool | None = None  # /metrics asks for no key
    clock_synchronised: bool | None = None


class Condition(NamedTuple):
    """Something that wants attention. words: one or two sentences. runbook: a file of docs/runbooks."""

    code: str
    severity: Severity
    words: str
    runbook: str


class Rule(NamedTuple):
    """judge: the words of the condition, or None while all is well or not known."""

    code: str
    severity: Severity
    judge: Callable[[Readings], str | None]

    @property
    def runbook(self) -> str:
        """The rule's page in docs/runbooks."""
        return f"{self.code}.md"


def judge(readings: Readings) -> list[Condition]:
    """The conditions that hold, critical ones first, in the order of RULES."""
    found = [
        Condition(rule.code, rule.severity, words, rule.runbook)
        for rule in RULES
        if (words := rule.judge(readings)) is not None
    ]
    return sorted(found, key=lambda condition: condition.severity != "critical")


def _ratio(part: float | None, whole: float | None) -> float:
    """NaN, which no comparison finds too large or too small, unless both are known and the whole is not nothing."""
    return part / whole if part is not None and whole else math.nan


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.1f} %"


def _wal_fsync_failed(at: Readings) -> str | None:
    if at.log_state == "failed" or (at.sync_failures or 0) > 0:
        return "A sync of the log has failed: this node takes no more writes. Check its disk, then restart it."
    return None


def _log_full(at: Readings) -> str | None:
    if at.log_state == "full":
        return "The log cannot grow, the disk is full: only revocations are taken. It goes on by itself when there is space."
    return None


def _snapshot_unusable(at: Readings) -> str | None:
    if (at.snapshots_unusable or 0) > 0:
        return "The last start passed over a damaged snapshot for an older one. The state is right; the disk is to be doubted."
    return None


def _snapshot_failing(at: Readings) -> str | None:
    if (at.snapshot_failed_attempts or 0) > 0:
        return "The last attempt to take a snapshot failed: the log grows until one succeeds. The server's log says why."
    return None


def _snapshot_overdue(at: Readings) -> str | None:
    if (at.snapshot_due_ratio or 0) > SNAPSHOT_DUE_RATIO_MAX:
        return f"{at.snapshot_due_ratio:.0f} times the interval, or the threshold, has gone by since the newest snapshot."
    return None


def _quorum_lost(at: Readings) -> str | None:
    if at.quorum_lost and at.cluster_removed:
        return "This node was taken out of the cluster: it takes no writes. It joins again when it is restarted."
    return "This node cannot reach a majority of the cluster: writes are refused." if at.quorum_lost else None


def _cluster_stale(at: Readings) -> str | None:
    if at.cluster_fenced and at.cluster_removed:
        return "This node was taken out of the cluster: it answers nothing about sessions. It joins again when it is restarted."
    if at.cluster_fenced:
        return "This node is not proved to know of what the others have acknowledged: it answers nothing about sessions."
    return None


def _divergence(at: Readings) -> str | None:
    if at.cluster_diverged:
        return "The stream has lost what this node knows to be acknowledged: the node stands apart. Put it back, then restart."
    return None


def _tables_differ(at: Readings) -> str | None:
    if at.stands_apart:
        return "The table of this node differs from those of a majority: it answers nothing about sessions. Let it begin anew."
    if (at.differing_parts or 0) > 0:
        return f"The tables of this node and of another differ in {at.differing_parts:.0f} of 65 parts: one of them is wrong."
    return None


def _shards_unheld(at: Readings) -> str | None:
    if (at.unheld_shards or 0) > 0 and not at.cluster_fenced:  # who is cut off knows nothing of who holds what
        return f"Nobody in reach holds {at.unheld_shards:.0f} of 64 shards: nothing is answered about their sessions."
    return None


def _records_quarantined(at: Readings) -> str | None:
    if (at.quarantined_records or 0) > 0:
        return f"{at.quarantined_records:.0f} records of the stream could not be read: this node lacks what they say."
    return None


def _api_key_failures(at: Readings) -> str | None:
    ratio = _ratio(at.key_failures_recently, at.key_checks_recently)
    if ratio > KEY_FAILURE_RATIO_MAX and (at.key_failures_recently or 0) >= KEY_FAILURES_MIN:
        return f"{_percent(ratio)} of the API keys presented are refused: a client with a stale key, or somebody guessing."
    return None


def _disk_space_low(at: Readings) -> str | None:
    ratio = _ratio(at.disk_free_bytes, at.disk_total_bytes)
    if ratio < DISK_FREE_RATIO_MIN:
        return f"{_percent(ratio)} of the data directory's disk is free. When it is full, writes are refused."
    return None


def _revoke_stuck(at: Readings) -> str | None:
    if (at.revoke_pending_seconds or 0) > REVOKE_PENDING_SECONDS_MAX:
        return f"A revocation has waited {at.revoke_pending_seconds:.0f} s for a live node to confirm it."
    return None


def _token_validate_slow(at: Readings) -> str | None:
    slow = (at.validate_p99_seconds_recently or 0) > VALIDATE_P99_SECONDS_MAX
    if slow and (at.validate_answers_recently or 0) >= VALIDATE_ANSWERS_MIN:
        return f"One validation in a hundred takes more than {VALIDATE_P99_SECONDS_MAX * 1000:.0f} ms."
    return None


def _memory_high(at: Readings) -> str | None:
    ratio = _ratio(at.memory_used_bytes, at.memory_limit_bytes)
    if ratio > BUSY_RATIO_MAX:
        return f"{_percent(ratio)} of the memory this process may use is in use. At the limit the kernel ends it."
    return None


def _cpu_high(at: Readings) -> str | None:
    if (at.cpu_ratio_recently or 0) > BUSY_RATIO_MAX:
        return f"{_percent(at.cpu_ratio_recently or 0)} of the CPU this process may use is in use."
    return None


def _even_node_count(at: Readings) -> str | None:
    if at.nodes_active is None or at.nodes_down is None:
        return None
    count = at.nodes_active + at.nodes_down
    if count > 0 and count % 2 == 0:
        return f"The cluster has {count:.0f} nodes; an even number survives no more failures than one node less."
    return None


def _node_down(at: Readings) -> str | None:
    if (at.nodes_down or 0) > 0:
        return f"{at.nodes_down:.0f} of the cluster's nodes cannot be heard."
    return None


def _nats_old(at: Readings) -> str | None:
    return "The NATS server is older than 2.15: it syncs messages one by one, so that writes are slow." if at.nats_old else None


def _nats_sync_off(at: Readings) -> str | None:
    if at.nats_sync_off:
        return "A NATS server that holds the stream has no sync_interval: always. A power cut can lose what was acknowledged."
    return None


def _error_ratio_high(at: Readings) -> str | None:
    ratio = _ratio(at.errors_recently, at.requests_recently)
    if ratio > ERROR_RATIO_MAX and (at.errors_recently or 0) >= ERRORS_MIN:
        return f"{_percent(ratio)} of the answers on guarded routes are 5xx."
    return None


def _wal_slow(at: Readings) -> str | None:
    if (at.sync_p99_seconds_recently or 0) > SYNC_P99_SECONDS_MAX:
        return f"One sync of the log in a hundred takes more than {SYNC_P99_SECONDS_MAX * 1000:.0f} ms; every write waits for one."
    return None


def _event_loop_lag(at: Readings) -> str | None:
    if (at.loop_lag_p99_seconds_recently or 0) > LOOP_LAG_P99_SECONDS_MAX:
        return f"The serving loop is held up by more than {LOOP_LAG_P99_SECONDS_MAX * 1000:.0f} ms now and then: requests wait."
    return None


def _table_near_limit(at: Readings) -> str | None:
    ratio = _ratio(at.table_bytes, at.table_bytes_max)
    if ratio > TABLE_RATIO_MAX:
        return f"{_percent(ratio)} of the session table's largest size is in use. A full table takes no new sessions."
    return None


def _expiry_backlog(at: Readings) -> str | None:
    if (at.expiry_backlog or 0) > EXPIRY_BACKLOG_MAX:
        return f"{at.expiry_backlog:.0f} expired sessions wait to be cleared. They are invalid already, but hold memory."
    return None


def _api_key_checks_overloaded(at: Readings) -> str | None:
    if (at.key_checks_overloaded_recently or 0) > 0:
        return "Requests got 503 because too many API keys waited for verification."
    return None


def _connections_refused(at: Readings) -> str | None:
    if (at.connections_refused_recently or 0) > 0:
        return "Connections were refused because server.http.max_connections were open."
    return None


def _replication_lag(at: Readings) -> str | None:
    if (at.replication_lag_seconds or 0) > REPLICATION_LAG_SECONDS_MAX:
        return f"A node is {at.replication_lag_seconds:.1f} s behind another; one that is too far behind answers no more."
    return None


def _file_descriptors_high(at: Readings) -> str | None:
    ratio = _ratio(at.open_files, at.open_files_max)
    if ratio > OPEN_FILES_RATIO_MAX:
        return f"{_percent(ratio)} of the file descriptors this process may open are open; each connection needs one."
    return None


def _log_lines_dropped(at: Readings) -> str | None:
    if (at.log_lines_dropped_recently or 0) > 0:
        return "Log lines were lost: what reads standard output is gone or too slow."
    return None


def _plain_http_exposed(at: Readings) -> str | None:
    if at.http_beyond_loopback:
        return "Plain HTTP can be reached from other hosts: tokens and API keys travel unencrypted."
    return None


def _metrics_exposed(at: Readings) -> str | None:
    if at.http_beyond_loopback and at.metrics_open:
        return "/metrics can be read from other hosts without an API key."
    return None


def _sync_off(at: Readings) -> str | None:
    if at.sync_mode == "interval":
        return "storage.wal.sync_mode is interval: a power cut may lose changes that were acknowledged."
    return None


def _clock_unsynchronised(at: Readings) -> str | None:
    if at.clock_synchronised is False:
        return "The host's clock is not synchronised: sessions end at the wrong time after a restart."
    return None


RULES: Final[tuple[Rule, ...]] = (
    Rule("TokMeshWalFsyncFailed", "critical", _wal_fsync_failed),
    Rule("TokMeshLogFull", "critical", _log_full),
    Rule("TokMeshSnapshotUnusable", "critical", _snapshot_unusable),
    Rule("TokMeshQuorumLost", "critical", _quorum_lost),
    Rule("TokMeshClusterStale", "critical", _cluster_stale),
    Rule("TokMeshDivergence", "critical", _divergence),
    Rule("TokMeshTablesDiffer", "critical", _tables_differ),
    Rule("TokMeshShardsUnheld", "critical", _shards_unheld),
    Rule("TokMeshStreamRecordsQuarantined", "critical", _records_quarantined),
    Rule("TokMeshApiKeyFailures", "critical", _api_key_failures),
    Rule("TokMeshDiskSpaceLow", "critical", _disk_space_low),
    Rule("TokMeshRevokeStuck", "critical", _revoke_stuck),
    Rule("TokMeshTokenValidateSlow", "warning", _token_validate_slow),
    Rule("TokMeshMemoryHigh", "warning", _memory_high),
    Rule("TokMeshCpuHigh", "warning", _cpu_high),
    Rule("TokMeshEvenNodeCount", "warning", _even_node_count),
    Rule("TokMeshNodeDown", "warning", _node_down),
    Rule("TokMeshNatsOld", "warning", _nats_old),
    Rule("TokMeshNatsSyncOff", "warning", _nats_sync_off),
    Rule("TokMeshErrorRatioHigh", "warning", _error_ratio_high),
    Rule("TokMeshWalSlow", "warning", _wal_slow),
    Rule("TokMeshSnapshotFailing", "warning", _snapshot_failing),
    Rule("TokMeshSnapshotOverdue", "warning", _snapshot_overdue),
    Rule("TokMeshEventLoopLag", "warning", _event_loop_lag),
    Rule("TokMeshTableNearLimit", "warning", _table_near_limit),
    Rule("TokMeshExpiryBacklog", "warning", _expiry_backlog),
    Rule("TokMeshFileDescriptorsHigh", "warning", _file_descriptors_high),
    Rule("TokMeshConnectionsRefused", "warning", _connections_refused),
    Rule("TokMeshApiKeyChecksOverloaded", "warning", _api_key_checks_overloaded),
    Rule("TokMeshReplicationLag", "warning", _replication_lag),
    Rule("TokMeshLogLinesDropped", "warning", _log_lines_dropped),
    Rule("TokMeshMetricsExposed", "warning", _metrics_exposed),
    Rule("TokMeshPlainHttpExposed", "warning", _plain_http_exposed),
    Rule("TokMeshSyncOff", "warning", _sync_off),
    Rule("TokMeshClockUnsynchronised", "warning", _clock_unsynchronised),
)

"""The cluster in a node's status: its members as this node sees them, and what it may still say."""

from typing import Any

from tokmesh.ids import SHARDS
from tokmesh.telemetry.cluster_figures import ClusterFigures, MemberFigures


def cluster_summary(node_id: str, version: str, sessions: int, cluster: ClusterFigures | None) -> dict[str, Any]:
    """As JSON takes it; null for what is not known. cluster: None on a node alone, of that version, with so many sessions."""
    if cluster is None:
        return {
            "enabled": False,
            "nodes": [_node(node_id, "active", True, version, SHARDS, sessions, None, 0, 0, 0)],
            **_counts(1, 0),
            "quorum": True,
            "fenced": False,
            "diverged": False,
            "removed": False,
            "stands_apart": False,
            "compared_seconds_ago": None,
            "shards": _shards(SHARDS, 0, 0, 0),
            "staleness_seconds": 0,
            "position": 0,
            "majority_position": 0,
            "quarantined_records": 0,
            "nats": None,
        }
    active = sum(member.state == "active" for member in cluster.members)
    return {
        "enabled": True,
        "nodes": [_member(member, cluster.table_differences.get(member.node_id, 0)) for member in cluster.members],
        **_counts(active, len(cluster.members) - active),
        "quorum": not cluster.quorum_lost,
        "fenced": cluster.is_fenced,
        "diverged": cluster.is_diverged,
        "removed": cluster.is_removed,
        "stands_apart": cluster.is_apart,
        "compared_seconds_ago": _seconds(cluster.table_comparison_ns) if cluster.table_comparisons else None,
        "shards": _shards(cluster.shards_held, cluster.shards_loading, cluster.shards_leaving, cluster.shards_unheld),
        "staleness_seconds": _seconds(cluster.staleness_ns),
        "position": cluster.position,
        "majority_position": cluster.majority_position,
        "quarantined_records": cluster.quarantined,
        "nats": {
            "state": cluster.nats_state,
            "reason": cluster.nats_reason,
            "version": cluster.nats_version or None,
            "is_old": cluster.nats_is_old,
            "sync": cluster.nats_sync,
            "reconnects": cluster.nats_reconnects,
        },
    }


def _counts(active: int, down: int) -> dict[str, Any]:
    return {"active": active, "down": down, "parity": "even" if (active + down) % 2 == 0 else "odd"}


def _shards(held: int, loading: int, leaving: int, unheld: int) -> dict[str, int]:
    return {"held": held, "loading": loading, "leaving": leaving, "unheld": unheld}


def _member(member: MemberFigures, differing_parts: int) -> dict[str, Any]:
    known = member.applied is not None
    figures = member.figures
    return _node(
        member.node_id,
        member.state,
        member.is_self,
        figures.version if known else None,
        figures.held.bit_count() if known else None,
        figures.sessions if known else None,
        member.applied,
        _seconds(member.lag_to_ns),
        _seconds(member.silent_ns),
        differing_parts,
    )


def _node(
    node_id: str,
    status: str,
    is_self: bool,
    version: str | None,
    shards: int | None,
    sessions: int | None,
    applied: int | None,
    lag_seconds: float | None,
    silent_seconds: float | None,
    differing_parts: int,
) -> dict[str, Any]:
    """shards: about which it can be asked; lag_seconds: how long it has lacked what this node has; differing_parts: in which its
    table differs from this node's."""
    return {
        "id": node_id,
        "status": status,
        "is_self": is_self,
        "version": version,
        "shards": shards,
        "sessions": sessions,
        "applied": applied,
        "lag_seconds": lag_seconds,
        "silent_seconds": silent_seconds,
        "differing_parts": differing_parts,
    }


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else round(duration_ns / 1e9, 3)

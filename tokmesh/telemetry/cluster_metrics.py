"""Rows of the catalogue about the cluster, and how they are read: from what the node knew when the scrape began, or from what is
true of a node alone.

Every node exposes its own view. What all nodes see (members, sessions by primary) is never summed over instances; what a node
counts for itself (publications, beats) may be. `catalog.py` puts the rows together with the others and says what holds for all.
"""

from collections.abc import Sequence
from typing import Any, Final

from tokmesh.ids import SHARDS
from tokmesh.telemetry.cluster_figures import ClusterFigures, MemberFigures
from tokmesh.telemetry.metric import Group, Label, MetricSpec, Usage, counter, gauge, seconds
from tokmesh.telemetry.service_metrics import PROPAGATION_BOUNDS_NS

NODE_BOUND: Final = "the nodes of the cluster; on one node, itself"
PUBLICATION_OUTCOMES: Final = ("stored", "conflict", "refused", "unknown")
UNDECODABLE_KINDS: Final = ("beat", "touch", "report", "question")
QUESTION_OUTCOMES: Final = ("answered", "refused", "elsewhere", "stale", "absent", "silent", "undecodable")
ANSWER_OUTCOMES: Final = ("answered", "refused", "elsewhere", "stale")
NATS_STATES: Final = ("none", "connecting", "connected", "refused", "lost")
NATS_SYNCS: Final = ("none", "unknown", "always", "off")


def membership_metrics() -> list[MetricSpec]:
    group: Group = "Cluster"
    return [
        gauge(
            group, "cluster_nodes_total",
            "Nodes of the cluster as this node sees them. A node alone is 1 active, 0 down.",
            Label("status", ("active", "down")), stability="stable",
            usage=Usage(
                'max(tokmesh_cluster_nodes_total{status="down"}) > 0',
                "A node the others do not hear. Nodes that disagree about the number are cut off from each other.",
            ),
        ),
        gauge(
            group, "cluster_nodes_parity", "0 if the number of nodes is odd, 1 if it is even; those that are down count.",
            stability="stable",
            usage=Usage(
                "max(tokmesh_cluster_nodes_parity) == 1",
                "An even number survives no more failures than one node less: add one or remove one.",
            ),
        ),
        gauge(
            group, "cluster_quorum_lost",
            "1 if this node cannot reach a majority; a node alone always has it.",
            stability="stable",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_quorum_lost) == 1",
                "This node answers 503 to writes. On one node only: its network. On all: the majority is down.",
            ),
        ),
        gauge(
            group, "shard_keys_count",
            "Active sessions in the shards that a node is primary for. Every node tells it of every active node, so the sum over "
            "node_id is the number of sessions. Shards are spread evenly over up to 20 nodes.",
            Label("node_id", bound=NODE_BOUND), stability="stable",
            usage=Usage(
                "max by (node_id) (tokmesh_shard_keys_count)",
                "Nodes that differ by more than a third: sessions are unevenly placed; a node at 0 beside full ones holds nothing.",
            ),
        ),
        gauge(
            group, "replication_lag_seconds",
            "How far to_node is behind from_node, told by both for active nodes. The pair of a node with itself is 0.",
            Label("from_node", bound=NODE_BOUND), Label("to_node", bound=NODE_BOUND),
            stability="stable", unit="seconds",
            usage=Usage(
                "max by (to_node) (tokmesh_replication_lag_seconds)",
                "Milliseconds. A node beyond cluster.max_staleness fences itself and answers 503.",
            ),
        ),
        seconds(
            group, "gossip_propagation_lag_seconds",
            "Time for a message to reach a peer, by one clock: half the round trip of an echo. Empty on one node.",
            bounds_ns=PROPAGATION_BOUNDS_NS, stability="stable",
            usage=Usage(
                "histogram_quantile(0.99, sum by (le) (rate(tokmesh_gossip_propagation_lag_seconds_bucket[5m])))",
                "The network between the nodes, with a busy event loop's wait on top.",
            ),
        ),
    ]  # fmt: skip


def standing_metrics() -> list[MetricSpec]:
    """Who is heard, and what the node may still say."""
    group: Group = "Cluster"
    return [
        gauge(
            group, "cluster_member_up", "1 for a member that this node hears, 0 for one that is down.",
            Label("node_id", bound=NODE_BOUND),
        ),
        gauge(
            group, "cluster_fenced",
            "1 while this node answers no reads, because it is not proved to know of what others have acknowledged.",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_fenced) == 1",
                "It answers 503, never a wrong yes. Cut off from the majority, or too far behind it.",
            ),
        ),
        gauge(
            group, "cluster_diverged",
            "1 if the stream has lost what this node knows to be acknowledged: it stands apart until it is started again.",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_diverged) == 1",
                "The stream was made anew or set back. What the nodes have is the truth: tokmesh cluster reseed.",
            ),
        ),
        gauge(
            group, "cluster_removed",
            "1 if this node was taken out of the cluster and runs still: it answers nothing, and joins again when it is restarted.",
        ),
        gauge(
            group, "cluster_staleness_seconds",
            "Time since this node was last proved current; beyond cluster.max_staleness it is fenced. 0 on one node.",
            unit="seconds",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_staleness_seconds)", "Below half a second: two beats and the way between."
            ),
        ),
    ]  # fmt: skip


def comparison_metrics() -> list[MetricSpec]:
    """Whether the members' tables are the same."""
    group: Group = "Cluster"
    return [
        gauge(
            group, "cluster_table_differences",
            "Parts, of 65 (64 shards of the sessions, and the API keys), in which a member's table differs from this node's, at "
            "three comparisons in a row; 0 for itself.",
            Label("node_id", bound=NODE_BOUND),
            usage=Usage(
                "max by (instance, node_id) (tokmesh_cluster_table_differences) > 0",
                "One of the two answers what is not so. The one that differs from all others is wrong.",
            ),
        ),
        gauge(
            group, "cluster_stands_apart",
            "1 if this node's table differs from those of a majority: it answers nothing about sessions and keys until it has "
            "begun anew from the stream.",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_stands_apart) == 1",
                "A bug, a bad disk, or a hand in its files. Keep the directory for whoever looks for the cause.",
            ),
        ),
        gauge(
            group, "cluster_began_anew_timestamp_seconds",
            "When this node, its table being wrong, last began anew from the stream by itself, in Unix time; 0: never.",
            unit="seconds",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_began_anew_timestamp_seconds) > time() - 86400",
                "Within a day. What it had is in its folder set_aside; it does not do so twice within an hour.",
            ),
        ),
        counter(group, "cluster_table_comparisons_total", "Comparisons of this node's table with those of others."),
        gauge(
            group, "cluster_table_comparison_age_seconds",
            "Time since this node's table was last compared, or since its start. 0 on one node.",
            unit="seconds",
            usage=Usage(
                "max by (instance) (tokmesh_cluster_table_comparison_age_seconds)",
                "Seconds, more with millions of sessions. A node that is behind, alone, or has a wrong clock compares nothing.",
            ),
        ),
    ]  # fmt: skip


def question_metrics() -> list[MetricSpec]:
    """What nodes ask each other where each holds a part of the sessions; all 0 elsewhere, and on a node alone."""
    group: Group = "Cluster"
    return [
        counter(
            group, "cluster_questions_total",
            "Questions to other nodes about sessions that they hold, by outcome: answered; refused (by an error); and the "
            "node did not hold the session (elsewhere), might not answer (stale), was not there (absent), said nothing in time "
            "(silent) or something else (undecodable).",
            Label("outcome", QUESTION_OUTCOMES),
            usage=Usage(
                'sum by (outcome) (rate(tokmesh_cluster_questions_total{outcome!~"answered|refused"}[5m]))',
                "silent: clients got 503, or waited for a second holder. elsewhere: shards were moving.",
            ),
        ),
        counter(
            group, "cluster_questions_answered_total",
            "Questions of other nodes that this one has answered, by outcome, as above.",
            Label("outcome", ANSWER_OUTCOMES),
        ),
    ]  # fmt: skip


def placement_metrics() -> list[MetricSpec]:
    """Which shards this node holds, and whether somebody holds each."""
    group: Group = "Cluster"
    return [
        gauge(group, "cluster_shards_held", "Shards, of 64, whose sessions this node holds; all where each holds everything."),
        gauge(group, "cluster_shards_loading", "Shards whose sessions this node is reading from the stream, so as to hold them."),
        gauge(
            group, "cluster_shards_leaving",
            "Shards that this node holds and answers nothing about any more: it drops them when enough others do.",
        ),
        gauge(
            group, "cluster_shards_unheld",
            "Shards about whose sessions nobody whom this node hears can be asked, itself neither. 0 on one node.",
            usage=Usage(
                "max(tokmesh_cluster_shards_unheld unless on (job, instance) tokmesh_cluster_fenced == 1) > 0",
                "Requests for sessions of these shards get 503. The nodes that hold them are down: bring one back.",
            ),
        ),
        counter(
            group, "cluster_shard_records_loaded_total", "Records of sessions read from the stream out of turn, to get shards.",
            usage=Usage(
                "sum by (instance) (rate(tokmesh_cluster_shard_records_loaded_total[1m]))",
                "Nothing, but while nodes come, go or stay away. A node reads at most 20000 a second.",
            ),
        ),
        counter(
            group, "cluster_shard_loads_failed_total", "Attempts to get or to leave shards that failed; each is made again.",
        ),
    ]  # fmt: skip


def stream_metrics() -> list[MetricSpec]:
    """About the stream and the way to it; all 0 on a node alone."""
    group: Group = "Cluster"
    return [
        gauge(group, "cluster_stream_position", "Sequence of the stream up to which this node has applied everything."),
        gauge(group, "cluster_majority_position", "Sequence of the stream that a majority is known to have applied."),
        counter(
            group, "cluster_publications_total",
            "Records published to the stream, by outcome: stored; conflict (another node was first); refused; unknown (no answer "
            "within its time; it may have been stored).",
            Label("outcome", PUBLICATION_OUTCOMES),
            usage=Usage(
                'sum by (outcome) (rate(tokmesh_cluster_publications_total{outcome!="stored"}[5m]))',
                "unknown: the stream had no leader for a while. conflict: nodes change the same sessions.",
            ),
        ),
        counter(group, "cluster_publications_resent_total", "Records sent again because no answer had come."),
        gauge(group, "cluster_publications_pending", "Records published whose outcome is not known yet."),
        counter(
            group, "cluster_writes_unproved_total",
            "Records stored in the stream that no majority was known to have applied in time; told as unknown.",
        ),
        counter(
            group, "cluster_consumers_made_total", "Consumers made at the stream; each replaces one that ended or fell silent."
        ),
        counter(group, "cluster_fetches_total", "Fetches from a replica while no consumer could be made."),
        gauge(
            group, "cluster_quarantined_records",
            "Records of the stream that this node could not read and passed over, since its start.",
            usage=Usage(
                "tokmesh_cluster_quarantined_records > 0",
                "A newer release, or another hand, wrote them. This node lacks what they say.",
            ),
        ),
        counter(group, "cluster_beats_sent_total", "Heartbeats sent."),
        counter(
            group, "cluster_undecodable_total", "Messages beside the stream that could not be read.",
            Label("kind", UNDECODABLE_KINDS),
        ),
        counter(
            group, "cluster_own_id_beats_total",
            "Heartbeats heard from another process with this node's id; any is a mistake in the configuration.",
        ),
        gauge(
            group, "cluster_nats_state",
            "1 for the state of the connection to NATS: none (a node alone), connecting, connected, refused (connected, and a "
            "server has refused something, such as a permission), lost.",
            Label("state", NATS_STATES),
        ),
        counter(group, "cluster_nats_reconnects_total", "Connections to NATS made again after one was lost."),
        gauge(group, "cluster_nats_old", "1 if the NATS server connected to is older than is recommended."),
        gauge(
            group, "cluster_nats_sync",
            "1 for how the NATS servers that hold the stream sync: none (a node alone), unknown (not all of them tell), always, "
            "off (one of them does not sync each record: a power cut can lose what was acknowledged).",
            Label("state", NATS_SYNCS),
            usage=Usage(
                'max(tokmesh_cluster_nats_sync{state="off"}) == 1',
                "sync_interval: always is missing in the configuration of a server.",
            ),
        ),
        gauge(
            group, "cluster_nats_info", "Always 1; the version of the NATS server connected to.",
            Label("version", bound="one per connection"),
            absent_when="there is no connection to NATS",
        ),
    ]  # fmt: skip


def read_cluster(
    values: dict[str, Any], node_id: str, sessions_active: float, cluster: ClusterFigures | None
) -> None:
    """Fills in the families above, but for histograms. cluster: None on a node alone."""
    if cluster is None:
        _read_alone(values, node_id, sessions_active)
        return
    members = cluster.members
    _read_members(values, node_id, members)
    values["tokmesh_cluster_quorum_lost"] = int(cluster.quorum_lost)
    values["tokmesh_cluster_fenced"] = int(cluster.is_fenced)
    values["tokmesh_cluster_diverged"] = int(cluster.is_diverged)
    values["tokmesh_cluster_removed"] = int(cluster.is_removed)
    values["tokmesh_cluster_staleness_seconds"] = cluster.staleness_ns / 1e9
    values["tokmesh_cluster_stands_apart"] = int(cluster.is_apart)
    values["tokmesh_cluster_began_anew_timestamp_seconds"] = cluster.began_anew_ms / 1000
    values["tokmesh_cluster_table_differences"] = [
        ((name,), cluster.table_differences.get(name, 0)) for name in dict.fromkeys((node_id, *(each.node_id for each in members)))
    ]
    values["tokmesh_cluster_table_comparison_age_seconds"] = cluster.table_comparison_ns / 1e9
    values["tokmesh_shard_keys_count"] = [((name,), count) for name, count in cluster.shard_keys.items()]
    values["tokmesh_session_revoke_pending"] = cluster.revokes_pending
    values["tokmesh_session_revoke_oldest_pending_seconds"] = cluster.revoke_oldest_ns / 1e9
    for name, number in (
        ("shards_held", cluster.shards_held),
        ("shards_loading", cluster.shards_loading),
        ("shards_leaving", cluster.shards_leaving),
        ("shards_unheld", cluster.shards_unheld),
        ("shard_records_loaded_total", cluster.shard_records_loaded),
        ("shard_loads_failed_total", cluster.shard_loads_failed),
        ("stream_position", cluster.position),
        ("majority_position", cluster.majority_position),
        ("publications_resent_total", cluster.publications_resent),
        ("publications_pending", cluster.publications_pending),
        ("writes_unproved_total", cluster.writes_unproved),
        ("consumers_made_total", cluster.consumers_made),
        ("fetches_total", cluster.fetches),
        ("quarantined_records", cluster.quarantined),
        ("table_comparisons_total", cluster.table_comparisons),
        ("beats_sent_total", cluster.beats_sent),
        ("own_id_beats_total", cluster.own_id_beats),
        ("nats_reconnects_total", cluster.nats_reconnects),
        ("nats_old", int(cluster.nats_is_old)),
    ):
        values[f"tokmesh_cluster_{name}"] = number
    values["tokmesh_cluster_publications_total"] = [((name,), cluster.publications[name]) for name in PUBLICATION_OUTCOMES]
    values["tokmesh_cluster_undecodable_total"] = [((kind,), cluster.undecodable[kind]) for kind in UNDECODABLE_KINDS]
    values["tokmesh_cluster_questions_total"] = [((name,), cluster.questions.get(name, 0)) for name in QUESTION_OUTCOMES]
    values["tokmesh_cluster_questions_answered_total"] = [
        ((name,), cluster.questions_answered.get(name, 0)) for name in ANSWER_OUTCOMES
    ]
    _read_nats(values, cluster.nats_state, cluster.nats_sync, cluster.nats_version)


def _read_members(values: dict[str, Any], node_id: str, members: Sequence[MemberFigures]) -> None:
    active = [member for member in members if member.state == "active"]
    values["tokmesh_cluster_nodes_total"] = [(("active",), len(active)), (("down",), len(members) - len(active))]
    values["tokmesh_cluster_nodes_parity"] = int(len(members) > 0 and len(members) % 2 == 0)
    values["tokmesh_cluster_member_up"] = [((member.node_id,), int(member.state == "active")) for member in members]
    lags: list[tuple[tuple[str, str], float]] = [((node_id, node_id), 0)]
    for member in active:
        if not member.is_self:  # of a silent one nothing is known: that it is down says more than a lag that grows
            lags.append(((member.node_id, node_id), (member.lag_from_ns or 0) / 1e9))
            lags.append(((node_id, member.node_id), (member.lag_to_ns or 0) / 1e9))
    values["tokmesh_replication_lag_seconds"] = lags


def _read_alone(values: dict[str, Any], node_id: str, sessions_active: float) -> None:
    """A revocation is refused everywhere as soon as it is committed, and there is nobody to agree with."""
    values["tokmesh_cluster_nodes_total"] = [(("active",), 1), (("down",), 0)]
    values["tokmesh_cluster_member_up"] = [((node_id,), 1)]
    values["tokmesh_shard_keys_count"] = [((node_id,), sessions_active)]
    values["tokmesh_replication_lag_seconds"] = [((node_id, node_id), 0)]
    values["tokmesh_session_revoke_pending"] = 0
    values["tokmesh_session_revoke_oldest_pending_seconds"] = 0
    for name in ("nodes_parity", "quorum_lost", "fenced", "diverged", "removed", "staleness_seconds"):
        values[f"tokmesh_cluster_{name}"] = 0
    for metric in comparison_metrics():
        values[metric.name] = [((node_id,), 0)] if metric.labels else 0
    for metric in placement_metrics():
        values[metric.name] = SHARDS if metric.name == "tokmesh_cluster_shards_held" else 0
    for metric in (*question_metrics(), *stream_metrics()):
        values[metric.name] = [((value,), 0) for value in metric.labels[0].values] if metric.labels else 0
    _read_nats(values, "none", "none", "")


def _read_nats(values: dict[str, Any], state: str, sync: str, version: str) -> None:
    assert state in NATS_STATES and sync in NATS_SYNCS, (state, sync)
    values["tokmesh_cluster_nats_state"] = [((name,), int(name == state)) for name in NATS_STATES]
    values["tokmesh_cluster_nats_sync"] = [((name,), int(name == sync)) for name in NATS_SYNCS]
    values["tokmesh_cluster_nats_info"] = [((version,), 1)] if version else []

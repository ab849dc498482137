"""Seed §6.3 with three real nodes: what happens to a cluster is seen by a real Prometheus within seconds, and its alert, and only
its own, reaches the webhook behind a real Alertmanager.

The three troubles follow one another on one cluster. Time is scaled for rules and routing (tests/observability/time_scale.py), not
for the nodes: that a stopped one is seen within 5 s is measured as it is.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from tests.observability.alerting import AlertmanagerProcess, Delivery, Webhook
from tests.observability.prometheus import PrometheusProcess
from tests.observability.test_alerts import OF_THE_MACHINE
from tests.observability.time_scale import write_scaled
from tests.support.cluster import Cluster
from tests.support.waiting import wait_until
from tokmesh.cluster.placement import place
from tokmesh.ids import parse_session_id, shard_of

FACTOR: Final = 20  # 5 minutes take 15 seconds: 30 scrapes
# Besides: the nodes' logs are on a disk that others fill, too.
ASIDE: Final = OF_THE_MACHINE | {"TokMeshDiskFillingUp", "TokMeshDiskSpaceLow"}
SEEN_WITHIN_S: Final = 5.0
SESSIONS: Final = 1600  # of which two thirds are still more than the 1000 that skew needs
CLIENTS: Final = 16
NODE_IDS: Final = ("tmnd-0", "tmnd-1", "tmnd-2")
ACTIVE: Final = 'tokmesh_cluster_nodes_total{status="active"}'
DOWN: Final = 'tokmesh_cluster_nodes_total{status="down"}'


class Scene(NamedTuple):
    """A cluster and who watches it."""

    cluster: Cluster
    prometheus: PrometheusProcess
    webhook: Webhook

    def all_is_well(self) -> None:
        """Returns when all three are seen by all three, and nothing fires."""
        self.prometheus.wait_for(f"count({ACTIVE} == 3) == 3")
        wait_until(lambda: not self.firing(), "no alert fires")

    def firing(self) -> set[str]:
        found = self.prometheus.query('ALERTS{alertstate="firing"}')
        return {labels["alertname"] for labels, _ in found} - ASIDE

    def delivered(self, alert: str, since: int) -> Delivery:
        """The alert as it arrived, of what arrived after the first `since`; when it does not come, what Prometheus knows."""
        wait_until(lambda: alert in self.names(since), f"{alert} is delivered; firing: {self.firing()}")
        return next(each for each in self.webhook.deliveries()[since:] if each.labels["alertname"] == alert)

    def names(self, since: int) -> set[str]:
        """What has fired, of what arrived after the first `since`."""
        return {each.labels["alertname"] for each in self.webhook.deliveries()[since:] if each.status == "firing"} - ASIDE


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("watched")
    write_scaled(folder / "rules", FACTOR)
    routing = yaml.safe_load((folder / "rules" / "alertmanager.yaml").read_text())
    (folder / "cluster").mkdir()
    with (
        Cluster(folder / "cluster") as cluster,
        Webhook() as webhook,
        AlertmanagerProcess(folder / "alertmanager", routing, webhook) as alertmanager,
    ):
        configuration = {
            "global": {"evaluation_interval": "500ms"},
            "rule_files": [str(folder / "rules" / "tokmesh-*.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]},
        }
        for node in cluster.nodes:  # started again, each is found where it was
            node.keep_port()
        targets = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
        key = cluster.nodes[0].create_key("metrics")
        with PrometheusProcess(folder / "prometheus", targets, key, configuration=configuration) as prometheus:
            yield Scene(cluster, prometheus, webhook)


def test_a_stopped_node_is_seen_within_seconds_and_its_alert_arrives_alone(scene: Scene) -> None:
    scene.all_is_well()
    since = len(scene.webhook.deliveries())
    stopped_at = time.monotonic()
    scene.cluster.nodes[2].kill()
    scene.prometheus.wait_for(f"max({ACTIVE}) == 2 and max({DOWN}) == 1", SEEN_WITHIN_S)
    assert time.monotonic() - stopped_at < SEEN_WITHIN_S
    assert [value for _, value in scene.prometheus.query("max(tokmesh_cluster_nodes_parity)")] == [0], "three are still members"
    delivery = scene.delivered("TokMeshNodeDown", since)
    assert (delivery.channel, delivery.labels["job"]) == ("chat", "tokmesh")
    assert delivery.annotations["summary"] == "1 node(s) of tokmesh are down"
    assert "instance" not in delivery.labels, "told once, not by each that misses it"
    scene.delivered("TokMeshDown", since)  # that the process does not answer Prometheus either
    assert scene.names(since) == {"TokMeshNodeDown", "TokMeshDown"}
    scene.cluster.nodes[2].start()
    scene.all_is_well()


def test_a_lost_quorum_wakes_somebody_and_nothing_is_told_of_nodes_by_who_is_cut_off(scene: Scene) -> None:
    scene.all_is_well()
    since = len(scene.webhook.deliveries())
    left = f"127.0.0.1:{scene.cluster.nodes[0].port}"
    for node in scene.cluster.nodes[1:]:
        node.kill()
    scene.prometheus.wait_for(f'tokmesh_cluster_quorum_lost{{instance="{left}"}} == 1', SEEN_WITHIN_S)
    delivery = scene.delivered("TokMeshQuorumLost", since)
    assert (delivery.channel, delivery.labels["instance"]) == ("pager", left)
    assert scene.delivered("TokMeshClusterStale", since).channel == "pager", "it answers no reads either"
    scene.delivered("TokMeshDown", since)
    assert scene.names(since) == {"TokMeshQuorumLost", "TokMeshClusterStale", "TokMeshDown"}
    for node in scene.cluster.nodes[1:]:
        node.spawn()
    for node in scene.cluster.nodes[1:]:
        node.wait_ready()
    scene.all_is_well()


def test_a_node_left_with_nothing_beside_full_ones_is_told_of(scene: Scene) -> None:
    """Sessions are spread evenly by themselves, so those of one node's shards are revoked."""
    scene.all_is_well()
    since = len(scene.webhook.deliveries())
    cluster, primaries = scene.cluster, [holders[0] for holders in place(NODE_IDS, 1)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        made = list(pool.map(lambda number: cluster.create(number % 3, user_id=f"user-{number}"), range(SESSIONS)))
        shown = "sum(max by (node_id) (tokmesh_shard_keys_count))"
        scene.prometheus.wait_for(f"{shown} == {SESSIONS}", SEEN_WITHIN_S)
        of_one = [each["session_id"] for each in made if primaries[shard_of(parsed(each["session_id"]))] == "tmnd-2"]
        list(pool.map(lambda session_id: cluster.ask(0, "POST", f"/sessions/{session_id}/revoke", {}), of_one))
    scene.prometheus.wait_for(f"{shown} == {SESSIONS - len(of_one)}", SEEN_WITHIN_S)
    held = {labels["node_id"]: value for labels, value in scene.prometheus.query("max by (node_id) (tokmesh_shard_keys_count)")}
    assert held["tmnd-2"] == 0 < min(held["tmnd-0"], held["tmnd-1"])
    delivery = scene.delivered("TokMeshShardSkew", since)
    assert (delivery.channel, "instance" in delivery.labels) == ("chat", False)
    assert scene.names(since) == {"TokMeshShardSkew"}


def parsed(session_id: str) -> bytes:
    raw = parse_session_id(session_id)
    assert raw is not None
    return raw

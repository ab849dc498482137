"""Slow: nodes whose wall clocks are five minutes apart agree on all but when a session ends, which their clocks alone put off.

Run by `make slow`: it waits for sessions to end. The nodes run under libfaketime; their monotonic clocks are left alone.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.crash.clock_jumps import environment, jump
from tests.support.cluster import Cluster
from tests.support.server import TokMeshProcess
from tests.support.waiting import wait_until

# A node whose clock is fast by session.tombstone_ttl, ten minutes, has forgotten at once that it was revoked.
REVOKED: Final = ("TM-TOKN-4012", "TM-TOKN-4010")
OFFSETS_S: Final = (-300, 0, 300)
EARLY_MAX_S: Final = 1.0  # times are cut to milliseconds, and a clock is set to libfaketime's whole seconds
LATE_MAX_S: Final = 6.0  # until the answer is asked for on a loaded machine


class ApartCluster(Cluster):
    """Node by node with the clocks of OFFSETS_S."""

    def add_node(self) -> TokMeshProcess:
        """As Cluster's."""
        number = len(self.nodes)
        node = super().add_node()
        offset = self._tmp_path / f"offset-{number}"
        jump(offset, f"{OFFSETS_S[number]:+d}")
        node.env = environment(offset)
        return node


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ApartCluster(tmp_path_factory.mktemp("clocks"), nodes=len(OFFSETS_S), servers=1) as started:
        yield started


def everywhere(cluster: Cluster, token: str, expected: object) -> None:
    for node in range(len(OFFSETS_S)):
        cluster.wait_verdict(node, token, expected)


def test_the_clocks_are_apart(cluster: Cluster) -> None:
    begun = [cluster.create(node, ttl_seconds=3600) for node in range(len(OFFSETS_S))]
    created = [cluster.session(0, made["session_id"])["created_at"] / 1000 for made in begun]
    for earlier, later in itertools.pairwise(created):
        assert 295 < later - earlier < 330


@pytest.mark.parametrize("by", range(len(OFFSETS_S)))
def test_a_session_of_one_is_good_on_all_and_revoked_on_all(cluster: Cluster, by: int) -> None:
    made: dict[str, Any] = cluster.create(by, ttl_seconds=3600)
    everywhere(cluster, made["token"], True)
    other = (by + 1) % len(OFFSETS_S)
    revoke = ("POST", f"/sessions/{made['session_id']}/revoke", {"sync": True})
    wait_until(lambda: cluster.ask(other, *revoke)[0] == 200, "it is revoked")
    for node in range(len(OFFSETS_S)):
        assert cluster.verdict(node, made["token"]) in REVOKED


def test_all_sessions_of_a_user_are_revoked_also_by_one_that_takes_them_for_expired(cluster: Cluster) -> None:
    made = cluster.create(0, user_id="ann", ttl_seconds=OFFSETS_S[2] - OFFSETS_S[0] - 10)
    for node, verdict in ((0, True), (1, True), (2, "TM-TOKN-4011")):
        cluster.wait_verdict(node, made["token"], verdict)
    revoke = ("POST", "/users/ann/sessions/revoke", {"sync": True})
    wait_until(lambda: cluster.ask(2, *revoke)[0] == 200, "they are revoked")
    for node in range(len(OFFSETS_S)):
        assert cluster.verdict(node, made["token"]) in REVOKED


def test_a_change_by_one_is_known_to_all(cluster: Cluster) -> None:
    made = cluster.create(2, ttl_seconds=3600)
    renew = ("POST", f"/sessions/{made['session_id']}/renew", {"ttl_seconds": 7200})
    wait_until(lambda: cluster.ask(0, *renew)[0] == 200, "it is renewed")  # 503 where the machine holds up the stream
    ends = {cluster.session(node, made["session_id"])["expires_at"] for node in range(len(OFFSETS_S))}
    assert len(ends) == 1


@pytest.mark.parametrize(("by", "on", "ttl_s"), [(0, 2, 603), (1, 2, 303), (0, 1, 303), (1, 1, 3), (2, 2, 3)])
def test_a_session_ends_on_each_by_its_own_clock(cluster: Cluster, by: int, on: int, ttl_s: int) -> None:
    due_s = ttl_s + OFFSETS_S[by] - OFFSETS_S[on]
    asked_s = time.monotonic()
    made = cluster.create(by, ttl_seconds=ttl_s)
    made_s = time.monotonic()
    cluster.wait_verdict(on, made["token"], True, timeout_s=due_s - EARLY_MAX_S)
    wait_until(lambda: cluster.verdict(on, made["token"]) != True, "it ends", 60)  # noqa: E712  # a code, or a refusal
    ended_s = time.monotonic()
    assert due_s - EARLY_MAX_S <= ended_s - asked_s and ended_s - made_s <= due_s + LATE_MAX_S
    assert cluster.verdict(on, made["token"]) == "TM-TOKN-4011"
    for node, offset_s in enumerate(OFFSETS_S):
        if offset_s < OFFSETS_S[on]:
            assert cluster.verdict(node, made["token"]) is True

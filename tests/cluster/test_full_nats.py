"""Slow: NATS has no room for the stream any more, on its disk or by its own limit.

Run by `make slow`: each test waits for seconds, or tens of them, for what NATS does. Writes are refused with 503 and `Retry-After`,
reads go on, and nothing that was acknowledged is lost, whatever it takes to get going again.
"""

import json
import time
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.small_disk import fill, small_disk

DATA = {f"field{number}": "x" * 900 for number in range(4)}
WRITES_MAX = 4000
READS_GO_ON_S = 5.0  # more than max_staleness, after which a node that is not current would refuse them


class Full:
    """A cluster of two nodes, and the sessions that fill its stream."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.tokens: list[str] = []
        self.attempts = 0
        self.first_id = ""

    def attempt(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """One more session, by either node in turn: status, headers, answer."""
        self.attempts += 1
        status, headers, content = self.cluster.nodes[self.attempts % 2].exchange(
            "POST", "/sessions", json={"user_id": f"u{self.attempts}", "data": DATA}, key=self.cluster.key
        )
        answer = json.loads(content)
        if status == 200:
            self.first_id = self.first_id or answer["data"]["session_id"]
            self.tokens.append(answer["data"]["token"])
        return status, headers, answer

    def until_refused(self) -> None:
        """Makes sessions until both nodes take none any more."""
        refused = 0
        for _ in range(WRITES_MAX):
            status, headers, answer = self.attempt()
            if status == 200:
                refused = 0
                continue
            assert (status, answer["code"]) == (503, "TM-CLST-5030"), answer
            assert int(headers["retry-after"]) >= 1
            refused += 1
            if refused == 4:
                return
        raise AssertionError("it is never full")

    def reads_go_on(self) -> None:
        """For longer than a node answers without being proved current."""
        until_s = time.monotonic() + READS_GO_ON_S
        while time.monotonic() < until_s:
            for node in range(2):
                assert self.cluster.verdict(node, self.tokens[0]) is True
            assert self.attempt()[0] == 503
            status, headers, content = self.cluster.nodes[0].exchange(
                "POST", f"/sessions/{self.first_id}/revoke", json={}, key=self.cluster.key
            )
            assert (status, json.loads(content)["code"]) == (503, "TM-CLST-5030") and int(headers["retry-after"]) >= 1

    def until_taken(self) -> None:
        """Both nodes take sessions again."""
        for node in range(2):
            self.tokens.append(self.cluster.create(node)["token"])

    def nothing_is_lost(self) -> None:
        """Every session that was acknowledged is good on every node, also after both were started again."""
        for _ in range(2):
            for node in range(2):
                for token in self.tokens:
                    assert self.cluster.verdict(node, token) is True
                self.cluster.nodes[node].stop()
            for each in self.cluster.nodes:
                each.spawn()
            for each in self.cluster.nodes:
                each.wait_ready()


def test_a_disk_that_is_really_full_stops_writes_until_there_is_room_and_nats_is_restarted(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, nodes=2, servers=1)
    store, server = tmp_path / "nats" / "store-0", cluster.nats.servers[0]
    with small_disk(store, "16m"), cluster:
        full = Full(cluster)
        full.tokens.append(cluster.create(0)["token"])
        fill(store / "ballast", free_pages=40)
        full.until_refused()
        full.reads_go_on()
        (store / "ballast").unlink()
        full.reads_go_on()  # and writes are refused still: nats-server 2.15 does not try again
        assert "no space left on device" in server.output
        server.stop()
        cluster.nats.start(0)
        full.until_taken()
        full.nothing_is_lost()


def test_a_stream_at_the_limit_of_jetstream_takes_writes_again_when_the_limit_is_raised(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, nodes=2, servers=1)
    server = cluster.nats.servers[0]
    unlimited = server.config.read_text()
    server.config.write_text(unlimited.replace("max_file_store: 4GB", "max_file_store: 1MB"))
    with cluster:
        full = Full(cluster)
        full.until_refused()
        full.reads_go_on()
        server.config.write_text(unlimited)
        server.stop()
        cluster.nats.start(0)
        full.until_taken()
        full.nothing_is_lost()

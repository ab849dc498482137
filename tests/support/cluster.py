"""A real cluster for tests: nats-server processes, and server processes that belong to it.

`Cluster` starts NATS first and the nodes one after the other, as they join one after the other anyway; each has its own directory
and the id `tmnd-0`, `tmnd-1`, …. The admin key is the one that the first node printed: keys are the cluster's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.namespaces import Network
from tests.support.nats import NatsCluster
from tests.support.places import LOOPBACK
from tests.support.power_disk import PowerDisk
from tests.support.server import TokMeshProcess
from tests.support.started import Started
from tests.support.waiting import wait_until

STORE_BYTES: Final = 512 << 20  # of a disk; it takes the room of what is written


class Cluster(Started):
    """nodes: how many; servers: of NATS, an odd number, all of which hold the stream; args: further options of every node; port: of
    the first node, the others follow, 0: any free ones. network: each of its hosts has a server and a node; else all are on
    loopback. sync_always, nats_extra: of NATS, `extra` there. power_disks: each server's store is on a disk of its own, within
    `own_mounts`."""

    def __init__(
        self,
        tmp_path: Path,
        nodes: int = 3,
        servers: int = 3,
        args: Sequence[str] = (),
        port: int = 0,
        network: Network | None = None,
        *,
        sync_always: bool = True,
        nats_extra: str = "",
        power_disks: bool = False,
    ) -> None:
        folder = tmp_path / "nats"
        folder.mkdir()
        self.network = network
        places = () if network is None else network.hosts[:servers]
        self.nats = NatsCluster(folder, servers, extra=nats_extra, places=places, sync_always=sync_always)
        stores = self.nats.stores if power_disks else []
        self.disks = [PowerDisk(store.with_suffix(".img"), store, STORE_BYTES) for store in stores]
        self._tmp_path = tmp_path
        self._servers = servers
        self._args = list(args)
        self._port = port
        self.nodes: list[TokMeshProcess] = []
        self._count = nodes

    def restart_nodes(self) -> None:
        """Stops all nodes, in none of which anything unexpected may have happened, and starts them together; returns when all are
        ready."""
        for node in self.nodes:
            assert not [line for line in node.log_lines() if "unexpected" in line["message"]]
            node.stop()
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.wait_ready()

    def add_node(self) -> TokMeshProcess:
        """Makes the next node, not started."""
        number = len(self.nodes)
        folder = self._tmp_path / f"node-{number}"
        folder.mkdir()
        node = TokMeshProcess(
            folder,
            "--cluster.enabled=true",
            f"--cluster.nats.servers={','.join(self.nats.urls)}",
            f"--cluster.nats.replicas={self._servers}",
            f"--cluster.node_id=tmnd-{number}",
            *([f"--server.http.address=127.0.0.1:{self._port + number}"] if self._port else []),
            *self._args,
            place=LOOPBACK if self.network is None else self.network.hosts[number],
        )
        self.nodes.append(node)
        return node

    @property
    def key(self) -> str:
        """The admin key of the cluster."""
        return self.nodes[0].admin_key

    def begin(self) -> None:
        """NATS and all nodes, ready."""
        for disk in self.disks:
            disk.mount()
        self.nats.begin()
        while len(self.nodes) < self._count:
            self.add_node().start()

    def create(self, node: int = 0, **fields: object) -> dict[str, Any]:
        """A new session by that node, once it takes writes."""
        made: list[dict[str, Any]] = []

        def attempt() -> bool:
            status, answer = self.ask(node, "POST", "/sessions", {"user_id": "user", **fields})
            assert status in (200, 503), answer
            made.extend([answer] if status == 200 else [])
            return bool(made)

        wait_until(attempt, "writes are taken")
        return made[0]

    def verdict(self, node: int, token: str) -> Any:
        """True, the error code of a definite no, or (status, code) of no answer."""
        status, answer = self.nodes[node].request("POST", "/tokens/validate", json={"token": token}, key=self.key)
        if status != 200:
            return status, answer["code"]
        return True if answer["data"]["valid"] else answer["data"]["error"]["code"]

    def ask(self, node: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status, and `data` or the whole answer of a refusal."""
        status, answer = self.nodes[node].request(method, path, json=body, key=self.key)
        return status, answer["data"] if status == 200 else answer

    def session(self, node: int, session_id: str) -> dict[str, Any]:
        """The session as that node has it."""
        status, data = self.ask(node, "GET", f"/sessions/{session_id}")
        assert status == 200, data
        session: dict[str, Any] = data["session"]
        return session

    def wait_verdict(self, node: int, token: str, expected: Any, timeout_s: float = 10.0) -> None:
        """Until that node says so."""
        wait_until(lambda: self.verdict(node, token) == expected, f"node {node} says {expected}", timeout_s)

    def close(self) -> None:
        """Ends all of it."""
        for node in self.nodes:
            node.kill()
        self.nats.close()
        for disk in self.disks:
            disk.unmount()

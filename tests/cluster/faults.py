"""Faults of a real cluster under load, one after the other, and the judgement after each.

    python -m tests.cluster.faults --fault kill-node --count 10 [--seed S] [--directory D]

A round strikes while clients write and readers read (load.py), holds for a random time, heals, waits until every node takes writes
again, and judges every session on every node (judging.py). At the end a node that starts with nothing must see the same.
"""

import argparse
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.cluster import power_cuts
from tests.cluster.judging import agreed, judge, wait_writes
from tests.cluster.load import Load, Session
from tests.support.cluster import Cluster
from tests.support.namespaces import Network
from tests.support.own_mounts import own_mounts
from tests.support.rounds import Lost, long_form

STREAM: Final = "TOKMESH_tokmesh_0"
HOLD_S: Final = (0.5, 5.0)
WARM_WRITES: Final = 40
AFTER_WRITES: Final = 40
OPTIONS: Final = ("--session.tombstone_ttl=1h",)


def _hold(source: random.Random) -> None:
    time.sleep(source.uniform(*HOLD_S))


def _nodes(cluster: Cluster, source: random.Random, count: int) -> None:
    chosen = source.sample(cluster.nodes, count)
    for node in chosen:
        node.kill()
    _hold(source)
    for node in chosen:
        node.spawn()


def kill_node(cluster: Cluster, source: random.Random) -> None:
    """SIGKILL of one node."""
    _nodes(cluster, source, 1)


def kill_two_nodes(cluster: Cluster, source: random.Random) -> None:
    """SIGKILL of two nodes of three: the third has no majority."""
    _nodes(cluster, source, 2)


def kill_all_nodes(cluster: Cluster, source: random.Random) -> None:
    """SIGKILL of all nodes at once."""
    _nodes(cluster, source, len(cluster.nodes))


def kill_leader(cluster: Cluster, source: random.Random) -> None:
    """SIGKILL of the NATS server that leads the stream, or now and then of another."""
    number = cluster.nats.wait_stream_leader(STREAM)
    if source.random() < 0.25:
        number = (number + 1) % len(cluster.nats.servers)
    cluster.nats.kill(number)
    _hold(source)
    cluster.nats.servers[number].spawn()


def kill_all_nats(cluster: Cluster, source: random.Random) -> None:
    """SIGKILL of all NATS servers at once."""
    for server in cluster.nats.servers:
        server.kill()
    _hold(source)
    for server in cluster.nats.servers:
        server.spawn()


def cut_power(cluster: Cluster, source: random.Random) -> None:
    """All NATS servers lose their power at once."""
    power_cuts.cut(cluster)
    _hold(source)
    power_cuts.restore(cluster)


def pause_node(cluster: Cluster, source: random.Random) -> None:
    """SIGSTOP and SIGCONT of a node."""
    node = source.choice(cluster.nodes)
    node.send_signal(signal.SIGSTOP)
    _hold(source)
    node.send_signal(signal.SIGCONT)


def pause_nats(cluster: Cluster, source: random.Random) -> None:
    """SIGSTOP and SIGCONT of a NATS server, most often of the stream's leader."""
    number = cluster.nats.wait_stream_leader(STREAM)
    if source.random() < 0.25:
        number = (number + 1) % len(cluster.nats.servers)
    cluster.nats.pause(number)
    time.sleep(source.uniform(0.5, 12.0))  # beyond an election, now and then
    cluster.nats.resume(number)


def roll_nodes(cluster: Cluster, source: random.Random) -> None:
    """Every node stopped in order and started again, one after the other."""
    for node in source.sample(cluster.nodes, len(cluster.nodes)):
        node.stop()
        node.start()


def roll_nats(cluster: Cluster, source: random.Random) -> None:
    """The same with the NATS servers."""
    for number in source.sample(range(len(cluster.nats.servers)), len(cluster.nats.servers)):
        cluster.nats.restart(number)


def partition(cluster: Cluster, source: random.Random) -> None:
    """A minority of the hosts, most often with the stream's leader, is cut from the majority: 2|1, 3|2."""
    assert cluster.network is not None
    hosts = list(cluster.network.hosts)
    leader = hosts[cluster.nats.wait_stream_leader(STREAM)]
    others = source.sample([host for host in hosts if host is not leader], len(hosts) // 2)
    cluster.network.isolate([leader, *others[1:]] if source.random() < 0.75 else others)
    _hold_long(source)
    cluster.network.heal()


def partial_mesh(cluster: Cluster, source: random.Random) -> None:
    """Some pairs lose each other, in one direction or both, while others still reach both."""
    assert cluster.network is not None
    hosts = cluster.network.hosts
    for _ in range(source.randrange(1, len(hosts))):
        one, other = source.sample(hosts, 2)
        cluster.network.deafen(one, other)
        if source.random() < 0.5:
            cluster.network.deafen(other, one)
    _hold_long(source)
    cluster.network.heal()


def move_parts(cluster: Cluster, source: random.Random) -> None:
    """A node is killed and not waited for, so that the others take on what it held; one of them is killed while it does. Then both
    come back, and everything goes back to where it belongs."""
    away, mover, *others = source.sample(cluster.nodes, len(cluster.nodes))
    away.kill()
    time.sleep(source.uniform(1.0, 2.0))
    for node in (mover, *others):
        node.command_line("cluster", "rebalance")
    time.sleep(source.uniform(0.0, 1.5))
    mover.kill()
    mover.spawn()
    _hold_long(source)
    away.spawn()
    time.sleep(source.uniform(0.0, 6.0))  # so that the next round now and then begins while shards are being left


def _hold_long(source: random.Random) -> None:
    time.sleep(source.choice((source.uniform(0.5, 4.0), source.uniform(4.0, 15.0))))


class Fault(NamedTuple):
    """strike: makes the fault, holds it, ends it; hosts: of a network of its own, 0: all on loopback; disks: stores on disks whose
    power can be cut; copies: how many nodes hold a session, 0: all."""

    strike: Callable[[Cluster, random.Random], None]
    hosts: int = 0
    nodes: int = 3
    disks: bool = False
    copies: int = 0


FAULTS: Final = {
    "kill-node": Fault(kill_node),
    "kill-two-nodes": Fault(kill_two_nodes),
    "kill-all-nodes": Fault(kill_all_nodes),
    "kill-leader": Fault(kill_leader),
    "kill-all-nats": Fault(kill_all_nats),
    "cut-power": Fault(cut_power, disks=True),
    "pause-node": Fault(pause_node),
    "pause-nats": Fault(pause_nats),
    "roll-nodes": Fault(roll_nodes),
    "roll-nats": Fault(roll_nats),
    "partition-2-1": Fault(partition, 3),
    "partition-3-2": Fault(partition, 5, 5),
    "partial-mesh": Fault(partial_mesh, 3),
    "kill-node-of-parts": Fault(kill_node, nodes=4, copies=2),
    "kill-two-nodes-of-parts": Fault(kill_two_nodes, nodes=5, copies=2),
    "kill-all-nodes-of-parts": Fault(kill_all_nodes, copies=2),
    "roll-nodes-of-parts": Fault(roll_nodes, nodes=4, copies=2),
    "partition-of-parts": Fault(partition, 5, 5, copies=2),
    "move-parts": Fault(move_parts, nodes=4, copies=2),
}


@contextlib.contextmanager
def cluster_for(fault: Fault, folder: Path) -> Iterator[Cluster]:
    """A running cluster that the fault can strike."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(fault.hosts + 1)) if fault.hosts else None
        if fault.disks:
            stack.enter_context(own_mounts())
        servers = fault.hosts or 3
        copies = (f"--cluster.replication_factor={fault.copies}",) if fault.copies else ()
        cluster = Cluster(folder, fault.nodes, servers, OPTIONS + copies, network=network, power_disks=fault.disks)
        yield stack.enter_context(cluster)


def run(name: str, count: int, seed: int, folder: Path) -> Counter[str]:
    """Totals over all rounds: "acknowledged", "unknown", "refused", "sessions", "operations", "yes", "no", "none"; and in ms the
    longest "to writes" after healing and the longest "standstill" of all writes. Lost, with the seed."""
    fault, source = FAULTS[name], random.Random(seed)
    totals: Counter[str] = Counter()
    sessions: list[Session] = []
    with cluster_for(fault, folder) as cluster:
        for number in range(count):
            try:
                sessions += _round(cluster, fault, source, seed * 1000 + number, totals)
            except Lost as lost:
                raise Lost(f"{name}, seed {seed}, round {number}: {lost}") from lost
        before = agreed(cluster, sessions)
        cluster.add_node().start()
        if agreed(cluster, sessions) != before:
            raise Lost(f"{name}, seed {seed}: a node that starts from the stream alone sees something else")
    return totals


def _round(cluster: Cluster, fault: Fault, source: random.Random, seed: int, totals: Counter[str]) -> list[Session]:
    load = Load(cluster, seed).start()
    try:
        load.wait_for(WARM_WRITES)
        struck_ns = time.monotonic_ns()
        fault.strike(cluster, source)
        healed_s = time.monotonic()
        for server in cluster.nats.servers:
            server.wait_ready()
        for node in cluster.nodes:
            node.wait_ready()
        wait_writes(cluster)
        to_writes_ms = int((time.monotonic() - healed_s) * 1000)
        load.wait_for(AFTER_WRITES)
    finally:
        load.finish()
    book = load.book
    totals += judge(cluster, book)
    totals["acknowledged"] += book.acknowledged.total()
    totals["unknown"] += book.unknown.total()
    totals["refused"] += book.refused.total()
    totals.update(book.verdicts)
    totals["to writes"] = max(totals["to writes"], to_writes_ms)
    totals["standstill"] = max(totals["standstill"], int(book.longest_pause_s(struck_ns) * 1000))
    return book.sessions


def main() -> int:
    """The command line."""

    def work(arguments: argparse.Namespace, folder: Path) -> str:
        found = run(arguments.fault, arguments.count, arguments.seed, folder)
        return ", ".join(f"{number} {name}" for name, number in sorted(found.items()))

    return long_form(__doc__, 10, work, choices={"fault": tuple(FAULTS)})


if __name__ == "__main__":
    sys.exit(main())

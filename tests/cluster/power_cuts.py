"""Power cuts of all NATS servers at once: what was acknowledged is on a majority's disks, or nothing holds it.

    python -m tests.cluster.faults --fault cut-power --count 10
    python -m tests.cluster.power_cuts [--seed S] [--directory D]

The first is the fault; the second its control, the same with the syncs that NATS does by default, every two minutes: then the
stream must have lost something, and a node must say so, or the first proves nothing. Needs what tests/support/power_disk.py needs.
"""

import argparse
import http.client
import sys
from pathlib import Path
from typing import Final

from tests.cluster.load import Load
from tests.support.cluster import Cluster
from tests.support.own_mounts import own_mounts
from tests.support.rounds import long_form
from tests.support.waiting import wait_until

WRITES: Final = 40
SAYS: Final = "TM-CLST-5050"


def cut(cluster: Cluster) -> None:
    """All servers lose their power in one moment, and have only their disks. What a server said while its disk fails would be said
    by a machine without power, and can be wrong (a sync under way may succeed in vain): so they are stopped first."""
    for server in cluster.nats.servers:
        server.pause()
    for disk in cluster.disks:
        disk.cut_power()
    for server in cluster.nats.servers:
        server.kill()
    for disk in cluster.disks:
        disk.unmount()


def restore(cluster: Cluster) -> None:
    """They have power again, and start."""
    for disk in cluster.disks:
        disk.mount()
    for server in cluster.nats.servers:
        server.spawn()


def run_without_syncs(seed: int, folder: Path) -> int:
    """How many writes were acknowledged. AssertionError when no node says that the stream has lost any."""
    with own_mounts(), Cluster(folder, sync_always=False, power_disks=True) as cluster:
        for disk in cluster.disks:
            disk.sync()  # the stream as such is there afterwards: what it lacks is what was acknowledged
        load = Load(cluster, seed).start()
        try:
            load.wait_for(WRITES)
            cut(cluster)
        finally:
            load.finish()
        restore(cluster)

        def is_told() -> bool:
            return any(SAYS in _readiness(cluster, node) for node in range(len(cluster.nodes)))

        wait_until(is_told, "nothing was lost without syncs: the power cuts see nothing")
        return load.book.acknowledged.total()


def _readiness(cluster: Cluster, node: int) -> str:
    try:
        return str(cluster.nodes[node].request("GET", "/ready?verbose", key=cluster.key)[1])
    except (OSError, http.client.HTTPException):
        return ""


def main() -> int:
    """The command line of the control."""

    def work(arguments: argparse.Namespace, folder: Path) -> str:
        return f"{run_without_syncs(arguments.seed, folder)} acknowledged, some lost, as it must"

    return long_form(__doc__, 1, work)


if __name__ == "__main__":
    sys.exit(main())

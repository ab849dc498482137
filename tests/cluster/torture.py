"""Every fault that a cluster must survive, at full numbers or a share of them, and one table of what came of it.

    python -m tests.cluster.torture [--scale 1] [--seed S] [--jobs N] [--only WORD] [--directory D]

A row is one fault of faults.py, 100 rounds of it, ten on one cluster; the control of the power cuts must lose, or they prove
nothing. Lost: an acknowledged change that is missing or undone, a refused one that was made, a yes to a token that had ended so
long before that no node may say so. "At most … ms to writes": from the end of the fault to the moment when every node has taken a
write again; "at most … ms without writes": the longest time since its beginning in which no client had a write acknowledged by any
node.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster import faults, power_cuts
from tests.crash.torture import Row, main

ROUNDS: Final = 100
ROUNDS_PER_CLUSTER: Final = 10


def striking(fault: str) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        found = faults.run(fault, count, seed, folder)
        return count, (
            f"{found['acknowledged']} acknowledged, {found['unknown']} unknown, {found['sessions']} sessions compared, "
            f"{found['yes'] + found['no']} verdicts, at most {found['to writes']} ms to writes, "
            f"at most {found['standstill']} ms without writes"
        )

    return run


def without_syncs(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    power_cuts.run_without_syncs(seed, folder)
    return 1, "1 lost, as it must"


CONTROL: Final = Row("power cut, NATS' own sync interval (the control: must lose)", 1, 1, without_syncs)
FAULT_ROWS: Final = tuple(
    Row(name, ROUNDS, ROUNDS_PER_CLUSTER, striking(fault))
    for name, fault in (
        ("SIGKILL of one node of three", "kill-node"),
        ("SIGKILL of two nodes of three", "kill-two-nodes"),
        ("SIGKILL of all nodes", "kill-all-nodes"),
        ("SIGKILL of a NATS server, mostly the stream's leader", "kill-leader"),
        ("SIGKILL of all three NATS servers at once", "kill-all-nats"),
        ("power cut of all three NATS servers at once", "cut-power"),
        ("SIGSTOP of a node", "pause-node"),
        ("SIGSTOP of a NATS server, mostly the stream's leader", "pause-nats"),
        ("rolling restart of the nodes", "roll-nodes"),
        ("rolling restart of the NATS servers", "roll-nats"),
        ("partition 2|1", "partition-2-1"),
        ("partition 3|2", "partition-3-2"),
        ("partition of some pairs, some one way", "partial-mesh"),
        ("2 copies: SIGKILL of one node of four", "kill-node-of-parts"),
        ("2 copies: SIGKILL of two nodes of five", "kill-two-nodes-of-parts"),
        ("2 copies: SIGKILL of all nodes", "kill-all-nodes-of-parts"),
        ("2 copies: rolling restart of the nodes", "roll-nodes-of-parts"),
        ("2 copies: partition 3|2", "partition-of-parts"),
        ("2 copies: a node away, its shards taken on, another killed meanwhile", "move-parts"),
    )
)
ROWS: Final = (*FAULT_ROWS, CONTROL)


if __name__ == "__main__":
    sys.exit(main("tests.cluster.torture", __doc__, 1))

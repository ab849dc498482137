"""The short form of `make torture-cluster`: a round of one fault, judged like the long ones."""

from pathlib import Path

from tests.cluster import faults
from tests.cluster.torture import FAULT_ROWS
from tests.support.rounds import short_form


def test_what_was_acknowledged_outlives_a_partition(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_CLUSTER_ROUNDS", 1)
    totals = faults.run("partition-2-1", count, seed, tmp_path)
    assert totals["acknowledged"] >= 80 * count and totals["sessions"] >= 20 * count
    assert totals["yes"] > 100 and totals["no"] > 100


def test_every_fault_has_a_row() -> None:
    assert len(FAULT_ROWS) == len(faults.FAULTS)

"""Short forms of the power cuts of `make torture-cluster`.

Slow: most of a minute each, in which they mostly wait. Not in `make test`."""

from pathlib import Path

from tests.cluster import faults, power_cuts
from tests.support.rounds import short_form


def test_what_was_acknowledged_outlives_a_power_cut_of_all_nats_servers(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_CLUSTER_ROUNDS", 1)
    totals = faults.run("cut-power", count, seed, tmp_path)
    assert totals["acknowledged"] >= 80 * count and totals["sessions"] >= 20 * count


def test_without_syncs_a_power_cut_does_lose_and_a_node_says_so(tmp_path: Path) -> None:
    """The test above proves nothing unless this one finds a loss."""
    _, seed = short_form("TOKMESH_CLUSTER_ROUNDS", 1)
    assert power_cuts.run_without_syncs(seed, tmp_path) >= power_cuts.WRITES

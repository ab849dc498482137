"""A short form of `tests.crash.snapshot_kills`; TOKMESH_KILLS and TOKMESH_SEED make it longer or repeat it."""

from pathlib import Path

from tests.crash import snapshot_kills
from tests.support.rounds import short_form


def test_a_kill_at_any_call_of_a_snapshot_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_KILLS", 5)
    totals = snapshot_kills.run(count, seed, tmp_path, encrypted=seed % 2 == 1, step=5)
    assert totals["killed"] >= count // 2 and totals["compared"] > 60 * count, totals

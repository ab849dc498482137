"""A short form of `tests.crash.histories`; TOKMESH_HISTORIES and TOKMESH_SEED make it longer or repeat it."""

from pathlib import Path

from tests.crash import histories
from tests.support.rounds import short_form


def test_a_server_is_what_a_dictionary_says_through_kills_snapshots_and_restores(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_HISTORIES", 1)
    totals = histories.run(count, seed, tmp_path)
    assert totals["changes"] > 20 and totals["compared"] > 20, totals

"""A short form of `tests.crash.power`; TOKMESH_POWER_CUTS and TOKMESH_SEED make it longer or repeat it."""

from pathlib import Path

import pytest

from tests.crash import power
from tests.support.rounds import Lost, short_form


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_no_acknowledged_record_is_lost_to_a_power_cut(tmp_path: Path, encrypted: bool) -> None:
    count, seed = short_form("TOKMESH_POWER_CUTS", 5)
    assert power.run(count, seed, tmp_path, encrypted=encrypted) > count


def test_without_syncs_power_cuts_do_lose_records(tmp_path: Path) -> None:
    """The test above proves nothing unless this one finds a loss."""
    with pytest.raises(Lost):
        power.run(5, 1, tmp_path, no_sync=True)

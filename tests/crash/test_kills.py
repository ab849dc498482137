"""A short form of `tests.crash.kills`; TOKMESH_KILLS and TOKMESH_SEED make it longer or repeat it."""

from pathlib import Path

import pytest

from tests.crash import kills
from tests.support.rounds import short_form


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_no_acknowledged_record_is_lost_to_sigkill(tmp_path: Path, encrypted: bool) -> None:
    count, seed = short_form("TOKMESH_KILLS", 20)
    killed, acknowledged = kills.run(count, seed, tmp_path, encrypted=encrypted)
    assert killed >= count // 3, "too few kills struck: the ranges in kills.SETS no longer fit"
    assert acknowledged > count

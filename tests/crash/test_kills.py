"""A short form of `tests.crash.kills`; TOKMESH_KILLS and TOKMESH_SEED make it longer or repeat it."""

import os
import random
from pathlib import Path

from tests.crash import kills


def test_no_acknowledged_record_is_lost_to_sigkill(tmp_path: Path) -> None:
    count = int(os.environ.get("TOKMESH_KILLS", "40"))
    seed = int(os.environ.get("TOKMESH_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed}")
    killed, acknowledged = kills.run(count, seed, tmp_path)
    assert killed >= count // 3, "too few kills struck: the ranges in kills.SETS no longer fit"
    assert acknowledged > count

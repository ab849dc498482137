"""A short form of `tests.crash.server_kills`; TOKMESH_KILLS and TOKMESH_SEED make it longer or repeat it."""

from pathlib import Path

import pytest

from tests.crash import server_kills
from tests.crash.server_load import WEIGHTS, Load
from tests.support.rounds import Lost, short_form
from tests.support.server import TokMeshProcess


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_no_change_that_a_server_acknowledged_is_lost_to_sigkill(tmp_path: Path, encrypted: bool) -> None:
    count, seed = short_form("TOKMESH_KILLS", 8)
    totals = server_kills.run(count, seed, tmp_path, encrypted=encrypted)
    assert totals["checked"] > 10 * count
    assert all(totals[operation] > count for operation in WEIGHTS), totals


def test_no_change_is_lost_to_sigkill_while_snapshots_are_taken_and_the_log_behind_them_is_dropped(tmp_path: Path) -> None:
    count, seed = short_form("TOKMESH_KILLS", 4)
    totals = server_kills.run(count, seed, tmp_path, encrypted=seed % 2 == 1, snapshots=True)
    assert totals["checked"] > 10 * count and totals["snapshots"] > 0, totals


@pytest.mark.parametrize("lost", ["revocation", "update", "rotation", "session"])
def test_the_check_sees_what_is_lost(server: TokMeshProcess, lost: str) -> None:
    """The test above proves nothing unless its ledger differs from a server that forgot something."""
    load = Load(server, 1).start()
    load.wait_for(200)
    load.finish()
    load.check(None)
    session = next(each for each in load.sessions if not each.revoked and each.ended_tokens)
    if lost == "revocation":
        session.revoked = True
    elif lost == "update":
        session.version += 1
    elif lost == "rotation":
        session.ended_tokens.append(session.token)
    else:
        session.token = "tmtk_" + "x" * 43
    with pytest.raises(Lost):
        load.check(None)

"""Why a restore failed, as an administrator is told: the file's name and the reason, no path of the host."""

import asyncio
from pathlib import Path

import pytest

from tokmesh.errors import ApiError
from tokmesh.snapshots.restoring import _told
from tokmesh.storage.recovery import RecoveryCancelled
from tokmesh.storage.segment_keys import KeyMissing
from tokmesh.storage.snapshot_file import SnapshotDamaged

FILE = Path("/srv/secret-place/data/snapshots/snapshot-1.tms")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SnapshotDamaged(FILE, 12, "wrong checksum"), "snapshot-1.tms: at offset 12: wrong checksum"),
        (KeyMissing(FILE, b"\x01", None), "snapshot-1.tms: it is encrypted under key 01, which this server does not have"),
        (OSError(28, "No space left on device", str(FILE)), "snapshot-1.tms: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ApiError("TM-SYS-5001", {"reason": str(FILE)}), "TM-SYS-5001: Storage cannot accept writes"),
        (RecoveryCancelled(), "the server stopped"),
        (KeyError(str(FILE)), "an internal error, which the server's log tells"),
        (asyncio.CancelledError(), "its request ended"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_error_of_a_job_names_no_path(error: BaseException, told: str) -> None:
    assert _told(error) == told

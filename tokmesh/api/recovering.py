"""The door while the log is replayed: the probes answer, everything else is told to come back.

A node that is replaying knows neither its sessions nor its keys yet: whatever it said of them could be wrong, a wrong no as
much as a wrong yes. So no credential is judged, and only the administration socket is told more than the name of the check.
"""

from typing import Final, Protocol

from tokmesh.errors import ApiError

PROBES: Final = frozenset({"/health", "/ready"})


class Progress(Protocol):
    """How far the replay is. Read on the loop while another thread writes it."""

    @property
    def phase(self) -> str: ...
    @property
    def records(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...


class RecoveryGate:
    """progress: of the replay under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open = self._is_replayed = False

    def replayed(self) -> None:
        """The replay is done; other things may keep the node from serving still."""
        self._is_replayed = True

    def open(self) -> None:
        """The replay is done, and with it all that keeps the node from serving."""
        self._open = True

    def reason(self) -> str | None:
        """The readiness check "recovery"."""
        if self._open:
            return None
        if self._is_replayed:
            return "the log is replayed, and serving has not begun"
        progress = self._progress
        return f"{progress.phase}: {progress.records} records, {progress.bytes_read} of {progress.bytes_total} bytes"

    def admit(self, path: str) -> None:
        """Lets probes in. Raises TM-SYS-5030 for every other route."""
        if path not in PROBES:
            raise ApiError("TM-SYS-5030", {"reason": "recovery"}, retry_after_s=1)

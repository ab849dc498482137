"""What the domain knows of a log: one call. Which log it is, is the composition root's choice."""

from typing import NamedTuple, Protocol

from tokmesh._core.proposal import Proposal
from tokmesh.log.record import AnyRecord

__all__ = ["Log", "Proposal", "Reached"]


class Reached(NamedTuple):
    """Where a change has come to. applied: ids of the nodes that have it; fenced: of those that answer nothing without it; took_ms:
    from its commit to this answer."""

    applied: list[str]
    fenced: list[str]
    took_ms: int


class Log(Protocol):
    """Where records are proposed."""

    def propose(self, record: AnyRecord) -> Proposal:
        """A future of what Store.apply returned, done once the record is durable and applied.

        ApiError in the future: TM-SYS-5001 (the log takes nothing), TM-SYS-5030 (too much waits for it), TM-SYS-4130 (too large a
        record), and others of each kind of log."""

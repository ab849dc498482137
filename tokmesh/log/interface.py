"""What the domain knows of a log: one call. Which log it is, is the composition root's choice."""

import asyncio
from typing import Any, NamedTuple, Protocol

from tokmesh.log.record import AnyRecord


class Proposal(asyncio.Future[Any]):
    """What a log gives for a record. It cannot be cancelled: a record that is on its way cannot be called back.

    Who awaits it and is cancelled hears of that when the record is applied or refused; until then all that the record needs, its
    place, its token, its turn, stays reserved.
    """

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class Reached(NamedTuple):
    """Where a change has come to. applied: ids of the nodes that have it; fenced: of those that answer nothing without it; took_ms:
    from its commit to this answer."""

    applied: list[str]
    fenced: list[str]
    took_ms: int


class Log(Protocol):
    """Where records are proposed."""

    def propose(self, record: AnyRecord) -> Proposal:
        """A future of what Store.apply returned, done once the record is durable and applied. Raises ApiError TM-SYS-5001."""

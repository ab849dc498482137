"""What the domain knows of a log: one call. Which log it is, is the composition root's choice."""

import asyncio
from typing import Any, Protocol

from tokmesh.log.record import AnyRecord


class Log(Protocol):
    """Where records are proposed."""

    def propose(self, record: AnyRecord) -> "asyncio.Future[Any]":
        """A future of what Store.apply returned, done once the record is durable and applied. Raises ApiError TM-SYS-5001."""

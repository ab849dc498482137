"""Futures of what is proposed to a log."""

import asyncio
from typing import Any, Protocol


class Waiter(Protocol):
    """Who drives a coroutine that awaits a proposal, without a task."""

    def resume(self, future: "asyncio.Future[Any]") -> None: ...


class Proposal(asyncio.Future[Any]):
    """What a log gives for a record. It cannot be cancelled: a record that is on its way cannot be called back.

    Who awaits it and is cancelled hears of that when the record is applied or refused; until then all that the record needs, its
    place, its token, its turn, stays reserved.
    """

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        return False


class GroupProposal(Proposal):
    """One of those that a log settles as a group: it resumes the `waiter` of each, if any, when it is through with all of them.

    That is what a callback of each future would come to, and costs a create 2,300 instructions less.
    """

    __slots__ = ("waiter",)
    waiter: Waiter | None  # set by the log to None, and by who is to be resumed

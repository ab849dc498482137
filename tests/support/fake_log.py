"""A log whose commits are the test's to order: proposals wait until they are committed or refused, or commit at once.

It checks of every record that its bytes bring it back, and applies in order of proposal, as the real log does.
"""

import asyncio
from collections import deque

from tokmesh.errors import ApiError
from tokmesh.log.interface import Proposal
from tokmesh.log.record import AnyRecord, decode
from tokmesh.store import Store


class FakeLog:
    """immediate: commit each record as it is proposed, until `hold` is called."""

    def __init__(self, store: Store, *, immediate: bool = True) -> None:
        self.store = store
        self.immediate = immediate
        self.refusing = False
        self.records: list[AnyRecord] = []
        self.waiting: deque[tuple[AnyRecord, Proposal]] = deque()

    def propose(self, record: AnyRecord) -> Proposal:
        assert decode(record.encode()) == record
        future = Proposal(loop=asyncio.get_running_loop())
        if self.refusing:
            future.set_exception(ApiError("TM-SYS-5001"))
            return future
        self.waiting.append((record, future))
        if self.immediate:
            self.commit()
        return future

    def commit(self, count: int = 1) -> None:
        """Commits and applies the oldest `count` proposals."""
        for _ in range(count):
            record, future = self.waiting.popleft()
            self.records.append(record)
            outcome = self.store.apply(len(self.records), record)
            if not future.done():
                future.set_result(outcome)

    def commit_all(self) -> None:
        """Commits everything that waits."""
        self.commit(len(self.waiting))

    def refuse(self, count: int = 1) -> None:
        """Refuses the oldest `count` proposals, as a failed or full log does."""
        for _ in range(count):
            _, future = self.waiting.popleft()
            if not future.done():
                future.set_exception(ApiError("TM-SYS-5001"))


async def settle() -> None:
    """Lets everything run that can run without the log."""
    for _ in range(8):
        await asyncio.sleep(0)

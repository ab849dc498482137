"""What becomes of proposals when the writer has decided them: applied in order, and answered.

On the loop's thread. A proposal is one record, or a batch of records that were put next to each other and are answered together.
Invariants: sequences are applied strictly in order, each once; after a failure nothing is acknowledged ever again; one turn of the
loop applies TURN_RECORDS_MAX records at most, whatever they came in.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from tokmesh._core.commits import Commits
from tokmesh._core.proposal import GroupProposal
from tokmesh._core.streamed import StreamedBatch
from tokmesh.errors import ApiError
from tokmesh.log.writer import Writer

TURN_RECORDS_MAX: Final = 1024  # applied in one turn of the loop

R = TypeVar("R")
_Item = tuple[Any, GroupProposal, int]


class Settling(Generic[R]):
    """See the module. at_intervals: of the syncs, so that not every group is synced before it is decided; apply: of one record;
    apply_all: of records `start` ≤ n < `end` of a batch, the first of them at that sequence. waiting: records not settled yet;
    last_sequence: of the last record applied; group_records: that became durable together and are being applied."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        commits: Commits,
        writer: Writer,
        at_intervals: bool,
        last_sequence: int,
        apply: Callable[[int, R], object],
        apply_all: Callable[[int, StreamedBatch, int, int], None] | None,
        logger: logging.Logger,
    ) -> None:
        self._loop = loop
        self._commits = commits
        self._writer = writer
        self._at_intervals = at_intervals
        self._apply = apply
        self._apply_all = apply_all
        self._logger = logger
        self._proposals: deque[_Item] = deque()  # what, its future, records of a batch or 0; the first of them number `_settled`
        self._settled = 0
        self._batch_at = 0  # of the first proposal, a batch: how many of its records are settled
        self._batch_error: Exception | None = None  # and what became of those, if not all were applied
        self._apply_failed = False
        self._answered: list[GroupProposal] = []  # whose waiters are to be resumed
        self.waiting = 0
        self.last_sequence = last_sequence
        self.group_records = 0

    def add(self, record: R, future: GroupProposal) -> None:
        """The record was put next."""
        self._proposals.append((record, future, 0))
        self.waiting += 1

    def add_all(self, batch: StreamedBatch, future: GroupProposal) -> None:
        """Its records, one at least, were put next."""
        self._proposals.append((batch, future, len(batch)))
        self.waiting += len(batch)

    def settle(self) -> None:
        """Applies and answers, in order, what the writer has decided; what is more than a turn in the next."""
        decided = self._commits.acknowledge()
        until = min(decided, self._settled + TURN_RECORDS_MAX)
        if until < decided:
            self._loop.call_soon(self.settle)
        self.group_records = until - self._settled
        while self._settled < until:
            what, future, count = self._proposals[0]
            if count:
                self._settle_batch(what, future, until)
                continue
            self._proposals.popleft()
            reason = self._refusal_of(self._settled)
            self._settled += 1
            self.waiting -= 1
            if reason is None:
                self._apply_and_answer(what, future)
            elif not future.done():
                future.set_exception(refusal(reason))
            if future.waiter is not None:
                self._answered.append(future)
        self._resume()

    def _resume(self) -> None:
        """Lets those go on who wait for what was answered."""
        answered, self._answered = self._answered, []
        for future in answered:
            assert future.waiter is not None
            try:
                future.waiter.resume(future)
            except Exception:
                self._logger.exception("who waited for a record could not go on")

    def _settle_batch(self, batch: StreamedBatch, future: GroupProposal, until: int) -> None:
        """As much of it as is decided before the proposal numbered `until`."""
        end = min(len(batch), self._batch_at + until - self._settled)
        while self._batch_at < end:
            reason = self._refusal_of(self._settled)
            count = 1
            if reason is not None:
                self._batch_error = self._batch_error or refusal(reason)
            else:
                refused = self._writer.refused
                count = min(end - self._batch_at, refused[0].start - self._settled) if refused else end - self._batch_at
                self._apply_part(batch, self._batch_at, self._batch_at + count)
            self._batch_at += count
            self._settled += count
            self.waiting -= count
        if end < len(batch):
            return
        self._proposals.popleft()
        error, self._batch_error, self._batch_at = self._batch_error, None, 0
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        if future.waiter is not None:
            self._answered.append(future)

    def _refusal_of(self, number: int) -> str | None:
        """Why the proposal with this number, the next to be settled, is refused; None: it is committed."""
        refused = self._writer.refused
        if refused and refused[0].start <= number:
            if number + 1 == refused[0].end:
                return refused.popleft().reason
            return refused[0].reason
        # After a failure nothing is acknowledged: a failed sync may have been this record's own, and a table that could not
        # follow the log must not go on with what came later.
        if self._apply_failed or (self._at_intervals and self._writer.failure is not None):
            return "log failed"
        return None

    def _apply_part(self, batch: StreamedBatch, start: int, end: int) -> None:
        assert self._apply_all is not None, "who proposes batches says at the start how they are applied"
        sequence = self.last_sequence + 1
        try:
            self._apply_all(sequence, batch, start, end)
        except Exception as error:
            self._logger.exception("records %d to %d could not be applied", sequence, sequence + end - start - 1)
            self._fail()
            self._batch_error = error
        else:
            self.last_sequence += end - start

    def _apply_and_answer(self, record: R, future: GroupProposal) -> None:
        """An exception of `apply` is our bug: the table can no longer follow the log, so nothing after it is applied."""
        sequence = self.last_sequence + 1
        try:
            outcome = self._apply(sequence, record)
        except Exception as error:
            self._logger.exception("record %d could not be applied", sequence)
            self._fail()
            if not future.done():
                future.set_exception(error)
            return
        self.last_sequence = sequence
        if not future.done():
            future.set_result(outcome)

    def _fail(self) -> None:
        self._apply_failed = True
        self._writer.fail("a committed record could not be applied", False)


def refusal(reason: str) -> ApiError:
    """What is told of a record that the log did not take."""
    return ApiError("TM-SYS-5001", {"reason": reason}, retry_after_s=1)

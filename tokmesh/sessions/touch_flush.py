"""Writes the soft state of sessions, when and from where they were last used, to the log in bulk.

The table has it already; the log gets it so that a restart misjudges idleness by no more than the interval between flushes.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.log.record import SessionsTouched

if TYPE_CHECKING:
    from tokmesh.log.interface import Log

# 2.1 kB each at most: a record stays well below the smallest segment (1 MB).
TOUCHES_PER_RECORD: Final = 256
RECORDS_MAX: Final = 512


class TouchFlush:
    """Drains `table` into `log`; what the log refused is kept, and goes first the next time."""

    def __init__(self, table: Table, log: "Log", clock: Clock) -> None:
        self._table = table
        self._log = log
        self._clock = clock
        self._unwritten: list[SessionsTouched] = []
        self._running = False

    async def run(self) -> int:
        """Proposes what was touched since the last call, at most 131,072 sessions; how many were logged.

        0 at once while another call is under way. Raises the log's refusal (TM-SYS-5001).
        """
        if self._running:
            return 0
        self._running = True
        try:
            return await self._write(self._drained())
        finally:
            self._running = False

    def forget(self) -> None:
        """What the log refused is not tried again."""
        self._unwritten = []

    def _drained(self) -> list[SessionsTouched]:
        records, self._unwritten = self._unwritten, []
        while len(records) < RECORDS_MAX:
            touches = self._table.drain_touched(TOUCHES_PER_RECORD)
            if not touches:
                break
            records.append(SessionsTouched(self._clock.now_ms(), touches, drained=True))
        return records

    async def _write(self, records: list[SessionsTouched]) -> int:
        if not records:
            return 0
        # All at once: they share a group, and so one fdatasync.
        proposals = [self._log.propose(record) for record in records]
        results = await asyncio.gather(*proposals, return_exceptions=True)
        flushed, refusal = 0, None
        for record, result in zip(records, results, strict=True):
            if isinstance(result, BaseException):
                self._unwritten.append(record)
                refusal = result
            else:
                flushed += len(record.touches)
        if refusal is not None:
            raise refusal
        return flushed

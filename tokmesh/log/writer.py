"""The log's writer: the thread that turns what was proposed into durable frames.

Its usual turn is `Commits.run`, which needs no GIL; what asks for judgement (a new segment, a full disk, a failure, the end) is
decided here. Invariants: every record put is decided, in order, whatever goes wrong; after a failure nothing more is written; a
refused record is told as such in `refused` before it counts as decided.
"""

import logging
from collections import deque
from typing import Final, NamedTuple

from tokmesh._core.clock import Clock
from tokmesh._core.commits import Commits, Stop
from tokmesh.log.appender import Appender, LogFailed, sync_failure, write_failure
from tokmesh.storage.segment import NO_ROOM

FULL_RETRY_S: Final = 0.2  # how often a full log looks for room of its own accord
IDLE_WAIT_S: Final = 1.0


class Refused(NamedTuple):
    """Records `start` ≤ number < `end`, counted as put, that are not in the log, or not known to be, and why."""

    start: int
    end: int
    reason: str


class Writer:
    """Writes what `commits` gathers at the end of the log, `appender`. interval_s: of syncs; 0: each group is synced.

    failure: why the log is over; set once, by the writer or with `fail` by the loop. full: a record had no room; until there is a
    spare segment only reserved ones are taken, even where others would still fit: so what is told of a full log is true of it.
    """

    def __init__(self, appender: Appender, commits: Commits, interval_s: float, clock: Clock, logger: logging.Logger) -> None:
        self._appender = appender
        self._commits = commits
        self._interval_s = interval_s
        self._clock = clock
        self._logger = logger
        self._closing = False
        self.failure: str | None = None
        self.full = False
        self.sync_failures = 0
        self.append_errors = 0
        self.refused: deque[Refused] = deque()  # taken from the left by the loop

    def fail(self, reason: str, by_sync: bool) -> None:
        """Ends the log for good; the first reason stays."""
        self.append_errors += 1
        self.sync_failures += by_sync
        if self.failure is None:
            self.failure = reason
        self._commits.interrupt()
        self._logger.critical("the log failed and takes no more writes: %s", reason)

    def finish(self) -> None:
        """Makes `run` return once nothing waits. The caller puts nothing any more."""
        self._closing = True
        self._commits.interrupt()

    def run(self) -> None:
        """The thread's body; ends after `finish`. No exception leaves it: waiters would be left behind."""
        commits = self._commits
        self._synced_ns = self._clock.monotonic_ns()
        while True:
            try:
                if self.failure is None:
                    self._write()
                    self._sync_at_intervals()
                else:
                    commits.wait(0 if self._closing else int(IDLE_WAIT_S * 1e9))
                    commits.take()
            except LogFailed as error:
                self.fail(str(error), error.by_sync)
            except Exception as error:
                self._logger.exception("the log's writer has a bug")
                self.fail(f"writer: {type(error).__name__}", False)
            # What was taken and came to nothing.
            self._refuse(commits.taken - commits.decided, "log failed")
            if self._closing and not commits.pending:  # in this order: nothing is added once it is closing
                return

    def _write(self) -> None:
        """Writes what comes, for a while or until a group needs more than the usual; that one group is then dealt with."""
        commits, appender = self._commits, self._appender
        appender.follow_keys()
        appender.follow_skip()
        wait_s = 0.0 if self._closing else FULL_RETRY_S if self.full else self._interval_s or IDLE_WAIT_S
        limit = 0 if self.full else appender.limit(False)  # of a full log every group asks for judgement
        stop = commits.run(appender, limit, not self._interval_s, int(wait_s * 1e9))
        if stop == Stop.STOP_SYNC:
            raise sync_failure(commits.error_number)
        if stop == Stop.STOP_WRITE and commits.error_number not in NO_ROOM:
            raise write_failure(commits.error_number)
        if stop in (Stop.STOP_ROOM, Stop.STOP_WRITE):
            self._commit(commits.take())
        elif self.full and appender.have_spare():
            self.full = False  # no one asks a server that is not ready: it finds out by itself

    def _sync_at_intervals(self) -> None:
        appender, now_ns = self._appender, self._clock.monotonic_ns()
        if self._interval_s and (self._closing or now_ns - self._synced_ns >= self._interval_s * 1e9):
            if appender.durable_sequence != appender.sequence_due - 1:
                appender.sync()
            self._synced_ns = now_ns

    def _commit(self, group: list[tuple[bytes, bool]]) -> None:
        """Writes a group that does not fit where the log ends: in a new segment or, where there is no room for one, its
        reserved records only. LogFailed."""
        kept = group
        if self._write_frame(group):
            self.full = self.full and not self._appender.have_spare()
        else:
            self.full = True
            self.append_errors += 1
            kept = [item for item in group if item[1]]
            if kept and not self._write_frame(kept):
                kept = []
        if kept and not self._interval_s:
            self._appender.sync()
        for item in group:
            if len(kept) == len(group) or (kept and item[1]):
                self._commits.decide(1)
            else:
                self._refuse(1, "disk full")

    def _write_frame(self, group: list[tuple[bytes, bool]]) -> bool:
        appender = self._appender
        size = appender.frame_bytes(record for record, _ in group)
        ordinary = (not self.full or appender.have_spare()) and appender.make_room(size, reserved=False)
        if not ordinary and not (all(reserved for _, reserved in group) and appender.make_room(size, reserved=True)):
            return False
        return appender.write([record for record, _ in group]) > 0

    def _refuse(self, count: int, reason: str) -> None:
        """The next `count` of those taken are refused."""
        if count:
            self.refused.append(Refused(self._commits.decided, self._commits.decided + count, reason))
            self._commits.decide(count)

"""The log of one node: proposals become durable together and are applied in order.

`propose` is called on the event loop's thread and puts the record in a queue; the writer thread takes everything that
has gathered while the group before was being synced, writes it as one frame, syncs, and wakes the loop once; the loop
applies the records and answers. Invariants: what is applied is durable (`sync_mode: interval`: written) first;
sequences are applied strictly in order, each once; after a failure nothing is acknowledged ever again; a refused record
is not in the log, unless the refusal was a failed sync, when only the next start can tell.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypedDict, TypeVar

from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock
from tokmesh.errors import ApiError
from tokmesh.log.appender import Appender, LogFailed, frame_bytes_max
from tokmesh.storage import recovery
from tokmesh.storage.recovery import RecoveryReport
from tokmesh.storage.segment import SEGMENT_BYTES_MIN, lock_directory, make_directory

GROUP_RECORDS_MAX: Final = 1024  # applied in one turn of the loop
PENDING_MAX: Final = 65_536  # records proposed and not yet written
FULL_RETRY_S: Final = 0.2  # how often a full log looks for room of its own accord
IDLE_WAIT_S: Final = 1.0
GROUP_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, GROUP_RECORDS_MAX)


class Record(Protocol):
    """What the log stores. A class with a true `reserved` attribute may use the room kept for it on a full disk."""

    def encode(self) -> bytes: ...


class LogStats(TypedDict):
    """Figures for metrics. `…_total` never go back within a process; segment_bytes: used of the segment at the end;
    state: "open", "full", "failed" or "closed"; recovery_…: of this process's start."""

    write_bytes_total: int
    fsync_total: int
    fsync_failed_total: int
    append_errors_total: int
    records_total: int
    groups_total: int
    segments: int
    last_sequence: int
    durable_sequence: int
    segment_bytes: int
    pending: int
    state: str
    recovery_seconds: float
    recovery_records: int
    torn_tail_total: int


R = TypeVar("R", bound=Record)
_Item = tuple[Any, bytes, "asyncio.Future[Any]"]


class FileLog(Generic[R]):
    """See the module. directory: of the segments, made if missing; sync_mode: "always" or "interval"; sync_interval_ms:
    of the latter; segment_bytes_max: size of a segment, at least SEGMENT_BYTES_MIN; decode: bytes of `R.encode()` back
    to R, may raise anything. Life: recover, start, propose…, close."""

    def __init__(
        self,
        directory: Path,
        *,
        sync_mode: str,
        sync_interval_ms: int,
        segment_bytes_max: int,
        decode: Callable[[bytes], R],
        clock: Clock,
        logger: logging.Logger | None = None,
    ) -> None:
        if sync_mode not in ("always", "interval") or segment_bytes_max < SEGMENT_BYTES_MIN or sync_interval_ms <= 0:
            raise ValueError("sync_mode, sync_interval_ms or segment_bytes_max out of range")
        self._directory = directory
        self._interval_s = sync_interval_ms / 1000 if sync_mode == "interval" else 0.0
        self._segment_bytes_max = segment_bytes_max
        self._record_bytes_max = frame_bytes_max(segment_bytes_max) - wal.FRAME_HEADER_BYTES - wal.RECORD_HEADER_BYTES
        self._decode = decode
        self._clock = clock
        self._logger = logger or logging.getLogger("tokmesh.log")
        self._lock_fd = -1
        self._appender: Appender | None = None
        self._report = RecoveryReport(0, 0, 0, False, None, 0.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._apply: Callable[[int, R], object] | None = None
        self._thread: threading.Thread | None = None
        self._pending: deque[_Item] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._wake_scheduled = False
        self._idle = False
        self._closing = False
        # `_failure`, once set, stays; the loop's thread and the writer both may set it. `_full` is the writer's.
        self._running = False
        self._full = False
        self._failure: str | None = None
        self._write_bytes = self._fsyncs = self._fsync_failures = self._append_errors = 0
        self._records = self._groups = self._last_sequence = 0
        self.fsync_histogram = HistogramBlock(1, LATENCY_BOUNDS_NS)
        self.group_histogram = HistogramBlock(1, GROUP_BOUNDS)

    # ── life ──

    def recover(self, apply: Callable[[int, R], object]) -> RecoveryReport:
        """Locks the directory, replays every record through `apply` in order, repairs a torn tail, opens for append.

        Raises ApiError TM-SYS-5001 (LogLocked, LogDamaged, or what the disk says), OSError of making the directory, and
        what `apply` raises; the lock is then free."""
        assert self._appender is None, "recover is called once"
        started_ns = self._clock.monotonic_ns()
        make_directory(self._directory)
        self._lock_fd = lock_directory(self._directory)
        try:
            end, report = recovery.replay(self._directory, self._segment_bytes_max, self._decode, apply)
            appender = Appender(self._directory, end, self._segment_bytes_max, self._clock, self._logger)
            try:
                appender.have_spare()
            except LogFailed as error:
                appender.close(seal=False)
                raise ApiError("TM-SYS-5001", {"reason": str(error)}) from error
        except OSError as error:
            self._release()
            raise ApiError("TM-SYS-5001", {"reason": f"log cannot be read or repaired: {error.strerror}"}) from error
        except BaseException:
            self._release()
            raise
        self._appender = appender
        self._report = report._replace(seconds=(self._clock.monotonic_ns() - started_ns) / 1e9)
        self._last_sequence = report.last_sequence
        if report.torn_tail:
            self._logger.warning("torn tail of the log was cut; copy kept: %s", report.broken_path)
        return self._report

    def start(self, loop: asyncio.AbstractEventLoop, apply: Callable[[int, R], object]) -> None:
        """Starts the writer; from now on `propose` is allowed, on this loop's thread, and `apply` runs there."""
        assert self._appender is not None and self._thread is None, "start follows recover, once"
        self._loop = loop
        self._apply = apply
        self._running = True
        self._thread = threading.Thread(target=self._write_groups, name="tokmesh-log", daemon=True)
        self._thread.start()

    def propose(self, record: R) -> "asyncio.Future[Any]":
        """Puts a record in the log. The future gives what `apply(sequence, record)` returned, once durable and applied.

        ApiError in the future: TM-SYS-5001, the log failed or the disk is full; TM-SYS-4130, larger than a frame;
        TM-SYS-5030, too much is waiting for the disk."""
        loop = self._loop
        assert loop is not None, "propose follows start"
        future: asyncio.Future[Any] = loop.create_future()
        data = record.encode()
        if self._failure is not None or self._closing:
            future.set_exception(_refusal("log closed" if self._failure is None else "log failed"))
        elif len(data) > self._record_bytes_max:
            future.set_exception(ApiError("TM-SYS-4130"))
        elif len(self._pending) >= PENDING_MAX:
            future.set_exception(ApiError("TM-SYS-5030", retry_after_s=1))
        else:
            self._pending.append((record, data, future))
            if self._idle and not self._wake_scheduled:
                self._wake_scheduled = True
                loop.call_soon(self._wake_writer)
        return future

    async def close(self) -> None:
        """Writes and answers what was proposed, seals and syncs the log, ends the writer, frees the directory."""
        self._closing = True
        if self._thread is not None:
            self._wake.put(None)
            # What the thread posted to the loop before it ended runs before this comes back.
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        if self._appender is not None and self._lock_fd >= 0:
            try:
                self._appender.close(seal=self._running and self._failure is None)
            except LogFailed as error:
                self._fail(str(error), error.by_sync)
        self._running = False
        self._release()

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # ── what others read ──

    @property
    def writable(self) -> bool:
        """Whether ordinary records are accepted at this moment."""
        return self.state == "open"

    @property
    def state(self) -> str:
        """One of "open", "full" (only reserved records), "failed" (for good) or "closed"."""
        if self._failure is not None:
            return "failed"
        if not self._running:
            return "closed"
        return "full" if self._full else "open"

    @property
    def failure(self) -> str | None:
        """Why the log is not writable, in words for an operator; None while it is."""
        if self._failure is None and self._full and self._appender is not None:
            return f"no room: {self._appender.no_room_reason}"
        return self._failure

    def stats(self) -> LogStats:
        """See LogStats. Cheap, and right from any thread."""
        appender = self._appender
        return {
            "write_bytes_total": self._write_bytes,
            "fsync_total": self._fsyncs,
            "fsync_failed_total": self._fsync_failures,
            "append_errors_total": self._append_errors,
            "records_total": self._records,
            "groups_total": self._groups,
            "segments": self._report.segments + (appender.segments_begun if appender else 0),
            "last_sequence": self._last_sequence,
            "durable_sequence": appender.durable_sequence if appender else self._last_sequence,
            "segment_bytes": appender.offset if appender else 0,
            "pending": len(self._pending),
            "state": self.state,
            "recovery_seconds": self._report.seconds,
            "recovery_records": self._report.records,
            "torn_tail_total": int(self._report.torn_tail),
        }

    # ── loop thread ──

    def _wake_writer(self) -> None:
        self._wake_scheduled = False
        if self._idle:
            self._idle = False
            self._wake.put(None)

    def _answer(self, group: list[_Item], first_sequence: int) -> None:
        """Applies a durable group and answers it. An exception of `apply` is our bug: the table can no longer follow
        the log, so nothing after it is applied or acknowledged."""
        assert self._apply is not None
        for index, (record, _, future) in enumerate(group):
            unsynced = self._failure is not None and self._interval_s  # a failed sync may have been these records' own
            if unsynced or self._last_sequence != first_sequence + index - 1:
                self._refuse(group[index:], "log failed")
                return
            try:
                outcome = self._apply(first_sequence + index, record)
            except Exception as error:
                self._logger.exception("record %d could not be applied", first_sequence + index)
                self._fail("a committed record could not be applied", False)
                if not future.done():
                    future.set_exception(error)
                self._refuse(group[index + 1 :], "log failed")
                return
            self._last_sequence = first_sequence + index
            if not future.done():
                future.set_result(outcome)

    def _refuse(self, group: list[_Item], reason: str) -> None:
        for _, _, future in group:
            if not future.done():
                future.set_exception(_refusal(reason))

    # ── writer thread ──

    def _write_groups(self) -> None:
        """The writer: one group a turn. Whatever goes wrong here ends the log, never the thread with waiters left
        behind."""
        appender = self._appender
        assert appender is not None
        synced_ns = self._clock.monotonic_ns()
        while True:  # ends with close()
            group = self._take_group()
            try:
                if self._failure is not None:
                    self._post(self._refuse, group, "log failed")
                elif group:
                    self._commit(group)
                elif self._full and appender.have_spare():
                    self._full = False  # no one asks a server that is not ready: it finds out by itself
                now_ns = self._clock.monotonic_ns()
                if self._interval_s and (self._closing or now_ns - synced_ns >= self._interval_s * 1e9):
                    self._sync_if_needed()
                    synced_ns = now_ns
            except LogFailed as error:
                self._fail(str(error), error.by_sync)
                self._post(self._refuse, group, "log failed")
            except Exception as error:
                self._logger.exception("the log's writer has a bug")
                self._fail(f"writer: {type(error).__name__}", False)
                self._post(self._refuse, group, "log failed")
            if not group and self._closing and not self._pending:  # in this order: nothing is added once it is closing
                return

    def _post(self, callback: Callable[..., None], group: list[_Item], argument: int | str) -> None:
        """Hands a group to the loop's thread; nothing when it is empty or the loop, and with it every waiter, is
        gone."""
        assert self._loop is not None
        if group:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback, group, argument)

    def _take_group(self) -> list[_Item]:
        """What has gathered, at most a frame of it; waits for the first, at most the sync interval. Empty: nothing
        came."""
        pending = self._pending
        if not pending:
            self._idle = True
            if not pending and not self._closing:
                with contextlib.suppress(Empty):
                    self._wake.get(timeout=FULL_RETRY_S if self._full else self._interval_s or IDLE_WAIT_S)
            self._idle = False
        group: list[_Item] = []
        bytes_left = frame_bytes_max(self._segment_bytes_max) - wal.FRAME_HEADER_BYTES
        while pending and len(group) < GROUP_RECORDS_MAX:
            bytes_left -= len(pending[0][1]) + wal.RECORD_HEADER_BYTES
            if bytes_left < 0:
                break
            group.append(pending.popleft())
        return group

    def _commit(self, group: list[_Item]) -> None:
        """Writes a group and, unless `interval`, syncs it, then posts the answers. A frame without room is tried again
        with its reserved records only. LogFailed."""
        appender = self._appender
        assert appender is not None
        if not self._write_frame(appender, group):
            self._full = True
            self._append_errors += 1
            refused = [item for item in group if not getattr(item[0], "reserved", False)]
            group = [item for item in group if getattr(item[0], "reserved", False)]
            if group and not self._write_frame(appender, group):
                refused += group
                group = []
            self._post(self._refuse, refused, "disk full")
        elif self._full and appender.have_spare():
            self._full = False
        if group and not self._interval_s:
            self._sync_if_needed()
        self._post(self._answer, group, appender.sequence_due - len(group))

    def _write_frame(self, appender: Appender, group: list[_Item]) -> bool:
        records = [item[1] for item in group]
        size = wal.FRAME_HEADER_BYTES + sum(len(data) + wal.RECORD_HEADER_BYTES for data in records)
        if not appender.make_room(size, reserved=False):
            reserved = all(getattr(item[0], "reserved", False) for item in group)
            if not reserved or not appender.make_room(size, reserved=True):
                return False
        written = appender.write(records)
        self._write_bytes += written
        if written:
            self._groups += 1
            self._records += len(records)
            self.group_histogram.record(0, len(records))
        return written > 0

    def _sync_if_needed(self) -> None:
        appender = self._appender
        assert appender is not None
        if self._failure is not None or appender.durable_sequence == appender.sequence_due - 1:
            return
        started_ns = self._clock.monotonic_ns()
        self._fsyncs += 1
        appender.sync()
        self.fsync_histogram.record(0, self._clock.monotonic_ns() - started_ns)

    def _fail(self, reason: str, by_sync: bool) -> None:
        """Ends the log for good; the first reason stays."""
        self._append_errors += 1
        self._fsync_failures += by_sync
        if self._failure is None:
            self._failure = reason
        self._logger.critical("the log failed and takes no more writes: %s", reason)


def _refusal(reason: str) -> ApiError:
    return ApiError("TM-SYS-5001", {"reason": reason}, retry_after_s=1)

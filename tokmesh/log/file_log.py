"""The log of one node: proposals become durable together and are applied in order.

`propose` is called on the event loop's thread and puts the record in a queue; the writer thread takes everything that
has gathered while the group before was being synced, writes it as one frame, syncs, and wakes the loop once; the loop
applies the records and answers. Invariants: what is applied is durable (`sync_mode: interval`: written) first;
sequences are applied strictly in order, each once; after a failure nothing is acknowledged ever again; a refused record
is not in the log, unless the refusal was a failed sync, when only the next start can tell.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypedDict, TypeVar

from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh._core.commits import Commits
from tokmesh._core.histogram import HistogramBlock
from tokmesh._core.proposal import GroupProposal
from tokmesh._core.streamed import StreamedBatch
from tokmesh.errors import ApiError
from tokmesh.log.appender import Appender, LogFailed, frame_bytes_max
from tokmesh.log.settling import Settling, refusal
from tokmesh.log.writer import Writer
from tokmesh.storage import recovery
from tokmesh.storage.recovery import NO_BASE, Base, NoRoom, Progress, RecoveryReport
from tokmesh.storage.rekey import finish as finish_rekey
from tokmesh.storage.segment import (
    SEGMENT_BYTES_MIN,
    frame_overhead,
    list_segments,
    lock_directory,
    make_directory,
    remove_covered,
)
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

PENDING_MAX: Final = 65_536  # records proposed and not yet applied
SETTLE_POLL_S: Final = 0.005
SKIP_TIMEOUT_NS: Final = 30_000_000_000


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
    encrypted: bool
    pending: int
    state: str
    recovery_seconds: float
    recovery_records: int
    torn_tail_total: int


R = TypeVar("R", bound=Record)


class FileLog(Generic[R]):
    """See the module. directory: of the segments, made if missing; sync_mode: "always" or "interval"; sync_interval_ms:
    of the latter; segment_bytes_max: size of a segment, at least SEGMENT_BYTES_MIN; decode: bytes of `R.encode()` back
    to R, may raise anything; keys: of encryption. Life: lock, recover, start, propose…, close."""

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
        keys: SegmentKeys = PLAIN,
    ) -> None:
        if sync_mode not in ("always", "interval") or segment_bytes_max < SEGMENT_BYTES_MIN or sync_interval_ms <= 0:
            raise ValueError("sync_mode, sync_interval_ms or segment_bytes_max out of range")
        self._directory = directory
        self._interval_s = sync_interval_ms / 1000 if sync_mode == "interval" else 0.0
        self._segment_bytes_max = segment_bytes_max
        self._keys = keys
        payload_bytes_max = frame_bytes_max(segment_bytes_max, keys.sealing) - frame_overhead(keys.sealing)
        self._record_bytes_max = payload_bytes_max - wal.RECORD_HEADER_BYTES
        self._decode = decode
        self._clock = clock
        self._logger = logger or logging.getLogger("tokmesh.log")
        self._lock_fd = -1
        self._appender: Appender | None = None
        self._writer: Writer | None = None
        self._report = RecoveryReport(0, 0, 0, False, None, 0.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settling: Settling[R] | None = None  # since `start`
        self._thread: threading.Thread | None = None
        self._commits = Commits(payload_bytes_max)
        self._closing = False
        self._running = False
        self._start_sequence = 0  # of the last record that was there at the start
        self._segments_removed = 0
        self._suspended: Callable[[], ApiError] | None = None  # what is answered while a restore replaces the state

    # ── life ──

    def lock(self) -> None:
        """Makes and locks the directory. Raises ApiError TM-SYS-5001 (LogLocked), KeyMissing, OSError of making it."""
        make_directory(self._directory)
        self._lock_fd = lock_directory(self._directory)
        try:
            finish_rekey(self._directory)
            self._keys.refuse_unknown(path for _, path in list_segments(self._directory))
        except BaseException:
            self._release()
            raise

    def recover(
        self, apply: Callable[[int, R], object], progress: Progress | None = None, base: Base = NO_BASE
    ) -> RecoveryReport:
        """Replays every record behind `base` through `apply` in order, repairs a torn tail, opens for append; locks first, if
        nobody did.

        Any thread may call it. Raises ApiError TM-SYS-5001 (LogLocked, LogDamaged, or what the disk says), KeyMissing, OSError of
        making the directory, RecoveryCancelled, and what `apply` raises; the lock is then free."""
        assert self._appender is None, "recover is called once"
        started_ns = self._clock.monotonic_ns()
        if self._lock_fd < 0:
            self.lock()
        try:
            end, report = recovery.replay(
                self._directory, self._segment_bytes_max, self._decode, apply, progress, self._keys, base
            )
            appender = Appender(self._directory, end, self._segment_bytes_max, self._clock, self._logger, self._keys)
            try:
                appender.have_spare()
            except LogFailed as error:
                appender.close(seal=False)
                raise ApiError("TM-SYS-5001", {"reason": str(error)}) from error
        except OSError as error:
            self._release()
            reason = f"log cannot be read or repaired: {error.strerror}{self._room(error)}"
            raise ApiError("TM-SYS-5001", {"reason": reason}) from error
        except BaseException:
            self._release()
            raise
        self._appender = appender
        self._writer = Writer(appender, self._commits, self._interval_s, self._clock, self._logger)
        self._report = report._replace(seconds=(self._clock.monotonic_ns() - started_ns) / 1e9)
        self._start_sequence = report.last_sequence
        if report.torn_tail:
            self._logger.warning("torn tail of the log was cut; copy kept: %s", report.broken_path)
        return self._report

    def _room(self, error: OSError) -> str:
        """What a start that found no room must be given, for the end of a sentence."""
        if not isinstance(error, NoRoom):
            return ""
        disk = os.statvfs(self._directory)
        return f"; it needs {error.needed_bytes} bytes in {self._directory}, where {disk.f_bavail * disk.f_frsize} are free"

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        apply: Callable[[int, R], object],
        apply_all: Callable[[int, StreamedBatch, int, int], None] | None = None,
    ) -> None:
        """Starts the writer; from now on `propose` is allowed, on this loop's thread, and `apply` runs there. apply_all: of what
        `propose_all` is given: (sequence of the first, batch, start, end)."""
        assert self._writer is not None and self._thread is None, "start follows recover, once"
        self._loop = loop
        self._settling = Settling(
            loop, self._commits, self._writer, bool(self._interval_s), self._start_sequence, apply, apply_all, self._logger
        )
        self._running = True
        loop.add_reader(self._commits.fileno(), self._settling.settle)
        self._thread = threading.Thread(target=self._writer.run, name="tokmesh-log", daemon=True)
        self._thread.start()

    def propose(self, record: R) -> GroupProposal:
        """Puts a record in the log. The future gives what `apply(sequence, record)` returned, once durable and applied.

        ApiError in the future: TM-SYS-5001, the log failed or the disk is full; TM-SYS-4130, larger than a frame;
        TM-SYS-5030, too much is waiting for the disk."""
        loop, settling = self._loop, self._settling
        assert loop is not None and settling is not None, "propose follows start"
        future = GroupProposal(loop=loop)
        future.waiter = None
        data = record.encode()
        error = self._refusal(len(data), 1)
        if error is not None:
            future.set_exception(error)
        else:
            is_first = self._commits.put(data, getattr(record, "reserved", False))
            settling.add(record, future)
            if is_first:
                loop.call_soon(self._commits.wake)
        return future

    def propose_all(self, batch: StreamedBatch) -> GroupProposal:
        """Puts a batch of records, one at least, in the log, next to each other. The future is done once all are durable and
        applied. ApiError in the future, as of `propose`: some of them were not; with 4130 and 5030 none is in the log."""
        loop, settling = self._loop, self._settling
        assert loop is not None and settling is not None and len(batch) > 0, "propose_all follows start, with something"
        future = GroupProposal(loop=loop)
        future.waiter = None
        error = self._refusal(batch.largest, len(batch))
        if error is not None:
            future.set_exception(error)
        else:
            is_first = self._commits.put_all(batch)
            settling.add_all(batch, future)
            if is_first:
                loop.call_soon(self._commits.wake)
        return future

    def _refusal(self, record_bytes: int, count: int) -> ApiError | None:
        """Why so many records, the largest of that size, are not taken."""
        assert self._writer is not None and self._settling is not None
        if self._suspended is not None:
            return self._suspended()
        if self._writer.failure is not None or self._closing:
            return refusal("log closed" if self._writer.failure is None else "log failed")
        if record_bytes > self._record_bytes_max:
            return ApiError("TM-SYS-4130")
        if self._settling.waiting + count > PENDING_MAX:
            return ApiError("TM-SYS-5030", retry_after_s=1)
        return None

    def use_keys(self, keys: SegmentKeys) -> None:
        """What is written from now on, or within the writer's next second, is sealed under the first of these, in a new segment if
        that key is another; sealing: as at the start."""
        self._keys = keys
        if self._appender is not None:
            self._appender.use_keys(keys)

    def drop_through(self, sequence: int) -> int:
        """Removes segments that hold nothing beyond `sequence`; how many. Any thread; OSError."""
        removed = remove_covered(self._directory, sequence)
        self._segments_removed += removed
        return removed

    async def suspend(self, refusal: Callable[[], ApiError]) -> None:
        """Refuses every proposal from now on; returns when those made before are settled."""
        self._suspended = refusal
        while self.waiting:  # the writer decides all of them
            await asyncio.sleep(SETTLE_POLL_S)

    def resume(self) -> None:
        """Takes proposals again."""
        self._suspended = None

    async def skip_to(self, sequence: int) -> None:
        """While suspended: the next record gets the number behind `sequence`. ApiError TM-SYS-5001 when the log has failed."""
        writer, appender = self._writer, self._end
        assert self._suspended is not None and not self.waiting and writer is not None and sequence >= self.last_sequence
        appender.skip_to(sequence + 1)
        self._commits.interrupt()
        deadline_ns = self._clock.monotonic_ns() + SKIP_TIMEOUT_NS
        while appender.sequence_due != sequence + 1:
            if writer.failure is None and self._clock.monotonic_ns() > deadline_ns:
                writer.fail("no room for the segment that follows a restore", False)
            if writer.failure is not None:
                raise refusal("log failed")
            await asyncio.sleep(SETTLE_POLL_S)
        assert self._settling is not None
        self._settling.last_sequence = sequence

    async def close(self) -> None:
        """Writes and answers what was proposed, seals and syncs the log, ends the writer, frees the directory."""
        self._closing = True
        if self._thread is not None and self._writer is not None and self._settling is not None:
            self._writer.finish()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._thread.join)
            while self._settling.waiting:  # each turn settles some: the writer has decided all before it ended
                self._settling.settle()
            loop.remove_reader(self._commits.fileno())
        if self._appender is not None and self._writer is not None and self._lock_fd >= 0:
            try:
                self._appender.close(seal=self._running and self._writer.failure is None)
            except LogFailed as error:
                self._writer.fail(str(error), error.by_sync)
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
        writer = self._writer
        if writer is not None and writer.failure is not None:
            return "failed"
        if writer is None or not self._running:
            return "closed"
        return "full" if writer.full else "open"

    @property
    def waiting(self) -> int:
        """Records proposed and not settled."""
        return 0 if self._settling is None else self._settling.waiting

    @property
    def group_records(self) -> int:
        """Records that became durable together and are being applied, for who applies them."""
        return 0 if self._settling is None else self._settling.group_records

    @property
    def last_sequence(self) -> int:
        """Of the last record applied."""
        return self._start_sequence if self._settling is None else self._settling.last_sequence

    @property
    def failure(self) -> str | None:
        """Why the log is not writable, in words for an operator; None while it is."""
        if self._writer is None or self._appender is None:
            return None
        if self._writer.failure is None and self._writer.full:
            return f"no room: {self._appender.no_room_reason}"
        return self._writer.failure

    @property
    def fsync_histogram(self) -> HistogramBlock:
        """Nanoseconds of each successful fdatasync, one row. AssertionError before `recover`, like the two below."""
        return self._end.sync_histogram

    @property
    def group_histogram(self) -> HistogramBlock:
        """Records of each group, one row."""
        return self._end.group_histogram

    def stats(self) -> LogStats:
        """See LogStats. Cheap, and right from any thread."""
        appender = self._end
        assert self._writer is not None
        return {
            "write_bytes_total": appender.write_bytes,
            "fsync_total": appender.syncs,
            "fsync_failed_total": self._writer.sync_failures,
            "append_errors_total": self._writer.append_errors,
            "records_total": appender.records,
            "groups_total": appender.frames,
            "segments": self._report.segments + appender.segments_begun - self._segments_removed,
            "last_sequence": self.last_sequence,
            "durable_sequence": appender.durable_sequence,
            "segment_bytes": appender.offset,
            "encrypted": appender.encrypted,
            "pending": self._commits.pending,
            "state": self.state,
            "recovery_seconds": self._report.seconds,
            "recovery_records": self._report.records,
            "torn_tail_total": int(self._report.torn_tail),
        }

    @property
    def _end(self) -> Appender:
        assert self._appender is not None, "the log is recovered first"
        return self._appender

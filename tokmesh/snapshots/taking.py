"""Taking snapshots while the node serves: when one is due, how it is made, what it makes superfluous.

The state is read on the loop in steps of STEP_ENTRIES, with pauses, so that requests wait for no more than one step; compressing,
encrypting, writing and syncing happen in a thread. Invariants: one snapshot at a time; one that has a name holds exactly what the
log had made of table and keys at its sequence, and the log is durable that far; log segments are dropped only when a snapshot that
covers them is durable, and those that lead on from the oldest snapshot kept stay.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypedDict, TypeVar

from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.errors import ApiError
from tokmesh.following import Following
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.storage import snapshot_directory
from tokmesh.storage.segment import NO_ROOM
from tokmesh.storage.snapshot_directory import Draft, SnapshotFile
from tokmesh.storage.snapshot_file import About, SnapshotDamaged, SnapshotHeader, SnapshotReader, SnapshotWriter

if TYPE_CHECKING:
    from tokmesh.storage.encryption import Sealer

T = TypeVar("T")

STEP_ENTRIES: Final = 500  # a quarter of a millisecond when quiet
PAUSE_SHARE: Final = 4.0  # a pause lasts as many times as the step before it: a fifth of the loop at most
PAUSE_MIN_S: Final = 0.0005
CHUNK_BYTES: Final = 1 << 20
CHECK_INTERVAL_S: Final = 1.0
RETRY_S: Final = 60.0
RESTORE_RETRY_S: Final = 5  # what a restore keeps waiting is to come again after
DURABLE_POLL_S: Final = 0.01
DAY_MS: Final = 86_400_000
SAFE_COUNT: Final = 2  # with a single snapshot the log stays whole: if that one cannot be read, the log still can

logger = logging.getLogger("tokmesh.snapshots")


class Rules(Protocol):
    """`settings.storage.snapshot` of the configuration."""

    @property
    def interval_ms(self) -> int: ...
    @property
    def threshold_bytes(self) -> int: ...
    @property
    def retention_count(self) -> int: ...
    @property
    def retention_days(self) -> int: ...


class SnapshotStats(TypedDict):
    """Figures for metrics. last_…: of the newest one there is, 0 without one; seconds: that the last taking took; failed_since:
    attempts since the last that succeeded; log_bytes: of the log behind the newest; due_ratio: see `due_ratio`."""

    taken: int
    failed: int
    failed_since: int
    log_bytes: int
    due_ratio: float
    unusable: int
    running: bool
    count: int
    last_time_ms: int
    last_sequence: int
    last_bytes: int
    last_seconds: float


class Listed(NamedTuple):
    """A snapshot as it is shown."""

    file: SnapshotFile
    size_bytes: int
    header: SnapshotHeader


class Snapshots:
    """Runs from `start` to `stop`. directory: of the snapshots; new_sealer: gives one for a file to be encrypted, else None."""

    def __init__(
        self,
        *,
        directory: Path,
        table: Table,
        keyring: KeyRing,
        following: Following,
        applied_sequence: Callable[[], int],
        log: FileLog[Any],
        rules: Rules,
        clock: Clock,
        about: About,
        new_sealer: "Callable[[], Sealer | None]",
    ) -> None:
        self._directory = directory
        self._table = table
        self._keyring = keyring
        self._following = following
        self._applied_sequence = applied_sequence
        self._log = log
        self._rules = rules
        self._clock = clock
        self._about = about
        self._new_sealer = new_sealer
        self._thread = ThreadPoolExecutor(1, "tokmesh-snapshot")
        self._listed: list[Listed] = []
        self._unusable: frozenset[Path] = frozenset()  # they stay where they are, for whoever wants to look, and count for nothing
        self._under_way: asyncio.Task[Listed] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._retry_at_s = 0.0
        self._paused = False
        self._started_at_ms = 0  # what the first interval is counted from, where there is no snapshot yet
        self._log_bytes_then = 0  # of the log's write_bytes_total, at the newest snapshot
        self._stats: SnapshotStats = {
            "taken": 0, "failed": 0, "failed_since": 0, "log_bytes": 0, "due_ratio": 0.0, "unusable": 0, "running": False,
            "count": 0, "last_time_ms": 0, "last_sequence": 0, "last_bytes": 0, "last_seconds": 0.0,
        }  # fmt: skip

    def start(self, loop: asyncio.AbstractEventLoop, *, unusable: Sequence[Path], log_bytes: int) -> None:
        """Begins to take snapshots as they become due. unusable: that the start could not use; log_bytes: that it read behind the
        newest that it could."""
        self._unusable = frozenset(unusable)
        self._log_bytes_then = self._log.stats()["write_bytes_total"] - log_bytes
        self._list()
        if not self._listed:
            self._started_at_ms = self._clock.now_ms()
        self._timer = loop.create_task(self._watch(), name="tokmesh-snapshots")

    async def stop(self) -> None:
        """Ends the one under way, which leaves nothing behind, and takes no more."""
        tasks = [task for task in (self._timer, self._under_way) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._thread.shutdown()

    def stats(self) -> SnapshotStats:
        """See SnapshotStats. Any thread."""
        stats = self._stats.copy()
        stats["log_bytes"] = max(0, self._log_bytes())
        stats["due_ratio"] = self.due_ratio()
        stats["unusable"] = len(self._unusable)
        return stats

    def listed(self) -> list[Listed]:
        """The snapshots there are, newest first."""
        return list(self._listed)

    async def pause(self) -> None:
        """Ends the one under way and takes none until `unpause`: the state is about to be replaced."""
        self._paused = True
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait((self._under_way,))

    def unpause(self) -> None:
        """Takes snapshots again."""
        self._paused = False

    async def look_again(self) -> None:
        """Somebody else has put a snapshot there."""
        await self._beside(self._list)

    async def take(self) -> Listed:
        """A snapshot of now, or the one under way. Raises ApiError TM-SYS-5001, and TM-ADMIN-5031 while paused."""
        if self._paused:
            raise restore_under_way()
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.get_running_loop().create_task(self._take(), name="tokmesh-snapshot")
        task = self._under_way
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # a restore, or the end, came in between
                raise restore_under_way() from None
            raise

    # ── when ──

    async def _watch(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                if self._is_due():
                    await self.take()
            except ApiError:
                continue  # told and counted where it failed
            except Exception:  # a bug of ours; the next look may fare better
                logger.exception("snapshots were not seen to")

    def _is_due(self) -> bool:
        if self._following.loading:  # shards, which a start from a snapshot of this moment would have to load again
            return False
        if self._paused or self._clock.monotonic_ns() / 1e9 < self._retry_at_s:
            return False
        return self._log.stats()["state"] in ("open", "full") and self.due_ratio() >= 1

    def due_ratio(self) -> float:
        """How much of the interval, or of the threshold, has gone by since the newest snapshot: the larger of both. One is due at
        1. 0 while nothing was recorded since. Any thread."""
        if self._timer is None or self._applied_sequence() == self._stats["last_sequence"]:
            return 0.0
        age_ms = self._clock.now_ms() - max(self._stats["last_time_ms"], self._started_at_ms)
        return max(age_ms / self._rules.interval_ms, self._log_bytes() / self._rules.threshold_bytes, 0.0)

    def _log_bytes(self) -> int:
        return self._log.stats()["write_bytes_total"] - self._log_bytes_then

    # ── how ──

    async def _take(self) -> Listed:
        started_ns = self._clock.monotonic_ns()
        self._stats["running"] = True
        try:
            listed = await self._write()
        except Exception as error:
            self._stats["failed"] += 1
            self._stats["failed_since"] += 1
            self._retry_at_s = self._clock.monotonic_ns() / 1e9 + RETRY_S
            bug = not isinstance(error, _EXPECTED)
            logger.error("a snapshot could not be taken", extra={"reason": str(error)}, exc_info=bug)
            raise ApiError("TM-SYS-5001", {"reason": _public(error)}) from error
        finally:
            self._table.image.abandon()
            self._stats["running"] = False
        self._stats["taken"] += 1
        self._stats["failed_since"] = 0
        self._stats["last_seconds"] = (self._clock.monotonic_ns() - started_ns) / 1e9
        logger.info("snapshot taken", extra={"snapshot": listed.file.id, "bytes": listed.size_bytes})
        await self._drop_superfluous()
        return listed

    async def _write(self) -> Listed:
        """Everything up to the name."""
        log_bytes = self._log.stats()["write_bytes_total"]
        sequence, time_ms = self._applied_sequence(), self._clock.now_ms()
        sessions, users, devices = self._table.begin_image()
        keys = [record.encode() for record in self._keyring.records()]
        following = self._following.records()
        header = SnapshotHeader(sequence, time_ms, sessions, users, devices, restored=self._is_restored(sequence))
        draft: Draft | None = None
        try:
            draft = await self._beside(lambda: Draft(self._directory))
            writer = await self._beside(lambda: SnapshotWriter(draft.fd, header, self._about, self._new_sealer()))
            await self._beside(lambda: writer.add_keys(keys))
            if self._following.bound:
                await self._beside(lambda: writer.add_cluster([record.encode() for record in following]))
            await self._write_sessions(writer)
            await self._beside(partial(writer.finish, self._table.image.count))
            await self._log_durable(sequence)
            file = await self._beside(lambda: draft.publish(sequence))
        except BaseException:
            if draft is not None:
                await asyncio.shield(self._beside(draft.discard))
            raise
        self._log_bytes_then = log_bytes
        self._unusable -= {file.path}  # replaced, if it is one of those
        listed = Listed(file, writer.bytes_written, writer.header)
        self._listed = [listed, *(one for one in self._listed if one.file != file)]
        self._note_newest()
        return listed

    def _is_restored(self, sequence: int) -> bool:
        """Whether a restore made the state at that sequence and nothing has followed: what takes its snapshot's place says so."""
        return any(one.header.restored for one in self._listed if one.file.sequence == sequence)

    async def _write_sessions(self, writer: SnapshotWriter) -> None:
        image = self._table.image
        gathered: list[bytes] = []
        gathered_bytes = 0
        last = False
        while not last:  # each step looks at more entries, of as many as there were
            started_s = time.perf_counter()
            images, last = image.step(STEP_ENTRIES)
            step_s = time.perf_counter() - started_s
            gathered.append(images)
            gathered_bytes += len(images)
            if gathered_bytes >= CHUNK_BYTES or last:
                content = b"".join(gathered)
                gathered, gathered_bytes = [], 0
                await self._beside(partial(writer.add_sessions, content))
            if not last:
                await asyncio.sleep(max(PAUSE_MIN_S, step_s * PAUSE_SHARE))

    async def _log_durable(self, sequence: int) -> None:
        """Waits until the log is durable up to there: at once unless `sync_mode` is `interval`. Raises ApiError TM-SYS-5001."""
        while True:  # the log syncs, or fails
            stats = self._log.stats()
            if stats["durable_sequence"] >= sequence:
                return
            if stats["state"] not in ("open", "full"):
                raise ApiError("TM-SYS-5001", {"reason": "log failed"})
            await asyncio.sleep(DURABLE_POLL_S)

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ── what is kept ──

    async def _drop_superfluous(self) -> None:
        taken_after_ms = self._clock.now_ms() - self._rules.retention_days * DAY_MS
        known = [(one.file, one.header.time_ms) for one in self._listed]
        dropped = snapshot_directory.surplus(known, self._rules.retention_count, taken_after_ms)
        kept = [one for one in self._listed if one.file not in dropped]
        try:
            await self._beside(lambda: snapshot_directory.remove(self._directory, dropped))
            unusable = self._unusable
            self._unusable = await self._beside(lambda: frozenset(path for path in unusable if path.exists()))
            self._listed = kept
            self._note_newest()
            segments = 0
            if len(kept) >= min(self._rules.retention_count, SAFE_COUNT):
                segments = await self._beside(lambda: self._log.drop_through(kept[-1].file.sequence))
        except OSError as error:
            logger.error("what a snapshot makes superfluous could not be removed", extra={"reason": str(error)})
            return
        if segments or dropped:
            logger.info("superfluous files removed", extra={"snapshots": len(dropped), "log_segments": segments})

    def _list(self) -> None:
        """Reads the directory anew."""
        listed = []
        for file in snapshot_directory.list_snapshots(self._directory):
            if file.path in self._unusable:
                continue
            try:
                with SnapshotReader(file.path) as reader:
                    listed.append(Listed(file, reader.size_bytes, reader.header))
            except (SnapshotDamaged, OSError):
                continue  # told at the start
        self._listed = listed
        self._note_newest()

    def _note_newest(self) -> None:
        stats = self._stats
        stats["count"] = len(self._listed)
        if self._listed:
            newest = self._listed[0]
            stats["last_time_ms"], stats["last_sequence"] = newest.header.time_ms, newest.file.sequence
            stats["last_bytes"] = newest.size_bytes


_EXPECTED: Final = (OSError, MemoryError, ApiError)


def restore_under_way() -> ApiError:
    """What waits for the end of a restore is answered so."""
    return ApiError("TM-ADMIN-5031", {"reason": "restore"}, retry_after_s=RESTORE_RETRY_S)


def _public(error: Exception) -> str:
    """What a client is told: nothing of this host's paths."""
    if isinstance(error, OSError):
        return "disk_full" if error.errno in NO_ROOM else "disk_error"
    if isinstance(error, MemoryError):
        return "no_memory"
    return "log failed" if isinstance(error, ApiError) else "internal error"

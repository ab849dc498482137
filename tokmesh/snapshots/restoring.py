"""Restores: replacing all that a node knows with what a snapshot holds, while it runs.

A restore is committed by one rename: of a snapshot, marked as restored, whose sequence is one beyond the log's last record. Before
it nothing has changed; after it every start begins from there, whatever the log before it says, and the log goes on in a new
segment behind that sequence (storage/recovery.py, `Base`). While a restore runs nothing is written to the log; reads go on from the
old state until the new one takes its place between two turns of the loop.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.errors import ApiError
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.snapshots import loading
from tokmesh.snapshots.taking import Snapshots, restore_under_way
from tokmesh.storage.recovery import Progress, RecoveryCancelled
from tokmesh.storage.segment_keys import KeyMissing
from tokmesh.storage.snapshot_directory import DRAFT_SUFFIX, Draft, SnapshotFile
from tokmesh.storage.snapshot_file import About, Kind, SnapshotDamaged, SnapshotReader, SnapshotWriter, split_records
from tokmesh.store import Store

if TYPE_CHECKING:
    from tokmesh.storage.encryption import KeySet, Opener, Sealer

T = TypeVar("T")

JOBS_MAX: Final = 20  # that are remembered

logger = logging.getLogger("tokmesh.snapshots")


@dataclass(slots=True)
class Job:
    """One restore. state: "running", "done" or "failed"; error: then why; times are Unix ms."""

    id: str
    source: str
    started_at: int
    progress: Progress
    state: str = "running"
    ended_at: int | None = None
    error: str | None = None


class Restores:
    """One restore at a time. replaced: told, on the loop, when the state has become another."""

    def __init__(
        self,
        *,
        directory: Path,
        table: Table,
        keyring: KeyRing,
        store: Store,
        log: FileLog[Any],
        snapshots: Snapshots,
        clock: Clock,
        about: About,
        new_table: Callable[[], Table],
        keys: "Callable[[], KeySet | None]",
        new_sealer: "Callable[[], Sealer | None]",
        new_id: Callable[[], str],
        replaced: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._table = table
        self._keyring = keyring
        self._store = store
        self._log = log
        self._snapshots = snapshots
        self._clock = clock
        self._about = about
        self._new_table = new_table
        self._keys = keys
        self._new_sealer = new_sealer
        self._new_id = new_id
        self._replaced = replaced
        self._jobs: dict[str, Job] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "tokmesh-restore")

    def reason(self) -> str | None:
        """The readiness check "restore"."""
        job = self._running
        if job is None:
            return None
        progress = job.progress
        return f"restoring {job.source}: {progress.records} sessions, {progress.bytes_read} of {progress.bytes_total} bytes"

    def jobs(self) -> list[Job]:
        """Newest first."""
        return list(reversed(self._jobs.values()))

    def job(self, job_id: str) -> Job | None:
        """One of them."""
        return self._jobs.get(job_id)

    async def begin(self, path: Path, source: str, *, remove: bool = False) -> Job:
        """Starts to restore a file, when it is a whole snapshot that opens. remove: the file, in the end.

        Raises TM-ADMIN-4221 (no whole snapshot, or its key is not at hand), TM-ADMIN-4091 (another restore runs)."""
        if self._running is not None:
            raise ApiError("TM-ADMIN-4091", {"reason": "a restore is running"})
        job = Job(self._new_id(), source, self._clock.now_ms(), Progress())
        self._jobs[job.id] = job  # from here on no other begins
        try:
            await self._beside(lambda: _check(path, self._keys()))
        except (SnapshotDamaged, KeyMissing, OSError) as error:
            self._end(job, _told(error))
            raise ApiError("TM-ADMIN-4221", {"reason": _public(error)}) from error
        except BaseException as error:  # also a request that ends, or no memory: a job that went on would keep out every other
            self._end(job, _told(error))
            raise
        self._task = asyncio.get_running_loop().create_task(self._run(job, path, remove), name="tokmesh-restore")
        return job

    async def stop(self) -> None:
        """Waits for one that is past its point of no return; ends one that is not."""
        if self._task is not None and not self._task.done():
            job = self._running
            if job is not None:  # else it only removes its upload
                job.progress.cancel()
            await asyncio.wait((self._task,))
        self._thread.shutdown()

    @property
    def _running(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "running"), None)

    async def _run(self, job: Job, path: Path, remove: bool) -> None:
        logger.warning("restoring", extra={"job": job.id, "source": job.source})
        try:
            await self._snapshots.pause()
            await self._log.suspend(restore_under_way)  # while it is only read, too: what is written now would be gone
            loaded = [await self._beside(lambda: loading.load(path, self._new_table, self._keys(), None, job.progress))]
            file = await self._beside(lambda: self._commit(path, self._log.last_sequence + 1))
            await self._take_over(loaded, file)
            self._end(job, None)
            logger.warning("restored", extra={"job": job.id, "snapshot": file.id})
        except Exception as error:
            self._end(job, _told(error))
            bug = not isinstance(error, _EXPECTED)
            logger.error("the restore failed", extra={"job": job.id, "reason": str(error)}, exc_info=bug)
        finally:
            self._log.resume()
            self._snapshots.unpause()
            if remove:
                await self._beside(lambda: path.unlink(missing_ok=True))

    def _commit(self, path: Path, sequence: int) -> SnapshotFile:
        """Writes the snapshot that a start will begin from; its name is the commit."""
        with SnapshotReader(path) as reader:
            opener = loading.opener_of(reader, self._keys())
            draft = Draft(self._directory, "restored")
            try:
                header = reader.header._replace(
                    sequence=sequence, time_ms=self._clock.now_ms(), restored=True, key_id=b"", salt=b""
                )
                writer = SnapshotWriter(draft.fd, header, self._about, self._new_sealer())
                copy_contents(reader, opener, writer, with_cluster=False)
                return draft.publish(sequence)
            except BaseException:
                draft.discard()
                raise

    async def _take_over(self, loaded: list[loading.Loaded], file: SnapshotFile) -> None:
        """loaded: a list of it, which holds the old state afterwards and is emptied."""
        self._table.exchange(loaded[0].table)
        self._keyring.exchange(loaded[0].keyring)
        self._store.applied_sequence = file.sequence
        self._replaced()
        await self._beside(loaded.clear)  # giving a gigabyte of memory back takes longer than a request should wait
        await self._log.skip_to(file.sequence)
        await self._snapshots.look_again()

    def _end(self, job: Job, error: str | None) -> None:
        job.state = "done" if error is None else "failed"
        job.error = error
        job.ended_at = self._clock.now_ms()
        while len(self._jobs) > JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


_EXPECTED: Final = (SnapshotDamaged, ApiError, OSError, RecoveryCancelled)


def keep_upload(path: Path) -> Path:
    """Gives an uploaded file a name that outlives its request, for `begin`; a start removes what is left of that name. OSError."""
    kept = path.with_name(f"{path.name}{DRAFT_SUFFIX}")
    path.rename(kept)
    return kept


def _check(path: Path, keys: "KeySet | None") -> None:
    with SnapshotReader(path) as reader:
        reader.verify()
        reader.about(loading.opener_of(reader, keys))


def _public(error: Exception) -> str:
    """What is wrong with a file, without its name and without the paths of this host."""
    if isinstance(error, SnapshotDamaged):
        return f"at offset {error.offset}: {error.reason}"
    if isinstance(error, KeyMissing):
        return f"it is encrypted under key {error.key_id.hex()}, which this server does not have"
    return "it cannot be read"


def _told(error: BaseException) -> str:
    """Why a job failed: with the file's name, without the paths of this host, which the log has."""
    if isinstance(error, SnapshotDamaged | KeyMissing):
        return f"{error.path.name}: {_public(error)}"
    if isinstance(error, OSError):
        name = f"{Path(error.filename).name}: " if isinstance(error.filename, str) else ""
        return f"{name}{error.strerror}"
    if isinstance(error, ApiError):
        return f"{error.code}: {error.message}"
    if isinstance(error, RecoveryCancelled):
        return "the server stopped"
    return "an internal error, which the server's log tells" if isinstance(error, Exception) else "its request ended"


def copy_contents(
    reader: SnapshotReader, opener: "Opener | None", writer: SnapshotWriter, *, with_cluster: bool
) -> None:
    """Everything but who made it and the end, which are the writer's own; syncs the copy. with_cluster: also which stream the node
    follows, for a snapshot that stays this node's. Raises SnapshotDamaged, OSError."""
    for kind, raw in reader.contents(opener):
        if kind == Kind.KEYS:
            writer.add_keys(split_records(raw))
        elif kind == Kind.CLUSTER and with_cluster:
            writer.add_cluster(split_records(raw))
        elif kind == Kind.SESSIONS:
            writer.add_sessions(raw)
        elif kind == Kind.END:
            writer.finish(reader.totals_of(raw).images)

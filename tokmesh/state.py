"""What a node knows: the table and the keys, and what they are made from at a start: the newest snapshot, and the log behind it.

While these are read both belong to the thread that reads; afterwards to the loop's.
"""

import asyncio
import gc
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.config import ConfigError, Problem, Settings
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord, decode
from tokmesh.snapshots import loading
from tokmesh.storage.recovery import NO_BASE, Base, Progress, RecoveryCancelled
from tokmesh.storage.segment import LOG_DIRECTORY, list_segments, make_directory
from tokmesh.storage.segment_keys import KeyMissing, SegmentKeys
from tokmesh.storage.snapshot_directory import SNAPSHOT_DIRECTORY, list_snapshots, remove_drafts
from tokmesh.storage.snapshot_file import PURPOSE
from tokmesh.store import Store

if TYPE_CHECKING:  # the library it needs is an extra
    from tokmesh.storage.encryption import KeySet, Sealer

PROGRESS_INTERVAL_S: Final = 5.0

logger = logging.getLogger("tokmesh.server")


class State:
    """Table and keys, empty until the log is replayed."""

    def __init__(self, settings: Settings, clock: Clock, node_id: str, keys: "KeySet | None" = None) -> None:
        """Locks the log. keys: of encryption. Raises ApiError TM-SYS-5001 when another process has it."""
        wal = settings.storage.wal
        self._log_directory = settings.storage.dir / LOG_DIRECTORY
        self._encrypted = settings.storage.encryption.enabled
        self._keys = keys
        self.clock = clock
        self.progress = Progress()
        self.snapshots_directory = settings.storage.dir / SNAPSHOT_DIRECTORY
        make_directory(self.snapshots_directory)
        self.snapshots_unusable: list[Path] = []  # that the start met
        self.snapshot_ms = 0  # when the one was taken that it was loaded from
        self.node_id = node_id
        self.new_table = partial(Table, tombstone_ttl_ms=settings.session.tombstone_ttl_ms)
        self.table = self.new_table()
        self.keyring = KeyRing()
        self.store = Store(self.table, self.keyring, replay_until_ms=self.clock.now_ms())
        self.log: FileLog[AnyRecord] = FileLog(
            self._log_directory,
            # In a cluster the stream is what makes durable; this log is a copy that spares reading it again.
            sync_mode="interval" if settings.cluster.enabled else wal.sync_mode,
            sync_interval_ms=wal.sync_interval_ms,
            segment_bytes_max=wal.segment_size_bytes,
            decode=decode,
            clock=self.clock,
            keys=SegmentKeys(keys, self._encrypted),
        )
        self.log.lock()

    def checked_keys(self, keys: "KeySet | None") -> SegmentKeys:
        """Other keys for the running log. Raises ConfigError when the next start could not do with them, or that cannot
        be seen."""
        made = SegmentKeys(keys, self._encrypted)
        if self._encrypted and keys is None:
            rule = "what this process writes is encrypted: it needs a key until it is restarted"
            raise ConfigError([Problem("TM-CFG-1006", "storage.encryption.key_file", "", rule)])
        try:
            made.refuse_unknown(path for _, path in list_segments(self._log_directory))
            for file in list_snapshots(self.snapshots_directory):
                loading.refuse_unknown(file.path, keys)
        except KeyMissing as error:
            rule = f"keep key {error.key_id.hex()} behind the first: {error.path.name} is encrypted under it"
            raise ConfigError([Problem("TM-CFG-1006", "storage.encryption.key_file", "", rule)]) from None
        except OSError as error:
            rule = f"what lies there cannot be read ({error.strerror})"
            raise ConfigError([Problem("TM-CFG-1004", "storage.dir", str(self._log_directory.parent), rule)]) from None
        return made

    def use_keys(self, keys: SegmentKeys) -> None:
        """What is written from now on follows these, which were checked."""
        self._keys = keys.keys
        self.log.use_keys(keys)

    def encryption_keys(self) -> "KeySet | None":
        """What opens encrypted files; None when there are no keys."""
        return self._keys

    def new_snapshot_sealer(self) -> "Sealer | None":
        """Of one new snapshot; None when it is to be plain."""
        return self._keys.new_sealer(PURPOSE) if self._encrypted and self._keys is not None else None

    def replay(self) -> None:
        """Makes table and keys from the newest snapshot that can be used and the log behind it; whoever runs this has both to
        itself. Raises ApiError TM-SYS-5001 when the log is damaged, RecoveryCancelled."""
        base = self._load_snapshot()
        report = self.log.recover(self.store.replay, self.progress, base)
        # Everything so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        logger.info(
            "log replayed",
            extra={"records": report.records, "seconds": round(report.seconds, 3), "torn_tail": report.torn_tail},
        )

    def _load_snapshot(self) -> Base:
        """Raises KeyMissing, SnapshotForeign, OSError, RecoveryCancelled."""
        started_ns = self.clock.monotonic_ns()
        remove_drafts(self.snapshots_directory)
        found = list_snapshots(self.snapshots_directory)
        loaded, self.snapshots_unusable = loading.load_newest(
            found, self.new_table, self.encryption_keys(), self.node_id, self.progress
        )
        if loaded is None:
            return NO_BASE
        self.table.exchange(loaded.table)
        self.keyring.exchange(loaded.keyring)
        self.store.applied_sequence = loaded.header.sequence
        self.snapshot_ms = loaded.header.time_ms
        for record in loaded.cluster:
            self.store.take_place(record)
        seconds = (self.clock.monotonic_ns() - started_ns) / 1e9
        logger.info("snapshot loaded", extra={"snapshot": loaded.path.stem, "seconds": round(seconds, 3)})
        return Base(loaded.header.sequence, loaded.header.restored)

    async def replay_beside(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> bool:
        """`replay` in a thread of the loop's pool; False when `stop` ended it."""
        progress = self.progress
        replay = loop.run_in_executor(None, self.replay)
        stopped = loop.create_task(stop.wait())
        while not replay.done():  # bounded by the log; a stop ends it after the frame under way
            await asyncio.wait((replay, stopped), timeout=PROGRESS_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                progress.cancel()
                await asyncio.wait((replay,))
            elif not replay.done():
                logger.info(
                    progress.phase,
                    extra={"records": progress.records, "bytes_read": progress.bytes_read, "bytes_total": progress.bytes_total},
                )
        stopped.cancel()
        try:
            replay.result()
        except RecoveryCancelled:
            return False
        return not stop.is_set()

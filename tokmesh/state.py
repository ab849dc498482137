"""What a node knows: the table and the keys, and the log they are made from.

While the log is replayed both belong to the thread that replays; afterwards to the loop's.
"""

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Final

from tokmesh._core.clock import Clock
from tokmesh._core.table import Table
from tokmesh.config import ConfigError, Problem, Settings
from tokmesh.keyring import KeyRing
from tokmesh.log.file_log import FileLog
from tokmesh.log.record import AnyRecord, decode
from tokmesh.storage.recovery import Progress, RecoveryCancelled
from tokmesh.storage.segment import LOG_DIRECTORY, list_segments
from tokmesh.storage.segment_keys import KeyMissing, SegmentKeys
from tokmesh.store import Store

if TYPE_CHECKING:  # the library it needs is an extra
    from tokmesh.storage.encryption import KeySet

PROGRESS_INTERVAL_S: Final = 5.0

logger = logging.getLogger("tokmesh.server")


class State:
    """Table and keys, empty until the log is replayed."""

    def __init__(self, settings: Settings, clock: Clock, keys: "KeySet | None" = None) -> None:
        """Locks the log. keys: of encryption. Raises ApiError TM-SYS-5001 when another process has it."""
        wal = settings.storage.wal
        self._log_directory = settings.storage.dir / LOG_DIRECTORY
        self._encrypted = settings.storage.encryption.enabled
        self.clock = clock
        self.progress = Progress()
        self.table = Table(tombstone_ttl_ms=settings.session.tombstone_ttl_ms)
        self.keyring = KeyRing()
        self.store = Store(self.table, self.keyring, replay_until_ms=self.clock.now_ms())
        self.log: FileLog[AnyRecord] = FileLog(
            self._log_directory,
            sync_mode=wal.sync_mode,
            sync_interval_ms=wal.sync_interval_ms,
            segment_bytes_max=wal.segment_size_bytes,
            decode=decode,
            clock=self.clock,
            keys=SegmentKeys(keys, self._encrypted),
        )
        self.log.lock()

    def checked_keys(self, keys: "KeySet | None") -> SegmentKeys:
        """Other keys for the running log. Raises ConfigError when the next start could not do with them, OSError."""
        made = SegmentKeys(keys, self._encrypted)
        if self._encrypted and keys is None:
            rule = "what this process writes is encrypted: it needs a key until it is restarted"
            raise ConfigError([Problem("TM-CFG-1006", "storage.encryption.key_file", "", rule)])
        try:
            made.refuse_unknown(path for _, path in list_segments(self._log_directory))
        except KeyMissing as error:
            rule = f"keep key {error.key_id.hex()} behind the first: {error.path.name} is encrypted under it"
            raise ConfigError([Problem("TM-CFG-1006", "storage.encryption.key_file", "", rule)]) from None
        return made

    def replay(self) -> None:
        """Makes table and keys from the log; whoever runs this has both to itself. Raises ApiError TM-SYS-5001 when the log is
        damaged, RecoveryCancelled."""
        report = self.log.recover(self.store.replay, self.progress)
        # Everything so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        logger.info(
            "log replayed",
            extra={"records": report.records, "seconds": round(report.seconds, 3), "torn_tail": report.torn_tail},
        )

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
                    "replaying the log",
                    extra={"records": progress.records, "bytes_read": progress.bytes_read, "bytes_total": progress.bytes_total},
                )
        stopped.cancel()
        try:
            replay.result()
        except RecoveryCancelled:
            return False
        return not stop.is_set()

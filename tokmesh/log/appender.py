"""The end of the log: where the next frame goes, when a new segment begins, and what a full disk leaves possible.

Owned by one thread at a time: the one that recovers, then the writer, then the one that closes. Invariants:

- a frame begins only where the frame before it ended whole; what a failed write left is overwritten with zeros;
- a spare segment is allocated one ahead. Without one (no room) ordinary records stop short of the last `reserve_bytes`
  of the segment, which `reserved` records (revocations) may still use; and a frame of no records is always left for the
  seal of an orderly stop;
- an encrypted segment was begun here, with a key of its own; other keys are followed by beginning the next;
- after a failed sync nothing is ever written or synced again.
"""

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokmesh._core import wal
from tokmesh._core.clock import Clock
from tokmesh._core.tail import Tail
from tokmesh.storage.recovery import LogEnd
from tokmesh.storage.segment import (
    NO_ROOM,
    Segment,
    SyncFailed,
    adopt_spare,
    frame_overhead,
    make_spare,
    open_directory,
    remove_spare,
)
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

RESERVE_BYTES_MAX: Final = 256 << 10
RESERVE_SHARE: Final = 8  # at most this part of a segment is reserve
FRAME_BYTES_MAX: Final = 4 << 20
SPARE_RETRY_MS: Final = 100


class LogFailed(Exception):
    """The log must not be written again in this process; `str()` says why, for the operator.

    by_sync: a sync failed, as opposed to a write or a rename."""

    def __init__(self, reason: str, *, by_sync: bool = False) -> None:
        super().__init__(reason)
        self.by_sync = by_sync


class Appender(Tail):
    """Writes frames at the end of the log in `directory`. See the module for its invariants; the position is a Tail's."""

    def __init__(
        self,
        directory: Path,
        end: LogEnd,
        segment_bytes_max: int,
        clock: Clock,
        logger: logging.Logger,
        keys: SegmentKeys = PLAIN,
    ) -> None:
        super().__init__()
        self._keys = keys
        self._keys_followed = keys  # by the segment at the end
        self._directory = directory
        self._segment_bytes_max = segment_bytes_max
        self._clock = clock
        self._logger = logger
        self._directory_fd = open_directory(directory)
        self._segment: Segment = end.segment
        self._spare_fd = -1
        self._spare_retry_ns = 0
        self._sealed_sequence = end.sequence_due if end.sealed else 0
        self._warned = False
        self._skip_to = 0
        self._enter(end.segment, end.offset)
        self.chain = end.chain
        self.sequence_due = end.sequence_due
        self.durable_sequence = end.sequence_due - 1
        self.segments_begun = 0
        self.no_room_reason: str | None = None  # the last refusal of the disk, in its words

    @property
    def encrypted(self) -> bool:
        """Whether what is written now is encrypted."""
        return self._segment.sealer is not None

    def use_keys(self, keys: SegmentKeys) -> None:
        """The next segments follow these keys; any thread may say so. `follow_keys` is then due."""
        assert keys.sealing == self._keys.sealing, "whether there is encryption is decided at the start"
        self._keys = keys

    def follow_keys(self) -> None:
        """Begins a segment if the one at the end is sealed under a key that is not the first any more, and there is room for one;
        otherwise the next call does. LogFailed."""
        keys = self._keys
        if keys is self._keys_followed:
            return
        if keys.keys is not None and self._segment.header.key_id not in (b"", keys.keys.first_id):
            if not self.have_spare():
                return
            self._rotate()
            self._logger.info("the log goes on under another key", extra={"key_id": keys.keys.first_id.hex()})
        self._keys_followed = keys

    def skip_to(self, sequence: int) -> None:
        """The next record is to be number `sequence`, in a new segment; any thread may say so while no record waits. `follow_skip`
        is then due."""
        self._skip_to = sequence

    def follow_skip(self) -> None:
        """Begins that segment, if there is room for one; otherwise the next call does. LogFailed."""
        if self._skip_to <= self.sequence_due or not self.have_spare():
            return
        if self.durable_sequence != self.sequence_due - 1:
            self.sync()
        self.sequence_due = self._skip_to
        self.durable_sequence = self._skip_to - 1
        self._rotate()

    def make_room(self, frame_bytes: int, reserved: bool) -> bool:
        """Whether a frame of that size has its place at the end of the log, beginning a segment where needed.

        False: the disk is full, and what is left is kept for `reserved` frames. LogFailed: the log failed on the
        way."""
        if self.offset + frame_bytes <= self.limit(reserved):
            return True
        if self.have_spare():
            if self.offset + frame_bytes <= self.limit(reserved):
                return True
            self._rotate()
        return self.offset + frame_bytes <= self.limit(reserved)

    def have_spare(self) -> bool:
        """Whether the next segment is allocated, after trying to; then no full disk is near. LogFailed."""
        now_ns = self._clock.monotonic_ns()
        if self._spare_fd < 0 and now_ns >= self._spare_retry_ns:
            try:
                self._spare_fd = make_spare(self._directory, self._segment_bytes_max)
                self._warned = False
            except SyncFailed as error:
                raise LogFailed(f"segment allocation: {error.strerror}", by_sync=True) from error
            except OSError as error:
                # Also a shortage of descriptors or the like: the log has room left meanwhile, and asks again.
                self._spare_retry_ns = now_ns + SPARE_RETRY_MS * 1_000_000
                self.no_room_reason = error.strerror
                if not self._warned:
                    self._logger.warning("no room for the next log segment: %s", error.strerror)
                self._warned = True
        return self._spare_fd >= 0

    def write(self, records: list[bytes]) -> int:
        """Writes one frame, not yet synced; returns its size, 0 when the disk had no room for it after all (nothing is
        left of it). The caller has made room. LogFailed."""
        before = self.offset
        status = self.write_group(records)
        if status in NO_ROOM:
            size = self.frame_bytes(records)
            if wal.write_at(self.fd, bytes(size), self.offset) not in NO_ROOM | {0}:
                raise LogFailed("a frame that did not fit could not be removed")
            self.no_room_reason = os.strerror(status)
        elif status != 0:
            raise write_failure(status)
        return self.offset - before

    def frame_bytes(self, records: Iterable[bytes]) -> int:
        """Of a frame of these in the segment at the end."""
        return self.frame_overhead + sum(wal.RECORD_HEADER_BYTES + len(record) for record in records)

    def sync(self) -> None:
        """Makes everything written durable. LogFailed: it may not be, and the log is over."""
        status = self.sync_group()
        if status != 0:
            raise sync_failure(status)

    def close(self, seal: bool) -> None:
        """Lets go of the files; with `seal` (only after an orderly life) marks the end and syncs it. LogFailed."""
        try:
            if seal and self._sealed_sequence != self.sequence_due:
                self.sync()
                self.write([])
                self.sync()
        finally:
            os.close(self._segment.fd)
            os.close(self._directory_fd)
            if self._spare_fd >= 0:
                os.close(self._spare_fd)
                with contextlib.suppress(OSError):
                    remove_spare(self._directory)

    def limit(self, reserved: bool) -> int:
        """The offset that frames must end at or below, leaving room for a seal and, unless `reserved`, for revocations."""
        limit = self._segment.header.size_bytes - self.frame_overhead
        if reserved or self._spare_fd >= 0:
            return limit
        return limit - _reserve_bytes(self._segment.header.size_bytes)

    def _rotate(self) -> None:
        """Begins the next segment in the spare; everything before it is durable first."""
        if self.durable_sequence != self.sequence_due - 1:
            self.sync()
        fd, self._spare_fd = self._spare_fd, -1
        try:
            sealer = self._keys.new_sealer()
            segment = adopt_spare(
                self._directory, self._directory_fd, fd, self._segment_bytes_max, self.sequence_due, self.chain, sealer
            )
        except OSError as error:
            os.close(fd)
            raise LogFailed(f"segment rotation: {error.strerror}", by_sync=isinstance(error, SyncFailed)) from error
        os.close(self._segment.fd)
        self._segment = segment
        self._enter(segment, wal.SEGMENT_HEADER_BYTES)
        self.segments_begun += 1
        self.have_spare()

    def _enter(self, segment: Segment, offset: int) -> None:
        self.enter(segment.fd, segment.header.segment_id, segment.header.size_bytes, offset, segment.sealer)


def write_failure(errno: int) -> LogFailed:
    """What a write that failed, and not for want of room, means for the log."""
    return LogFailed(f"write: {os.strerror(errno)}")


def sync_failure(errno: int) -> LogFailed:
    """What a failed fdatasync means for the log."""
    return LogFailed(f"fdatasync: {os.strerror(errno)}", by_sync=True)


def _reserve_bytes(segment_bytes: int) -> int:
    return min(RESERVE_BYTES_MAX, segment_bytes // RESERVE_SHARE)


def frame_bytes_max(segment_bytes: int, encrypted: bool) -> int:
    """The largest frame a log of such segments writes."""
    room = segment_bytes - wal.SEGMENT_HEADER_BYTES - frame_overhead(encrypted) - _reserve_bytes(segment_bytes)
    return min(FRAME_BYTES_MAX, room)

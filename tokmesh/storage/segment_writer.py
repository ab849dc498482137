"""A log written by somebody who has all its records: segments filled one after the other, sealed at the end.

For a new directory that nobody else knows of. The server's own writer is log/appender.py, which answers to waiters and
full disks. Invariants: a segment is durable before the next one begins, and a frame says of itself only what was durable
before it was written.
"""

import os
from pathlib import Path
from typing import Final

from tokmesh._core import wal
from tokmesh._core.tail import Tail
from tokmesh.storage.segment import Segment, adopt_spare, frame_overhead, make_spare, open_directory, sync
from tokmesh.storage.segment_keys import PLAIN, SegmentKeys

FRAME_BYTES: Final = 1 << 20  # a frame is written once it has this much


class SegmentWriter:
    """Writes records, the first of which has `first_sequence`, into segments of `segment_bytes`; `chain`: before them;
    `keys`: that they are to be under."""

    def __init__(self, directory: Path, segment_bytes: int, first_sequence: int, chain: int, keys: SegmentKeys = PLAIN) -> None:
        self._directory = directory
        self._directory_fd = open_directory(directory)
        self._segment_bytes = segment_bytes
        self._frame_bytes = min(FRAME_BYTES, segment_bytes // 4)
        self._keys = keys
        self._segment: Segment | None = None
        self._tail = Tail()
        self._tail.chain = chain
        self._tail.sequence_due = first_sequence
        self._tail.durable_sequence = first_sequence - 1
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    def add(self, record: bytes) -> None:
        """The next record. OSError."""
        self._gathered.append(record)
        self._gathered_bytes += len(record) + wal.RECORD_HEADER_BYTES
        if self._gathered_bytes >= self._frame_bytes:
            self._write()

    def add_repeated(self, record: bytes, count: int) -> None:
        """The next `count` records, all the same. OSError."""
        size = len(record) + wal.RECORD_HEADER_BYTES
        while count > 0:
            taken = min(count, max(1, (self._frame_bytes - self._gathered_bytes) // size))
            self._gathered += [record] * (taken - 1)
            self._gathered_bytes += (taken - 1) * size
            self.add(record)
            count -= taken

    def finish(self) -> None:
        """Writes what is left, and the seal; all of it is durable then. OSError."""
        if self._gathered:
            self._write()
        self._sync()
        self._write()
        self._sync()

    def close(self) -> None:
        """Lets go of the files, finished or not."""
        os.close(self._directory_fd)
        if self._segment is not None:
            os.close(self._segment.fd)

    def _write(self) -> None:
        """One frame of what is gathered; the seal, when that is nothing."""
        overhead = self._tail.frame_overhead
        needed = overhead + self._gathered_bytes + (overhead if self._gathered else 0)
        if self._segment is None or self._tail.offset + needed > self._segment.header.size_bytes:
            self._begin_segment(self._gathered_bytes)
        assert self._segment is not None
        status = self._tail.write_group(self._gathered)
        if status != 0:
            raise OSError(status, os.strerror(status), str(self._segment.path))
        self._gathered, self._gathered_bytes = [], 0

    def _begin_segment(self, payload_bytes: int) -> None:
        """The next segment, with room for a frame and a seal, after what is before it is durable."""
        if self._segment is not None:
            self._sync()
            os.close(self._segment.fd)
            self._segment = None
        sealer, tail = self._keys.new_sealer(), self._tail
        size = max(self._segment_bytes, wal.SEGMENT_HEADER_BYTES + payload_bytes + 2 * frame_overhead(sealer is not None))
        fd = make_spare(self._directory, size)
        try:
            self._segment = adopt_spare(self._directory, self._directory_fd, fd, size, tail.sequence_due, tail.chain, sealer)
        except BaseException:
            os.close(fd)
            raise
        tail.enter(fd, self._segment.header.segment_id, size, wal.SEGMENT_HEADER_BYTES, sealer)

    def _sync(self) -> None:
        if self._segment is not None:
            sync(self._segment.fd)
        self._tail.durable_sequence = self._tail.sequence_due - 1

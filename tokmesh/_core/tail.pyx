"""The end of the log: where the next frame goes, and the two leaf calls that move it, without the GIL but to encrypt a frame.

Owned by one thread at a time. Invariants: a frame begins only where the frame before it ended whole; the position moves when a
frame was written whole, `durable_sequence` when a sync covered it, and neither when a call failed. A nonce counter is used up by
the attempt to write a frame: what failed may be on the disk, and what is written over it is other text. The figures are for any
reader.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport ENOMEM, EOVERFLOW
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from tokmesh._core.histogram cimport HistogramBlock
from tokmesh._core.wal cimport (
    AAD_SIZE,
    FLAGS_ENCRYPTED,
    FLAGS_PLAIN,
    FRAME_HEADER_SIZE,
    FrameHeader,
    TAG_SIZE,
    payload_of,
    sync_data,
    write_aad,
    write_frame_header,
    write_fully,
)

from tokmesh._core.histogram import LATENCY_BOUNDS_NS


cdef extern from "platform.h" nogil:
    int64_t tm_monotonic_ns()
    uint32_t tm_crc32c(uint32_t crc, const uint8_t* data, size_t size)

cdef extern from "<errno.h>":
    int ENOTRECOVERABLE

cdef extern from "Python.h":
    void PyErr_WriteUnraisable(object context)

cdef enum:
    ZERO_AHEAD_BYTES = 1 << 18

GROUP_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

cdef uint8_t[ZERO_AHEAD_BYTES] _ZEROS
memset(_ZEROS, 0, ZERO_AHEAD_BYTES)


cdef class Tail:
    """The position after the last frame of the log. Its attributes are set by whoever opens or begins a segment."""

    def __init__(self):
        self.fd = -1
        self.frame_overhead = FRAME_HEADER_SIZE
        self.sync_histogram = HistogramBlock(1, LATENCY_BOUNDS_NS)
        self.group_histogram = HistogramBlock(1, GROUP_BOUNDS)

    def __dealloc__(self):
        free(self._frame)

    def enter(self, int fd, uint64_t segment_id, int64_t segment_bytes, int64_t offset, sealer=None) -> None:
        """The next frame goes into this segment, at `offset`; chain and sequence go on. sealer: of an encrypted segment that this
        process has begun, and into which nobody has written: sealer.seal(counter, aad, payload) gives TAG_SIZE bytes more."""
        self.fd = fd
        self.segment_id = segment_id
        self._segment_bytes = segment_bytes
        self.offset = offset
        self._zeroed_until = 0
        self._sealer = sealer
        self._flags = FLAGS_PLAIN if sealer is None else FLAGS_ENCRYPTED
        self._nonce_counter = 0
        self.frame_overhead = FRAME_HEADER_SIZE if sealer is None else FRAME_HEADER_SIZE + TAG_SIZE

    cdef int append(self, const uint8_t* payload, size_t payload_bytes, uint32_t record_count) noexcept nogil:
        # Writes one frame, not yet synced: 0, or the errno of what may have left part of it beyond `offset`.
        cdef FrameHeader header
        cdef size_t size = <size_t>self.frame_overhead + payload_bytes
        cdef uint8_t[AAD_SIZE] aad
        cdef uint32_t chain
        cdef int status
        cdef void* grown
        if size > self._frame_capacity:
            grown = realloc(self._frame, size)
            if grown == NULL:
                return ENOMEM
            self._frame = <uint8_t*>grown
            self._frame_capacity = size
        memset(&header, 0, sizeof(header))
        header.flags = self._flags
        header.segment_id = self.segment_id
        header.first_sequence = self.sequence_due
        header.durable_sequence = self.durable_sequence
        header.record_count = record_count
        header.payload_bytes = <uint32_t>(size - FRAME_HEADER_SIZE)
        if self._flags == FLAGS_PLAIN:
            memcpy(self._frame + FRAME_HEADER_SIZE, payload, payload_bytes)
        else:
            header.nonce_counter = self._nonce_counter
            write_aad(aad, &header, self.chain)
            status = self._seal(payload, payload_bytes, aad)
            if status != 0:
                return status
        header.payload_crc = tm_crc32c(0, self._frame + FRAME_HEADER_SIZE, header.payload_bytes)
        chain = write_frame_header(self._frame, &header, self.chain)
        status = write_fully(self.fd, self._frame, size, self.offset)
        if status != 0:
            return status
        self.offset += <int64_t>size
        self.chain = chain
        self.sequence_due += record_count
        self.write_bytes += size
        self._zero_ahead()
        if record_count != 0:
            self.frames += 1
            self.records += record_count
            self.group_histogram.observe(0, record_count)
        return 0

    cdef int _seal(self, const uint8_t* payload, size_t payload_bytes, const uint8_t* aad) noexcept with gil:
        # Puts the encrypted payload into the frame and uses up a nonce: 0, or an errno.
        cdef bytes sealed
        if self._nonce_counter == 0xffffffff:
            return EOVERFLOW
        self._nonce_counter += 1
        try:
            sealed = self._sealer.seal(self._nonce_counter - 1, aad[:AAD_SIZE], payload[:payload_bytes])
            assert <size_t>PyBytes_GET_SIZE(sealed) == payload_bytes + TAG_SIZE
        except MemoryError:
            return ENOMEM
        except BaseException:
            PyErr_WriteUnraisable(self)    # a bug of ours, or of the library's
            return ENOTRECOVERABLE
        memcpy(self._frame + FRAME_HEADER_SIZE, PyBytes_AS_STRING(sealed), payload_bytes + TAG_SIZE)
        return 0

    cdef void _zero_ahead(self) noexcept nogil:
        # Writes zeros over zeros: an allocated extent that was never written costs each fdatasync a metadata commit; this way one
        # in many frames pays for all. Should it fail, the extent stays as it was.
        cdef int64_t count
        if self.offset <= self._zeroed_until or self.offset >= self._segment_bytes:
            return
        count = min(<int64_t>ZERO_AHEAD_BYTES, self._segment_bytes - self.offset)
        if write_fully(self.fd, _ZEROS, <size_t>count, self.offset) == 0:
            self._zeroed_until = self.offset + count

    cdef int make_durable(self) noexcept nogil:
        # fdatasync: 0, or an errno after which the log is over and the file must never be synced again.
        cdef int64_t started_ns = tm_monotonic_ns()
        cdef int status
        self.syncs += 1
        status = sync_data(self.fd)
        if status == 0:
            self.durable_sequence = self.sequence_due - 1
            self.sync_histogram.observe(0, <uint64_t>(tm_monotonic_ns() - started_ns))
        return status

    def write_group(self, list records) -> int:
        """Writes one frame of these `bytes`, an empty list making the seal; 0 or the errno. OverflowError beyond 4 GiB."""
        cdef bytes payload = payload_of(records)
        cdef const uint8_t* start = <const uint8_t*><const char*>payload
        cdef size_t size = <size_t>len(payload)
        cdef uint32_t count = <uint32_t>len(records)
        cdef int status
        with nogil:
            status = self.append(start, size, count)
        return status

    def sync_group(self) -> int:
        """fdatasync; 0 or the errno, after which the file must never be synced again."""
        cdef int status
        with nogil:
            status = self.make_durable()
        return status

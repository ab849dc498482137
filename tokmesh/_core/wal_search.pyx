"""Frames found in bytes that nobody vouches for: behind damage, or in a file whose own header is lost.

What is found is whole, and genuine where it is encrypted; whether it stands where it belongs is for the caller to judge. Every
turn of a search goes on by a byte at least.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tokmesh._core.wal cimport (
    FLAGS_ENCRYPTED,
    FLAGS_PLAIN,
    FRAME_HEADER_SIZE,
    FrameHeader,
    frame_of,
    is_payload_whole,
    open_payload,
    read_frame_header,
)

cdef extern from "platform.h" nogil:
    uint32_t tm_get32(const uint8_t* data)

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)

cdef uint32_t CRC_POLYNOMIAL = 0x82f63b78u    # CRC-32C, reflected
cdef const char* FRAME_MAGIC = b"TMFR"


def find_later_header(const uint8_t[::1] data, Py_ssize_t offset, uint64_t segment_id, uint64_t sequence_due) -> int:
    """Offset of the first whole frame header of this segment at or after `offset` that was written when `sequence_due` was
    already durable, or -1. Its payload need not be whole."""
    cdef FrameHeader header
    cdef const uint8_t* base
    cdef void* found
    if offset >= data.shape[0]:
        return -1
    base = &data[0]
    while True:  # ends: `offset` grows each turn
        found = memmem(base + offset, data.shape[0] - offset, FRAME_MAGIC, 4)
        if found == NULL:
            return -1
        offset = <const uint8_t*>found - base
        if (
            read_frame_header(base + offset, data.shape[0] - offset, &header)
            and header.segment_id == segment_id
            and header.first_sequence >= sequence_due
            and header.durable_sequence >= sequence_due
        ):
            return offset
        offset += 1


def find_frame(const uint8_t[::1] data, Py_ssize_t offset, segment_id=None, opener=None):
    """(offset, segment id, Frame) of the first whole frame of `segment_id` (None: of any segment) at or after `offset`, or None.
    What it says of its place, sequence and chain, is for the caller to judge. opener: None for plain frames, else of those it
    opens."""
    cdef bint any_segment = segment_id is None
    cdef uint64_t id_wanted = 0 if any_segment else segment_id
    cdef FrameHeader header
    cdef const uint8_t* start
    cdef void* found
    cdef bytes payload
    if offset >= data.shape[0]:
        return None
    while True:  # ends: `offset` grows each turn
        found = memmem(&data[0] + offset, data.shape[0] - offset, FRAME_MAGIC, 4)
        if found == NULL:
            return None
        start = <const uint8_t*>found
        offset = start - &data[0]
        if (
            read_frame_header(start, data.shape[0] - offset, &header)
            and (any_segment or header.segment_id == id_wanted)
            and header.flags == (FLAGS_PLAIN if opener is None else FLAGS_ENCRYPTED)
            and is_payload_whole(start, data.shape[0] - offset, &header)
        ):
            payload = None
            if opener is not None:
                payload = open_payload(start + FRAME_HEADER_SIZE, &header, chain_before(start), opener)
            frame = frame_of(start, offset, &header, payload) if opener is None or payload is not None else None
            if frame is not None:
                return offset, header.segment_id, frame
        offset += 1


cdef uint32_t chain_before(const uint8_t* start) noexcept nogil:
    # The chain before the frame whose header is at `start`: its own chain with the header's first 44 bytes taken off again.
    cdef uint32_t crc = tm_get32(start + 44) ^ 0xffffffffu
    cdef int index, _bit
    for index in range(43, -1, -1):
        for _bit in range(8):
            crc = (((crc ^ CRC_POLYNOMIAL) << 1) | 1) if crc & 0x80000000u else crc << 1
        crc ^= start[index]
    return crc ^ 0xffffffffu

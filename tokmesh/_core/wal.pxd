from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cpdef enum FrameStatus:
    FRAME_VALID
    FRAME_END        # nothing but zeros up to the end of the buffer: the clean end of a preallocated segment
    FRAME_DAMAGED    # no whole frame of this segment: what a write cut short leaves, or damage
    FRAME_MISPLACED  # a whole frame of this segment that is not the one due here: no cut write leaves that
    FRAME_FORGED     # the frame due here, whole, whose tag is not of these bytes: nor does any write leave that


cdef enum:
    FRAME_HEADER_SIZE = 56
    RECORD_HEADER_SIZE = 4
    TAG_SIZE = 16          # of an encrypted payload
    AAD_SIZE = 44
    FLAGS_PLAIN = 0
    FLAGS_ENCRYPTED = 1


cdef struct FrameHeader:
    uint8_t flags
    uint64_t segment_id
    uint64_t first_sequence
    uint64_t durable_sequence
    uint32_t record_count
    uint32_t payload_bytes
    uint32_t payload_crc
    uint32_t chain
    uint32_t nonce_counter


cdef uint32_t write_frame_header(uint8_t* out, const FrameHeader* header, uint32_t chain_before) noexcept nogil
cdef void write_aad(uint8_t* out, const FrameHeader* header, uint32_t chain_before) noexcept nogil
cdef bint read_frame_header(const uint8_t* data, size_t size, FrameHeader* header) noexcept nogil
cdef bint is_payload_whole(const uint8_t* start, size_t size, const FrameHeader* header) noexcept nogil
cdef object frame_of(const uint8_t* start, Py_ssize_t offset, const FrameHeader* header, bytes opened)
cdef bytes open_payload(const uint8_t* sealed, const FrameHeader* header, uint32_t chain_before, opener)
cdef int write_fully(int fd, const uint8_t* data, size_t size, int64_t offset) noexcept nogil
cdef int sync_data(int fd) noexcept nogil
cdef bytes payload_of(list records)

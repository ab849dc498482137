from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.clock cimport Clock

# A record Streamed, as log/record.py tells: kind u8, format u8, time_ms i64, position u64, previous u64, envelope.
cdef enum:
    STREAMED_KIND = 32
    RECORD_FORMAT = 1
    STREAMED_TIME_AT = 2
    STREAMED_POSITION_AT = 10
    STREAMED_PREVIOUS_AT = 18
    STREAMED_BYTES = 26              # before the envelope

# An envelope: format u8, incarnation u64, number u64, lengths of origin u8 and request_id u8, the two texts, a record.
cdef enum:
    ENVELOPE_FORMAT = 1
    ORIGIN_LENGTH_AT = 17
    REQUEST_LENGTH_AT = 18
    ENVELOPE_BYTES = 19              # before the texts

cdef enum:
    BATCH_RECORDS_MAX = 1024
    ALONE_BYTES = 65536              # an envelope larger than this is a batch of its own


cdef class StreamedBatch:
    cdef:
        Clock _clock
        readonly uint64_t previous   # the position before the first record
        readonly uint64_t position   # of the last record
        readonly size_t largest      # bytes of the largest record
        uint8_t* bytes               # per record: length u32, its bytes, as a frame of the log has them
        size_t size
        size_t capacity
        size_t* starts               # of each record, behind its length
        uint32_t count
        uint32_t starts_capacity

    cdef bint add(self, uint64_t position, const uint8_t* envelope, size_t size) noexcept nogil
    cdef bint has_room(self, size_t size) noexcept nogil
    cdef const uint8_t* at(self, uint32_t index, size_t* size) noexcept nogil
    cdef bint _grow(self, size_t size) noexcept nogil


cdef class Deliveries:
    cdef:
        Clock _clock
        list _ready                  # batches, in order; the last may still grow
        readonly uint64_t position   # of the last record taken
        readonly uint64_t due        # number of the next delivery
        readonly str fault           # why nothing more is taken; None while it is

    cdef bint add(self, const char* reply, size_t reply_size, const uint8_t* envelope, size_t size) except -1

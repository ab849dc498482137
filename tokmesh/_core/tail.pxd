from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.histogram cimport HistogramBlock


cdef class Tail:
    cdef:
        public int fd                         # of the last segment
        public uint64_t segment_id
        public int64_t offset                 # where the next frame begins
        public uint32_t chain                 # after the last frame
        public uint64_t sequence_due          # of the next record
        public uint64_t durable_sequence      # of the last record that is known to be on the disk
        readonly int64_t frame_overhead       # bytes of a frame beside its payload
        readonly uint64_t write_bytes         # of whole frames
        readonly uint64_t frames
        readonly uint64_t records
        readonly uint64_t syncs
        readonly HistogramBlock sync_histogram     # nanoseconds
        readonly HistogramBlock group_histogram    # records
        uint8_t* _frame
        size_t _frame_capacity
        int64_t _zeroed_until
        int64_t _segment_bytes
        object _sealer
        uint8_t _flags
        uint32_t _nonce_counter               # of the next frame that is sealed for this segment

    cdef int append(self, const uint8_t* payload, size_t payload_bytes, uint32_t record_count) noexcept nogil
    cdef int _seal(self, const uint8_t* payload, size_t payload_bytes, const uint8_t* aad) noexcept with gil
    cdef int make_durable(self) noexcept nogil
    cdef void _zero_ahead(self) noexcept nogil

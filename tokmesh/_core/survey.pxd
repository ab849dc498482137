from libc.stdint cimport int64_t, uint32_t, uint64_t

from tokmesh._core.layout cimport SHARD_COUNT, Row, Slot


cdef class Survey:
    cdef:
        const Slot* slots
        const Row* rows
        const char* arena
        readonly bint active
        uint64_t* done               # bit n: entry n is counted in, or began after the moment of the survey
        uint32_t cursor
        uint32_t end                 # 0: no survey
        int64_t beyond_ms
        uint64_t key[2]
        uint64_t sums[SHARD_COUNT]
        uint64_t text_bytes          # hashed since the step began
        readonly uint64_t count      # sessions counted in so far

    cdef void skip(self, uint32_t entry) noexcept nogil
    cdef void count_in(self, uint32_t entry) noexcept nogil
    cdef void _add(self, uint32_t entry) noexcept nogil
    cdef uint64_t _text_hash(self, uint32_t interned) noexcept nogil

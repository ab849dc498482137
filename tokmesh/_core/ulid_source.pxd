from libc.stdint cimport int64_t, uint64_t

from tokmesh._core.random_source cimport RandomSource


cdef class UlidSource:
    cdef:
        RandomSource _random
        uint64_t _high           # of the last one made
        uint64_t _low
        int64_t _last_ms

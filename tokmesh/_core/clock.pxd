from libc.stdint cimport int64_t


cdef class Clock:
    cdef:
        int64_t _anchor_wall_ms
        int64_t _anchor_monotonic_ns

    cdef int64_t read_ms(self) noexcept nogil
    cdef int64_t at_ms(self, int64_t monotonic_ns) noexcept nogil

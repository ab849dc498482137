from libc.stdint cimport int64_t, uint64_t

cdef enum:
    PARENT_NONE = 0          # no traceparent, or one that is not valid
    PARENT_UNSAMPLED = 1
    PARENT_SAMPLED = 2

cdef int parent_kind(str traceparent) except -1


cdef class Sampler:
    cdef:
        readonly bint enabled
        readonly uint64_t sampled
        readonly uint64_t rate_limited
        int64_t _countdown           # requests without a parent up to and with the next sampled one
        int64_t _interval_ns         # between traces at the rate cap
        int64_t _burst_ns
        int64_t _due_ns              # when the cap's allowance will be whole again
        double _log_passed           # ln(1 - ratio)
        double _ratio
        uint64_t _state

    cdef bint wants(self, int parent, int64_t now_ns) noexcept nogil
    cdef bint _admit(self, int64_t now_ns) noexcept nogil
    cdef int64_t _next_countdown(self) noexcept nogil

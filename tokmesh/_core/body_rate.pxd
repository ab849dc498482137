# How slowly a body may come, or a file be taken: a window that slides, so that neither a slow start nor a fast one excuses what
# follows.
#
# A peer has a credit of the grace at the minimum rate when its bytes begin. Time uses it up at that rate, every byte gives one
# back, and there is never more of it than at the beginning: whatever came before, a peer that stops has used it up one grace
# later. In C inside the connection's own memory, looked at by its clock tick only.

from libc.stdint cimport int64_t

cdef struct BodyRate:
    int64_t credit_bytes_max
    int64_t credit_bytes
    int64_t looked_at_ns         # at the last look, or when the time in between stopped counting
    int64_t moved_bytes          # by then


cdef inline void rate_begin(BodyRate* rate, int64_t now_ns, int64_t bytes_per_s, int64_t grace_ms) noexcept nogil:
    rate.credit_bytes = rate.credit_bytes_max = bytes_per_s * grace_ms // 1000
    rate.looked_at_ns = now_ns
    rate.moved_bytes = 0


cdef inline bint rate_too_slow(BodyRate* rate, int64_t now_ns, int64_t moved_bytes, int64_t bytes_per_s) noexcept nogil:
    # Whether the credit is used up at now_ns, when moved_bytes have come or gone since the beginning.
    rate.credit_bytes += moved_bytes - rate.moved_bytes
    rate.credit_bytes -= (now_ns - rate.looked_at_ns) // 1000000 * bytes_per_s // 1000
    rate.credit_bytes = min(rate.credit_bytes, rate.credit_bytes_max)
    rate.looked_at_ns = now_ns
    rate.moved_bytes = moved_bytes
    return rate.credit_bytes < 0

# How slowly a body may come: a window that slides, so that neither a slow start nor a fast one excuses what follows.
#
# A peer has a credit of BODY_GRACE_MS at the minimum rate when its body begins. Time uses it up at that rate, every byte gives one
# back, and there is never more of it than at the beginning: whatever came before, a peer that stops sending has used it up
# BODY_GRACE_MS later. In C inside the connection's own memory, looked at by its clock tick only.

from libc.stdint cimport int64_t

cdef enum:
    BODY_GRACE_MS = 5000


cdef struct BodyRate:
    int64_t credit_bytes
    int64_t looked_at_ns         # at the last look, or when the time in between stopped counting
    int64_t received_bytes       # by then


cdef inline void rate_begin(BodyRate* rate, int64_t now_ns, int64_t bytes_per_s) noexcept nogil:
    rate.credit_bytes = bytes_per_s * BODY_GRACE_MS // 1000
    rate.looked_at_ns = now_ns
    rate.received_bytes = 0


cdef inline bint rate_too_slow(BodyRate* rate, int64_t now_ns, int64_t received_bytes, int64_t bytes_per_s) noexcept nogil:
    # Whether the credit is used up at now_ns, when received_bytes of the body are here.
    rate.credit_bytes += received_bytes - rate.received_bytes
    rate.credit_bytes -= (now_ns - rate.looked_at_ns) // 1000000 * bytes_per_s // 1000
    rate.credit_bytes = min(rate.credit_bytes, bytes_per_s * BODY_GRACE_MS // 1000)
    rate.looked_at_ns = now_ns
    rate.received_bytes = received_bytes
    return rate.credit_bytes < 0

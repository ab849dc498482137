# Where the time of one request went, in nanoseconds: kept for every request on the general way, told for a slow one only.
#
# What is left of the whole is the look-up: the handler's own work on the loop. The hot way keeps nothing: it has one phase.

from libc.stdint cimport int64_t

cdef extern from "platform.h" nogil:
    int64_t tm_monotonic_ns()


cdef struct Phases:
    int64_t queue_ns        # behind other requests of its connection, before it was begun; not part of the whole
    int64_t parse_ns        # its head
    int64_t auth_ns         # deciding on it, with the verification of its key
    int64_t log_wait_ns     # waiting for what the handler awaits: for a write, the log
    int64_t mark_ns         # when the phase under way began


cdef inline void phases_begin(Phases* phases, int64_t started_ns, int64_t* queued_since_ns) noexcept nogil:
    # The head is read. queued_since_ns: 0 if the request did not wait for its turn; its turn has come.
    phases.mark_ns = tm_monotonic_ns()
    phases.parse_ns = phases.mark_ns - started_ns
    phases.queue_ns = started_ns - queued_since_ns[0] if queued_since_ns[0] != 0 else 0
    queued_since_ns[0] = 0

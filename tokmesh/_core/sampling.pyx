"""Which requests are traced: ParentBased(TraceIdRatioBased) sampling with a cap, for the price of a decrement.

A request whose traceparent is valid follows its parent's flag. For the others the number of requests to the next sampled one is
drawn from the geometric distribution, which is what drawing for each of them with probability `ratio` comes to; the trace id of
the sampled one is then drawn below the ratio's threshold (telemetry/tracing), as if it had been drawn first. What is sampled
beyond the cap is let go and counted. A Sampler that was never configured samples nothing.

traceparent is W3C Trace Context Level 1 §3.2: version "-" trace id "-" parent id "-" flags, in lower-case hexadecimal.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport log, log1p
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

cdef enum:
    TRACEPARENT_SIZE = 55
    TRACE_ID_AT = 3
    PARENT_ID_AT = 36
    FLAGS_AT = 53
    NS_PER_SECOND = 1000000000


cdef inline int _nibble(char digit) noexcept nogil:
    """The value of a lower-case hexadecimal digit, -1 for anything else."""
    if 48 <= digit <= 57:
        return digit - 48
    if 97 <= digit <= 102:
        return digit - 87
    return -1


cdef inline bint _is_id(const char* text, Py_ssize_t size) noexcept nogil:
    """Whether `text` is hexadecimal and not all zeros."""
    cdef int either = 0
    cdef int digit
    cdef Py_ssize_t position
    for position in range(size):
        digit = _nibble(text[position])
        if digit < 0:
            return False
        either |= digit
    return either != 0


cdef int parent_kind(str traceparent) except -1:
    """PARENT_… of a traceparent field's value, white space around it removed; None is no field.

    A field that was repeated arrives with a comma in it, and is not valid: which of the two is true cannot be told.
    """
    cdef Py_ssize_t size = 0
    cdef const char* text
    cdef int high
    cdef int low
    if traceparent is None:
        return PARENT_NONE
    text = PyUnicode_AsUTF8AndSize(traceparent, &size)
    if size < TRACEPARENT_SIZE or text[2] != 45 or text[PARENT_ID_AT - 1] != 45 or text[FLAGS_AT - 1] != 45:
        return PARENT_NONE
    high = _nibble(text[0])
    low = _nibble(text[1])
    if high < 0 or low < 0 or (high == 15 and low == 15):
        return PARENT_NONE
    if size > TRACEPARENT_SIZE and ((high == 0 and low == 0) or text[TRACEPARENT_SIZE] != 45 or "," in traceparent):
        return PARENT_NONE      # only a later version may go on, behind a dash
    if not _is_id(text + TRACE_ID_AT, 32) or not _is_id(text + PARENT_ID_AT, 16):
        return PARENT_NONE
    high = _nibble(text[FLAGS_AT])
    low = _nibble(text[FLAGS_AT + 1])
    if high < 0 or low < 0:
        return PARENT_NONE
    return PARENT_SAMPLED if low & 1 else PARENT_UNSAMPLED


cdef class Sampler:
    """seed: 64 random bits. sampled, rate_limited: decisions since the start."""

    def __init__(self, seed: int = 0) -> None:
        self._state = seed
        self._countdown = INT64_MAX

    def configure(self, ratio: float, traces_per_second_max: int) -> None:
        """From now on samples this share of the requests without a parent, and no more traces a second than that.

        ratio: 0 to 1. traces_per_second_max: at least 1; as many may come at once after a quiet second.
        """
        self.enabled = True
        self._ratio = ratio
        self._log_passed = log1p(-ratio) if ratio < 1 else 0
        self._interval_ns = NS_PER_SECOND // traces_per_second_max
        self._burst_ns = NS_PER_SECOND - self._interval_ns
        self._countdown = self._next_countdown()

    cdef bint wants(self, int parent, int64_t now_ns) noexcept nogil:
        """Whether a request is traced. now_ns: of the monotonic clock."""
        if parent == PARENT_NONE:
            self._countdown -= 1
            if self._countdown > 0:
                return False
            self._countdown = self._next_countdown()
        elif parent == PARENT_UNSAMPLED:
            return False
        return self._admit(now_ns)

    cdef bint _admit(self, int64_t now_ns) noexcept nogil:
        # Generic cell rate algorithm: the moment at which all allowances would be back moves on by one interval a trace.
        cdef int64_t due_ns = max(self._due_ns, now_ns)
        if due_ns - now_ns > self._burst_ns:
            self.rate_limited += 1
            return False
        self._due_ns = due_ns + self._interval_ns
        self.sampled += 1
        return True

    cdef int64_t _next_countdown(self) noexcept nogil:
        cdef uint64_t mixed
        cdef double passed
        if self._ratio >= 1:
            return 1
        if self._ratio <= 0:
            return INT64_MAX
        self._state += 0x9e3779b97f4a7c15ULL       # splitmix64
        mixed = self._state
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL
        mixed ^= mixed >> 31
        passed = log(((mixed >> 11) + 1) * (1.0 / 9007199254740992.0)) / self._log_passed
        return 1 + <int64_t>passed if passed < 1e18 else INT64_MAX

    def decide(self, str traceparent, now_ns: int) -> bool:
        """`wants` for a traceparent as text (None: no field): for tests, which have no wire path."""
        return self.wants(parent_kind(traceparent), now_ns)


def has_parent(str traceparent) -> bool:
    """Whether a traceparent is valid."""
    return parent_kind(traceparent) != PARENT_NONE

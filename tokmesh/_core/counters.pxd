from libc.stdint cimport uint64_t

# Fixed counters of the wire path and the domain, by position in a CounterBlock of COUNTER_COUNT. `NAMES` in counters.pyx is
# the same list as text; a unit test holds the two together.
cpdef enum Counter:
    VALIDATE_VALID
    VALIDATE_INVALID
    VALIDATE_ERROR
    SESSION_CREATE
    SESSION_RENEW
    SESSION_UPDATE
    SESSION_ROTATE
    SESSION_REVOKE
    SESSION_EVICT
    AUTH_OK
    AUTH_MISSING
    AUTH_MALFORMED
    AUTH_INVALID
    AUTH_DISABLED
    AUTH_EXPIRED
    AUTH_ROLE
    AUTH_ADDRESS
    AUTH_RATE_LIMITED
    AUTH_OVERLOADED
    CONNECTION_OPENED
    CONNECTION_CLOSED
    CONNECTION_REFUSED
    REJECT_PARSE
    REJECT_HEAD_SIZE
    REJECT_HEADER_COUNT
    REJECT_HOST
    REJECT_TARGET
    REJECT_VERSION
    REJECT_TRANSFER_ENCODING
    REJECT_EXPECT
    REJECT_UPGRADE
    REJECT_BODY_SIZE
    REJECT_HEAD_TIMEOUT
    REJECT_BODY_RATE
    REJECT_WRITE_BUFFER
    REJECT_BUFFERED_BYTES
    HEAD_PARSED
    HEAD_REPEATED
    RECEIVED_BYTES
    SENT_BYTES
    COUNTER_COUNT


cdef class CounterBlock:
    cdef:
        readonly Py_ssize_t size
        uint64_t* _values

    cdef void add(self, Py_ssize_t index, uint64_t amount) noexcept nogil

from libc.stdint cimport int64_t, uint32_t

cpdef enum Role:
    ROLE_METRICS = 1
    ROLE_VALIDATOR = 2
    ROLE_ISSUER = 4
    ROLE_ADMIN = 8

cpdef enum Refusal:
    GRANTED = 0
    GRANT_STALE = 1        # key changed or the grant's time is over: authenticate anew
    KEY_DISABLED = 2
    KEY_EXPIRED = 3
    KEY_RATE_LIMITED = 4


cdef class ApiKey:
    cdef:
        readonly str key_id
        readonly str role_name
        readonly int role            # one Role bit
        public bint active
        public int64_t expires_at_ms # 0: never
        readonly uint32_t generation # +1 at every change; a Grant of an older generation is stale
        readonly object networks     # tuple of ipaddress networks, or None: any address
        readonly double rate_per_second  # 0: unlimited
        double _rate_tokens
        int64_t _rate_filled_ms

    cdef bint take(self, int64_t now_ms) noexcept nogil


cdef class Grant:
    cdef:
        readonly ApiKey api_key
        readonly uint32_t generation
        readonly int64_t verified_until_ms

    cdef int state(self, int64_t now_ms) noexcept nogil     # all but the rate
    cdef int check(self, int64_t now_ms) noexcept nogil

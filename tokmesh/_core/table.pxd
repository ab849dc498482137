from libc.stdint cimport int64_t, uint8_t

cdef enum:
    SESSION_JSON_BYTES_MAX = 16384   # no session's JSON is longer; the size of a caller's buffer

# What a writer operation came to. One list for all of them; each operation names those it returns.
cpdef enum Outcome:
    DONE = 0
    INSERTED = 1
    ID_EXISTS = 2
    TOKEN_EXISTS = 3
    FULL = 4
    MISSING = 5
    REVOKED_ALREADY = 6
    ALREADY = 7

cpdef enum Status:
    LIVE = 0
    EXPIRED = 1
    REVOKED = 2

cpdef enum Verdict:
    VERDICT_VALID = 0
    VERDICT_UNKNOWN = 1
    VERDICT_EXPIRED = 2
    VERDICT_REVOKED = 3
    VERDICT_BUSY = 4                 # no answer: a writer in another process stopped half-way; never seen beside the writer


cdef class Table:
    cdef:
        int64_t _tombstone_ttl_ms
        int64_t _tick
        dict _sessions
        dict _tokens
        list _entries
        dict _touched

    # Verdict on the token with this 32-byte hash. VALID writes the session's JSON into `out` (SESSION_JSON_BYTES_MAX bytes) and its
    # length into `written`; `out` NULL: verdict only. touch_ms > 0 also raises last_active to it (beside the writer only).
    cdef int check_token(self, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                         int64_t touch_ms) noexcept nogil

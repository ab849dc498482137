from libc.stdint cimport int64_t, uint8_t, uint32_t

from tokmesh._core.begins cimport Begins
from tokmesh._core.layout cimport SESSION_JSON_BYTES_MAX, Block

cpdef enum Verdict:
    VERDICT_VALID = 0
    VERDICT_UNKNOWN = 1
    VERDICT_EXPIRED = 2
    VERDICT_REVOKED = 3
    # No answer: a writer in another process is paused or dead in the middle of a change. Never met beside the writer, never a no.
    VERDICT_BUSY = 4
    # No answer: the token is of a shard that this table does not hold. Never a no.
    VERDICT_ELSEWHERE = 5


cdef class Table(Begins):
    # Verdict on the token with this 32-byte hash. VALID writes the session's JSON into `out` (SESSION_JSON_BYTES_MAX bytes) and its
    # length into `written`; `out` NULL: verdict only. touch_ms > 0 also raises last_active to it (beside the writer only).
    cdef int check_token(self, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                         int64_t touch_ms) noexcept nogil
    # `rotate`, of the session at an entry, 0 for none.
    cdef int rotate_session(self, uint32_t entry, const uint8_t* hash32, int64_t old_valid_until_ms,
                            int64_t time_ms) noexcept nogil
    cdef void _forget(self, uint32_t entry) noexcept nogil
    cdef int _changeable(self, uint32_t entry) noexcept nogil
    cdef void _finish_change(self, uint32_t entry, int64_t time_ms) noexcept nogil
    cdef void _end_alias(self, uint32_t alias, int64_t time_ms) noexcept nogil
    cdef void _raise_last_active(self, uint32_t entry, int64_t last_active_ms) noexcept nogil
    cdef int _note_origin(self, uint32_t entry, str ip_address, str user_agent) except -1
    cdef bint _is_last_ip(self, const Block* block, const char* ip, Py_ssize_t size) noexcept nogil

from libc.stdint cimport int64_t, uint8_t, uint32_t

from tokmesh._core.layout cimport (
    DEVICE_CHARS_MAX, ESCAPED_MAX, IP_CHARS_MAX, KEY_ID_CHARS_MAX, SESSION_JSON_BYTES_MAX, UA_CHARS_MAX, USER_CHARS_MAX, Block,
    SlotState,
)
from tokmesh._core.views cimport Views

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

cpdef enum Verdict:
    VERDICT_VALID = 0
    VERDICT_UNKNOWN = 1
    VERDICT_EXPIRED = 2
    VERDICT_REVOKED = 3
    # No answer: a writer in another process is paused or dead in the middle of a change. Never met beside the writer, never a no.
    VERDICT_BUSY = 4

# A call's text fields, escaped for JSON.
cdef struct Fields:
    char user[USER_CHARS_MAX * ESCAPED_MAX]
    char device[DEVICE_CHARS_MAX * ESCAPED_MAX]
    char ip[IP_CHARS_MAX * ESCAPED_MAX]
    char user_agent[UA_CHARS_MAX * ESCAPED_MAX]
    char created_by[KEY_ID_CHARS_MAX * ESCAPED_MAX]
    Py_ssize_t user_size
    Py_ssize_t device_size
    Py_ssize_t ip_size
    Py_ssize_t user_agent_size
    Py_ssize_t created_by_size


cdef class Table(Views):
    # Verdict on the token with this 32-byte hash. VALID writes the session's JSON into `out` (SESSION_JSON_BYTES_MAX bytes) and its
    # length into `written`; `out` NULL: verdict only. touch_ms > 0 also raises last_active to it (beside the writer only).
    cdef int check_token(self, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                         int64_t touch_ms) noexcept nogil
    cdef uint32_t _new_block(self, const uint8_t* id16, int64_t created_at_ms, const Fields* fields, bytes data) except? 0
    cdef void _fill_slot(self, uint32_t entry, const uint8_t* hash32, SlotState state, int64_t expires_at_ms,
                         int64_t last_active_ms, uint32_t block, uint32_t idle_seconds) noexcept nogil
    cdef int _changeable(self, uint32_t entry) noexcept nogil
    cdef void _finish_change(self, uint32_t entry, int64_t time_ms) noexcept nogil
    cdef void _end_alias(self, uint32_t alias, int64_t time_ms) noexcept nogil
    cdef void _raise_last_active(self, uint32_t entry, int64_t last_active_ms) noexcept nogil
    cdef int _note_origin(self, uint32_t entry, str ip_address, str user_agent) except -1
    cdef bint _is_last_ip(self, const Block* block, const char* ip, Py_ssize_t size) noexcept nogil

from libc.stdint cimport int64_t, uint8_t, uint32_t

from tokmesh._core.layout cimport (
    DEVICE_CHARS_MAX, ESCAPED_MAX, IP_CHARS_MAX, KEY_ID_CHARS_MAX, UA_CHARS_MAX, USER_CHARS_MAX, SlotState,
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

# A session's text fields, escaped for JSON.
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


cdef class Begins(Views):
    # A new session, version 1, last active when created, and its entry. INSERTED, ID_EXISTS, TOKEN_EXISTS or FULL.
    cdef int begin_session(self, const uint8_t* id16, const uint8_t* hash32, const Fields* fields, int64_t created_at_ms,
                           int64_t expires_at_ms, uint32_t idle_seconds, const char* data, size_t data_size,
                           uint32_t* entry) noexcept nogil
    cdef uint32_t _new_block(self, const uint8_t* id16, int64_t created_at_ms, const Fields* fields, const char* data,
                             size_t data_size) noexcept nogil
    cdef void _fill_slot(self, uint32_t entry, const uint8_t* hash32, SlotState state, int64_t expires_at_ms,
                         int64_t last_active_ms, uint32_t block, uint32_t idle_seconds) noexcept nogil

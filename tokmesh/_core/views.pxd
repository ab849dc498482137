from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.entries cimport Entries, EntryList
from tokmesh._core.layout cimport Slot

cpdef enum Status:
    LIVE = 0
    EXPIRED = 1
    REVOKED = 2

cdef Py_ssize_t escape_field(str text, Py_ssize_t chars_max, char* out) except -1
cdef const uint8_t* fixed_bytes(bytes value, Py_ssize_t size) except NULL


cdef class Views(Entries):
    cdef:
        uint64_t last_backlog        # what the last sweep left over

    cdef Slot* session_slot(self, entry) except NULL
    cdef str _interned_text(self, uint32_t block)
    cdef list _list_entries(self, EntryList which, const char* key, Py_ssize_t size)

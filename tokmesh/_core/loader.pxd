from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from tokmesh._core.table cimport Table

# A verdict on an image.
cdef enum Loaded:
    LOADED = 0
    LOAD_MALFORMED = 1
    LOAD_TWICE = 2                   # its token or its id is in the table already
    LOAD_FULL = 3

# An image's numbers, checked, and where its texts are.
cdef struct Parsed:
    const uint8_t* bytes
    size_t size
    bint is_session
    bint has_alias
    uint16_t sizes[8]
    const char* texts[8]
    uint32_t token_tag
    uint32_t id_tag
    uint32_t user_tag


cdef class Loader:
    cdef:
        Table table
        readonly int64_t count

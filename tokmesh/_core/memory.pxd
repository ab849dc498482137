from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    PAGE_BYTES = 4096
    ZONE_LAYOUT = 1                  # bump when any structure inside any zone changes

cdef enum ZoneKind:
    ZONE_SLOTS = 1
    ZONE_ROWS = 2
    ZONE_ARENA = 3
    ZONE_INDEX = 4
    ZONE_QUEUE = 5

# First bytes of every zone; contents follow at PAGE_BYTES, a zone's own header at ZONE_HEADER_BYTES.
cdef struct ZoneHeader:
    uint64_t magic                   # "TOKMESHZ"
    uint32_t layout
    uint32_t kind
    uint64_t bytes_max
    uint64_t epoch                   # of the table that owns the zone: equal in all its zones, different in any other table

cdef enum:
    ZONE_HEADER_BYTES = 64


cdef class Zone:
    cdef:
        char* base
        readonly size_t bytes_max
        readonly int descriptor

    cdef size_t committed_bytes(self) noexcept nogil
    cdef void release(self, size_t offset, size_t size) noexcept nogil

from libc.stdint cimport uint16_t, uint32_t

from tokmesh._core.arena cimport Arena
from tokmesh._core.index cimport Index

# In the arena, followed by the bytes.
cdef struct InternedString:
    uint32_t reference_count
    uint32_t tag
    uint16_t size
    uint16_t granules
    uint32_t reserved


cdef class Interned:
    cdef:
        Arena arena
        readonly Index index

    cdef uint32_t acquire(self, const char* text, size_t size) noexcept nogil
    cdef void share(self, uint32_t block) noexcept nogil
    cdef void release(self, uint32_t block) noexcept nogil

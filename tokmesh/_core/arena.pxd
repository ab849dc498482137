from libc.stdint cimport uint32_t, uint64_t

from tokmesh._core.memory cimport Zone

cdef enum:
    GRANULE_BYTES = 16
    BLOCK_GRANULES_MAX = 1024        # 16 KiB, the largest block
    FREE_WORDS = 17


cdef inline uint32_t granules_for(size_t size) noexcept nogil:
    return <uint32_t>((size + GRANULE_BYTES - 1) // GRANULE_BYTES)


cdef class Arena:
    cdef:
        readonly Zone zone
        uint64_t granules_max
        uint64_t granules_begun      # everything from here on was never used
        readonly uint64_t granules_free
        uint32_t free_heads[1025]    # by size in granules
        uint64_t free_map[17]        # bit n: free_heads[n] is not empty

    cdef char* at(self, uint32_t block) noexcept nogil
    cdef uint32_t allocate(self, uint32_t granules) noexcept nogil
    cdef void free(self, uint32_t block, uint32_t granules) noexcept nogil
    cdef uint32_t _begin(self, uint32_t granules) noexcept nogil
    cdef uint32_t _unlist(self, uint32_t granules) noexcept nogil
    cdef uint32_t _split(self, uint32_t granules) noexcept nogil

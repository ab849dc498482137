"""The arena: blocks of 16-byte granules in one zone, named by the number of their first granule.

A block is taken from the free list of its exact size, else from fresh memory; once a quarter of the begun memory lies free, or
fresh memory has ended, a larger free block is split instead. Blocks are not joined again. Every operation is bounded by a scan of
FREE_WORDS words. The owner remembers a block's size. Invariant: a granule is in one block, on one free list, or not begun.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from tokmesh._core.memory cimport PAGE_BYTES, ZONE_ARENA, Zone


cdef extern from *:
    int __builtin_ctzll(unsigned long long value) noexcept nogil


cdef class Arena:
    """At most `bytes_max` bytes of blocks. OSError if memory cannot be reserved."""

    def __cinit__(self, uint64_t bytes_max, uint64_t epoch):
        # A reader that follows a block number it should no longer trust still reads inside the mapping.
        self.zone = Zone("arena", ZONE_ARENA, bytes_max + BLOCK_GRANULES_MAX * GRANULE_BYTES, epoch)
        self.granules_max = min((PAGE_BYTES + bytes_max) // GRANULE_BYTES, <uint64_t>0xFFFFFFFE)
        self.granules_begun = PAGE_BYTES // GRANULE_BYTES

    cdef char* at(self, uint32_t block) noexcept nogil:
        return self.zone.base + <size_t>block * GRANULE_BYTES

    cdef uint32_t allocate(self, uint32_t granules) noexcept nogil:
        # 1 … BLOCK_GRANULES_MAX granules; 0 when there is no room for them.
        cdef uint32_t block
        if self.free_heads[granules] != 0:
            return self._unlist(granules)
        cdef bint crowded = self.granules_free * 4 > self.granules_begun
        if not crowded and self.granules_begun + granules <= self.granules_max:
            return self._begin(granules)
        block = self._split(granules)
        if block == 0 and self.granules_begun + granules <= self.granules_max:
            block = self._begin(granules)
        return block

    cdef void free(self, uint32_t block, uint32_t granules) noexcept nogil:
        memcpy(self.at(block), &self.free_heads[granules], sizeof(uint32_t))
        self.free_heads[granules] = block
        self.free_map[granules >> 6] |= <uint64_t>1 << (granules & 63)
        self.granules_free += granules

    cdef uint32_t _begin(self, uint32_t granules) noexcept nogil:
        cdef uint32_t block = <uint32_t>self.granules_begun
        self.granules_begun += granules
        return block

    cdef uint32_t _unlist(self, uint32_t granules) noexcept nogil:
        cdef uint32_t block = self.free_heads[granules]
        memcpy(&self.free_heads[granules], self.at(block), sizeof(uint32_t))
        if self.free_heads[granules] == 0:
            self.free_map[granules >> 6] &= ~(<uint64_t>1 << (granules & 63))
        self.granules_free -= granules
        return block

    cdef uint32_t _split(self, uint32_t granules) noexcept nogil:
        # The smallest free block that is larger; 0 if there is none.
        cdef uint32_t word = (granules + 1) >> 6, larger, block
        cdef uint64_t bits = self.free_map[word] & (~<uint64_t>0 << ((granules + 1) & 63)) if word < FREE_WORDS else 0
        while bits == 0:
            word += 1
            if word >= FREE_WORDS:
                return 0
            bits = self.free_map[word]
        larger = (word << 6) + <uint32_t>__builtin_ctzll(bits)
        block = self._unlist(larger)
        self.free(block + granules, larger - granules)
        return block

    def take(self, uint32_t granules) -> int:
        """A block of `granules`, 0 when there is no room. ValueError outside 1 … BLOCK_GRANULES_MAX."""
        if not 1 <= granules <= BLOCK_GRANULES_MAX:
            raise ValueError("no such block size")
        return self.allocate(granules)

    def give(self, uint32_t block, uint32_t granules) -> None:
        """Frees a block of that size."""
        self.free(block, granules)

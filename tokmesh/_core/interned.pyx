"""Interned strings: user agents and key ids, each stored once in the arena however many sessions carry it.

A string is named by its arena block; 0 is the empty string, which needs none. Each holder counts one reference; the last one
to let go frees the block. A reader that copies a string while it is freed finds out through the sequence of the slot it came from.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from tokmesh._core.arena cimport Arena, granules_for
from tokmesh._core.index cimport Index, Probe, probe_next, probe_start


cdef class Interned:
    """At most `strings_max` distinct strings in `arena`. OSError if memory cannot be reserved."""

    def __cinit__(self, Arena arena not None, bytes seed, strings_max, epoch):
        self.arena = arena
        self.index = Index("interned", seed, strings_max, epoch)

    cdef uint32_t acquire(self, const char* text, size_t size) noexcept nogil:
        # The string's block with one more reference; 0 if there is no room (or `size` is 0). At most 16,000 bytes.
        cdef Probe probe
        cdef InternedString* string
        cdef uint32_t block, tag, granules
        if size == 0:
            return 0
        tag = self.index.tag_of(text, size)
        probe_start(&probe, self.index.zone.base, tag)
        while True:
            block = probe_next(&probe)
            if block == 0:
                break
            string = <InternedString*>self.arena.at(block)
            if string.size == size and memcmp(<char*>string + sizeof(InternedString), text, size) == 0:
                string.reference_count += 1
                return block
        granules = granules_for(sizeof(InternedString) + size)
        block = self.arena.allocate(granules)
        if block == 0:
            return 0
        if not self.index.put(tag, block):
            self.arena.free(block, granules)
            return 0
        string = <InternedString*>self.arena.at(block)
        string.reference_count = 1
        string.tag = tag
        string.size = <uint16_t>size
        string.granules = <uint16_t>granules
        memcpy(<char*>string + sizeof(InternedString), text, size)
        return block

    cdef void share(self, uint32_t block) noexcept nogil:
        if block != 0:
            (<InternedString*>self.arena.at(block)).reference_count += 1

    cdef void release(self, uint32_t block) noexcept nogil:
        cdef InternedString* string
        if block == 0:
            return
        string = <InternedString*>self.arena.at(block)
        string.reference_count -= 1
        if string.reference_count == 0:
            self.index.remove(string.tag, block)
            self.arena.free(block, string.granules)

    def hold(self, bytes text) -> int:
        """The block of `text` with one more reference; 0 if there is no room or it is empty. ValueError above 16,000 bytes."""
        if len(text) > 16000:
            raise ValueError("too long to be interned")
        return self.acquire(text, len(text))

    def drop(self, uint32_t block) -> None:
        """Gives one reference back."""
        self.release(block)

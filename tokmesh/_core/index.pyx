"""An index: keyed hash → number of a thing, which its owner compares with the key.

Open addressing with linear probing over 8-byte cells, load ≤ 3/4. A cell holds 32 bits of a keyed hash and a reference; the tag
also gives the position, so that growing needs no key. Growth, shrinking and clearing out GONE cells are the same act: a second
array is made and every later change moves MIGRATED_CELLS cells into it; no operation is ever longer than that. The emptied pages
are given back piece by piece. Readers, also in other processes, use `probe_*` of index.pxd.

Invariants: one writer; (tag, reference) is in at most one of current array and unmigrated rest of the old; a rebuild ends before
the next must begin (the new array has room for all live cells and one change per MIGRATED_CELLS old ones, below 3/4).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from tokmesh._core.memory cimport PAGE_BYTES, ZONE_HEADER_BYTES, ZONE_INDEX, Zone


cdef extern from "atomics.h" nogil:
    void tm_store_relaxed_u64(uint64_t* p, uint64_t value)
    void tm_store_release_u64(uint64_t* p, uint64_t value)
    void tm_fence_release()

cdef enum:
    CELLS_MIN = 512                  # one page
    MIGRATED_CELLS = 16              # a change
    RELEASED_CELLS = 32768           # 256 KiB of an old array are given back at once


cdef class Index:
    """References for at most `references_max` keys. `seed`: 16 bytes of the hash's key. OSError if memory cannot be reserved."""

    def __cinit__(self, str name, bytes seed, uint64_t references_max, uint64_t epoch):
        if len(seed) != 16:
            raise ValueError("a seed is 16 bytes")
        memcpy(self.key, <const char*>seed, 16)
        self.cells_max = 2 * references_max + CELLS_MIN
        self.region_bytes = (self.cells_max * 8 + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        self.zone = Zone(name, ZONE_INDEX, 2 * self.region_bytes, epoch)
        self.header = <IndexHeader*>(self.zone.base + ZONE_HEADER_BYTES)
        self.header.array = PAGE_BYTES
        self.header.capacity = CELLS_MIN

    cdef uint32_t tag_of(self, const void* data, size_t size) noexcept nogil:
        return <uint32_t>(tm_siphash13(self.key, data, size) >> 32)

    cdef void reserve(self, uint64_t references) noexcept nogil:
        # Makes an index that is still empty as large as it would be with so many references: filling it is then never a rebuild.
        if self.used == 0 and self.header.old_capacity == 0 and references * 2 > self.header.capacity:
            self._open_header()
            tm_store_relaxed_u64(&self.header.capacity, min(references * 2, self.cells_max))
            self._close_header()

    cdef bint put(self, uint32_t tag, uint32_t reference) noexcept nogil:
        # False, and nothing changed, if the index may not hold more keys. The caller knows that the pair is not here yet.
        if (self.live + 1) * 2 > self.cells_max:
            return False
        self.migrate()
        if self.header.old_capacity == 0 and (self.used + 1) * 4 > self.header.capacity * 3:
            self._begin_rebuild()
        self._place(tag, reference)
        self.live += 1
        return True

    cdef void remove(self, uint32_t tag, uint32_t reference) noexcept nogil:
        cdef uint64_t* cell = self._locate(tag, reference)
        if cell != NULL:
            tm_store_release_u64(cell, <uint64_t>tag << 32 | REFERENCE_GONE)
            self.live -= 1
        self.migrate()

    cdef void exchange(self, uint32_t tag, uint32_t reference, uint32_t new_reference) noexcept nogil:
        # The reference under this tag becomes another; 0: there is, or is to be, none.
        if reference == 0:
            self.put(tag, new_reference)
        elif new_reference == 0:
            self.remove(tag, reference)
        else:
            self.redirect(tag, reference, new_reference)

    cdef void redirect(self, uint32_t tag, uint32_t reference, uint32_t new_reference) noexcept nogil:
        cdef uint64_t* cell = self._locate(tag, reference)
        if cell != NULL:
            tm_store_release_u64(cell, <uint64_t>tag << 32 | new_reference)
            tm_store_release_u64(&self.header.sequence, self.header.sequence + 2)

    cdef uint64_t* _locate(self, uint32_t tag, uint32_t reference) noexcept nogil:
        cdef Probe probe
        cdef uint32_t found
        probe_start(&probe, self.zone.base, tag)
        while True:
            found = probe_next(&probe)
            if found == 0:
                return NULL
            if found == reference:
                return <uint64_t*>&probe.cells[(probe.position if probe.position != probe.first else probe.capacity) - 1]

    cdef void _place(self, uint32_t tag, uint32_t reference) noexcept nogil:
        # Into the first cell that is EMPTY or GONE; the load limit makes sure that there is one.
        cdef uint64_t* cells = <uint64_t*>(self.zone.base + self.header.array)
        cdef uint64_t position = home_position(tag, self.header.capacity)
        while cells[position] != CELL_EMPTY and <uint32_t>cells[position] != REFERENCE_GONE:
            position += 1
            if position == self.header.capacity:
                position = 0
        self.used += cells[position] == CELL_EMPTY
        tm_store_release_u64(&cells[position], <uint64_t>tag << 32 | reference)

    cdef void _begin_rebuild(self) noexcept nogil:
        cdef IndexHeader* header = self.header
        cdef uint64_t capacity = max(2 * self.live, header.capacity // 2, <uint64_t>CELLS_MIN)
        cdef uint64_t array = PAGE_BYTES if header.array != PAGE_BYTES else PAGE_BYTES + self.region_bytes
        self._open_header()
        tm_store_relaxed_u64(&header.old_array, header.array)
        tm_store_relaxed_u64(&header.old_capacity, header.capacity)
        tm_store_relaxed_u64(&header.migrated, 0)
        tm_store_relaxed_u64(&header.array, array)
        tm_store_relaxed_u64(&header.capacity, min(capacity, self.cells_max))
        self._close_header()
        self.used = 0

    cdef void migrate(self) noexcept nogil:
        cdef IndexHeader* header = self.header
        cdef uint64_t position = header.migrated, end
        cdef uint64_t cell
        if header.old_capacity == 0:
            return
        end = min(position + MIGRATED_CELLS, header.old_capacity)
        while position < end:
            cell = (<uint64_t*>(self.zone.base + header.old_array))[position]
            if cell != CELL_EMPTY and <uint32_t>cell != REFERENCE_GONE:
                self._place(<uint32_t>(cell >> 32), <uint32_t>cell)
            position += 1
        tm_store_release_u64(&header.migrated, position)
        if position == header.old_capacity:
            self._end_rebuild()
        elif position % RELEASED_CELLS == 0:
            # The step in `sequence` makes a reader look again if it missed because of pages that are now zero.
            tm_store_release_u64(&header.sequence, header.sequence + 2)
            self.zone.release(header.old_array + (position - RELEASED_CELLS) * 8, RELEASED_CELLS * 8)

    cdef void _end_rebuild(self) noexcept nogil:
        cdef IndexHeader* header = self.header
        cdef uint64_t first = header.old_capacity // RELEASED_CELLS * RELEASED_CELLS, rest
        if first != 0 and first == header.old_capacity:
            first -= RELEASED_CELLS
        rest = ((header.old_capacity - first) * 8 + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        self._open_header()
        tm_store_relaxed_u64(&header.old_capacity, 0)
        tm_store_relaxed_u64(&header.migrated, 0)
        self._close_header()
        self.zone.release(header.old_array + first * 8, rest)

    cdef void _open_header(self) noexcept nogil:
        tm_store_relaxed_u64(&self.header.sequence, self.header.sequence + 1)
        tm_fence_release()

    cdef void _close_header(self) noexcept nogil:
        tm_store_release_u64(&self.header.sequence, self.header.sequence + 1)

    cdef double load(self) noexcept nogil:
        return <double>self.used / <double>self.header.capacity

    def tag(self, bytes key) -> int:
        """The 32-bit tag of `key`."""
        return self.tag_of(<const char*>key, len(key))

    def insert(self, uint32_t tag, uint32_t reference) -> bool:
        """Adds a pair that is not in the index; False if it may hold no more."""
        return self.put(tag, reference)

    def erase(self, uint32_t tag, uint32_t reference) -> None:
        """Removes a pair; nothing happens if it is not there."""
        self.remove(tag, reference)

    def replace(self, uint32_t tag, uint32_t reference, uint32_t new_reference) -> None:
        """Makes a pair point elsewhere; nothing happens if it is not there."""
        self.redirect(tag, reference, new_reference)

    def candidates(self, uint32_t tag) -> list[int]:
        """Every reference with this tag."""
        cdef Probe probe
        cdef uint32_t found
        probe_start(&probe, self.zone.base, tag)
        references = []
        while (found := probe_next(&probe)) != 0:
            references.append(found)
        return references

    def capacity(self) -> tuple[int, int]:
        """Cells of the current array; of the array being emptied into it, 0 if none."""
        return self.header.capacity, self.header.old_capacity

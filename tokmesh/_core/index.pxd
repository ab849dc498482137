from libc.stdint cimport uint32_t, uint64_t

from tokmesh._core.memory cimport ZONE_HEADER_BYTES, Zone


cdef extern from "siphash.h" nogil:
    uint64_t tm_siphash13(const uint64_t* key, const void* data, size_t size)

cdef extern from "atomics.h" nogil:
    uint64_t tm_load_acquire_u64(const uint64_t* p)
    uint64_t tm_load_relaxed_u64(const uint64_t* p)
    void tm_fence_acquire()

# A cell is (tag << 32 | reference): EMPTY was never used since the array was made, GONE was. References are 1 … 2^32 - 2.
cdef enum:
    CELL_EMPTY = 0

cdef enum:
    REFERENCE_GONE = 0xFFFFFFFF

# In the zone at ZONE_HEADER_BYTES. `sequence` is odd while the other fields change, except `migrated`, which only grows.
cdef struct IndexHeader:
    uint64_t sequence
    uint64_t array                   # byte offset in the zone of the array that takes insertions
    uint64_t capacity                # its cells
    uint64_t old_array               # the array being emptied into it
    uint64_t old_capacity            # 0: none
    uint64_t migrated                # cells of the old array already copied, from its start

# A look-up under way: first the rest of the old array, then the new one. A key moves by being written to the new array while
# it stays readable in the old one, so this order misses nothing that was there all along.
cdef struct Probe:
    const uint64_t* cells
    const uint64_t* next_cells
    uint64_t capacity
    uint64_t next_capacity
    uint64_t first                   # the cell after the last one: where a run that reaches the end goes on
    uint64_t position
    uint64_t left
    uint64_t sequence
    uint32_t tag


cdef inline uint64_t home_position(uint32_t tag, uint64_t capacity) noexcept nogil:
    return (<uint64_t>tag * capacity) >> 32


cdef inline void probe_start(Probe* probe, const char* zone, uint32_t tag) noexcept nogil:
    cdef const IndexHeader* header = <const IndexHeader*>(zone + ZONE_HEADER_BYTES)
    cdef uint64_t array = 0, old_array = 0, old_capacity = 0, migrated = 0, attempts = 0
    while True:
        probe.sequence = tm_load_acquire_u64(&header.sequence)
        array = tm_load_relaxed_u64(&header.array)
        probe.capacity = tm_load_relaxed_u64(&header.capacity)
        old_array = tm_load_relaxed_u64(&header.old_array)
        old_capacity = tm_load_relaxed_u64(&header.old_capacity)
        migrated = tm_load_relaxed_u64(&header.migrated)
        tm_fence_acquire()
        if not probe.sequence & 1 and probe.sequence == tm_load_relaxed_u64(&header.sequence):
            break
        attempts += 1
        if attempts > 1000000:       # the writer is gone; probe_changed says so
            probe.capacity = old_capacity = 0
            array = 0
            break
    probe.tag = tag
    probe.cells = <const uint64_t*>(zone + array)
    probe.next_cells = NULL
    probe.next_capacity = 0
    if old_capacity != 0:
        probe.next_cells = probe.cells
        probe.next_capacity = probe.capacity
        probe.cells = <const uint64_t*>(zone + old_array)
        probe.capacity = old_capacity
    # What lies before `migrated` is in the new array and may be zeroed already. A run that began there goes on at `migrated`,
    # and so does one that goes around the end: its cells from there on have not moved.
    probe.first = migrated if old_capacity != 0 else 0
    probe.position = max(home_position(tag, probe.capacity), probe.first)
    probe.left = probe.capacity - probe.first


cdef inline uint32_t probe_next(Probe* probe) noexcept nogil:
    # The next reference whose tag fits, 0 when there is none left. Bounded by both capacities, in practice by a few cells.
    cdef uint64_t cell
    while True:
        while probe.left != 0:
            cell = tm_load_acquire_u64(&probe.cells[probe.position])
            if cell == CELL_EMPTY:
                probe.left = 0
                break
            probe.left -= 1
            probe.position += 1
            if probe.position == probe.capacity:
                probe.position = probe.first
            if <uint32_t>(cell >> 32) == probe.tag and <uint32_t>cell != REFERENCE_GONE:
                return <uint32_t>cell
        if probe.next_capacity == 0:
            return 0
        probe.cells = probe.next_cells
        probe.capacity = probe.next_capacity
        probe.next_capacity = 0
        probe.first = 0
        probe.position = home_position(probe.tag, probe.capacity)
        probe.left = probe.capacity


cdef inline bint probe_changed(const Probe* probe, const char* zone) noexcept nogil:
    # Whether a miss must be looked up again, because arrays were exchanged or a reference redirected meanwhile.
    tm_fence_acquire()
    return tm_load_relaxed_u64(&(<const IndexHeader*>(zone + ZONE_HEADER_BYTES)).sequence) != probe.sequence or probe.sequence & 1


cdef class Index:
    cdef:
        readonly Zone zone
        IndexHeader* header
        uint64_t key[2]
        uint64_t cells_max
        uint64_t region_bytes
        uint64_t used                # cells of the current array that are not EMPTY
        readonly uint64_t live

    cdef uint32_t tag_of(self, const void* data, size_t size) noexcept nogil
    cdef void reserve(self, uint64_t references) noexcept nogil
    cdef bint put(self, uint32_t tag, uint32_t reference) noexcept nogil
    cdef void remove(self, uint32_t tag, uint32_t reference) noexcept nogil
    cdef void exchange(self, uint32_t tag, uint32_t reference, uint32_t new_reference) noexcept nogil
    cdef void redirect(self, uint32_t tag, uint32_t reference, uint32_t new_reference) noexcept nogil
    cdef void migrate(self) noexcept nogil
    cdef double load(self) noexcept nogil
    cdef uint64_t* _locate(self, uint32_t tag, uint32_t reference) noexcept nogil
    cdef void _place(self, uint32_t tag, uint32_t reference) noexcept nogil
    cdef void _begin_rebuild(self) noexcept nogil
    cdef void _end_rebuild(self) noexcept nogil
    cdef void _open_header(self) noexcept nogil
    cdef void _close_header(self) noexcept nogil

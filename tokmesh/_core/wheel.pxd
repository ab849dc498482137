from libc.stdint cimport uint32_t, uint64_t

from tokmesh._core.layout cimport Row, Slot

cdef enum:
    LEVEL_BUCKETS = 256
    DUE_BUCKET = 1024                # 4 levels of 256, then one list of what has become due from each level


cdef class Wheel:
    cdef:
        Slot* slots
        Row* rows
        readonly uint32_t tick       # every tick up to this one has been taken from the buckets
        readonly uint64_t size       # entries linked
        uint32_t heads[1028]
        uint32_t sizes[1028]
        uint64_t occupied[16]        # a bit a bucket, 4 words a level

    cdef void link(self, uint32_t entry, uint32_t due_tick) noexcept nogil
    cdef void unlink(self, uint32_t entry) noexcept nogil
    cdef uint32_t pop(self, uint32_t now_tick) noexcept nogil
    cdef uint64_t backlog(self, uint32_t now_tick) noexcept nogil
    cdef void start_at(self, uint32_t tick) noexcept nogil
    cdef uint32_t _list_of(self, uint32_t entry) noexcept nogil
    cdef bint _step(self, uint32_t now_tick) noexcept nogil
    cdef int _next_occupied(self, uint32_t level, uint32_t digit) noexcept nogil
    cdef void _make_due(self, uint32_t level, uint32_t bucket) noexcept nogil

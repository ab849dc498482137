"""A hierarchical timer wheel: one-second ticks, four levels of 256 buckets, doubly linked through the rows of the entries.

An entry lies on the level of the highest byte in which its tick differs from the current one, in the bucket of that byte. When
time reaches the start of a bucket its whole list becomes due at once, in O(1); `pop` hands the entries out one by one, and its
caller fires each or links it again, which is how entries descend a level and how deadlines that have moved away are found. So
the caller's budget bounds all the work, and nothing is scanned; empty time is skipped through the bit maps.

Invariants: an entry is in one list or none (wheel_prev == 0); a list's head has wheel_prev LIST_HEAD; buckets of a level at or
before the current byte of that level are empty, their entries being in that level's due list; time moves only while all due
lists are empty. A slot keeps the bucket that its entry was linked into.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from tokmesh._core.layout cimport Row


cdef extern from *:
    int __builtin_clz(unsigned int value) noexcept nogil
    int __builtin_ctzll(unsigned long long value) noexcept nogil

cdef enum:
    WHEEL_LEVELS = 4
    LIST_HEAD = 0xFFFFFFFF


cdef class Wheel:
    """Empty, at tick 0. The owner sets `slots` and `rows` before the first use and keeps them mapped."""

    cdef void start_at(self, uint32_t tick) noexcept nogil:
        # An empty wheel may jump ahead for free, so that the first entries need no descent from the topmost level.
        if self.size == 0 and tick > self.tick:
            self.tick = tick

    cdef void link(self, uint32_t entry, uint32_t due_tick) noexcept nogil:
        cdef uint32_t level, bucket = DUE_BUCKET
        cdef Row* row = &self.rows[entry]
        if due_tick > self.tick:
            level = <uint32_t>(31 - __builtin_clz(due_tick ^ self.tick)) >> 3
            bucket = level * LEVEL_BUCKETS + ((due_tick >> (8 * level)) & 255)
            self.occupied[bucket >> 6] |= <uint64_t>1 << (bucket & 63)
        row.wheel_prev = LIST_HEAD
        row.wheel_next = self.heads[bucket]
        if row.wheel_next != 0:
            self.rows[row.wheel_next].wheel_prev = entry
        self.slots[entry].wheel_bucket = <uint16_t>bucket
        self.heads[bucket] = entry
        self.sizes[bucket] += 1
        self.size += 1

    cdef uint32_t _list_of(self, uint32_t entry) noexcept nogil:
        cdef uint32_t bucket = self.slots[entry].wheel_bucket
        cdef uint32_t level = bucket >> 8
        if bucket < DUE_BUCKET and (bucket & 255) <= ((self.tick >> (8 * level)) & 255):
            return DUE_BUCKET + level
        return bucket

    cdef void unlink(self, uint32_t entry) noexcept nogil:
        cdef Row* row = &self.rows[entry]
        cdef uint32_t bucket
        if row.wheel_prev == 0:
            return
        bucket = self._list_of(entry)
        if row.wheel_next != 0:
            self.rows[row.wheel_next].wheel_prev = row.wheel_prev
        if row.wheel_prev == <uint32_t>LIST_HEAD:
            self.heads[bucket] = row.wheel_next
            if row.wheel_next == 0 and bucket < DUE_BUCKET:
                self.occupied[bucket >> 6] &= ~(<uint64_t>1 << (bucket & 63))
        else:
            self.rows[row.wheel_prev].wheel_next = row.wheel_next
        row.wheel_prev = row.wheel_next = 0
        self.sizes[bucket] -= 1
        self.size -= 1

    cdef uint32_t pop(self, uint32_t now_tick) noexcept nogil:
        # The next entry whose list is due at `now_tick`, unlinked; 0 when there is none. The caller fires it or links it again.
        cdef uint32_t entry
        cdef int level
        while True:
            for level in range(WHEEL_LEVELS):
                entry = self.heads[DUE_BUCKET + level]
                if entry != 0:
                    self.unlink(entry)
                    return entry
            if not self._step(now_tick):
                return 0

    cdef bint _step(self, uint32_t now_tick) noexcept nogil:
        # Moves time to the next occupied bucket and makes it due; False when that lies after `now_tick`, which is then reached.
        cdef uint32_t digit, next_tick
        cdef int level, found
        for level in range(WHEEL_LEVELS):
            digit = (self.tick >> (8 * level)) & 255
            found = self._next_occupied(level, digit)
            if found >= 0:
                next_tick = <uint32_t>((<uint64_t>self.tick >> (8 * level + 8)) << (8 * level + 8))
                next_tick |= <uint32_t>found << (8 * level)
                if next_tick > now_tick:
                    break
                self.tick = next_tick
                self._make_due(level, level * LEVEL_BUCKETS + <uint32_t>found)
                return True
        if now_tick > self.tick:
            self.tick = now_tick
        return False

    cdef int _next_occupied(self, uint32_t level, uint32_t digit) noexcept nogil:
        # The first occupied bucket of the level after `digit`; -1 when there is none.
        cdef uint32_t start = digit + 1
        cdef uint32_t word = start >> 6
        cdef uint64_t bits
        if word >= 4:
            return -1
        bits = self.occupied[level * 4 + word] & (~<uint64_t>0 << (start & 63))
        while bits == 0:
            word += 1
            if word == 4:
                return -1
            bits = self.occupied[level * 4 + word]
        return <int>(word * 64) + __builtin_ctzll(bits)

    cdef void _make_due(self, uint32_t level, uint32_t bucket) noexcept nogil:
        self.heads[DUE_BUCKET + level] = self.heads[bucket]
        self.sizes[DUE_BUCKET + level] = self.sizes[bucket]
        self.heads[bucket] = self.sizes[bucket] = 0
        self.occupied[bucket >> 6] &= ~(<uint64_t>1 << (bucket & 63))

    cdef uint64_t backlog(self, uint32_t now_tick) noexcept nogil:
        # Entries in lists that are due at `now_tick`: 0 exactly when `pop` would find none; some may have later deadlines.
        cdef uint64_t count = 0, digit
        cdef int level
        for level in range(WHEEL_LEVELS):
            count += self.sizes[DUE_BUCKET + level]
            digit = (<uint64_t>self.tick >> (8 * level)) + 1
            while digit & 255 != 0 and digit << (8 * level) <= now_tick:
                count += self.sizes[level * LEVEL_BUCKETS + (digit & 255)]
                digit += 1
        return count

"""Group commit without the GIL: records gather in memory while the group before them is being written and synced.

Two threads. The loop's puts records and reads how many are decided; the writer's runs: it takes what has gathered as one group,
writes it as one frame, syncs, and counts it as decided, over and over, and comes back to Python only when something asks for
judgement (no room, an error, time to do something else). Records are counted in the order they were put, and put ≥ taken ≥ decided.

Invariants: a record is decided once, in order; one that `run` decides is written and, with `sync`, durable. Each increase of
`decided` is followed by a byte on the descriptor `fileno`, so that a loop that waits for it misses none. What one turn of the loop
puts becomes one group: a writer that has nothing else to do waits for the `wake` at its end, though not longer than TURN_WAIT_NS.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.time cimport timespec

from tokmesh._core.streamed cimport StreamedBatch
from tokmesh._core.tail cimport Tail
from tokmesh._core.wal cimport RECORD_HEADER_SIZE


cdef extern from "platform.h" nogil:
    int64_t tm_awake_ns()
    void tm_put32(uint8_t* out, uint32_t value)
    uint32_t tm_get32(const uint8_t* data)

cdef extern from "atomics.h" nogil:
    uint64_t tm_load_acquire_u64(const uint64_t* p)
    void tm_store_release_u64(uint64_t* p, uint64_t value)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_condattr_init(pthread_condattr_t* attributes)
    int pthread_condattr_setclock(pthread_condattr_t* attributes, int clock)
    int pthread_cond_init(pthread_cond_t* condition, const pthread_condattr_t* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* until)

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t* value)

cdef enum:
    GROUP_RECORDS_MAX = 1024
    # With 64 clients that create sessions a group is 29 records instead of 14, and a create costs 25 µs instead of 28.
    TURN_WAIT_NS = 500000
    KEPT_BYTES = 1 << 20       # a buffer that grew beyond it is given back when it is empty


cdef class Commits:
    """An empty queue. group_bytes_max: of the payload of a frame; a record with its 4 bytes of length must fit."""

    def __cinit__(self, size_t group_bytes_max):
        cdef pthread_condattr_t attributes
        self._event = -1
        self._group_bytes_max = group_bytes_max
        pthread_mutex_init(&self._mutex, NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self._wake, &attributes)
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __dealloc__(self):
        if self._event >= 0:
            os.close(self._event)
        pthread_cond_destroy(&self._wake)
        pthread_mutex_destroy(&self._mutex)
        free_records(&self._gathering)
        free_records(&self._batch)

    # ---- the loop's thread ---------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """An eventfd that is readable when more has been decided since `acknowledge`."""
        return self._event

    def put(self, bytes record not None, bint reserved) -> bool:
        """Adds a record to what gathers; whether it is the first of a turn, at whose end `wake` is due. reserved: it may use room
        kept back for its kind.

        ValueError when it is larger than any frame, MemoryError; then it was not added."""
        cdef size_t size = <size_t>PyBytes_GET_SIZE(record)
        cdef bint added, first
        if size + RECORD_HEADER_SIZE > self._group_bytes_max:
            raise ValueError("a record is larger than a frame")
        pthread_mutex_lock(&self._mutex)
        added = add_record(&self._gathering, <const uint8_t*>PyBytes_AS_STRING(record), size, reserved)
        if added:
            self._put += 1
        first = not self._turn_open
        self._turn_open = True
        pthread_mutex_unlock(&self._mutex)
        if not added:
            raise MemoryError()
        return first

    def put_all(self, StreamedBatch batch not None) -> bool:
        """Adds all records of a batch, none of which may use reserved room; the rest as `put`."""
        cdef bint added, first
        if batch.largest + RECORD_HEADER_SIZE > self._group_bytes_max:
            raise ValueError("a record is larger than a frame")
        pthread_mutex_lock(&self._mutex)
        added = add_records(&self._gathering, batch.bytes, batch.size, batch.count)
        if added:
            self._put += batch.count
        first = not self._turn_open
        self._turn_open = True
        pthread_mutex_unlock(&self._mutex)
        if not added:
            raise MemoryError()
        return first

    def wake(self) -> None:
        """The turn that put records is over: they may go."""
        pthread_mutex_lock(&self._mutex)
        self._turn_open = False
        if self._idle:
            self._idle = False
            pthread_cond_signal(&self._wake)
        pthread_mutex_unlock(&self._mutex)

    def acknowledge(self) -> int:
        """How many records were decided so far; the descriptor then waits for more."""
        cdef uint64_t ignored = 0
        eventfd_read(self._event, &ignored)
        return tm_load_acquire_u64(&self._decided)

    # ---- any thread ----------------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Makes the next `run`, or the one under way, come back when its group is done."""
        pthread_mutex_lock(&self._mutex)
        self._interrupted = True
        self._idle = False
        pthread_cond_signal(&self._wake)
        pthread_mutex_unlock(&self._mutex)

    @property
    def pending(self) -> int:
        """Records put and not yet taken."""
        pthread_mutex_lock(&self._mutex)
        cdef uint64_t pending = self._put - self._taken
        pthread_mutex_unlock(&self._mutex)
        return pending

    # ---- the writer's thread -------------------------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """Records taken so far: those with a lower number are not waiting any more."""
        return self._taken

    @property
    def decided(self) -> int:
        """Records decided so far."""
        return self._decided

    def run(self, Tail tail not None, int64_t limit, bint sync, int64_t wait_ns) -> int:
        """Writes group after group at `tail`, below offset `limit`, for `wait_ns`, one at least if one waits; the Stop that
        ended it."""
        cdef int stop
        with nogil:
            stop = self._run(tail, limit, sync, tm_awake_ns() + wait_ns)
        return stop

    def wait(self, int64_t wait_ns) -> None:
        """Returns when records wait, after `interrupt`, or when `wait_ns` have passed."""
        with nogil:
            self._await_batch(tm_awake_ns() + wait_ns)

    def take(self) -> list[tuple[bytes, bool]]:
        """The next group, not to be waited for: (record, reserved) each, [] when nothing waits. It is yet to be decided."""
        cdef size_t size = 0, at, length
        cdef uint32_t position, count
        self._await_batch(0)
        count = self._measure(&size)
        at = self._batch_at
        group = []
        for position in range(count):
            length = tm_get32(self._batch.bytes + at)
            record = PyBytes_FromStringAndSize(<const char*>self._batch.bytes + at + RECORD_HEADER_SIZE, <Py_ssize_t>length)
            group.append((record, bool(self._batch.reserved[self._batch_taken + position])))
            at += RECORD_HEADER_SIZE + length
        self._consume(count, size)
        return group

    def decide(self, uint64_t count) -> None:
        """The next `count` records that were taken are decided."""
        assert self._decided + count <= self._taken
        self._decide(count)

    # ---- parts of the above, without the GIL ---------------------------------------------------------------------------------

    cdef int _run(self, Tail tail, int64_t limit, bint sync, int64_t deadline_ns) noexcept nogil:
        cdef size_t size = 0
        cdef uint32_t count
        cdef int stop
        while True:    # ends at the deadline
            stop = self._await_batch(deadline_ns)
            if stop >= 0:
                return stop
            count = self._measure(&size)
            if tail.offset + tail.frame_overhead + <int64_t>size > limit:
                return STOP_ROOM
            self.error_number = tail.append(self._batch.bytes + self._batch_at, size, count)
            if self.error_number != 0:
                return STOP_WRITE
            self._consume(count, size)
            if sync:
                self.error_number = tail.make_durable()
                if self.error_number != 0:
                    return STOP_SYNC
            self._decide(count)
            if tm_awake_ns() >= deadline_ns:
                return STOP_TIME

    cdef int _await_batch(self, int64_t deadline_ns) noexcept nogil:
        # -1 when the batch has records, else why not. deadline_ns: 0 to look without waiting, at the records alone.
        cdef bint waited = False
        cdef Records emptied
        cdef int stop = -1
        pthread_mutex_lock(&self._mutex)
        while True:    # each turn is a wake or the deadline
            if self._interrupted and deadline_ns != 0:
                self._interrupted = False
                stop = STOP_ASKED
            elif self._batch_taken < self._batch.count:
                pass
            elif self._gathering.count != 0 and self._turn_open and deadline_ns != 0 and not waited:
                waited = True
                self._sleep(tm_awake_ns() + TURN_WAIT_NS)
                continue
            elif self._gathering.count != 0:
                emptied = self._batch
                self._batch = self._gathering
                self._gathering = emptied
                clear_records(&self._gathering)
                self._batch_at = self._batch_taken = 0
            elif tm_awake_ns() < deadline_ns:
                self._sleep(deadline_ns)
                continue
            else:
                stop = STOP_TIME
            break
        self._idle = False
        pthread_mutex_unlock(&self._mutex)
        return stop

    cdef void _sleep(self, int64_t until_ns) noexcept nogil:
        # With the mutex, which is free meanwhile: until a signal, or the time.
        cdef timespec until
        until.tv_sec = until_ns // 1000000000
        until.tv_nsec = until_ns % 1000000000
        self._idle = True
        pthread_cond_timedwait(&self._wake, &self._mutex, &until)

    cdef uint32_t _measure(self, size_t* size) noexcept nogil:
        # Records, and bytes, of the next group: as many as one frame takes.
        cdef size_t length
        cdef uint32_t count = 0
        size[0] = 0
        while self._batch_taken + count < self._batch.count and count < GROUP_RECORDS_MAX:
            length = RECORD_HEADER_SIZE + tm_get32(self._batch.bytes + self._batch_at + size[0])
            if size[0] + length > self._group_bytes_max:
                break
            size[0] += length
            count += 1
        return count

    cdef void _consume(self, uint32_t count, size_t size) noexcept nogil:
        self._batch_at += size
        self._batch_taken += count
        pthread_mutex_lock(&self._mutex)
        self._taken += count
        pthread_mutex_unlock(&self._mutex)

    cdef void _decide(self, uint64_t count) noexcept nogil:
        if count != 0:
            tm_store_release_u64(&self._decided, self._decided + count)
            eventfd_write(self._event, 1)


cdef bint add_record(Records* records, const uint8_t* data, size_t size, bint reserved) noexcept nogil:
    if not make_room(records, RECORD_HEADER_SIZE + size, 1):
        return False
    tm_put32(records.bytes + records.size, <uint32_t>size)
    memcpy(records.bytes + records.size + RECORD_HEADER_SIZE, data, size)
    records.reserved[records.count] = reserved
    records.size += RECORD_HEADER_SIZE + size
    records.count += 1
    return True


cdef bint add_records(Records* records, const uint8_t* bytes, size_t size, uint32_t count) noexcept nogil:
    # bytes: as `Records` has them.
    if count == 0:
        return True
    if not make_room(records, size, count):
        return False
    memcpy(records.bytes + records.size, bytes, size)
    memset(records.reserved + records.count, 0, count)
    records.size += size
    records.count += count
    return True


cdef bint make_room(Records* records, size_t size, uint32_t count) noexcept nogil:
    # For so many bytes and records more.
    cdef size_t needed = records.size + size
    cdef uint32_t count_needed = records.count + count
    cdef void* grown
    if needed > records.capacity:
        needed = max(needed, 2 * records.capacity, <size_t>65536)
        grown = realloc(records.bytes, needed)
        if grown == NULL:
            return False
        records.bytes = <uint8_t*>grown
        records.capacity = needed
    if count_needed > records.reserved_capacity:
        count_needed = max(count_needed, 2 * records.reserved_capacity, <uint32_t>GROUP_RECORDS_MAX)
        grown = realloc(records.reserved, count_needed)
        if grown == NULL:
            return False
        records.reserved = <uint8_t*>grown
        records.reserved_capacity = count_needed
    return True


cdef void clear_records(Records* records) noexcept nogil:
    if records.capacity > KEPT_BYTES:
        free_records(records)
    records.size = 0
    records.count = 0


cdef void free_records(Records* records) noexcept nogil:
    free(records.bytes)
    free(records.reserved)
    memset(records, 0, sizeof(Records))

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.tail cimport Tail


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


cpdef enum Stop:
    STOP_TIME        # the time asked for has passed
    STOP_ASKED       # `interrupt` was called
    STOP_ROOM        # the next group does not fit below the limit; it was not taken
    STOP_WRITE       # the next group could not be written; it was not taken
    STOP_SYNC        # the last group was written, and its sync failed: `error_number`


cdef struct Records:
    uint8_t* bytes         # per record: length u32, its bytes
    size_t size
    size_t capacity
    uint8_t* reserved      # per record: 1 if it may use reserved room
    uint32_t count
    uint32_t reserved_capacity


cdef class Commits:
    cdef:
        Records _gathering         # by the loop, under the mutex
        Records _batch             # the writer's own
        size_t _batch_at
        uint32_t _batch_taken
        uint64_t _put
        uint64_t _taken
        uint64_t _decided          # read without the mutex
        size_t _group_bytes_max
        bint _idle
        bint _turn_open            # the loop has put records since the last `wake`
        bint _interrupted
        int _event
        readonly int error_number
        pthread_mutex_t _mutex
        pthread_cond_t _wake

    cdef int _run(self, Tail tail, int64_t limit, bint sync, int64_t deadline_ns) noexcept nogil
    cdef int _await_batch(self, int64_t deadline_ns) noexcept nogil
    cdef void _sleep(self, int64_t until_ns) noexcept nogil
    cdef uint32_t _measure(self, size_t* size) noexcept nogil
    cdef void _consume(self, uint32_t count, size_t size) noexcept nogil
    cdef void _decide(self, uint64_t count) noexcept nogil

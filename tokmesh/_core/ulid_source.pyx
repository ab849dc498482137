"""Identifiers in order: ULIDs, each greater than the one before."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tokmesh._core.layout cimport SHARD_COUNT
from tokmesh._core.random_source cimport RandomSource
from tokmesh._core.text cimport tm_load_be64, tm_store_be64

cdef enum:
    ULID_BYTES = 16
    TIME_BITS = 48


cdef class UlidSource:
    """Makes ULIDs: 48 bits of Unix ms, 80 bits random, each greater than the one before.

    Within one millisecond, or when `now_ms` goes back, the next value is the last one plus a random step of 1..2**32, so
    that a public id still says little about its neighbours.
    """

    def __init__(self, RandomSource random not None):
        self._random = random
        self._last_ms = -1

    def make(self, int64_t now_ms, int shard=-1) -> bytes:
        """The next ULID as 16 bytes; `now_ms` is Unix ms. shard: that it is to be of, 0..63; -1: any. OverflowError beyond the last
        that there is."""
        cdef const uint8_t* random
        cdef uint64_t step, last = self._low
        if now_ms > self._last_ms:
            if now_ms >> TIME_BITS:
                raise OverflowError("a time beyond 48 bits")
            random = self._random.next(10)
            self._high = <uint64_t>now_ms << 16 | random[0] << 8 | random[1]
            self._low = tm_load_be64(random + 2)
        else:
            random = self._random.next(4)
            step = 1 + (<uint64_t>random[0] << 24 | random[1] << 16 | random[2] << 8 | random[3])
            self._low += step
            if 0 <= shard and self._low // SHARD_COUNT == last // SHARD_COUNT:
                self._low += SHARD_COUNT    # its last bits are about to be the shard's
            if self._low < last:    # a carry out of the random part moves the time on by a millisecond: still in order
                self._high += 1
                if self._high == 0:
                    raise OverflowError("no ULID is greater than the last")
        if 0 <= shard:
            self._low = self._low // SHARD_COUNT * SHARD_COUNT + <uint64_t>shard % SHARD_COUNT
        self._last_ms = <int64_t>(self._high >> 16)
        cdef bytes made = PyBytes_FromStringAndSize(NULL, ULID_BYTES)
        tm_store_be64(<uint8_t*>PyBytes_AS_STRING(made), self._high)
        tm_store_be64(<uint8_t*>PyBytes_AS_STRING(made) + 8, self._low)
        return made

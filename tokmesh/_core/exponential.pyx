"""Histograms with exponential buckets: what Prometheus calls native, schema 3, of durations in nanoseconds.

Bucket i holds the values in (2^((i-1)/8), 2^(i/8)] seconds. Values are whole nanoseconds, so that a bound in whole nanoseconds,
rounded down, puts each of them on the same side as the true bound does: buckets are exact, for every value of 64 bits, and nothing
is derived from coarser ones. The value 0 has a bucket of its own. Observing is O(1) by the log-linear grid of histogram.pyx.

A row takes 4 KB, of which only touched pages cost memory. One worker writes, any scrape reads.
"""

import functools
import math

from libc.stdint cimport uint16_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

cdef extern from "histogram_grid.h":
    int tm_histogram_cell(unsigned long long value) noexcept nogil
    unsigned long long tm_histogram_cell_start(int cell) noexcept nogil
SCHEMA = 3
INDEX_MIN = -239    # holds 1 ns
INDEX_MAX = 273     # holds 2**64 - 1 ns

cdef enum:
    BUCKET_COUNT = 513    # INDEX_MAX - INDEX_MIN + 1
    ROW_SIZE = 514        # and the count of zeros
    CELL_COUNT = 496
    FIRST_INDEX = -239


@functools.cache
def bounds_ns() -> tuple[int, ...]:
    """⌊10⁹ · 2^(i/8)⌋ for every bucket, the last cut to 64 bits: the eighth root of 10⁷² · 2^i, in whole numbers."""
    bounds = []
    for index in range(INDEX_MIN, INDEX_MAX + 1):
        eighth_power = 10**72 << index if index >= 0 else 10**72 >> -index
        bounds.append(min(math.isqrt(math.isqrt(math.isqrt(eighth_power))), 2**64 - 1))
    return tuple(bounds)


cdef class ExponentialBlock:
    """`rows` histograms, all empty."""

    def __cinit__(self, Py_ssize_t rows):
        if rows <= 0:
            raise ValueError("a block needs at least one row")
        self.rows = rows
        self._mapped_bytes = (BUCKET_COUNT + rows * ROW_SIZE) * sizeof(uint64_t)
        cdef void* memory = mmap(NULL, self._mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError()
        self._bounds = <uint64_t*>memory
        self._values = self._bounds + BUCKET_COUNT
        for position, bound in enumerate(bounds_ns()):
            self._bounds[position] = bound
        cdef uint16_t bucket = 0
        cdef int cell
        for cell in range(CELL_COUNT):
            while self._bounds[bucket] < tm_histogram_cell_start(cell):
                bucket += 1
            self._first_bucket[cell] = bucket

    def __dealloc__(self):
        if self._bounds != NULL:
            munmap(self._bounds, self._mapped_bytes)

    cdef void observe(self, Py_ssize_t row, uint64_t value_ns) noexcept nogil:
        cdef uint64_t* counts = self._values + row * ROW_SIZE
        cdef Py_ssize_t bucket
        if value_ns == 0:
            counts[BUCKET_COUNT] += 1
            return
        bucket = self._first_bucket[tm_histogram_cell(value_ns)]
        while value_ns > self._bounds[bucket]:    # ends: the last bound is the largest value
            bucket += 1
        counts[bucket] += 1

    def snapshot(self, Py_ssize_t row) -> tuple[int, list[tuple[int, int]]]:
        """The number of zeros, and (index, count) of every bucket that is not empty, in order; IndexError outside the block."""
        if not 0 <= row < self.rows:
            raise IndexError(row)
        cdef uint64_t* counts = self._values + row * ROW_SIZE
        cdef Py_ssize_t bucket
        found = []
        for bucket in range(BUCKET_COUNT):
            if counts[bucket]:
                found.append((FIRST_INDEX + bucket, counts[bucket]))
        return counts[BUCKET_COUNT], found

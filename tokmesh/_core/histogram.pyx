"""Histograms with fixed buckets: observing is O(1), allocation-free and needs no lock.

A value finds its bucket through a log-linear grid: eight cells an octave, so that a cell holds at most a few bounds and a walk
from the cell's first bucket ends within them. Bounds are exact: a value equal to a bound counts in that bound's bucket
(`le`, as Prometheus defines it). One block holds many rows (one a label set) with the same bounds, in a shared mapping;
one worker writes it, any scrape reads it. Values are unsigned integers in the unit of the bounds (nanoseconds, records, bytes).

A block may keep two things more, which cost nothing until they are asked for: the same observations in exponential buckets
(`enable_native`), and the last exemplar of each bucket, for requests that are traced.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from tokmesh._core.exponential cimport ExponentialBlock

cdef enum:
    CELL_COUNT = 496

# As docs/metrics.md says: 0.1 ms … 10 s with 0.1 s and 5 s exact.
LATENCY_BOUNDS_NS = tuple(
    int(ms * 1_000_000)
    for ms in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
)


cdef class HistogramBlock:
    """`rows` histograms over `bounds`: strictly increasing positive integers, at most 64 of them."""

    def __cinit__(self, rows, bounds):
        bounds = tuple(bounds)
        if rows <= 0 or not 0 < len(bounds) <= 64:
            raise ValueError("a block needs at least one row and 1 to 64 bounds")
        if bounds[0] <= 0 or any(low >= high for low, high in zip(bounds, bounds[1:])):
            raise ValueError("bounds must be positive and strictly increasing")
        self.rows = rows
        self.bounds = bounds
        self.native = None
        self._exemplars = {}
        self._bound_count = len(bounds)
        self._row_size = self._bound_count + 2
        self._mapped_bytes = (self._bound_count + self.rows * self._row_size) * sizeof(uint64_t)
        cdef void* memory = mmap(NULL, self._mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError()
        self._bounds = <uint64_t*>memory
        self._values = self._bounds + self._bound_count
        for index, bound in enumerate(bounds):
            self._bounds[index] = bound
        cdef uint8_t bucket = 0
        cdef int cell
        for cell in range(CELL_COUNT):
            while bucket < self._bound_count and self._bounds[bucket] < tm_histogram_cell_start(cell):
                bucket += 1
            self._first_bucket[cell] = bucket

    def __dealloc__(self):
        if self._bounds != NULL:
            munmap(self._bounds, self._mapped_bytes)

    cdef void observe(self, Py_ssize_t row, uint64_t value) noexcept nogil:
        cdef uint64_t* counts = self._values + row * self._row_size
        cdef Py_ssize_t bucket = self._first_bucket[tm_histogram_cell(value)]
        while bucket < self._bound_count and value > self._bounds[bucket]:
            bucket += 1
        counts[bucket] += 1
        counts[self._bound_count + 1] += value
        if self.native is not None:
            self.native.observe(row, value)

    cdef bint is_empty(self, Py_ssize_t row) noexcept nogil:
        cdef uint64_t* counts = self._values + row * self._row_size
        cdef Py_ssize_t bucket
        for bucket in range(self._bound_count + 1):
            if counts[bucket]:
                return False
        return True

    def enable_native(self) -> None:
        """Counts in exponential buckets too, from now on. Only before the first observation, so that both always agree."""
        if self.native is None:
            for row in range(self.rows):
                assert self.is_empty(row), "observations were made before"
            self.native = ExponentialBlock(self.rows)

    cpdef int note_exemplar(self, Py_ssize_t row, uint64_t value, str trace_id, int64_t at_ms) except -1:
        """Keeps `trace_id` (32 hex digits) as the last exemplar of the bucket of `value`, which was observed at `at_ms` (Unix
        time). IndexError outside the block."""
        if not 0 <= row < self.rows:
            raise IndexError(row)
        assert trace_id is not None and len(trace_id) == 32, "a trace id has 32 hex digits"
        cdef Py_ssize_t bucket = self._first_bucket[tm_histogram_cell(value)]
        while bucket < self._bound_count and value > self._bounds[bucket]:
            bucket += 1
        self._exemplars[(row, bucket)] = (trace_id, value, at_ms)
        return 0

    def exemplars(self, Py_ssize_t row) -> dict[int, tuple[str, int, int]]:
        """The last exemplars of a row: position of the bucket (one beyond the bounds is +Inf) → trace id, value, Unix ms."""
        found = {}
        if self._exemplars:
            for bucket in range(self._bound_count + 1):
                exemplar = self._exemplars.get((row, bucket))
                if exemplar is not None:
                    found[bucket] = exemplar
        return found

    def record(self, Py_ssize_t row, uint64_t value) -> None:
        """Counts `value` in `row`; IndexError outside the block."""
        if not 0 <= row < self.rows:
            raise IndexError(row)
        self.observe(row, value)

    def snapshot(self, Py_ssize_t row) -> tuple[list[int], int]:
        """Cumulative counts, one a bound and one for +Inf (the number of observations), and the sum of all values."""
        if not 0 <= row < self.rows:
            raise IndexError(row)
        cdef uint64_t* counts = self._values + row * self._row_size
        cdef uint64_t running = 0
        cumulative = []
        for index in range(self._bound_count + 1):
            running += counts[index]
            cumulative.append(running)
        return cumulative, counts[self._bound_count + 1]

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tokmesh._core.exponential cimport ExponentialBlock

cdef extern from "histogram_grid.h":
    int tm_histogram_cell(unsigned long long value) noexcept nogil
    unsigned long long tm_histogram_cell_start(int cell) noexcept nogil


cdef class HistogramBlock:
    cdef:
        readonly Py_ssize_t rows
        readonly tuple bounds
        readonly ExponentialBlock native    # the same observations in fine buckets; None unless it was asked for
        dict _exemplars                     # (row, bucket) → the last exemplar there
        Py_ssize_t _bound_count
        Py_ssize_t _row_size                # u64 per row: one count a bucket, one for +Inf, one sum
        Py_ssize_t _mapped_bytes
        uint64_t* _bounds
        uint64_t* _values
        uint8_t _first_bucket[496]          # cell → first bucket whose bound is ≥ the cell's lowest value

    cdef void observe(self, Py_ssize_t row, uint64_t value) noexcept nogil
    cdef bint is_empty(self, Py_ssize_t row) noexcept nogil
    cpdef int note_exemplar(self, Py_ssize_t row, uint64_t value, str trace_id, int64_t at_ms) except -1

from libc.stdint cimport uint8_t, uint64_t


cdef class HistogramBlock:
    cdef:
        readonly Py_ssize_t rows
        readonly tuple bounds
        Py_ssize_t _bound_count
        Py_ssize_t _row_size           # u64 per row: one count a bucket, one for +Inf, one sum
        Py_ssize_t _mapped_bytes
        uint64_t* _bounds
        uint64_t* _values
        uint8_t _first_bucket[496]     # cell → first bucket whose bound is ≥ the cell's lowest value

    cdef void observe(self, Py_ssize_t row, uint64_t value) noexcept nogil

from libc.stdint cimport uint16_t, uint64_t


cdef class ExponentialBlock:
    cdef:
        readonly Py_ssize_t rows
        Py_ssize_t _mapped_bytes
        uint64_t* _bounds
        uint64_t* _values
        uint16_t _first_bucket[496]    # cell → first bucket whose bound is ≥ the cell's lowest value

    cdef void observe(self, Py_ssize_t row, uint64_t value_ns) noexcept nogil

from libc.stdint cimport uint8_t


cdef class RandomSource:
    cdef:
        object __weakref__
        object _read
        bytes _block
        Py_ssize_t _position

    # `size` fresh bytes, good until the next call.
    cdef const uint8_t* next(self, Py_ssize_t size) except NULL

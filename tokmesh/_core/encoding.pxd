cdef enum:
    TOKEN_SIZE = 48              # "tmtk_" and 43 characters

cdef bint is_token(const char* text, Py_ssize_t size) noexcept nogil

from libc.stdint cimport uint8_t


cdef extern from "sha256.h" nogil:
    int tm_sha256_has_shani()
    void tm_sha256(const uint8_t* data, size_t size, uint8_t* out, int shani)

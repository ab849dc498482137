"""SHA-256 for Python, and the one declaration of sha256.h for the core (digest.pxd)."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t

cdef int _SHANI = tm_sha256_has_shani()
HAS_SHANI = bool(_SHANI)


def sha256(bytes data not None) -> bytes:
    """The 32-byte digest, with the processor's SHA instructions where it has them."""
    cdef uint8_t out[32]
    tm_sha256(<const uint8_t*><const char*>data, len(data), out, _SHANI)
    return <bytes>(<char*>out)[:32]


def sha256_portable(bytes data not None) -> bytes:
    """The 32-byte digest, without them."""
    cdef uint8_t out[32]
    tm_sha256(<const uint8_t*><const char*>data, len(data), out, 0)
    return <bytes>(<char*>out)[:32]


def sha256_of_text(str text not None) -> bytes:
    """SHA-256 of the text's UTF-8, 32 bytes."""
    cdef Py_ssize_t size = 0
    cdef const char* utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    cdef uint8_t out[32]
    tm_sha256(<const uint8_t*>utf8, size, out, _SHANI)
    return (<const char*>out)[:32]

"""Identifiers and tokens as text: what `ids.py` needs for every session that begins, without an object in between.

A create spends a tenth of its time here when Python's own string functions do it (base64, f-strings of digit pairs, hashlib);
benchmarks/micro has the comparison.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from tokmesh._core.text cimport write_ulid


cdef extern from "sha256.h" nogil:
    int tm_sha256_has_shani()
    void tm_sha256(const uint8_t* data, size_t size, uint8_t* out, int shani)

cdef extern from "Python.h":
    object PyUnicode_DecodeASCII(const char* text, Py_ssize_t size, const char* errors)

cdef enum:
    RANDOM_BYTES = 32
    TOKEN_CHARS = 48

cdef const char* BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef int _SHANI = tm_sha256_has_shani()


def token_text(bytes random not None) -> str:
    """`tmtk_` and the base64url of 32 bytes, without padding (RFC 4648 §5). ValueError for another size."""
    if PyBytes_GET_SIZE(random) != RANDOM_BYTES:
        raise ValueError("a token is made of 32 bytes")
    cdef const uint8_t* raw = <const uint8_t*>PyBytes_AS_STRING(random)
    cdef char[TOKEN_CHARS] text
    cdef char* out = &text[5]
    memcpy(text, b"tmtk_", 5)
    cdef uint32_t group
    cdef int index
    for index in range(0, 30, 3):
        group = raw[index] << 16 | raw[index + 1] << 8 | raw[index + 2]
        out[0] = BASE64URL[group >> 18]
        out[1] = BASE64URL[(group >> 12) & 63]
        out[2] = BASE64URL[(group >> 6) & 63]
        out[3] = BASE64URL[group & 63]
        out += 4
    group = raw[30] << 8 | raw[31]
    out[0] = BASE64URL[group >> 10]
    out[1] = BASE64URL[(group >> 4) & 63]
    out[2] = BASE64URL[(group << 2) & 63]
    return PyUnicode_DecodeASCII(text, TOKEN_CHARS, NULL)


def ulid_text(bytes raw not None) -> str:
    """16 bytes as 26 lower-case Crockford base32 digits. ValueError for another size."""
    if PyBytes_GET_SIZE(raw) != 16:
        raise ValueError("a ULID has 16 bytes")
    cdef char[26] text
    write_ulid(<const uint8_t*>PyBytes_AS_STRING(raw), text)
    return PyUnicode_DecodeASCII(text, 26, NULL)


def sha256_of_text(str text not None) -> bytes:
    """SHA-256 of the text's UTF-8, 32 bytes."""
    cdef Py_ssize_t size = 0
    cdef const char* utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    cdef uint8_t digest[32]
    tm_sha256(<const uint8_t*>utf8, size, digest, _SHANI)
    return (<const char*>digest)[:32]

"""Identifiers and tokens as text: what `ids.py` needs for every session that begins, without an object in between."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from tokmesh._core.digest cimport tm_sha256, tm_sha256_has_shani
from tokmesh._core.layout cimport SHARD_COUNT, shard_of_hash
from tokmesh._core.random_source cimport RandomSource
from tokmesh._core.text cimport write_ulid


cdef extern from "Python.h":
    object PyUnicode_DecodeASCII(const char* text, Py_ssize_t size, const char* errors)

cdef enum:
    RANDOM_BYTES = 32
    ULID_SIZE = 26               # as text

cdef const char* BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

cdef int _SHANI = tm_sha256_has_shani()

# 1 for the characters of base64url.
cdef uint8_t[256] _IS_BASE64URL
cdef int _position
for _position in range(64):
    _IS_BASE64URL[<uint8_t>BASE64URL[_position]] = 1


cdef bint is_token(const char* text, Py_ssize_t size) noexcept nogil:
    """Whether `text` has the form of a token."""
    cdef Py_ssize_t position
    cdef uint8_t all_base64url = 1
    if size != TOKEN_SIZE or memcmp(text, b"tmtk_", 5) != 0:
        return False
    for position in range(5, TOKEN_SIZE):
        all_base64url &= _IS_BASE64URL[<uint8_t>text[position]]
    return all_base64url


def is_token_text(str text not None) -> bool:
    """Whether `text` has a token's form.

    All 43 characters are free: the two bits that the last one carries beyond 32 bytes are not looked at, since a token is
    its characters (the hash covers them all) and a client may bring its own.
    """
    cdef Py_ssize_t size = 0
    cdef const char* ascii_text
    if not text.isascii():
        return False
    ascii_text = PyUnicode_AsUTF8AndSize(text, &size)
    return is_token(ascii_text, size)


def new_token(RandomSource random not None) -> str:
    """A new session token: `tmtk_` and the base64url of 32 random bytes, 43 characters without padding (RFC 4648 §5)."""
    cdef const uint8_t* raw = random.next(RANDOM_BYTES)
    cdef char[TOKEN_SIZE] text
    write_token(raw, text)
    return PyUnicode_DecodeASCII(text, TOKEN_SIZE, NULL)


def new_token_of(uint32_t shard, RandomSource random not None) -> str:
    """A new session token whose hash is of that shard, 0..63, for a session that has had another: 32 random bytes, counted on in
    their last eight until it is so, after 64 of them on average, which take 4 µs. Six random bits of 256 are lost. ValueError."""
    if shard >= SHARD_COUNT:
        raise ValueError("a token is of one of 64 shards")
    cdef uint8_t[RANDOM_BYTES] raw
    cdef uint8_t[32] digest
    cdef char[TOKEN_SIZE] text
    cdef uint64_t counted = 0
    memcpy(raw, random.next(RANDOM_BYTES), RANDOM_BYTES)
    memcpy(&counted, &raw[24], 8)
    while True:
        write_token(raw, text)
        tm_sha256(<const uint8_t*>text, TOKEN_SIZE, digest, _SHANI)
        if shard_of_hash(digest) == shard:
            return PyUnicode_DecodeASCII(text, TOKEN_SIZE, NULL)
        counted += 1
        memcpy(&raw[24], &counted, 8)


cdef void write_token(const uint8_t* raw, char* text) noexcept nogil:
    # Of 32 bytes; TOKEN_SIZE characters.
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


def ulid_text(bytes raw not None) -> str:
    """16 bytes as 26 lower-case Crockford base32 digits. ValueError for another size."""
    cdef char[ULID_SIZE] text
    write_ulid(_sixteen(raw), text)
    return PyUnicode_DecodeASCII(text, ULID_SIZE, NULL)


def session_id_text(bytes raw not None) -> str:
    """16 bytes → `tmss-…`. ValueError for another size."""
    cdef char[5 + ULID_SIZE] text
    memcpy(text, b"tmss-", 5)
    write_ulid(_sixteen(raw), &text[5])
    return PyUnicode_DecodeASCII(text, 5 + ULID_SIZE, NULL)


cdef const uint8_t* _sixteen(bytes raw) except NULL:
    if PyBytes_GET_SIZE(raw) != 16:
        raise ValueError("a ULID has 16 bytes")
    return <const uint8_t*>PyBytes_AS_STRING(raw)

"""The bytes of a SessionCreated, made in one go: every create waits for them. log/record.py tells what they are, and
log/session_record.py reads them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "platform.h" nogil:
    void tm_put32(uint8_t* out, uint32_t value)
    void tm_put64(uint8_t* out, uint64_t value)

cdef enum:
    KIND = 1
    FORMAT = 1
    ID_SIZE = 16
    HASH_SIZE = 32
    HEAD_SIZE = 82
    BYTE_MAX = 255          # a length or count of one byte
    SHORT_MAX = 65_535      # of two


cdef struct Part:
    const char* bytes
    Py_ssize_t size


def encode_created(
    int64_t time_ms, bytes session_id not None, bytes token_hash not None, str user_id not None, str device_id not None,
    str ip_address not None, str user_agent not None, str created_by not None, int64_t expires_at_ms, uint32_t idle_seconds,
    bytes data not None, tuple evicts not None,
) -> bytes:
    """The record's bytes. ValueError for an id or hash of another size, or a text too long for its length."""
    cdef Part[6] parts
    _take_text(&parts[0], user_id, SHORT_MAX)
    _take_text(&parts[1], device_id, SHORT_MAX)
    _take_text(&parts[2], ip_address, BYTE_MAX)
    _take_text(&parts[3], user_agent, SHORT_MAX)
    _take_text(&parts[4], created_by, BYTE_MAX)
    parts[5].bytes, parts[5].size = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    cdef Py_ssize_t evicts_count = len(evicts), size = HEAD_SIZE + ID_SIZE * evicts_count
    cdef int index
    for index in range(6):
        size += parts[index].size
    if (
        PyBytes_GET_SIZE(session_id) != ID_SIZE or PyBytes_GET_SIZE(token_hash) != HASH_SIZE
        or parts[5].size > SHORT_MAX or evicts_count > SHORT_MAX
    ):
        raise ValueError("a field does not fit the record")
    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(encoded)
    out[0], out[1] = KIND, FORMAT
    tm_put64(out + 2, <uint64_t>time_ms)
    memcpy(out + 10, PyBytes_AS_STRING(session_id), ID_SIZE)
    memcpy(out + 26, PyBytes_AS_STRING(token_hash), HASH_SIZE)
    tm_put64(out + 58, <uint64_t>expires_at_ms)
    tm_put32(out + 66, idle_seconds)
    _put_short(out + 70, parts[0].size)
    _put_short(out + 72, parts[1].size)
    out[74] = <uint8_t>parts[2].size
    _put_short(out + 75, parts[3].size)
    out[77] = <uint8_t>parts[4].size
    _put_short(out + 78, parts[5].size)
    _put_short(out + 80, evicts_count)
    out += HEAD_SIZE
    for index in range(6):
        memcpy(out, parts[index].bytes, parts[index].size)
        out += parts[index].size
    for evicted in evicts:
        if type(evicted) is not bytes or PyBytes_GET_SIZE(evicted) != ID_SIZE:
            raise ValueError("an evicted session's id has 16 bytes")
        memcpy(out, PyBytes_AS_STRING(evicted), ID_SIZE)
        out += ID_SIZE
    return encoded


cdef inline int _take_text(Part* part, str text, Py_ssize_t size_max) except -1:
    # UnicodeEncodeError for a lone surrogate.
    part.bytes = PyUnicode_AsUTF8AndSize(text, &part.size)
    if part.size > size_max:
        raise ValueError("a text does not fit the record")
    return 0


cdef inline void _put_short(uint8_t* out, Py_ssize_t value) noexcept nogil:
    out[0], out[1] = <uint8_t>(value & 0xFF), <uint8_t>(value >> 8)

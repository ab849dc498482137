"""The record of a new session, and a session's bytes in records, as log/record.py tells them: those of a SessionCreated made in one
go, as every create waits for them, and the six texts of a SessionCreated or SessionStated taken apart."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "platform.h" nogil:
    void tm_put16(uint8_t* out, uint16_t value)
    uint16_t tm_get16(const uint8_t* data)
    void tm_put32(uint8_t* out, uint32_t value)
    void tm_put64(uint8_t* out, uint64_t value)

cdef extern from "Python.h":
    str PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef enum:
    KIND_CREATED = 1
    FORMAT = 1
    ID_SIZE = 16
    HASH_SIZE = 32
    LENGTHS_AT = 70         # of a SessionCreated
    LENGTHS_SIZE = 10       # u16 u16 u8 u16 u8 u16
    HEAD_SIZE = 82
    BYTE_MAX = 255          # a length or count of one byte
    SHORT_MAX = 65_535      # of two
    # What the format admits; the field rules of sessions are narrower. 128 and 512 characters are at most 4 bytes each.
    USER_ID_MAX = 512
    DEVICE_ID_MAX = 512
    IP_ADDRESS_MAX = 64
    USER_AGENT_MAX = 2048
    CREATED_BY_MAX = 64
    DATA_MAX = 4096

IP_ADDRESS_BYTES_MAX = IP_ADDRESS_MAX
USER_AGENT_BYTES_MAX = USER_AGENT_MAX
DATA_BYTES_MAX = DATA_MAX


cdef struct Part:
    const char* bytes
    Py_ssize_t size


cdef class SessionCreated:
    """A session begins. `data` is compact JSON text in UTF-8; `evicts`: ids of sessions that make room for it.

    Equality is by value. The repr shows neither hashes nor texts.
    """

    KIND = KIND_CREATED
    reserved = False
    # The fields behind `time_ms`, as every class of a record names them.
    __slots__ = ("session_id", "token_hash", "user_id", "device_id", "ip_address", "user_agent", "created_by", "expires_at_ms",
                 "idle_seconds", "data", "evicts")

    def __init__(
        self, int64_t time_ms, bytes session_id not None, bytes token_hash not None, str user_id not None, str device_id not None,
        str ip_address not None, str user_agent not None, str created_by not None, int64_t expires_at_ms, uint32_t idle_seconds,
        bytes data not None, evicts=(),
    ):
        self.time_ms = time_ms
        self.session_id = session_id
        self.token_hash = token_hash
        self.user_id = user_id
        self.device_id = device_id
        self.ip_address = ip_address
        self.user_agent = user_agent
        self.created_by = created_by
        self.expires_at_ms = expires_at_ms
        self.idle_seconds = idle_seconds
        self.data = data
        self.evicts = tuple(evicts)

    def values(self) -> tuple:
        """Every field, `time_ms` first, then in the order of `__slots__`."""
        return (self.time_ms, self.session_id, self.token_hash, self.user_id, self.device_id, self.ip_address, self.user_agent,
                self.created_by, self.expires_at_ms, self.idle_seconds, self.data, self.evicts)

    def __eq__(self, other):
        return type(other) is type(self) and self.values() == other.values()

    __hash__ = None

    def __repr__(self):
        return f"SessionCreated(time_ms={self.time_ms})"

    def encode(self) -> bytes:
        """The record's bytes. ValueError for an id or hash of another size, or a text too long for its length."""
        cdef Part[6] parts
        _take_text(&parts[0], self.user_id, SHORT_MAX)
        _take_text(&parts[1], self.device_id, SHORT_MAX)
        _take_text(&parts[2], self.ip_address, BYTE_MAX)
        _take_text(&parts[3], self.user_agent, SHORT_MAX)
        _take_text(&parts[4], self.created_by, BYTE_MAX)
        parts[5].bytes, parts[5].size = PyBytes_AS_STRING(self.data), PyBytes_GET_SIZE(self.data)
        cdef Py_ssize_t evicts_count = len(self.evicts), size = HEAD_SIZE + ID_SIZE * evicts_count
        cdef int index
        for index in range(6):
            size += parts[index].size
        if (
            PyBytes_GET_SIZE(self.session_id) != ID_SIZE or PyBytes_GET_SIZE(self.token_hash) != HASH_SIZE
            or parts[5].size > SHORT_MAX or evicts_count > SHORT_MAX
        ):
            raise ValueError("a field does not fit the record")
        cdef bytes encoded = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(encoded)
        out[0], out[1] = KIND_CREATED, FORMAT
        tm_put64(out + 2, <uint64_t>self.time_ms)
        memcpy(out + 10, PyBytes_AS_STRING(self.session_id), ID_SIZE)
        memcpy(out + 26, PyBytes_AS_STRING(self.token_hash), HASH_SIZE)
        tm_put64(out + 58, <uint64_t>self.expires_at_ms)
        tm_put32(out + 66, self.idle_seconds)
        _put_lengths(out + LENGTHS_AT, parts)
        tm_put16(out + LENGTHS_AT + LENGTHS_SIZE, <uint16_t>evicts_count)
        out += HEAD_SIZE
        for index in range(6):
            memcpy(out, parts[index].bytes, parts[index].size)
            out += parts[index].size
        for evicted in self.evicts:
            if type(evicted) is not bytes or PyBytes_GET_SIZE(evicted) != ID_SIZE:
                raise ValueError("an evicted session's id has 16 bytes")
            memcpy(out, PyBytes_AS_STRING(evicted), ID_SIZE)
            out += ID_SIZE
        return encoded


def split_texts(bytes payload not None, Py_ssize_t lengths_at, Py_ssize_t texts_at) -> tuple | None:
    """The five texts and the data whose lengths stand at `lengths_at` and which stand behind each other at `texts_at`, and where
    they end. None where a length is beyond its bound, or they end beyond the payload; UnicodeDecodeError."""
    cdef const char* raw = PyBytes_AS_STRING(payload)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    if lengths_at < 0 or texts_at < lengths_at + LENGTHS_SIZE or size < texts_at:
        return None
    cdef Py_ssize_t[6] sizes
    _get_lengths(<const uint8_t*>raw + lengths_at, sizes)
    cdef Py_ssize_t end = texts_at + sizes[0] + sizes[1] + sizes[2] + sizes[3] + sizes[4] + sizes[5]
    if (
        end > size or sizes[0] == 0 or sizes[0] > USER_ID_MAX or sizes[1] > DEVICE_ID_MAX or sizes[2] > IP_ADDRESS_MAX
        or sizes[3] > USER_AGENT_MAX or sizes[4] > CREATED_BY_MAX or sizes[5] > DATA_MAX
    ):
        return None
    cdef const char* at = raw + texts_at
    user_id = PyUnicode_DecodeUTF8(at, sizes[0], NULL)
    at += sizes[0]
    device_id = PyUnicode_DecodeUTF8(at, sizes[1], NULL)
    at += sizes[1]
    ip_address = PyUnicode_DecodeUTF8(at, sizes[2], NULL)
    at += sizes[2]
    user_agent = PyUnicode_DecodeUTF8(at, sizes[3], NULL)
    at += sizes[3]
    created_by = PyUnicode_DecodeUTF8(at, sizes[4], NULL)
    at += sizes[4]
    return user_id, device_id, ip_address, user_agent, created_by, PyBytes_FromStringAndSize(at, sizes[5]), end


cdef inline int _take_text(Part* part, str text, Py_ssize_t size_max) except -1:
    # UnicodeEncodeError for a lone surrogate.
    part.bytes = PyUnicode_AsUTF8AndSize(text, &part.size)
    if part.size > size_max:
        raise ValueError("a text does not fit the record")
    return 0


cdef inline void _put_lengths(uint8_t* out, const Part* parts) noexcept nogil:
    tm_put16(out, <uint16_t>parts[0].size)
    tm_put16(out + 2, <uint16_t>parts[1].size)
    out[4] = <uint8_t>parts[2].size
    tm_put16(out + 5, <uint16_t>parts[3].size)
    out[7] = <uint8_t>parts[4].size
    tm_put16(out + 8, <uint16_t>parts[5].size)


cdef inline void _get_lengths(const uint8_t* head, Py_ssize_t* sizes) noexcept nogil:
    sizes[0], sizes[1], sizes[2] = tm_get16(head), tm_get16(head + 2), head[4]
    sizes[3], sizes[4], sizes[5] = tm_get16(head + 5), head[7], tm_get16(head + 8)

"""Answers as bytes: the head, the JSON envelope (docs/api.md, "Answers"), and the buffer they leave from.

Everything that one read of a socket answers is put into one buffer and leaves in one write. The buffer is empty whenever the
event loop is between callbacks, so all connections of a worker share one.
"""

from http import HTTPStatus
from time import gmtime

import orjson

from tokmesh.errors import ERRORS

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from tokmesh._core.text cimport NUMBER_BYTES_MAX, tm_hex_digits, write_i64

REQUEST_ID_SIZE = 20    # "req-" and 16 hexadecimal digits

cdef enum:
    BUFFER_KEPT_BYTES = 1 << 20     # a larger buffer is given back after the write

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
cdef bytes _JSON_FIELDS = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"

# Constant pieces of the validate answer.
cdef bytes _OK_OPEN = b'{"code":"OK","message":"Success","request_id":"'
cdef bytes _TIMESTAMP = b'","timestamp":'
cdef bytes _VALID_DATA = b',"data":{"valid":true,"session":'


cdef class OutBuffer:
    """Bytes on their way out; grows as needed. What bounds it is the connection's rule of how much it answers at once."""

    def __dealloc__(self):
        free(self._data)

    cdef char* reserve(self, Py_ssize_t extra) except NULL:
        """Room for `extra` bytes at the end; the caller writes there and adds to `size`."""
        cdef Py_ssize_t needed = self.size + extra
        cdef void* grown
        if needed > self._capacity:
            needed = max(needed, 2 * self._capacity, 65536)
            grown = realloc(self._data, needed)
            if grown == NULL:
                raise MemoryError()
            self._data = <char*>grown
            self._capacity = needed
        return self._data + self.size

    cdef int put(self, const char* data, Py_ssize_t size) except -1:
        memcpy(self.reserve(size), data, size)
        self.size += size
        return 0

    cdef int put_bytes(self, bytes data) except -1:
        return self.put(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int put_number(self, int64_t value) except -1:
        self.size += write_i64(value, self.reserve(NUMBER_BYTES_MAX))
        return 0

    cdef bytes take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(self._data, self.size)
        self.size = 0
        if self._capacity > BUFFER_KEPT_BYTES:
            free(self._data)
            self._data = NULL
            self._capacity = 0
        return taken


cdef inline char* append(char* at, bytes data) noexcept:
    memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return at + PyBytes_GET_SIZE(data)


cdef class Responder:
    """Writes answers into `out`. seed: 64 random bits that request ids start from."""

    def __init__(self, uint64_t seed):
        self.out = OutBuffer()
        self._id_state = seed
        self._status_lines = {
            status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
        }
        self._error_messages = {code: orjson.dumps(spec.message) for code, spec in ERRORS.items()}
        self.set_date(0)

    def set_date(self, now_ms: int) -> None:
        """Sets the `Date` of answers (RFC 9110 §5.6.7); called at least once a second."""
        now = gmtime(now_ms // 1000)
        self._date_line = (
            f"Date: {_DAYS[now.tm_wday]}, {now.tm_mday:02d} {_MONTHS[now.tm_mon - 1]} {now.tm_year:04d} "
            f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d} GMT\r\n"
        ).encode("ascii")
        self._ok_head = self._status_lines[200] + self._date_line + _JSON_FIELDS + b"X-Request-ID: "

    cdef void make_request_id(self, char* out) noexcept nogil:
        """REQUEST_ID_SIZE bytes: splitmix64 over a counter with a random start; unique in a process, no secret."""
        cdef uint64_t mixed
        cdef int position
        self._id_state += 0x9e3779b97f4a7c15ULL
        mixed = self._id_state
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL
        mixed ^= mixed >> 31
        memcpy(out, b"req-", 4)
        for position in range(16):
            out[4 + position] = tm_hex_digits[(mixed >> (60 - 4 * position)) & 15]

    def new_request_id(self) -> str:
        """A fresh request id."""
        cdef char made[20]
        self.make_request_id(made)
        return made[:20].decode("ascii")

    cdef int put_validated(self, const char* request_id, Py_ssize_t request_id_size, int64_t now_ms,
                           const char* session, Py_ssize_t session_size) except -1:
        """The 200 answer that a token is valid: what the server is for, so it is a dozen copies."""
        cdef char now_text[NUMBER_BYTES_MAX]
        cdef Py_ssize_t now_digits = write_i64(now_ms, now_text)
        cdef Py_ssize_t body_size = (PyBytes_GET_SIZE(_OK_OPEN) + request_id_size + PyBytes_GET_SIZE(_TIMESTAMP) + now_digits
                                     + PyBytes_GET_SIZE(_VALID_DATA) + session_size + 2)
        cdef char* start = self.out.reserve(PyBytes_GET_SIZE(self._ok_head) + request_id_size + 64 + body_size)
        cdef char* at = append(start, self._ok_head)
        memcpy(at, request_id, request_id_size)
        at += request_id_size
        memcpy(at, b"\r\nContent-Length: ", 18)
        at += 18
        at += write_i64(body_size, at)
        memcpy(at, b"\r\n\r\n", 4)
        at = append(at + 4, _OK_OPEN)
        memcpy(at, request_id, request_id_size)
        at = append(at + request_id_size, _TIMESTAMP)
        memcpy(at, now_text, now_digits)
        at = append(at + now_digits, _VALID_DATA)
        memcpy(at, session, session_size)
        at += session_size
        at[0] = at[1] = 125    # }}
        self.out.size += at + 2 - start
        return 0

    cdef int put_data(self, str request_id, int64_t now_ms, bytes data, bytes connection) except -1:
        """A 200 answer whose envelope carries `data` (JSON text). connection: a `Connection` field line or b""."""
        cdef OutBuffer out = self.out
        cdef Py_ssize_t id_size = 0
        cdef const char* id_text = PyUnicode_AsUTF8AndSize(request_id, &id_size)
        cdef char now_text[NUMBER_BYTES_MAX]
        cdef Py_ssize_t now_digits = write_i64(now_ms, now_text)
        cdef Py_ssize_t body_size = (PyBytes_GET_SIZE(_OK_OPEN) + id_size + PyBytes_GET_SIZE(_TIMESTAMP)
                                     + now_digits + 8 + PyBytes_GET_SIZE(data) + 1)
        self.put_head(200, _JSON_FIELDS, connection, id_text, id_size, body_size)
        out.put_bytes(_OK_OPEN)
        out.put(id_text, id_size)
        out.put_bytes(_TIMESTAMP)
        out.put(now_text, now_digits)
        out.put(b',"data":', 8)
        out.put_bytes(data)
        return out.put(b"}", 1)

    cdef int put_error(self, str request_id, int64_t now_ms, int status, str code, object details,
                       bytes extra, bytes connection) except -1:
        """A refusal. code: a key of errors.ERRORS; details: JSON-serialisable or None; extra: field lines, each with its CRLF."""
        body = b'{"code":"%b","message":%b,"request_id":"%b","timestamp":%d' % (
            code.encode("ascii"), self._error_messages[code], request_id.encode("ascii"), now_ms)
        if details is not None:
            body += b',"details":' + orjson.dumps(details)
        return self._put_whole(request_id, status, _JSON_FIELDS + extra, connection, body + b"}")

    cdef int put_answer(self, str request_id, object answer, bytes extra, bytes connection) except -1:
        """An answer without the envelope (`api.answer.Answer`), such as metrics. extra: field lines beside the answer's own."""
        return self._put_whole(request_id, answer.status, self._fields_of(answer, extra), connection, answer.body)

    cdef int put_file_head(self, str request_id, object answer, bytes connection) except -1:
        """The head of an answer whose `size` bytes follow in pieces (`api.answer.FileAnswer`)."""
        cdef Py_ssize_t id_size = 0
        cdef const char* id_text = PyUnicode_AsUTF8AndSize(request_id, &id_size)
        return self.put_head(answer.status, self._fields_of(answer, b""), connection, id_text, id_size, answer.size)

    cdef bytes _fields_of(self, object answer, bytes extra):
        own = b"".join([f"{name}: {value}\r\n".encode("ascii") for name, value in answer.headers])
        return b"Content-Type: " + answer.content_type.encode("ascii") + b"\r\nCache-Control: no-store\r\n" + extra + own

    cdef int put_bodiless(self, str request_id, int status, bytes extra, bytes connection) except -1:
        """A refusal of HEAD, which has no body, whatever the answer (RFC 9110 §9.3.2)."""
        return self._put_whole(request_id, status, _JSON_FIELDS + extra, connection, b"")

    cdef int _put_whole(self, str request_id, int status, bytes fields, bytes connection, bytes body) except -1:
        cdef Py_ssize_t id_size = 0
        cdef const char* id_text = PyUnicode_AsUTF8AndSize(request_id, &id_size)
        self.put_head(status, fields, connection, id_text, id_size, PyBytes_GET_SIZE(body))
        return self.out.put_bytes(body)

    cdef bytes refusal_fields(self, int status, str allow, object retry_after_s):
        """The fields that an error of this status carries beside those of every answer."""
        if status == 401:
            return b"WWW-Authenticate: Bearer\r\n"
        if status == 405:
            return b"Allow: " + allow.encode("ascii") + b"\r\n"
        if status in (429, 503):
            return b"Retry-After: %d\r\n" % (1 if retry_after_s is None else retry_after_s)
        return b""

    cdef int put_head(self, int status, bytes fields, bytes connection, const char* id_text, Py_ssize_t id_size,
                      Py_ssize_t body_size) except -1:
        """Status line and fields. fields, connection: whole field lines."""
        cdef OutBuffer out = self.out
        out.put_bytes(self._status_lines[status])
        out.put_bytes(self._date_line)
        out.put_bytes(fields)
        out.put_bytes(connection)
        out.put(b"X-Request-ID: ", 14)
        out.put(id_text, id_size)
        out.put(b"\r\nContent-Length: ", 18)
        out.put_number(body_size)
        return out.put(b"\r\n\r\n", 4)

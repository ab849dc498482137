"""Cuts what a NATS server sends into frames, and puts the messages of some subscriptions where they belong without an object each.

    MSG <subject> <sid> [reply] <bytes>\\r\\n<payload>\\r\\n
    HMSG <subject> <sid> [reply] <bytes of headers> <bytes of all>\\r\\n<headers><payload>\\r\\n
    any other line: INFO, PING, PONG, +OK, -ERR

Invariants: nothing is read before its frame is whole; a frame is read once, wherever what was fed is cut; no size that a peer tells
is believed before as many bytes are there, and none above MESSAGE_BYTES_MAX at all.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp

from tokmesh._core.streamed cimport Deliveries

cdef enum:
    LINE_BYTES_MAX = 1 << 20         # INFO names every server of a cluster
    MESSAGE_BYTES_MAX = 64 << 20     # the most that a server can be configured to let pass
    NUMBER_DIGITS_MAX = 18
    WORDS_MAX = 6                    # of the line of a message


class BadFrame(Exception):
    """What came is not NATS's protocol; `str()` says what is wrong with it."""


cdef class Frames:
    """Of one connection. Feed, then read until None."""

    def __init__(self) -> None:
        self._deliveries = {}
        self.clear()

    def clear(self) -> None:
        """Forgets what was fed: another connection begins. The subscriptions stay."""
        self._data = b""
        self._at = 0
        self._more = []
        self._more_bytes = 0
        self._needed = 1

    def deliver_to(self, uint64_t sid, Deliveries deliveries not None) -> None:
        """From now on the deliveries of that subscription go there. What comes for it and is none is read as any other message."""
        self._deliveries[sid] = deliveries

    def forget(self, uint64_t sid) -> None:
        """Its messages are read like any other again."""
        self._deliveries.pop(sid, None)

    def feed(self, bytes data not None) -> None:
        """What was received next."""
        self._more.append(data)
        self._more_bytes += <size_t>PyBytes_GET_SIZE(data)
        cdef size_t left = <size_t>PyBytes_GET_SIZE(self._data) - self._at
        if left + self._more_bytes < self._needed:
            return    # joined once, when the frame can be whole: a large one comes in many pieces
        if left != 0:
            self._more.insert(0, PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._data) + self._at, <Py_ssize_t>left))
        self._data = self._more[0] if len(self._more) == 1 else b"".join(self._more)
        self._at = 0
        self._more = []
        self._more_bytes = 0

    def read(self):
        """The next frame that does not go to deliveries: a line with its end, or a message as (sid, subject, reply, payload,
        headers); reply b"", headers None without. None when what was fed holds no more whole ones. Raises BadFrame, for good."""
        cdef Message message
        cdef size_t size = 0
        cdef FrameKind kind
        cdef Deliveries deliveries
        while True:    # each turn passes a frame
            kind = read_frame(PyBytes_AS_STRING(self._data) + self._at, <size_t>PyBytes_GET_SIZE(self._data) - self._at,
                              &message, &size)
            if kind == FRAME_NONE:
                self._needed = size
                return None
            if kind == FRAME_BAD:
                raise BadFrame("no frame, or one that is too large")
            self._needed = 1
            if kind == FRAME_LINE:
                line = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._data) + self._at, <Py_ssize_t>size)
                self._at += size
                return line
            self._at += size
            deliveries = self._deliveries.get(message.sid)
            if deliveries is None or message.reply == NULL or not deliveries.add(
                message.reply, message.reply_size, message.payload, message.payload_size
            ):
                return as_tuple(&message)


cdef FrameKind read_frame(const char* start, size_t left, Message* message, size_t* size) noexcept nogil:
    # size: bytes of the frame; of one that is not whole, how many it has at least.
    cdef size_t line_size
    cdef const char* end = <const char*>memchr(start, c"\n", left)
    size[0] = left + 1
    if end == NULL:
        return FRAME_BAD if left > LINE_BYTES_MAX else FRAME_NONE
    line_size = <size_t>(end - start) + 1
    if line_size > 4 and memcmp(start, b"MSG", 3) == 0:
        return read_message(start, line_size, left, message, size)
    if line_size > 5 and memcmp(start, b"HMSG", 4) == 0:
        return read_message(start, line_size, left, message, size)
    size[0] = line_size
    return FRAME_LINE


cdef FrameKind read_message(const char* line, size_t line_size, size_t left, Message* message, size_t* size) noexcept nogil:
    cdef const char* words[WORDS_MAX]
    cdef size_t sizes[WORDS_MAX]
    cdef size_t count = 0, at = 0
    cdef bint has_headers = line[0] == c"H"
    cdef size_t numbers = 2 if has_headers else 1    # at the line's end
    cdef uint64_t all_bytes = 0, headers_bytes = 0
    if line_size < 2 or line[line_size - 2] != c"\r":
        return FRAME_BAD
    while at < line_size - 2:
        if line[at] == c" " or line[at] == c"\t":
            at += 1
            continue
        if count == WORDS_MAX:
            return FRAME_BAD
        words[count] = line + at
        while at < line_size - 2 and line[at] != c" " and line[at] != c"\t":
            at += 1
        sizes[count] = <size_t>(line + at - words[count])
        count += 1
    if sizes[0] != (4 if has_headers else 3) or not 3 + numbers <= count <= 4 + numbers:
        return FRAME_BAD
    if not read_number(words[2], sizes[2], &message.sid) or not read_number(words[count - 1], sizes[count - 1], &all_bytes):
        return FRAME_BAD
    if has_headers and not read_number(words[count - 2], sizes[count - 2], &headers_bytes):
        return FRAME_BAD
    if all_bytes > MESSAGE_BYTES_MAX or headers_bytes > all_bytes:
        return FRAME_BAD
    size[0] = line_size + <size_t>all_bytes + 2
    if left < size[0]:
        return FRAME_NONE
    if line[size[0] - 2] != c"\r" or line[size[0] - 1] != c"\n":
        return FRAME_BAD
    message.subject, message.subject_size = words[1], sizes[1]
    message.reply = words[3] if count == 4 + numbers else NULL
    message.reply_size = sizes[3] if count == 4 + numbers else 0
    message.headers = <const uint8_t*>line + line_size if has_headers else NULL
    message.headers_size = <size_t>headers_bytes
    message.payload = <const uint8_t*>line + line_size + headers_bytes
    message.payload_size = <size_t>(all_bytes - headers_bytes)
    return FRAME_MESSAGE


cdef tuple as_tuple(const Message* message):
    reply = b"" if message.reply == NULL else PyBytes_FromStringAndSize(message.reply, <Py_ssize_t>message.reply_size)
    headers = None
    if message.headers != NULL:
        headers = PyBytes_FromStringAndSize(<const char*>message.headers, <Py_ssize_t>message.headers_size)
    subject = PyBytes_FromStringAndSize(message.subject, <Py_ssize_t>message.subject_size)
    payload = PyBytes_FromStringAndSize(<const char*>message.payload, <Py_ssize_t>message.payload_size)
    return message.sid, subject, reply, payload, headers


cdef bint read_number(const char* text, size_t size, uint64_t* value) noexcept nogil:
    # A decimal number that is the whole word.
    cdef uint64_t read = 0
    cdef size_t at
    if size == 0 or size > NUMBER_DIGITS_MAX:
        return False
    for at in range(size):
        if not c"0" <= text[at] <= c"9":
            return False
        read = read * 10 + <uint64_t>(text[at] - c"0")
    value[0] = read
    return True

"""From bytes to messages, one at a time, for one connection.

The connection pushes what the socket gave and pulls first a head, then, once it has decided on that, the body, which is kept
(`take_body`), taken in pieces (`read_body`, `take_piece`) or dropped (`drop_body`). Bytes wait here unparsed until their turn, so
the queue of pipelined requests is a piece of raw text of bounded size, and where a request ends is decided once: the head by its
first empty line, the body by the parser. Whatever offsets the bytes were split at on their way, the same requests and the same
rejections come out.

A head that repeats the last one byte for byte is not parsed again (`next_repeated`): equal bytes cannot mean anything else.
"""

import httptools

from tokmesh._core.counters import Counter
from tokmesh._core.head import Rejected, check_request_line

from cpython.bytearray cimport PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX
from libc.string cimport memcmp

from tokmesh._core.head cimport Head

cdef enum:
    LEADING_EMPTY_LINES_MAX = 4    # RFC 9112 §2.2: at least one is to be ignored
    REMEMBERED_BYTES_MAX = 4096    # a longer head is parsed each time, or idle connections could hold much memory
    IDLE_BYTES_MAX = 16384         # of what has been consumed, kept until the next push


cdef class MessageReader:
    """head_bytes_max: request line and fields with their line ends; header_count_max: fields; body_bytes_max: decoded body."""

    def __init__(self, Py_ssize_t head_bytes_max, Py_ssize_t header_count_max, Py_ssize_t body_bytes_max):
        self._head_bytes_max = head_bytes_max
        self._header_count_max = header_count_max
        self._body_bytes_max = body_bytes_max
        self._raw = b""
        self._parser = httptools.HttpRequestParser(self)

    cdef void push(self, bytes data) except *:
        if self._at == PyBytes_GET_SIZE(self._raw):
            self._raw = data
            self._searched = 0
        else:
            self._raw = self._raw[self._at:] + data
            self._searched = max(self._searched - self._at, 0)
        self._at = 0

    cdef Py_ssize_t buffered(self) noexcept:
        return PyBytes_GET_SIZE(self._raw) - self._at

    cdef bint awaits_continue(self) noexcept:
        """Whether the peer holds back a body until it is told to go on (RFC 9110 §10.1.1). Ask when it may."""
        return self.in_body and self._head.expects_continue and self.body_received == 0 and self.buffered() == 0

    cdef Head next_repeated(self, const char** body, Py_ssize_t* body_size):
        """The remembered head when the next request repeats it and its body is here whole, else None.

        `body` then points into the buffer, valid until the next push.
        """
        if self.memo is None or self.in_body:
            return None
        cdef Py_ssize_t head_size = PyBytes_GET_SIZE(self._memo_raw)
        cdef const char* start = PyBytes_AS_STRING(self._raw) + self._at
        if self.buffered() < head_size + self.memo.body_size or memcmp(start, PyBytes_AS_STRING(self._memo_raw), head_size) != 0:
            return None
        body[0] = start + head_size
        body_size[0] = self.memo.body_size
        self._at += head_size + self.memo.body_size
        self._searched = self._at
        return self.memo

    cdef Head next_head(self):
        """The next request's head, or None while bytes of it are missing; its body is to be taken or dropped. Raises Rejected."""
        return self._head if self._read_head() else None

    cdef void forget(self) noexcept:
        """No request will be known by the head that came last."""
        self._memo_raw = None
        self.memo = None

    cdef bytes take_body(self):
        """The body of the request whose head came last, or None while bytes of it are missing. Raises Rejected."""
        if not self.read_body():
            return None
        body = bytes(self._collected)
        self.end_message()
        return body

    cdef void unbound_body(self) noexcept:
        """The body under way is taken in pieces, by someone who has a limit of his own."""
        self._body_left = INT64_MAX

    cdef bint read_body(self) except -1:
        """Collects what is here of the body; whether that was the rest of it. Raises Rejected."""
        cdef Py_ssize_t missing, end
        while not self._message_done:
            if self.buffered() == 0:
                return False
            if self._head.chunked:
                end = self._chunked_end()
            else:
                missing = self._head.body_size - self.body_received
                end = min(PyBytes_GET_SIZE(self._raw), self._at + missing)
            piece = self._raw[self._at:end]
            self._at = self._searched = end
            self._feed(piece)
        return True

    cdef Py_ssize_t collected_bytes(self) noexcept:
        return PyByteArray_GET_SIZE(self._collected)

    cdef bytearray take_piece(self):
        """What is collected of the body, which then is the caller's."""
        piece = self._collected
        self._collected = bytearray()
        return piece

    cdef void refuse_body(self) noexcept:
        """From here on the body under way is only to be dropped; what was kept of it goes."""
        self._collected = None
        self._body_left = DROPPED_BYTES_MAX

    cdef bint drop_body(self) except -1:
        """Whether the refused body is over. Raises Rejected for one without a proper end, or larger than is worth its reading."""
        if not self.read_body():
            return False
        self.end_message()
        return True

    cdef void end_message(self) noexcept:
        """The body is over and done with: what is here behind it is the next request."""
        self.in_body = False
        self._head = None
        self._collected = None

    cdef void trim(self) noexcept:
        """Lets go of a large buffer that has been consumed; called when the connection has nothing to do."""
        if self._at == PyBytes_GET_SIZE(self._raw) > IDLE_BYTES_MAX:
            self._raw = b""
            self._at = self._searched = 0

    cdef void clear(self) noexcept:
        """Lets go of everything: no request will be read any more."""
        self._raw = b""
        self._at = self._searched = 0
        self.end_message()
        self.forget()

    cdef bint _read_head(self) except -1:
        cdef bytes head_bytes
        cdef Py_ssize_t start = self._at, end
        cdef int empty_lines = 0
        method = target = http10 = None
        while self._raw.startswith(b"\r\n", start):
            start += 2
            empty_lines += 1
            if empty_lines > LEADING_EMPTY_LINES_MAX:
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
        end = self._raw.find(b"\r\n\r\n", max(start, self._searched - 3))
        # What is wrong is found in the order of the bytes, so that it does not matter how they were split.
        cdef Py_ssize_t limit = PyBytes_GET_SIZE(self._raw) if end < 0 else end + 4
        cdef Py_ssize_t bounded = min(limit, start + self._head_bytes_max)
        line = self._request_line(start, bounded)
        if line is not None:
            method, target, http10 = check_request_line(line)
            self._refuse_bare_line_feeds(start, bounded)
        if limit > bounded:
            raise Rejected(431, "TM-SYS-4000", Counter.REJECT_HEAD_SIZE)
        if end < 0:
            self._searched = limit
            return False
        head_bytes = self._raw[start:end + 4]
        self._fields = []
        self._collected = bytearray()
        self._body_left = self._body_bytes_max
        self._headers_done = self._message_done = False
        self._trailer_bytes = self.body_received = 0
        self._line_tail = b""
        self._feed(head_bytes)
        if not self._headers_done:
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
        self._head = Head(method, target, http10, self._fields, self._keep_alive)
        self._at = self._searched = end + 4
        self.in_body = True
        self._remember(head_bytes)
        return True

    def _request_line(self, start: int, end: int) -> bytes | None:
        """The first line without its CRLF, None while it is not complete."""
        line_feed = self._raw.find(b"\n", start, end)
        if line_feed < 0:
            return None
        line = self._raw[start:line_feed + 1]
        if not line.endswith(b"\r\n"):
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
        return line[:len(line) - 2]

    def _refuse_bare_line_feeds(self, start: int, end: int) -> None:
        # llhttp refuses them too, but only once the head is complete, which a head of bare line feeds never is.
        at = self._raw.find(b"\n", max(start, self._searched), end)
        while at >= 0:
            if not self._raw.startswith(b"\r", at - 1):
                raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE)
            at = self._raw.find(b"\n", at + 1, end)

    cdef void _remember(self, bytes raw) except *:
        # A request that asks for 100-continue or ends its connection cannot be followed by its like.
        if (self._head.chunked or self._head.expects_continue or not self._head.keep_alive
                or PyBytes_GET_SIZE(raw) > REMEMBERED_BYTES_MAX):
            self.memo = None
            self._memo_raw = None
        else:
            self._memo_raw = raw
            self.memo = self._head

    cdef Py_ssize_t _chunked_end(self) except -1:
        """Up to where the next piece of a chunked body goes: behind an empty line, which is how the message ends, or all there is.

        Feeding no further keeps the parser from eating the next request. The line may have begun in the piece before. What is
        behind a piece is not copied to look into it: a body may be made of empty lines.
        """
        cdef Py_ssize_t end = PyBytes_GET_SIZE(self._raw), found
        tail = self._line_tail
        found = (tail + self._raw[self._at:self._at + 3]).find(b"\r\n\r\n")
        if found >= 0:
            end = self._at + found + 4 - len(tail)
        else:
            found = self._raw.find(b"\r\n\r\n", self._at)
            if found >= 0:
                end = found + 4
        tail += self._raw[max(self._at, end - 3):end]
        self._line_tail = tail[max(len(tail) - 3, 0):]
        return end

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, Rejected):
                raise cause from None
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise Rejected(400, "TM-SYS-4000", Counter.REJECT_PARSE) from None

    # Called by httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:  # a trailer: counted, dropped
            self._trailer_bytes += len(name) + len(value) + 4
            if self._trailer_bytes > self._head_bytes_max:
                raise Rejected(431, "TM-SYS-4000", Counter.REJECT_HEAD_SIZE)
            return
        self._fields.append((name, value))
        if len(self._fields) > self._header_count_max:
            raise Rejected(431, "TM-SYS-4000", Counter.REJECT_HEADER_COUNT)

    def on_headers_complete(self) -> None:
        self._headers_done = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self.body_received += len(piece)
        self._body_left -= len(piece)
        if self._body_left < 0:
            raise Rejected(413, "TM-SYS-4130", Counter.REJECT_BODY_SIZE)
        if self._collected is not None:    # else it is dropped
            self._collected += piece

    def on_message_complete(self) -> None:
        self._message_done = True

"""One HTTP/1.1 connection: bytes in, requests handled one after the other, answers out in order.

At most one request is being handled; those behind it wait as raw bytes in the reader, so answers cannot change places and a
request sees all that the one before it did. Everything answered in one go leaves in one write. The socket is the channel's.

The hot path is `answer_repeated`: a validate request whose head is known and whose body is canonical is answered here, without an
object of Python's but the bytes that leave.
"""

import orjson

from tokmesh._core.channel import CLOSE_FIELD
from tokmesh._core.counters import Counter
from tokmesh._core.head import Rejected
from tokmesh.errors import ApiError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t

from tokmesh._core.channel cimport Channel
from tokmesh._core.counters cimport AUTH_OK, HEAD_PARSED, HEAD_REPEATED
from tokmesh._core.head cimport Head
from tokmesh._core.principal cimport GRANTED
from tokmesh._core.request cimport Request
from tokmesh._core.server cimport Limits, Server
from tokmesh._core.table cimport VERDICT_BUSY, VERDICT_VALID
from tokmesh._core.validate cimport TOKEN_SIZE, canonical_token, is_token


cdef extern from "platform.h" nogil:
    int64_t tm_monotonic_ns()

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) except PYGEN_ERROR

cdef enum:
    REQUEST_ID_SIZE = 20

cdef bytes _KEEP_ALIVE = b"Connection: keep-alive\r\n"


cdef class Connection(Channel):
    """Protocol of one accepted connection."""

    cdef bint busy(self) noexcept:
        return self.current is not None

    # The turn: as many requests as may be answered at once.

    cdef void pump(self) except *:
        cdef int64_t started_ns = tm_monotonic_ns()
        cdef int handled = 0
        cdef Limits limits = self.server.limits
        try:
            while self.current is None and not self.closing and not self.writing_paused:
                if handled == limits.max_pipelined or self.responder.out.size >= limits.max_write_buffer_bytes:
                    self.scheduled = True
                    self.server.loop.call_soon(self._turn)
                    break
                if not self.handle_next(&started_ns):
                    break
                handled += 1
        except Rejected as rejection:
            self.reject(rejection, started_ns)
        except Exception:
            self.server.logger.exception("connection failed")
            self.reject(Rejected(500, "TM-SYS-5000", Counter.REJECT_PARSE), started_ns)
        self.settle()

    def _turn(self) -> None:
        self.scheduled = False
        if self.transport is not None:
            self.pump()

    cdef bint handle_next(self, int64_t* started_ns) except -1:
        """Handles the next request if it is here whole; whether it was."""
        cdef const char* body = NULL
        cdef Py_ssize_t size = 0
        cdef Head head
        if self.reader.buffered() == 0:
            return False
        head = self.reader.next_repeated(&body, &size)
        if head is not None:
            self.server.counters.add(HEAD_REPEATED, 1)
            if head.is_validate and self.answer_repeated(head, body, size, started_ns[0]):
                started_ns[0] = self.idle_since_ns
                return True
            self.start(head, PyBytes_FromStringAndSize(body, size), started_ns[0])
        else:
            head = self.reader.next_message()
            if head is None:
                return False
            self.server.counters.add(HEAD_PARSED, 1)
            self.server.resolve(head)
            self.continued = False
            self.start(head, self.reader.take_body(), started_ns[0])
        started_ns[0] = tm_monotonic_ns()
        return True

    cdef bint answer_repeated(self, Head head, const char* body, Py_ssize_t size, int64_t started_ns) except -1:
        """Answers a validate request whose head was admitted before; whether it did. All else takes the general way.

        The grant is checked for every request: the key's state, generation, expiry and rate, and how long the secret's
        verification holds. Role and address cannot have changed for the same key, route and peer.
        """
        cdef const char* token = canonical_token(body, size)
        cdef int64_t now_ms = self.server.clock.at_ms(started_ns)
        if token == NULL or head.admitted is None or head.grant.api_key is not head.admitted:
            return False
        if not is_token(token, TOKEN_SIZE) or head.grant.check(now_ms) != GRANTED:
            return False
        self.server.counters.add(AUTH_OK, 1)
        return self.put_verdict(head, token, now_ms, started_ns)

    cdef bint put_verdict(self, Head head, const char* token, int64_t now_ms, int64_t started_ns) except -1:
        """Answers with the verdict on a well-formed token; False when there is none to be had."""
        cdef Server server = self.server
        cdef char made[20]
        cdef const char* request_id = made
        cdef Py_ssize_t request_id_size = REQUEST_ID_SIZE
        cdef int verdict
        if server.draining or head.http10 or head.query or not head.keep_alive:
            return False
        verdict = server.validator.check(token, now_ms, False)
        if verdict == VERDICT_BUSY:
            return False
        if head.request_id is None:
            self.responder.make_request_id(made)
        else:
            request_id = PyUnicode_AsUTF8AndSize(head.request_id, &request_id_size)
        if verdict == VERDICT_VALID:
            self.responder.put_validated(request_id, request_id_size, now_ms, server.validator.session,
                                         server.validator.session_size)
        else:
            self.responder.put_data(request_id[:request_id_size].decode("ascii"), now_ms,
                                    server.validator.refusal_json(verdict), b"")
        self.idle_since_ns = tm_monotonic_ns()
        server.meter.observe(head.method_index, head.template_index, 200, self.idle_since_ns - started_ns)
        return True

    # The general way.

    cdef void start(self, Head head, bytes body, int64_t started_ns) except *:
        """Begins a request; it may be answered when this returns, or `current` and answered later."""
        cdef Request request = Request.__new__(Request)
        request.head = head
        request.body = body
        request.request_id = head.request_id or self.responder.new_request_id()
        request.peer_ip = self.peer_ip
        request.is_local = self.is_local
        request.started_ns = started_ns
        self.current = request
        try:
            request.work = self.begin(request)
        except Exception as error:
            self.refuse(request, error)
        else:
            if request.work is not None:
                self.drive(request, None)

    cdef object begin(self, Request request):
        """The coroutine that answers, or None when the answer is already out. Raises ApiError."""
        cdef Head head = request.head
        cdef int64_t now_ms
        if head.bad_path:
            raise ApiError("TM-ARG-1001", {"reason": "path_encoding"})
        if head.route_number < 0:
            raise ApiError("TM-SYS-4040" if head.allow is None else "TM-SYS-4050")
        handler = self.server.router.routes[head.route_number].handler
        if self.is_local:
            return handler(request)
        now_ms = self.server.clock.at_ms(request.started_ns)
        if not self.server.authorize(head, now_ms, self.peer_address):
            return self._verify_and_handle(request, handler)
        if head.grant is not None:
            request.api_key = head.grant.api_key
        if head.is_validate and self._answer_at_once(request, now_ms):
            return None
        return handler(request)

    cdef bint _answer_at_once(self, Request request, int64_t now_ms) except -1:
        cdef const char* token = canonical_token(PyBytes_AS_STRING(request.body), PyBytes_GET_SIZE(request.body))
        if token == NULL or not is_token(token, TOKEN_SIZE):
            return False
        if not self.put_verdict(request.head, token, now_ms, request.started_ns):
            return False
        self.current = None
        return True

    async def _verify_and_handle(self, Request request, handler):
        await self.server.verify(request.head, self.peer_address)
        if request.head.grant is not None:
            request.api_key = request.head.grant.api_key
        return await handler(request)

    cdef void drive(self, Request request, object value) except *:
        """Runs the handler to its next wait or its end. No Task: a handler waits for futures only."""
        cdef PyObject* sent = NULL
        cdef PySendResult outcome
        try:
            outcome = PyIter_Send(request.work, value, &sent)
            yielded = <object>sent
            Py_XDECREF(sent)
            if outcome == PYGEN_NEXT:
                # the protocol between a future and who drives the coroutine that awaits it (asyncio.Future.__await__)
                yielded._asyncio_future_blocking = False
                yielded.add_done_callback(self._resume)
                return
            self.finish(request, yielded)
        except BaseException as error:    # a cancelled future is a request without an answer too
            self.refuse(request, error)

    def _resume(self, future) -> None:
        self.drive(self.current, None)
        if self.current is None:
            self.pump()

    cdef void finish(self, Request request, object reply) except *:
        """Puts out what a handler came to. Raises what cannot be put out."""
        cdef int64_t now_ms = self.server.clock.read_ms()
        connection = self.connection_field(request)
        if isinstance(reply, (bytes, dict, list)):
            data = reply if isinstance(reply, bytes) else orjson.dumps(reply)
            self.responder.put_data(request.request_id, now_ms, data, connection)
            self.done(request, 200)
        else:
            extra = b"".join([f"{name}: {value}\r\n".encode("ascii") for name, value in reply.headers])
            self.responder.put_answer(request.request_id, reply.status, reply.content_type.encode("ascii"), reply.body, extra,
                                      connection)
            self.done(request, reply.status)

    cdef void refuse(self, Request request, object error) except *:
        cdef int status
        if isinstance(error, ApiError):
            code, details, retry_after_s = error.code, error.details, error.retry_after_s
            status = error.status
        else:
            self.server.logger.error("request failed", exc_info=error, extra={"request_id": request.request_id})
            code, details, retry_after_s, status = "TM-SYS-5000", None, None, 500
        extra = b""
        if status == 401:
            extra = b"WWW-Authenticate: Bearer\r\n"
        elif status == 405:
            extra = b"Allow: " + request.head.allow.encode("ascii") + b"\r\n"
        elif status in (429, 503):
            extra = b"Retry-After: %d\r\n" % (1 if retry_after_s is None else retry_after_s)
        page = self.sign_in(request.head) if status == 401 else None
        if page is not None:
            extra += b"".join([f"{name}: {value}\r\n".encode("ascii") for name, value in page.headers])
            self.responder.put_answer(request.request_id, status, page.content_type.encode("ascii"), page.body, extra,
                                      self.connection_field(request))
        elif request.head.method == "HEAD":    # has no body, whatever the answer (RFC 9110 §9.3.2)
            self.responder.put_answer(request.request_id, status, b"application/json", b"", extra, self.connection_field(request))
        else:
            self.responder.put_error(request.request_id, self.server.clock.read_ms(), status, code, details, extra,
                                     self.connection_field(request))
        self.done(request, status)

    cdef object sign_in(self, Head head):
        """The page that asks for a key in place of the envelope: of a route that has one, for a caller that shows HTML."""
        if head.route_number < 0 or "text/html" not in head.headers.get("accept", ""):
            return None
        return getattr(self.server.router.routes[head.route_number], "sign_in", None)

    cdef void done(self, Request request, int status) except *:
        self.current = None
        self.idle_since_ns = tm_monotonic_ns()
        self.server.meter.observe(request.head.method_index, request.head.template_index, status,
                                  self.idle_since_ns - request.started_ns)
        if self.server.draining or not request.head.keep_alive:
            self.closing = True

    cdef bytes connection_field(self, Request request):
        if self.server.draining or not request.head.keep_alive:
            return CLOSE_FIELD
        return _KEEP_ALIVE if request.head.http10 else b""

"""One HTTP/1.1 connection: bytes in, requests handled one after the other, answers out in order.

A request is decided on by its head (`open`): route, method, rights, and whether there is room for its body, whose coming is the
business of the intake.

At most one request is being handled; those behind it wait as raw bytes in the reader, so answers cannot change places and a
request sees all that the one before it did. Everything answered in one go leaves in one write. The socket is the channel's.

What a request waits for is a coroutine that is driven without a task, one at a time: its `stage` says which. An answer too large
for memory is the last of them (`send`); nothing else is put out until it has left, and if it cannot, the connection is cut.

The hot path is `answer_repeated`: a validate request whose head is known and whose body is canonical is answered here, without an
object of Python's but the bytes that leave.
"""

import orjson

from tokmesh._core.channel import CLOSE_FIELD
from tokmesh._core.counters import Counter
from tokmesh._core.head import Rejected
from tokmesh._core.proposal import GroupProposal
from tokmesh.errors import ApiError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t

from tokmesh._core.coroutine cimport PYGEN_NEXT, PySendResult, PyIter_Send
from tokmesh._core.counters cimport AUTH_OK, HEAD_PARSED, HEAD_REPEATED
from tokmesh._core.encoding cimport TOKEN_SIZE, is_token
from tokmesh._core.head cimport Head
from tokmesh._core.intake cimport Intake
from tokmesh._core.phases cimport phases_begin, tm_monotonic_ns
from tokmesh._core.principal cimport GRANTED
from tokmesh._core.request cimport STAGE_HANDLING, STAGE_SENDING, STAGE_STORING, STAGE_VERIFYING, Request
from tokmesh._core.server cimport Limits, Server
from tokmesh._core.table cimport VERDICT_BUSY, VERDICT_ELSEWHERE, VERDICT_VALID
from tokmesh._core.validate cimport canonical_token


cdef enum:
    REQUEST_ID_SIZE = 20

cdef bytes _KEEP_ALIVE = b"Connection: keep-alive\r\n"


cdef class Connection(Intake):
    """Protocol of one accepted connection."""

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
        """Handles what is here of the next request; whether it was all of it, or enough to answer."""
        cdef const char* body = NULL
        cdef Py_ssize_t size = 0
        cdef Head head
        cdef Request request
        cdef bint complete = True
        cdef bint traced
        if self.reader.in_body:
            complete = self.go_on_with_body(started_ns[0])
            started_ns[0] = tm_monotonic_ns()
            return complete
        if self.reader.buffered() == 0:
            return False
        head = self.reader.next_repeated(&body, &size)
        if head is not None:
            self.server.counters.add(HEAD_REPEATED, 1)
            traced = self.server.sampler.wants(head.parent, started_ns[0])
            if head.is_validate and not traced and self.answer_repeated(head, body, size, started_ns[0]):
                started_ns[0] = self.idle_since_ns
                return True
            request = self.request_of(head, started_ns[0], traced)
            request.body = PyBytes_FromStringAndSize(body, size)
            self.open(request)
        else:
            head = self.reader.next_head()
            if head is None:
                return False
            self.server.counters.add(HEAD_PARSED, 1)
            self.server.resolve(head)
            if head.spool is not None:
                self.reader.forget()    # its body is no business of the hot path
            elif head.body_size > self.server.limits.max_body_bytes:
                raise Rejected(413, "TM-SYS-4130", Counter.REJECT_BODY_SIZE)
            self.continued = False
            traced = self.server.sampler.wants(head.parent, started_ns[0])
            self.open(self.request_of(head, started_ns[0], traced))
            if self.reader.in_body and self.current is None and not self.closing:
                complete = self.go_on_with_body(started_ns[0])
        started_ns[0] = tm_monotonic_ns()
        return complete

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
        if started_ns > self.server.fresh_until_ns:
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
        cdef Request slow
        if server.draining or head.http10 or head.query or not head.keep_alive:
            return False
        verdict = server.validator.check(token, now_ms, False)
        if verdict == VERDICT_BUSY or verdict == VERDICT_ELSEWHERE:
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
        if self.idle_since_ns - started_ns >= server.slow_ns:
            slow = self.request_of(head, started_ns, False)
            slow.phases.mark_ns = slow.phases.parse_ns = 0    # all in one
            slow.request_id = request_id[:request_id_size].decode("ascii")
            server.tell_slow(slow, 200, self.idle_since_ns - started_ns)
        return True

    # The general way.

    cdef Request request_of(self, Head head, int64_t started_ns, bint traced):
        cdef Request request = Request.__new__(Request)
        request.head = head
        request.request_id = head.request_id or self.responder.new_request_id()
        request.peer_ip = self.peer_ip
        request.is_local = self.is_local
        request.started_ns = started_ns
        phases_begin(&request.phases, started_ns, &self.queued_since_ns)
        if traced:
            request.trace = self.server.begin_trace(head, self.transport, started_ns)
        return request

    cdef void open(self, Request request) except *:
        """Decides on a request by its head: it is refused, or its key is being verified (`current`), or it is admitted."""
        try:
            admitted = self.admit(request)
        except Exception as error:
            self.refuse(request, error)
            return
        if admitted:
            self.expect_body(request)
        else:
            self.current = request
            request.stage = STAGE_VERIFYING
            request.work = self.server.verify(request.head, self.peer_address)
            self.drive(request, None)

    cdef bint admit(self, Request request) except -1:
        """Whether the request may be made; False: its key must be verified first. Raises ApiError when it may not."""
        cdef Head head = request.head
        if head.bad_path:
            raise ApiError("TM-ARG-1001", {"reason": "path_encoding"})
        if head.route_number < 0:
            raise ApiError("TM-SYS-4040" if head.allow is None else "TM-SYS-4050")
        if self.server.gate is not None:
            self.server.gate(head.path)
            return True
        return self.is_local or self.server.authorize(head, self.server.clock.at_ms(request.started_ns), self.peer_address)

    cdef void handle(self, Request request) except *:
        """Begins the work on a request that is here whole; when this returns it is answered, or `current` and answered later."""
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
        handler = self.server.router.routes[head.route_number].handler
        if request.waited and head.grant is not None and head.grant.generation != head.grant.api_key.generation:
            # The key has changed while the body came.
            if not self.server.authorize(head, self.server.clock.read_ms(), self.peer_address):
                return self._verify_and_handle(request, handler)
        self.server.require_fresh(head)
        self.accept(request)
        if head.is_validate and not self.is_local and self._answer_at_once(request):
            return None
        return handler(request)

    cdef bint _answer_at_once(self, Request request) except -1:
        cdef const char* token = canonical_token(PyBytes_AS_STRING(request.body), PyBytes_GET_SIZE(request.body))
        if token == NULL or not is_token(token, TOKEN_SIZE):
            return False
        if not self.put_verdict(request.head, token, self.server.clock.at_ms(request.started_ns), request.started_ns):
            return False
        self.current = None
        if request.trace is not None:
            request.trace.answered(200)
        return True

    async def _verify_and_handle(self, Request request, handler):
        await self.server.verify(request.head, self.peer_address)
        self.server.require_fresh(request.head)
        self.accept(request)
        return await handler(request)

    cdef void accept(self, Request request) except *:
        if request.head.grant is not None:
            request.api_key = request.head.grant.api_key
        if request.trace is not None:
            request.trace.begin_operation()

    cdef void drive(self, Request request, object value) except *:
        """Runs the handler to its next wait or its end. No Task: a handler waits for futures only."""
        cdef PyObject* sent = NULL
        cdef PySendResult outcome
        self.server.handling = request
        try:
            outcome = PyIter_Send(request.work, value, &sent)
            yielded = <object>sent
            Py_XDECREF(sent)
            if outcome == PYGEN_NEXT:
                # the protocol between a future and who drives the coroutine that awaits it (asyncio.Future.__await__)
                yielded._asyncio_future_blocking = False
                if type(yielded) is GroupProposal and request.trace is None:    # a span ends by a callback, before this
                    yielded.waiter = self
                else:
                    yielded.add_done_callback(self.resume)
                if request.stage <= STAGE_STORING:
                    request.phases.mark_ns = tm_monotonic_ns()
            else:
                self.finish(request, yielded)
        except BaseException as error:    # a cancelled future is a request without an answer too
            self.refuse(request, error)
        self.server.handling = None

    def resume(self, future) -> None:
        """What the handler waits for is done."""
        if self.current.stage <= STAGE_STORING:
            self.current.phases.log_wait_ns += tm_monotonic_ns() - self.current.phases.mark_ns
        self.drive(self.current, None)
        if self.current is None:
            self.pump()

    cdef void finish(self, Request request, object reply) except *:
        """Puts out what a handler came to. Raises what cannot be put out. What ends another stage leads to the next one."""
        cdef int64_t now_ms
        if request.stage != STAGE_HANDLING:
            self.end_stage(request)
            return
        request.phases.mark_ns = tm_monotonic_ns()
        now_ms = self.server.clock.at_ms(request.phases.mark_ns)
        connection = self.connection_field(request)
        if isinstance(reply, (bytes, dict, list)):
            data = reply if isinstance(reply, bytes) else orjson.dumps(reply)
            self.responder.put_data(request.request_id, now_ms, data, connection)
        elif hasattr(reply, "send"):
            self.responder.put_file_head(request.request_id, reply, connection)
            self.send(request, reply)
            return
        else:
            self.responder.put_answer(request.request_id, reply, b"", connection)
        self.done(request, getattr(reply, "status", 200))

    cdef void end_stage(self, Request request) except *:
        """The key was verified, the body is stored, or the answer is sent."""
        cdef int ended = request.stage
        request.stage = STAGE_HANDLING
        if ended == STAGE_STORING:
            self.handle(request)
        elif ended == STAGE_SENDING:
            self.end_sending()
            self.done(request, 200)
        else:
            self.current = None
            if self.transport is not None:
                self.expect_body(request)

    cdef void send(self, Request request, object answer) except *:
        """Lets an answer leave in pieces, behind what was put out, of which its head is the last."""
        request.stage = STAGE_SENDING
        self.begin_sending()
        request.work = answer.send(self)
        self.drive(request, None)

    cdef void cut(self, Request request, object error) except *:
        """An answer of which the head has left cannot be finished: its peer sees that by its length."""
        if self.transport is not None:
            self.server.logger.error("answer cut short", exc_info=error, extra={"request_id": request.request_id})
        self.end_sending()
        self.reader.clear()
        self.abort()
        self.done(request, 200)

    cdef void refuse(self, Request request, object error) except *:
        cdef int status
        if request.stage == STAGE_SENDING:
            self.cut(request, error)
            return
        request.phases.mark_ns = tm_monotonic_ns()
        if isinstance(error, ApiError):
            code, details, retry_after_s = error.code, error.details, error.retry_after_s
            status = error.status
        else:
            self.server.logger.error("request failed", exc_info=error, extra={"request_id": request.request_id})
            code, details, retry_after_s, status = "TM-SYS-5000", None, None, 500
        if request.trace is not None:
            request.trace.refused(code)
        if request.body is None:
            self.leave_body(request)
        if status == 401 or status == 403:
            self.server.tell_denied(request, code)
        extra = self.responder.refusal_fields(status, request.head.allow, retry_after_s)
        page = self.server.sign_in(request.head) if status == 401 else None
        if page is not None:
            self.responder.put_answer(request.request_id, page, extra, self.connection_field(request))
        elif request.head.method == "HEAD":
            self.responder.put_bodiless(request.request_id, status, extra, self.connection_field(request))
        else:
            self.responder.put_error(request.request_id, self.server.clock.read_ms(), status, code, details, extra,
                                     self.connection_field(request))
        self.done(request, status)

    cdef void done(self, Request request, int status) except *:
        self.current = None
        if request.spool is not None:
            request.spool.discard()
        self.idle_since_ns = tm_monotonic_ns()
        self.server.answered(request, status, self.idle_since_ns)
        if self.ends(request):
            self.closing = True

    cdef bint ends(self, Request request) noexcept:
        return self.server.draining or not request.head.keep_alive or request.last

    cdef bytes connection_field(self, Request request):
        if self.ends(request):
            return CLOSE_FIELD
        return _KEEP_ALIVE if request.head.http10 else b""

"""How the body of a request comes in: kept in memory, written to a file, or dropped.

Only an admitted request has its body taken. It is kept until it is whole, unless its route spools: then it goes to a file in
pieces, one write at a time, in threads (`api.spool.Spool`). While a piece is being written the next one is collected; when that is
large enough reading stops, so that a slow disk slows the peer down and memory holds no more than SPOOL_ROOM_BYTES of the body. The
body of a refused request is dropped as it comes, if it is small, so that the connection can go on.

The file of a body that ends any other way than whole goes at once: refused, malformed, too slow, or with its peer.
"""

from tokmesh._core.counters import Counter
from tokmesh.errors import ApiError

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from tokmesh._core.channel cimport Channel
from tokmesh._core.head cimport Head
from tokmesh._core.phases cimport tm_monotonic_ns
from tokmesh._core.reader cimport DROPPED_BYTES_MAX
from tokmesh._core.request cimport STAGE_STORING, Request

cdef enum:
    SPOOL_PIECE_BYTES = 131072     # collected, reading stops until the write under way is done
    # Two pieces, each of that and one read of the socket (256 KB at most), and what the parser is at.
    SPOOL_ROOM_BYTES = 1048576


cdef class Intake(Channel):
    """A channel whose requests may have bodies. handle, refuse, drive: what a subclass does with a request."""

    cdef void handle(self, Request request) except *:
        pass

    cdef void refuse(self, Request request, object error) except *:
        pass

    cdef void drive(self, Request request, object value) except *:
        pass

    cdef bint busy(self) noexcept:
        return self.current is not None

    cdef Py_ssize_t held_bytes(self) noexcept:
        if self.current is not None:
            if self.current.stage == STAGE_STORING:
                return self.reader.buffered() + SPOOL_ROOM_BYTES
            return self.reader.buffered() + (0 if self.current.body is None else PyBytes_GET_SIZE(self.current.body))
        if self.awaited is not None and self.reader.in_body:
            if self.spool is not None:
                return SPOOL_ROOM_BYTES
            return self.reader.body_received if self.awaited.head.chunked else self.awaited.head.body_size
        return 0

    cdef void expect_body(self, Request request) except *:
        """Goes on with an admitted request: to its handler if its body is here, else the body may come, if there is room."""
        cdef Head head = request.head
        cdef Py_ssize_t room_bytes = head.body_size if head.spool is None else SPOOL_ROOM_BYTES
        request.phases.auth_ns = tm_monotonic_ns() - request.phases.mark_ns
        if head.body_size != 0 and head.method == "GET":
            self.refuse(request, ApiError("TM-SYS-4000", {"reason": "body_not_allowed"}))
        elif head.spool is not None and head.body_size > <Py_ssize_t>head.spool.bytes_max:
            self.refuse(request, self._too_large(head.spool))
        elif room_bytes > 0 and not self.server.has_room(room_bytes, self.charged_bytes):
            self.refuse(request, self._no_room())
        elif request.body is not None:
            self.handle(request)
        else:
            self.awaited = request
            if head.spool is not None:
                self.spool = head.spool.begin(self.server.loop, max(0, head.body_size))
                self.reader.unbound_body()
            self.begin_body()

    cdef bint go_on_with_body(self, int64_t started_ns) except -1:
        """Takes what has come of the body under way; whether there may be more to do than wait for the rest of it."""
        cdef Request request = self.awaited
        cdef bytes body
        if self.dropping:
            if not self.reader.drop_body():
                return False
            self.dropping = False
            self.partial_since_ns = 0
            return True
        if self.spool is not None:
            return self._go_on_with_file(request, started_ns)
        body = self.reader.take_body()
        if body is None:
            request.waited = True
            if request.head.chunked and not self.server.has_room(self.reader.body_received, self.charged_bytes):
                self.refuse(request, self._no_room())
            return False
        self._is_here(request, started_ns)
        request.body = body
        self.handle(request)
        return True

    def _is_here(self, Request request not None, int64_t started_ns) -> None:
        """The body has come to its end."""
        if request.waited:
            request.started_ns = started_ns    # what the peer took to send is not the server's time
            if request.trace is not None:
                request.trace.arrived(started_ns)
        self.awaited = None
        self.partial_since_ns = 0

    cdef bint _go_on_with_file(self, Request request, int64_t started_ns) except -1:
        """As `go_on_with_body`, of a body that goes to a file: gives that the next piece, unless it is at one."""
        cdef bint whole = self.reader.read_body()
        if self.reader.body_received > <int64_t>request.head.spool.bytes_max:
            self.refuse(request, self._too_large(request.head.spool))
            return True
        request.waited = True
        if not whole:
            if self.storing is None and self.reader.collected_bytes() > 0:
                self.storing = self.spool.write(self.reader.take_piece())
                self.storing.add_done_callback(self._stored)
            self.body_held = self.reader.collected_bytes() >= SPOOL_PIECE_BYTES
            return False
        self._is_here(request, started_ns)
        request.body = b""
        request.spool = self.spool
        self.spool = self.storing = None
        self.body_held = False
        request.stage = STAGE_STORING
        request.work = request.spool.complete(self.reader.take_piece())
        self.reader.end_message()
        self.current = request
        self.drive(request, None)
        return True

    def _stored(self, future) -> None:
        """A piece of a body is in its file, or could not be put there."""
        error = future.exception()
        if future is not self.storing:    # of a body that is whole by now, or not wanted any more
            return
        self.storing = None
        if error is not None:
            self.refuse(self.awaited, error)
        self.pump()

    cdef void abandon_body(self) except *:
        self.body_held = False
        if self.spool is not None:
            spool = self.spool
            self.spool = self.storing = None
            spool.discard()

    cdef void leave_body(self, Request request) except *:
        """The request is refused before its body is here: that is dropped as it comes, or ends the connection with the answer.

        The answer follows from the head alone, whatever has come by now. A peer that asked before it sends its body may send it or
        not, so the next request could not be told from it.
        """
        self.abandon_body()
        self.awaited = None
        request.last = request.head.expects_continue or request.head.body_size > DROPPED_BYTES_MAX
        self.dropping = True
        self.reader.refuse_body()
        self.begin_body()

    def _no_room(self) -> ApiError:
        self.server.counters.increment(Counter.REJECT_BUFFERED_BYTES)
        return ApiError("TM-SYS-5030", {"reason": "buffers_full"})

    def _too_large(self, spec) -> ApiError:
        self.server.counters.increment(Counter.REJECT_BODY_SIZE)
        return ApiError("TM-ADMIN-4130", {"maximum": spec.bytes_max})

"""The socket's side of a connection: reading, writing, back-pressure, time limits, and the ways it ends.

A channel moves bytes between a transport and the two buffers it owns a part of: the reader's, which is this connection's own, and
the responder's, which all connections share and which is empty between callbacks. What the bytes mean is the business of the
subclass: `pump` answers what can be answered, `busy` says whether an answer is still being worked on, `held_bytes` how much of the
server's room for request bodies the connection takes up, `abandon_body` forgets the body that is coming.

An answer too large for memory leaves in pieces, which who has it (`api.answer.FileAnswer`) gives whenever the peer has taken
enough of those before: `writable`, `write_piece`. Of it no more than `max_write_buffer` is in memory at any time.

Reading stops while the peer does not take its answers, while more waits behind a request than one turn can use, and while a body
waits for the disk. Whatever the peer does or leaves undone, its connection ends in bounded time (`check_time`).
"""

import socket
import struct
from os import geteuid

from tokmesh._core.counters import Counter
from tokmesh._core.head import Rejected
from tokmesh._core.server import parse_peer

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from tokmesh._core.body_rate cimport rate_begin, rate_too_slow
from tokmesh._core.counters cimport RECEIVED_BYTES, SENT_BYTES
from tokmesh._core.reader cimport MessageReader
from tokmesh._core.server cimport Limits, Server


cdef extern from "platform.h" nogil:
    int64_t tm_monotonic_ns()

cdef enum:
    BUFFERED_BYTES_MAX = 65536         # beyond it, reading stops while a request is handled
    LINGER_MS = 2000                   # how long a peer that was refused may go on sending, unread
    OTHER_METHOD = 2                   # position in meter.METHODS
    BODY_GRACE_MS = 5000               # over which the minimum rate of a body is measured
    PIECE_BYTES_MAX = 262144           # of an answer that leaves in pieces

CLOSE_FIELD = b"Connection: close\r\n"


cdef class Channel:
    """One accepted connection. is_local: on the Unix socket, whose peer administers."""

    def __init__(self, Server server not None, bint is_local=False):
        cdef Limits limits = server.limits
        self.server = server
        self.responder = server.responder
        self.is_local = is_local
        self.peer_ip = ""
        self.reader = MessageReader(limits.max_head_bytes, limits.max_headers, limits.max_body_bytes)

    # What a subclass is.

    cdef void pump(self) except *:
        pass

    cdef bint busy(self) noexcept:
        return False

    cdef Py_ssize_t held_bytes(self) noexcept:
        return 0

    cdef void abandon_body(self) except *:
        pass

    # Called by the transport.

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.write = transport.write
        self.idle_since_ns = tm_monotonic_ns()
        transport.set_write_buffer_limits(high=self.server.limits.max_write_buffer_bytes)
        if self.is_local and not _is_administrator(transport):
            self.closing = True
            transport.abort()
            return
        if not self.is_local:
            peer_name = transport.get_extra_info("peername")
            if peer_name is None:    # reset before it was accepted
                self.abort()
                return
            self.peer_ip = peer_name[0]
            self.peer_address = parse_peer(self.peer_ip)
        # The administration socket has no limit: its peers are the host's, and what is done about a flood is done through it.
        is_beyond = not self.is_local and self.server.connections >= self.server.limits.max_connections
        if is_beyond or self.server.draining:
            self._turn_away()
            return
        self.server.opened(self)

    cdef void _turn_away(self) except *:
        """Tells the peer to come back; of many at once the others are dropped, since each holds a descriptor until it has gone."""
        if self.server.turns_away(self):
            self.reject(Rejected(503, "TM-SYS-5030", Counter.CONNECTION_REFUSED), self.idle_since_ns)
            self.settle()
        else:
            self.server.counters.increment(Counter.CONNECTION_REFUSED)
            self.abort()

    def connection_lost(self, exc) -> None:
        self.closing = True
        self.transport = self.write = None
        self.abandon_body()
        self.reader.clear()
        if self.room_waiter is not None:
            waiter, self.room_waiter = self.room_waiter, None
            waiter.set_exception(ConnectionResetError())
        self.recharge()
        self.server.closed(self)

    def eof_received(self) -> bool:
        self.ended = True
        if not self.busy() and not self.scheduled:
            self.closing = True
        return not self.closing    # True: stay open until the answers are out

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._hold_reading(True)

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.room_waiter is not None:
            waiter, self.room_waiter = self.room_waiter, None
            waiter.set_result(None)
        else:
            self.pump()

    def data_received(self, bytes data not None) -> None:
        self.server.counters.add(RECEIVED_BYTES, PyBytes_GET_SIZE(data))
        if self.closing:
            return
        self.reader.push(data)
        if not self.busy() and not self.writing_paused and not self.scheduled:
            self.pump()
        else:
            self.wait_behind()
            self.recharge()

    # Called by the server.

    def check_time(self, int64_t now_ns) -> None:
        """Ends the connection if a time limit has passed; called twice a second."""
        cdef Limits limits = self.server.limits
        cdef int64_t waited_ms = (now_ns - self.idle_since_ns) // 1000000
        if self.closing:
            # lingering, or the peer does not take its last answer
            if waited_ms > (LINGER_MS if self.lingering else limits.keepalive_timeout_ms):
                self.abort()
        elif self.busy():
            if self.sending and self._takes_too_slowly(now_ns):
                self.server.counters.increment(Counter.REJECT_WRITE_BUFFER)
                self.abort()
        elif self.writing_paused:
            self.body_rate.looked_at_ns = now_ns    # nothing is read now: not the peer's fault
            if waited_ms > limits.keepalive_timeout_ms:
                self.server.counters.increment(Counter.REJECT_WRITE_BUFFER)
                self.abort()
        elif self.body_held:
            self.body_rate.looked_at_ns = now_ns    # nor is the disk
        elif self.reader.in_body:
            if rate_too_slow(&self.body_rate, now_ns, self.reader.body_received, limits.min_body_bytes_per_s):
                self.reject(Rejected(408, "TM-SYS-4000", Counter.REJECT_BODY_RATE), now_ns)
                self.settle()
        elif self.partial_since_ns != 0:
            if (now_ns - self.partial_since_ns) // 1000000 > limits.head_timeout_ms:
                self.reject(Rejected(408, "TM-SYS-4000", Counter.REJECT_HEAD_TIMEOUT), now_ns)
                self.settle()
        elif waited_ms > limits.keepalive_timeout_ms:    # also before a first byte: clients fill their pools ahead
            self.closing = True
            self.transport.close()

    def drain(self) -> None:
        """No request after those already here."""
        if self.lingering:
            self.transport.close()
        elif self.dropping:
            self.closing = True
            self._end()
        elif not self.busy() and not self.scheduled and not self.reader.buffered() and not self.reader.in_body:
            self.closing = True
            self.transport.close()

    def abort(self) -> None:
        """Drops the connection with what it still had to send."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    # Refusing and ending.

    cdef void reject(self, object rejection, int64_t started_ns) except *:
        """Puts out the answer to what is no request; the connection then ends: where the next one would begin is not known."""
        if self.transport is None:
            return
        self.abandon_body()
        self.closing = self.refused = True
        if self.dropping:    # it has its answer; what is wrong with the rest is of no interest
            return
        self.server.counters.increment(rejection.counter)
        extra = b"Retry-After: 1\r\n" if rejection.status == 503 else b""
        head = self.reader._head    # there when the head was good and the body is at fault
        request_id = None if head is None else head.request_id
        self.responder.put_error(request_id or self.responder.new_request_id(), self.server.clock.read_ms(), rejection.status,
                                 rejection.code, None, extra, CLOSE_FIELD)
        self.idle_since_ns = tm_monotonic_ns()
        self.server.meter.observe(OTHER_METHOD, len(self.server.router.templates), rejection.status,
                                  self.idle_since_ns - started_ns)

    # After a turn.

    cdef void settle(self) except *:
        """Sends what was put out, and settles what the connection waits for next."""
        cdef bint working = self.busy() or self.scheduled
        if self.transport is None:
            self.responder.out.size = 0    # the peer has gone; its answers go nowhere
        else:
            if self.responder.out.size:
                self.flush()
            if self.ended and not working:
                self.closing = True
            if self.closing:
                if not self.busy():
                    self._end()
            elif working:
                self.wait_behind()
            else:
                self._wait_for_more()
        if working or self.charged_bytes != 0 or self.reader.in_body:
            self.recharge()

    cdef int _wait_for_more(self) except -1:
        self._hold_reading(self.writing_paused or self.body_held)
        if not self.reader.in_body and not self.reader.buffered():
            self.partial_since_ns = 0
            self.reader.trim()
        elif self.partial_since_ns == 0:
            self.partial_since_ns = self.idle_since_ns = tm_monotonic_ns()
        if self.reader.awaits_continue() and not self.continued:
            self.continued = True
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return 0

    cdef void wait_behind(self) except *:
        """Stops reading when enough waits behind the request under way; whoever is done with that reads on."""
        if self.queued_since_ns == 0 and self.reader.buffered() > 0:
            self.queued_since_ns = tm_monotonic_ns()
        if self.reader.buffered() > BUFFERED_BYTES_MAX or self.server.buffered_bytes > self.server.limits.max_buffered_bytes:
            self._hold_reading(True)

    cdef void recharge(self) noexcept:
        """Brings the server's account of what is held for requests up to date; after everything that may change it."""
        cdef Py_ssize_t held = self.held_bytes()
        if held != self.charged_bytes:
            self.server.buffered_bytes += held - self.charged_bytes
            self.charged_bytes = held

    cdef void begin_body(self) noexcept:
        """From now on the peer is expected to send a body."""
        rate_begin(&self.body_rate, tm_monotonic_ns(), self.server.limits.min_body_bytes_per_s, BODY_GRACE_MS)

    # An answer that leaves in pieces.

    cdef void begin_sending(self) except *:
        """Sends the head that was put out; pieces may follow."""
        cdef Limits limits = self.server.limits
        self.sending = True
        self.piece_bytes_sent = 0
        rate_begin(&self.body_rate, tm_monotonic_ns(), max(1, limits.min_body_bytes_per_s), limits.keepalive_timeout_ms)
        if self.transport is None:
            self.responder.out.size = 0
        else:
            self.flush()
            self.transport.set_write_buffer_limits(high=limits.max_write_buffer_bytes // 2)

    cdef void end_sending(self) except *:
        self.sending = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=self.server.limits.max_write_buffer_bytes)

    @property
    def piece_bytes_max(self) -> int:
        """Of one piece: with half the write buffer unsent before it, all that is in memory stays below the write buffer's limit."""
        return min(PIECE_BYTES_MAX, self.server.limits.max_write_buffer_bytes // 4)

    def writable(self):
        """A future that is done when the next piece may be read and written; ConnectionResetError: the peer has gone."""
        waiter = self.server.loop.create_future()
        if self.transport is None:
            waiter.set_exception(ConnectionResetError())
        elif self.writing_paused:
            self.room_waiter = waiter
        else:
            waiter.set_result(None)
        return waiter

    def write_piece(self, bytes piece not None) -> None:
        """Sends a piece; the peer that has gone meanwhile is known at the next `writable`."""
        if self.transport is not None:
            self.piece_bytes_sent += PyBytes_GET_SIZE(piece)
            self.server.counters.add(SENT_BYTES, PyBytes_GET_SIZE(piece))
            self.write(piece)

    cdef bint _takes_too_slowly(self, int64_t now_ns) except -1:
        """Whether the peer takes a file below the minimum rate, over keepalive_timeout_ms of the time that it keeps us waiting.

        Without a minimum rate it is a byte a second: it must take something. The kernel takes and gives room in large steps, so
        the window is longer than that of a body which comes.
        """
        cdef int64_t taken_bytes = self.piece_bytes_sent - <int64_t>self.transport.get_write_buffer_size()
        if not self.writing_paused:
            self.body_rate.looked_at_ns = now_ns    # it waits for us
        return rate_too_slow(&self.body_rate, now_ns, taken_bytes, max(1, self.server.limits.min_body_bytes_per_s))

    # After the last answer.

    cdef void _end(self) except *:
        # Closing while the peer still sends would reset the connection, and with it the answer that says why.
        may_send_more = self.refused or self.reader.in_body or self.reader.buffered() > 0
        self.reader.clear()
        if self.lingering or not may_send_more or self.ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.lingering = True
            self._hold_reading(False)
            self.transport.write_eof()

    cdef void flush(self) except *:
        answers = self.responder.out.take()
        self.server.counters.add(SENT_BYTES, PyBytes_GET_SIZE(answers))
        self.write(answers)

    def _hold_reading(self, hold: bool) -> None:
        if self.transport is None or hold == self.reading_paused or self.transport.is_closing():
            return
        self.reading_paused = hold
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


def _is_administrator(transport) -> bool:
    """Whether the peer of a Unix socket is root or runs as this process's user (SO_PEERCRED, unix(7))."""
    credentials = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, geteuid())

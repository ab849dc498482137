from libc.stdint cimport int64_t

from tokmesh._core.body_rate cimport BodyRate
from tokmesh._core.reader cimport MessageReader
from tokmesh._core.response cimport Responder
from tokmesh._core.server cimport Server


cdef class Channel:
    cdef:
        readonly Server server
        Responder responder
        MessageReader reader
        object transport
        object write                 # transport.write, bound once
        str peer_ip
        object peer_address          # ipaddress object, None on the local socket
        bint is_local
        bint closing                 # no further request is read
        bint refused                 # the last answer was to what is no request
        bint lingering               # the last answer is out; what the peer still sends is dropped
        bint dropping                # the request under way has its answer; the rest of its body is read and dropped
        bint ended                   # the peer sends no more
        bint reading_paused
        bint writing_paused
        bint continued               # 100 Continue was sent for the message under way
        bint scheduled               # a further turn is already on the loop's list
        int64_t idle_since_ns        # when the last message was complete, or the connection made
        int64_t partial_since_ns     # since when an incomplete message is here; 0: none is
        int64_t queued_since_ns      # since when the next request waits behind the one under way; 0: it does not
        BodyRate body_rate           # of the body under way, or of the file that is being sent
        bint body_held               # the body under way waits for the disk, and reading with it
        bint sending                 # an answer that leaves in pieces is under way
        int64_t piece_bytes_sent     # of it, given to the transport
        object room_waiter           # future: the peer may be sent the next piece; None: nobody waits
        Py_ssize_t charged_bytes     # this connection's part of the server's buffered_bytes

    cdef void pump(self) except *
    cdef void _turn_away(self) except *
    cdef bint busy(self) noexcept
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef void recharge(self) noexcept
    cdef void begin_body(self) noexcept
    cdef void abandon_body(self) except *
    cdef void begin_sending(self) except *
    cdef void end_sending(self) except *
    cdef bint _takes_too_slowly(self, int64_t now_ns) except -1
    cdef void wait_behind(self) except *
    cdef void reject(self, object rejection, int64_t started_ns) except *
    cdef void settle(self) except *
    cdef void flush(self) except *
    cdef int _wait_for_more(self) except -1
    cdef void _end(self) except *

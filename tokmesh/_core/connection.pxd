from libc.stdint cimport int64_t

from tokmesh._core.head cimport Head
from tokmesh._core.reader cimport MessageReader
from tokmesh._core.request cimport Request
from tokmesh._core.response cimport Responder
from tokmesh._core.server cimport Server


cdef class Connection:
    cdef:
        readonly Server server
        Responder responder
        MessageReader reader
        object transport
        object write                 # transport.write, bound once
        str peer_ip
        object peer_address          # ipaddress object, None on the local socket
        bint is_local
        Request current              # being handled; the next one waits for it
        bint closing                 # no further request is read
        bint reading_paused
        bint writing_paused
        bint continued               # 100 Continue was sent for the message under way
        bint scheduled               # _turn is already on the loop's list
        bint ended                   # the peer sends no more
        int64_t idle_since_ns        # when the last message was complete, or the connection made
        int64_t partial_since_ns     # since when an incomplete message is here; 0: none is

    cdef void pump(self) except *
    cdef bint handle_next(self, int64_t* started_ns) except -1
    cdef bint answer_repeated(self, Head head, const char* body, Py_ssize_t size, int64_t started_ns) except -1
    cdef bint put_verdict(self, Head head, const char* token, int64_t now_ms, int64_t started_ns) except -1
    cdef void start(self, Head head, bytes body, int64_t started_ns) except *
    cdef object begin(self, Request request)
    cdef bint _answer_at_once(self, Request request, int64_t now_ms) except -1
    cdef bytes connection_field(self, Request request)
    cdef void drive(self, Request request, object value) except *
    cdef void finish(self, Request request, object reply) except *
    cdef void refuse(self, Request request, object error) except *
    cdef void done(self, Request request, int status) except *
    cdef void reject(self, object rejection, int64_t started_ns) except *
    cdef void after_pump(self) except *
    cdef void flush(self) except *

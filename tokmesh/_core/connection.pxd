from libc.stdint cimport int64_t

from tokmesh._core.channel cimport Channel
from tokmesh._core.head cimport Head
from tokmesh._core.request cimport Request


cdef class Connection(Channel):
    cdef:
        Request current              # being handled; the next one waits for it

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
    cdef object sign_in(self, Head head)
    cdef void done(self, Request request, int status) except *

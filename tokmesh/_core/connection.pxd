from libc.stdint cimport int64_t

from tokmesh._core.head cimport Head
from tokmesh._core.intake cimport Intake
from tokmesh._core.request cimport Request


cdef class Connection(Intake):
    cdef bint handle_next(self, int64_t* started_ns) except -1
    cdef bint answer_repeated(self, Head head, const char* body, Py_ssize_t size, int64_t started_ns) except -1
    cdef bint put_verdict(self, Head head, const char* token, int64_t now_ms, int64_t started_ns) except -1
    cdef Request request_of(self, Head head, int64_t started_ns, bint traced)
    cdef void open(self, Request request) except *
    cdef bint admit(self, Request request) except -1
    cdef object begin(self, Request request)
    cdef void accept(self, Request request) except *
    cdef bint _answer_at_once(self, Request request) except -1
    cdef bint ends(self, Request request) noexcept
    cdef bytes connection_field(self, Request request)
    cdef void finish(self, Request request, object reply) except *
    cdef void end_stage(self, Request request) except *
    cdef void send(self, Request request, object answer) except *
    cdef void cut(self, Request request, object error) except *
    cdef void done(self, Request request, int status) except *

from libc.stdint cimport int64_t

from tokmesh._core.channel cimport Channel
from tokmesh._core.head cimport Head
from tokmesh._core.request cimport Request


cdef class Connection(Channel):
    cdef:
        Request current              # its key is being verified, or it is being handled; the next one waits for it
        Request awaited              # admitted; its body is still to come

    cdef bint handle_next(self, int64_t* started_ns) except -1
    cdef bint answer_repeated(self, Head head, const char* body, Py_ssize_t size, int64_t started_ns) except -1
    cdef bint put_verdict(self, Head head, const char* token, int64_t now_ms, int64_t started_ns) except -1
    cdef Request request_of(self, Head head, int64_t started_ns, bint traced)
    cdef void open(self, Request request) except *
    cdef bint admit(self, Request request) except -1
    cdef void expect_body(self, Request request) except *
    cdef bint go_on_with_body(self, int64_t started_ns) except -1
    cdef void handle(self, Request request) except *
    cdef object begin(self, Request request)
    cdef void accept(self, Request request) except *
    cdef bint _answer_at_once(self, Request request) except -1
    cdef bint ends(self, Request request) noexcept
    cdef bytes connection_field(self, Request request)
    cdef void drive(self, Request request, object value) except *
    cdef void finish(self, Request request, object reply) except *
    cdef void refuse(self, Request request, object error) except *
    cdef void leave_body(self, Request request) noexcept
    cdef void done(self, Request request, int status) except *

from libc.stdint cimport int64_t

from tokmesh._core.channel cimport Channel
from tokmesh._core.request cimport Request


cdef class Intake(Channel):
    cdef:
        Request current              # its key is being verified, or it is being handled; the next one waits for it
        Request awaited              # admitted; its body is still to come
        object spool                 # the file that the body of `awaited` goes to (api.spool.Spool); None: it is kept in memory
        object storing               # future of the piece that is being written to it

    cdef void handle(self, Request request) except *
    cdef void refuse(self, Request request, object error) except *
    cdef void drive(self, Request request, object value) except *
    cdef void expect_body(self, Request request) except *
    cdef bint go_on_with_body(self, int64_t started_ns) except -1
    cdef bint _go_on_with_file(self, Request request, int64_t started_ns) except -1
    cdef void leave_body(self, Request request) except *

from libc.stdint cimport int64_t, uint64_t

from tokmesh._core.counters cimport CounterBlock
from tokmesh._core.histogram cimport HistogramBlock


cdef class Meter:
    cdef:
        readonly tuple templates           # the router's, then "unmatched"
        readonly CounterBlock counts       # [method][template][status]
        readonly HistogramBlock latency    # [method][template][status class]
        frozenset _declared
        Py_ssize_t _template_count
        unsigned char _status_index[600]   # HTTP status → position in STATUSES

    cdef void observe(self, int method, Py_ssize_t template, int status, uint64_t elapsed_ns) noexcept nogil
    cpdef int note_exemplar(self, int method, Py_ssize_t template, int status, uint64_t elapsed_ns, str trace_id,
                            int64_t at_ms) except -1

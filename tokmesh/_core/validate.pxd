from libc.stdint cimport int64_t, uint8_t

from tokmesh._core.counters cimport CounterBlock
from tokmesh._core.response cimport OutBuffer
from tokmesh._core.table cimport SESSION_JSON_BYTES_MAX, Table

cdef enum:
    VERDICT_MALFORMED = -1       # beside table.Verdict

cdef const char* canonical_token(const char* body, Py_ssize_t size) noexcept nogil


cdef class Validator:
    cdef:
        readonly Table table
        readonly CounterBlock counters
        bint _shani
        char session[SESSION_JSON_BYTES_MAX]     # JSON of the session last found valid
        Py_ssize_t session_size
        tuple _invalid_json
        OutBuffer _batch

    cdef int check(self, const char* token, int64_t now_ms, bint touch) noexcept nogil
    cdef bytes refusal_json(self, int verdict)
    cdef int _put_verdict(self, object token, int64_t now_ms, bint touch, dict told) except? -2
    cdef int _take_told(self, str token, dict told) except? -2
    cdef list _elsewhere(self, list tokens, dict told)

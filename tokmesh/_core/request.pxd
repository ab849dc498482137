from libc.stdint cimport int64_t

from tokmesh._core.head cimport Head
from tokmesh._core.principal cimport ApiKey


cdef class Request:
    cdef:
        Head head
        readonly bytes body
        readonly str request_id
        readonly ApiKey api_key
        readonly str peer_ip
        readonly bint is_local
        int64_t started_ns
        object work              # the handler's coroutine while it is under way

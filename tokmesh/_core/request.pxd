from libc.stdint cimport int64_t

from tokmesh._core.head cimport Head
from tokmesh._core.phases cimport Phases
from tokmesh._core.principal cimport ApiKey


cdef class Request:
    cdef:
        Head head
        readonly bytes body      # None until it is here whole
        readonly str request_id
        readonly ApiKey api_key
        readonly str peer_ip
        readonly bint is_local
        int64_t started_ns
        Phases phases
        bint verifying           # the key is being verified; what is driven is that, not the handler
        bint waited              # for its body, after it was admitted
        bint last                # the connection ends with its answer, since the body is not worth reading
        object work              # the handler's coroutine while it is under way

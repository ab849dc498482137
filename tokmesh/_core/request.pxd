from libc.stdint cimport int64_t

from tokmesh._core.head cimport Head
from tokmesh._core.phases cimport Phases
from tokmesh._core.principal cimport ApiKey


cdef enum:
    # what is driven for the request under way; the first two are its own work, and its waits the server's
    STAGE_HANDLING
    STAGE_STORING      # the rest of its body goes to a file
    STAGE_VERIFYING    # its key
    STAGE_SENDING      # its answer, in pieces


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
        int stage
        object spool             # the file of its body (api.spool.Spool) once that is here whole; None: `body` is all
        bint waited              # for its body, after it was admitted
        bint last                # the connection ends with its answer, since the body is not worth reading
        readonly object trace    # its spans (telemetry.tracing.tracer.RequestTrace) when it is sampled, else None
        object work              # the coroutine of its stage while that is under way

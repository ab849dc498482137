from libc.stdint cimport int64_t

from tokmesh._core.clock cimport Clock
from tokmesh._core.counters cimport CounterBlock
from tokmesh._core.head cimport Head
from tokmesh._core.meter cimport Meter
from tokmesh._core.principal cimport Grant
from tokmesh._core.request cimport Request
from tokmesh._core.response cimport Responder
from tokmesh._core.router cimport Router
from tokmesh._core.sampling cimport Sampler
from tokmesh._core.validate cimport Validator


cdef class Limits:
    cdef:
        readonly Py_ssize_t max_body_bytes
        readonly Py_ssize_t max_head_bytes
        readonly Py_ssize_t max_headers
        readonly int64_t head_timeout_ms
        readonly int64_t min_body_bytes_per_s
        readonly int max_pipelined
        readonly Py_ssize_t max_write_buffer_bytes
        readonly Py_ssize_t max_connections
        readonly int64_t keepalive_timeout_ms
        readonly Py_ssize_t max_buffered_bytes


cdef class Server:
    cdef:
        readonly Limits limits
        readonly Clock clock
        readonly CounterBlock counters
        readonly Meter meter
        readonly Router router
        readonly object logger
        readonly object loop
        readonly Request handling      # whose handler runs at this moment, or None: what is logged now belongs to it
        public int64_t slow_ns         # requests that take as long are logged
        public int64_t fresh_until_ns  # monotonic: until then what this node knows may be told; later it may be out of date
        public str fence_reason        # told to whoever asks later than that
        public object on_denied        # (request, template, code): administration was refused; None: nobody wants to know
        public object gate             # (path): raises ApiError, or lets in without a key; None: no gate
        readonly Sampler sampler
        object tracer                  # begins the spans of sampled requests; None: nothing is traced
        object authenticator
        tuple networks                 # security.auth.allow_list, or None: any address
        Validator validator
        Responder responder
        tuple _role_masks              # per route: Role bits admitted; 0: no key needed
        tuple _spools                  # per route: its SpoolSpec, or None
        tuple _tells_state             # per route: whether the answer depends on sessions or keys being up to date
        int _validate_number
        readonly Py_ssize_t buffered_bytes    # of bodies and what waits behind them, held or given room, all connections together
        set _open                      # connections
        set _turned_away               # those beyond the limit that are being told so, none of them in _open
        object _drained                # future while someone waits for the last connection
        readonly bint draining
        object _timer

    cdef void opened(self, object connection) except *
    cdef bint turns_away(self, object connection) except -1
    cdef void closed(self, object connection) except *
    cdef void resolve(self, Head head) except *
    cdef int authorize(self, Head head, int64_t now_ms, object peer_address) except -1
    cdef int require_fresh(self, Head head) except -1
    cdef bint has_room(self, Py_ssize_t body_bytes, Py_ssize_t charged_bytes) except -1
    cdef int _admit(self, Head head, int64_t now_ms, object peer_address, int mask) except -1
    cdef object begin_trace(self, Head head, object transport, int64_t started_ns)
    cdef void answered(self, Request request, int status, int64_t now_ns) except *
    cdef void tell_slow(self, Request request, int status, int64_t elapsed_ns) except *
    cdef void tell_denied(self, Request request, str code) except *
    cdef int _refuse(self, int refusal) except -1
    cdef bint _address_admitted(self, Grant grant, object peer_address) except -1
    cdef object sign_in(self, Head head)

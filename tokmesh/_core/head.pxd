from tokmesh._core.principal cimport ApiKey, Grant


cdef class Head:
    cdef:
        readonly str method
        readonly str path
        readonly str query
        readonly bint http10
        readonly bint keep_alive
        readonly bint chunked
        readonly bint expects_continue
        readonly Py_ssize_t body_size        # of Content-Length; 0 when absent; -1 when chunked
        readonly str request_id              # accepted X-Request-ID, or None
        readonly bytes credential            # presented API key, or None
        readonly bint credential_conflict    # two different ones
        readonly dict headers                # lower-case name → value; repeated ones joined with ", "
        # what the server made of it, once
        readonly int method_index
        readonly Py_ssize_t route_number     # router.UNMATCHED when there is none
        readonly Py_ssize_t template_index
        readonly tuple params
        readonly str allow
        readonly bint bad_path
        readonly bint is_validate
        object spool                         # the route's SpoolSpec (api.spool): its bodies go to a file; None: to memory
        int parent                           # sampling.PARENT_…: what its traceparent says, while there is tracing
        public Grant grant
        public ApiKey admitted               # the key found to have the role and the address for this route and peer

from libc.stdint cimport int64_t, uint32_t


cdef class SessionCreated:
    cdef:
        readonly int64_t time_ms
        readonly bytes session_id
        readonly bytes token_hash
        readonly str user_id
        readonly str device_id
        readonly str ip_address
        readonly str user_agent
        readonly str created_by
        readonly int64_t expires_at_ms
        readonly uint32_t idle_seconds
        readonly bytes data
        readonly tuple evicts

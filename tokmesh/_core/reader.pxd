from tokmesh._core.head cimport Head

cdef enum:
    DROPPED_BYTES_MAX = 262144   # of a refused body, read so that the connection may go on; beyond it the connection ends


cdef class MessageReader:
    cdef:
        object _parser
        bytes _raw                   # received, not yet consumed; the queue of pipelined requests is this
        Py_ssize_t _at               # consumed so far in _raw
        Py_ssize_t _searched         # in _raw, from where the end of the head is still to be looked for
        Py_ssize_t _head_bytes_max
        Py_ssize_t _header_count_max
        Py_ssize_t _body_bytes_max
        # message under way
        readonly bint in_body
        readonly Py_ssize_t body_received
        Head _head
        list _fields
        bytearray _collected         # of the body; one object, or a body in tiny chunks would take many times its size
        Py_ssize_t _body_left        # bytes of the body that may still come
        bint _headers_done
        bint _keep_alive
        bint _message_done
        Py_ssize_t _trailer_bytes
        bytes _line_tail             # last bytes of a chunked body that may begin an empty line, at most 3
        # the last complete head, byte for byte
        bytes _memo_raw
        Head memo

    cdef void push(self, bytes data) except *
    cdef Py_ssize_t buffered(self) noexcept
    cdef bint awaits_continue(self) noexcept
    cdef Head next_repeated(self, const char** body, Py_ssize_t* body_size)
    cdef Head next_head(self)
    cdef void forget(self) noexcept
    cdef bytes take_body(self)
    cdef void unbound_body(self) noexcept
    cdef bint read_body(self) except -1
    cdef Py_ssize_t collected_bytes(self) noexcept
    cdef bytearray take_piece(self)
    cdef void end_message(self) noexcept
    cdef void refuse_body(self) noexcept
    cdef bint drop_body(self) except -1
    cdef void trim(self) noexcept
    cdef void clear(self) noexcept
    cdef bint _read_head(self) except -1
    cdef Py_ssize_t _chunked_end(self) except -1
    cdef void _remember(self, bytes raw) except *

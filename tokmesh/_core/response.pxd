from libc.stdint cimport int64_t, uint64_t


cdef class OutBuffer:
    cdef:
        char* _data
        Py_ssize_t _capacity
        Py_ssize_t size

    cdef char* reserve(self, Py_ssize_t extra) except NULL
    cdef int put(self, const char* data, Py_ssize_t size) except -1
    cdef int put_bytes(self, bytes data) except -1
    cdef int put_number(self, int64_t value) except -1
    cdef bytes take(self)


cdef class Responder:
    cdef:
        readonly OutBuffer out
        bytes _date_line                # "Date: …\r\n"
        bytes _ok_head                  # status line and fields of a 200 JSON answer up to the request id
        uint64_t _id_state
        dict _status_lines
        dict _error_messages

    cdef void make_request_id(self, char* out) noexcept nogil
    cdef int put_validated(self, const char* request_id, Py_ssize_t request_id_size, int64_t now_ms,
                           const char* session, Py_ssize_t session_size) except -1
    cdef int put_data(self, str request_id, int64_t now_ms, bytes data, bytes connection) except -1
    cdef int put_error(self, str request_id, int64_t now_ms, int status, str code, object details,
                       bytes extra, bytes connection) except -1
    cdef int put_answer(self, str request_id, object answer, bytes extra, bytes connection) except -1
    cdef int put_file_head(self, str request_id, object answer, bytes connection) except -1
    cdef int put_bodiless(self, str request_id, int status, bytes extra, bytes connection) except -1
    cdef bytes refusal_fields(self, int status, str allow, object retry_after_s)
    cdef int put_head(self, int status, bytes fields, bytes connection, const char* id_text, Py_ssize_t id_size,
                      Py_ssize_t body_size) except -1
    cdef bytes _fields_of(self, object answer, bytes extra)
    cdef int _put_whole(self, str request_id, int status, bytes fields, bytes connection, bytes body) except -1

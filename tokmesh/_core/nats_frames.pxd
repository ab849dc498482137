from libc.stdint cimport uint8_t, uint64_t

# What stands at the place that is read.
cdef enum FrameKind:
    FRAME_NONE                       # not whole yet
    FRAME_LINE                       # a line that is no message
    FRAME_MESSAGE
    FRAME_BAD                        # no frame of the protocol

# A message, by its places in what was fed.
cdef struct Message:
    const char* subject
    size_t subject_size
    const char* reply                # NULL without one
    size_t reply_size
    uint64_t sid
    const uint8_t* headers           # NULL without any
    size_t headers_size
    const uint8_t* payload
    size_t payload_size


cdef class Frames:
    cdef:
        bytes _data                  # what is being read
        size_t _at
        list _more                   # what came behind it, while the frame at _at is not whole
        size_t _more_bytes
        size_t _needed               # bytes from _at on that the frame at _at has, or has at least
        dict _deliveries             # by sid

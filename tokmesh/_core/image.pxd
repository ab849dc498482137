from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tokmesh._core.layout cimport Row, Slot
from tokmesh._core.survey cimport Survey

# An image's bytes, little-endian, no padding. All of them start with
#
#    0 size u32, of the whole image   4 kind u8   5 state u8   6 has_alias u8   7 zero
#    8 token_hash 32   40 expires_at_ms i64   48 gone_tick u32   52 idle_seconds u32
#
# which is all of an IMAGE_ENDED_ALIAS. An IMAGE_SESSION goes on with
#
#   56 session_id 16   72 created_at_ms i64   80 last_active_ms i64   88 version u64
#   96 sizes u16: user_id, device_id, ip_address, last_access_ip (SAME), user_agent, last_access_ua (SAME), created_by, data
#
# and, if has_alias, with the token it had before: token_hash 32, expires_at_ms i64, gone_tick u32; then the texts, escaped for
# JSON, in the order of their sizes. SAME: the text is that of the first access, and not there again.
cdef enum ImageKind:
    IMAGE_SESSION = 1
    IMAGE_ENDED_ALIAS = 2

cdef enum:
    IMAGE_HEAD_BYTES = 56
    IMAGE_SESSION_BYTES = 112
    IMAGE_ALIAS_BYTES = 44
    IMAGE_TEXTS = 8
    IMAGE_SAME = 0xFFFF


cdef class Image:
    cdef:
        const Slot* slots
        const Row* rows
        const char* arena
        readonly bint active
        bint failed
        uint64_t* done               # bit n: entry n is saved, or began after the moment of the image
        uint32_t cursor
        uint32_t end
        uint8_t* bytes
        size_t size
        size_t capacity
        readonly uint64_t count      # images saved so far
        readonly Survey survey

    cdef void skip(self, uint32_t entry) noexcept nogil
    cdef void save(self, uint32_t entry) noexcept nogil
    cdef void _mark(self, uint32_t entry) noexcept nogil
    cdef void _save(self, uint32_t entry) noexcept nogil
    cdef bint is_done(self, uint32_t entry) noexcept nogil
    cdef bint _room(self, size_t more) noexcept nogil
    cdef void _save_session(self, uint32_t entry) noexcept nogil
    cdef void _save_ended_alias(self, uint32_t entry) noexcept nogil

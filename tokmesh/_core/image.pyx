"""An image of the table at one moment, taken piece by piece while the table goes on changing.

What is about to change or to be forgotten is saved first (`save`), what begins after the moment is left out (`skip`), the rest is
saved as a cursor passes over it (`step`): so all images together are the table as it was when `begin` was called. Soft state alone
may be newer: last active, last address and last user agent are those of the time of saving.

Who is told of changes for an image is told for a survey (survey.pyx), and passes it on: each has its own moment.

Invariants: an entry is saved at most once; a session's alias is in its session's image, never one of its own; beyond
UNTAKEN_BYTES_MAX of images that nobody took the image fails, so that a slow disk costs an image and not the memory.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from tokmesh._core.arena cimport GRANULE_BYTES
from tokmesh._core.interned cimport InternedString
from tokmesh._core.layout cimport (
    SAME_AS_IP, SLOT_ALIAS_ENDED, SLOT_EXPIRED, SLOT_LIVE, SLOT_REVOKED, Block, Row, Slot,
)
from tokmesh._core.survey cimport Survey


cdef extern from "platform.h" nogil:
    void tm_put32(uint8_t* out, uint32_t value)
    void tm_put64(uint8_t* out, uint64_t value)

cdef enum:
    UNTAKEN_BYTES_MAX = 256 << 20
    KEPT_BYTES = 4 << 20

UNTAKEN_MAX = UNTAKEN_BYTES_MAX


cdef inline void put_size(uint8_t* out, size_t size) noexcept nogil:
    out[0] = <uint8_t>(size & 255)
    out[1] = <uint8_t>(size >> 8)


cdef class Image:
    """No image. The owner sets `slots`, `rows` and `arena` before the first use and keeps them mapped."""

    def __cinit__(self):
        self.survey = Survey()

    def __dealloc__(self):
        free(self.done)
        free(self.bytes)

    cdef bint is_done(self, uint32_t entry) noexcept nogil:
        return entry >= self.end or (self.done[entry >> 6] >> (entry & 63)) & 1

    cdef void skip(self, uint32_t entry) noexcept nogil:
        # It begins now.
        self._mark(entry)
        self.survey.skip(entry)

    cdef void _mark(self, uint32_t entry) noexcept nogil:
        if entry < self.end:
            self.done[entry >> 6] |= <uint64_t>1 << (entry & 63)

    cdef void save(self, uint32_t entry) noexcept nogil:
        # Before a change, or as the cursor passes. Free entries and aliases of sessions have no image of their own.
        self.survey.count_in(entry)
        self._save(entry)

    cdef void _save(self, uint32_t entry) noexcept nogil:
        cdef uint8_t state
        if self.is_done(entry):
            return
        state = self.slots[entry].state
        if state == SLOT_LIVE or state == SLOT_EXPIRED or state == SLOT_REVOKED:
            self._save_session(entry)
        elif state == SLOT_ALIAS_ENDED:
            self._save_ended_alias(entry)
        self._mark(entry)

    cdef bint _room(self, size_t more) noexcept nogil:
        cdef size_t needed = self.size + more
        cdef void* grown
        if self.failed or needed > UNTAKEN_BYTES_MAX:
            self.failed = True
            return False
        if needed > self.capacity:
            needed = max(needed, 2 * self.capacity, <size_t>65536)
            grown = realloc(self.bytes, needed)
            if grown == NULL:
                self.failed = True
                return False
            self.bytes = <uint8_t*>grown
            self.capacity = needed
        return True

    cdef void _save_ended_alias(self, uint32_t entry) noexcept nogil:
        if self._room(IMAGE_HEAD_BYTES):
            put_head(self.bytes + self.size, &self.slots[entry], self.rows[entry].gone_tick, IMAGE_ENDED_ALIAS, IMAGE_HEAD_BYTES, 0)
            self.size += IMAGE_HEAD_BYTES
            self.count += 1

    cdef void _save_session(self, uint32_t entry) noexcept nogil:
        cdef const Slot* slot = &self.slots[entry]
        cdef const Row* row = &self.rows[entry]
        cdef const Block* block = <const Block*>(self.arena + <size_t>slot.block * GRANULE_BYTES)
        cdef const InternedString* agent = <const InternedString*>(self.arena + <size_t>block.user_agent * GRANULE_BYTES)
        cdef const InternedString* last_agent = <const InternedString*>(self.arena + <size_t>block.last_access_ua * GRANULE_BYTES)
        cdef const InternedString* by = <const InternedString*>(self.arena + <size_t>block.created_by * GRANULE_BYTES)
        cdef size_t agent_size = agent.size if block.user_agent != 0 else 0
        cdef size_t last_agent_size = last_agent.size if block.last_access_ua != 0 else 0
        cdef size_t by_size = by.size if block.created_by != 0 else 0
        cdef size_t last_ip_size = block.last_ip_size if block.last_ip_size != SAME_AS_IP else 0
        cdef size_t stored_size = block.user_size + block.device_size + block.ip_size + last_ip_size
        cdef bint same_agent = block.user_agent == block.last_access_ua
        cdef size_t size = IMAGE_SESSION_BYTES + stored_size + agent_size + by_size + block.data_size
        cdef const char* text = <const char*>block + sizeof(Block)
        cdef uint8_t* out
        if same_agent:
            last_agent_size = 0
        size += last_agent_size
        if row.partner != 0:
            size += IMAGE_ALIAS_BYTES
        if not self._room(size):
            return
        out = self.bytes + self.size
        put_head(out, slot, row.gone_tick, IMAGE_SESSION, size, row.partner != 0)
        memcpy(out + 56, block.session_id, 16)
        tm_put64(out + 72, <uint64_t>block.created_at_ms)
        tm_put64(out + 80, <uint64_t>slot.last_active_ms)
        tm_put64(out + 88, block.version)
        put_size(out + 96, block.user_size)
        put_size(out + 98, block.device_size)
        put_size(out + 100, block.ip_size)
        put_size(out + 102, block.last_ip_size)      # SAME_AS_IP is IMAGE_SAME
        put_size(out + 104, agent_size)
        put_size(out + 106, IMAGE_SAME if same_agent else last_agent_size)
        put_size(out + 108, by_size)
        put_size(out + 110, block.data_size)
        out += IMAGE_SESSION_BYTES
        if row.partner != 0:
            memcpy(out, self.slots[row.partner].token_hash, 32)
            tm_put64(out + 32, <uint64_t>self.slots[row.partner].expires_at_ms)
            tm_put32(out + 40, self.rows[row.partner].gone_tick)
            out += IMAGE_ALIAS_BYTES
            self._mark(row.partner)
        memcpy(out, text, stored_size)
        out += stored_size
        memcpy(out, <const char*>agent + sizeof(InternedString), agent_size)
        out += agent_size
        memcpy(out, <const char*>last_agent + sizeof(InternedString), last_agent_size)
        out += last_agent_size
        memcpy(out, <const char*>by + sizeof(InternedString), by_size)
        out += by_size
        memcpy(out, text + stored_size, block.data_size)
        self.size += size
        self.count += 1

    def begin(self, uint32_t end) -> None:
        """The moment of the image is now; `end`: entries from here on were never used. One at a time. MemoryError."""
        assert not self.active
        self.done = <uint64_t*>calloc((<size_t>end >> 6) + 1, sizeof(uint64_t))
        if self.done == NULL:
            raise MemoryError()
        self.end = end
        self.cursor = 1
        self.size = 0
        self.count = 0
        self.failed = False
        self.active = True

    def step(self, uint32_t budget) -> tuple[bytes, bool]:
        """Looks at `budget` more entries; all images since the last step, and whether these were the last, which ends the image.

        MemoryError, which ends it as well: more than UNTAKEN_MAX bytes gathered since the last step, or no memory."""
        assert self.active
        cdef uint32_t until = self.end if budget > self.end - self.cursor else self.cursor + budget
        while self.cursor < until:  # with the GIL: another thread that took it could keep it for longer than this lasts
            self._save(self.cursor)
            self.cursor += 1
        if self.failed:
            self.abandon()
            raise MemoryError("the image of the table was not taken fast enough")
        gathered = PyBytes_FromStringAndSize(<const char*>self.bytes, <Py_ssize_t>self.size)
        self.size = 0
        if self.cursor == self.end:
            self.abandon()
            return gathered, True
        return gathered, False

    def abandon(self) -> None:
        """Ends the image, if there is one."""
        self.active = False
        self.end = 0
        free(self.done)
        self.done = NULL
        if self.capacity > KEPT_BYTES:
            free(self.bytes)
            self.bytes = NULL
            self.capacity = 0


cdef void put_head(uint8_t* out, const Slot* slot, uint32_t gone_tick, ImageKind kind, size_t size, bint has_alias) noexcept nogil:
    tm_put32(out, <uint32_t>size)
    out[4] = <uint8_t>kind
    out[5] = slot.state
    out[6] = has_alias
    out[7] = 0
    memcpy(out + 8, slot.token_hash, 32)
    tm_put64(out + 40, <uint64_t>slot.expires_at_ms)
    tm_put32(out + 48, gone_tick)
    tm_put32(out + 52, slot.idle_seconds)

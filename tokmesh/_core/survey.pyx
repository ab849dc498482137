"""A survey of the table at one moment: for each shard the sum of its sessions' hashes, taken piece by piece while the table goes on
changing. Two tables that were made of the same records, in whatever way, have the same sums.

What is hashed of a session is what the records of its cluster's stream say: id, token, creation, end, idle limit, version, user,
device, address, agent, creator, data; and the token it had before with the end of its grace. Nothing that a node has by itself:
last access, places in memory, whether the wheel has come by. A session counts when it is not revoked and ends after `beyond_ms`;
one with an idle limit when it would also without any access since its creation, as accesses are not in the stream; a grace when it
ends after `beyond_ms`. What has ended counts nowhere: nodes forget it at their own times.

As of one moment like an image (image.pyx), by the same argument: what is about to change or to be forgotten is counted in first
(`count_in`), what begins after the moment is left out (`skip`), a cursor goes over the rest (`step`). Image passes on what it is
told.

Invariants: an entry is counted in at most once; an alias is counted with its session; a sum does not depend on the order. Sums wrap
at 2^64, and every survey has another key: what is equal by chance is not so at the next.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tokmesh._core.arena cimport GRANULE_BYTES
from tokmesh._core.interned cimport InternedString
from tokmesh._core.layout cimport SAME_AS_IP, SHARD_COUNT, SLOT_EXPIRED, SLOT_LIVE, Block, Slot, shard_of_id


cdef extern from "siphash.h" nogil:
    uint64_t tm_siphash13(const uint64_t* key, const void* data, size_t size)

# What is hashed of a session: no padding, every word set.
cdef struct Summary:
    uint8_t session_id[16]
    uint8_t token_hash[32]
    uint8_t old_token_hash[32]       # zeros: none in its grace
    int64_t old_valid_until_ms
    int64_t created_at_ms
    int64_t expires_at_ms
    uint64_t version
    uint64_t idle_seconds
    uint64_t sizes                   # of user id, device id, address, data, 16 bits each
    uint64_t texts                   # hashes: of user id, device id and address, which lie together; of the others
    uint64_t user_agent
    uint64_t created_by
    uint64_t data


cdef class Survey:
    """No survey. The owner sets `slots`, `rows` and `arena` before the first use and keeps them mapped."""

    def __dealloc__(self):
        free(self.done)

    cdef void skip(self, uint32_t entry) noexcept nogil:
        if entry < self.end:
            self.done[entry >> 6] |= <uint64_t>1 << (entry & 63)

    cdef void count_in(self, uint32_t entry) noexcept nogil:
        # Before a change, or as the cursor passes.
        cdef uint8_t state
        if entry >= self.end or (self.done[entry >> 6] >> (entry & 63)) & 1:
            return
        self.done[entry >> 6] |= <uint64_t>1 << (entry & 63)
        state = self.slots[entry].state
        if (state == SLOT_LIVE or state == SLOT_EXPIRED) and self.slots[entry].expires_at_ms > self.beyond_ms:
            self._add(entry)

    cdef void _add(self, uint32_t entry) noexcept nogil:
        cdef const Slot* slot = &self.slots[entry]
        cdef const Block* block = <const Block*>(self.arena + <size_t>slot.block * GRANULE_BYTES)
        cdef const char* text = <const char*>block + sizeof(Block)
        cdef const Slot* alias = &self.slots[self.rows[entry].partner]
        cdef size_t stored = block.user_size + block.device_size + block.ip_size
        cdef size_t last_ip_size = block.last_ip_size if block.last_ip_size != SAME_AS_IP else 0
        cdef Summary summary
        if slot.idle_seconds != 0 and block.created_at_ms + <int64_t>slot.idle_seconds * 1000 <= self.beyond_ms:
            return
        memcpy(summary.session_id, block.session_id, 16)
        memcpy(summary.token_hash, slot.token_hash, 32)
        if self.rows[entry].partner != 0 and alias.expires_at_ms > self.beyond_ms:
            memcpy(summary.old_token_hash, alias.token_hash, 32)
            summary.old_valid_until_ms = alias.expires_at_ms
        else:
            memset(summary.old_token_hash, 0, 32)
            summary.old_valid_until_ms = 0
        summary.created_at_ms = block.created_at_ms
        summary.expires_at_ms = slot.expires_at_ms
        summary.version = block.version
        summary.idle_seconds = slot.idle_seconds
        summary.sizes = (
            block.user_size | <uint64_t>block.device_size << 16 | <uint64_t>block.ip_size << 32 | <uint64_t>block.data_size << 48
        )
        summary.texts = tm_siphash13(self.key, text, stored)
        summary.user_agent = self._text_hash(block.user_agent)
        summary.created_by = self._text_hash(block.created_by)
        summary.data = tm_siphash13(self.key, text + stored + last_ip_size, block.data_size)
        self.text_bytes += stored + block.data_size
        self.sums[shard_of_id(block.session_id)] += tm_siphash13(self.key, &summary, sizeof(Summary))
        self.count += 1

    cdef uint64_t _text_hash(self, uint32_t interned) noexcept nogil:
        cdef const InternedString* string = <const InternedString*>(self.arena + <size_t>interned * GRANULE_BYTES)
        if interned == 0:
            return 0
        self.text_bytes += string.size
        return tm_siphash13(self.key, <const char*>string + sizeof(InternedString), string.size)

    def begin(self, uint32_t end, key: tuple[int, int], int64_t beyond_ms) -> None:
        """The moment of the survey is now; `end`: entries from here on were never used; key: the same for all who compare;
        beyond_ms: what ends by then, Unix ms, does not count. One at a time. MemoryError."""
        assert not self.active
        self.key[0], self.key[1] = key
        self.done = <uint64_t*>calloc((<size_t>end >> 6) + 1, sizeof(uint64_t))
        if self.done == NULL:
            raise MemoryError()
        self.beyond_ms = beyond_ms
        self.end = end
        self.cursor = 1
        self.count = 0
        memset(self.sums, 0, sizeof(self.sums))
        self.active = True

    def step(self, uint64_t budget) -> tuple[int, ...] | None:
        """Looks at `budget` more entries; a quarter of a kilobyte of text counts for one as well. None while there are more, else
        the sums by shard, which ends the survey."""
        assert self.active
        cdef uint64_t looked_at = 0
        self.text_bytes = 0
        # With the GIL: another thread that took it could keep it for longer than this lasts.
        while self.cursor < self.end and looked_at + self.text_bytes // 256 < budget:
            self.count_in(self.cursor)
            self.cursor += 1
            looked_at += 1
        if self.cursor < self.end:
            return None
        self.abandon()
        return tuple([self.sums[shard] for shard in range(SHARD_COUNT)])

    def abandon(self) -> None:
        """Ends the survey, if there is one."""
        self.active = False
        self.end = 0
        free(self.done)
        self.done = NULL

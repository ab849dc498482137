from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.arena cimport Arena
from tokmesh._core.image cimport Image
from tokmesh._core.index cimport Index
from tokmesh._core.interned cimport Interned
from tokmesh._core.layout cimport SHARD_COUNT, Block, Row, Slot
from tokmesh._core.lookup cimport Region
from tokmesh._core.memory cimport Zone
from tokmesh._core.wheel cimport Wheel

# How many sessions are live: all, and by shard.
cdef struct LiveCount:
    uint64_t all
    uint64_t by_shard[SHARD_COUNT]

# The two lists a live session is in, and the one of its user's in which an expired one is. That has the links and the index of the
# first, where it is found by another tag.
cdef enum EntryList:
    USER_LIST = 0
    DEVICE_LIST = 1
    EXPIRED_LIST = 2


cdef class Entries:
    cdef:
        readonly Zone slots_zone
        readonly Zone rows_zone
        readonly Zone queue_zone
        readonly Arena arena
        readonly Interned interned
        readonly Wheel wheel
        readonly Index tokens
        readonly Index ids
        readonly Index users
        readonly Index devices
        readonly Image image
        Slot* slots
        Row* rows
        Region region
        char* scratch                # a block being composed
        int64_t tombstone_ttl_ms
        # Before it (Unix ms; 0: no such bound) the wheel ends no session for its idle limit, and forgets none that ended so and its
        # life as a tombstone later: what was active may not be known here yet. Look-ups stay exact. Not part of what is exchanged.
        public int64_t idle_ends_from_ms
        # Bits: whose tokens are judged here. Of another shard nothing can be said. Not part of what is exchanged.
        public uint64_t held_shards
        readonly uint64_t forgetting # shards whose sessions are being forgotten
        uint32_t forget_cursor
        uint32_t entries_max
        uint32_t entries_begun       # numbers from here on were never used
        uint32_t free_head
        LiveCount live
        uint64_t expired_lists       # in the index of users
        uint64_t tombstone_count
        uint64_t alias_count
        uint32_t* queue              # touched entries, a ring of entries_max
        uint64_t queue_head
        uint64_t queue_size

    cdef Block* block_of(self, uint32_t entry) noexcept nogil
    cdef uint32_t take_entry(self) noexcept nogil
    cdef void free_entry(self, uint32_t entry) noexcept nogil
    cdef uint32_t find_session(self, const uint8_t* session_id) noexcept nogil
    cdef uint32_t find_holder(self, const uint8_t* token_hash) noexcept nogil
    cdef uint32_t find_list(self, EntryList which, const char* key, size_t size) noexcept nogil
    cdef void link(self, uint32_t entry, EntryList which) noexcept nogil
    cdef void unlink(self, uint32_t entry, EntryList which) noexcept nogil
    cdef void link_lists(self, uint32_t entry) noexcept nogil
    cdef void unlink_lists(self, uint32_t entry) noexcept nogil
    cdef bint is_dead(self, uint32_t entry, int64_t time_ms) noexcept nogil
    cdef uint32_t tick_after(self, int64_t time_ms, int64_t more_ms) noexcept nogil
    cdef void schedule(self, uint32_t entry) noexcept nogil
    cdef void settle(self, uint32_t entry) noexcept nogil
    cdef void remove_session(self, uint32_t entry) noexcept nogil
    cdef void remove_alias(self, uint32_t entry) noexcept nogil
    cdef void remove_holder(self, uint32_t entry) noexcept nogil
    cdef size_t compose(self, uint32_t entry, const char* last_ip, Py_ssize_t last_ip_size, const char* data,
                        Py_ssize_t data_size) noexcept nogil
    cdef bint store_composed(self, uint32_t entry, size_t size) noexcept nogil
    cdef void release_block(self, uint32_t block_number) noexcept nogil
    cdef void mark_touched(self, uint32_t entry, uint8_t flags) noexcept nogil
    cdef uint32_t pop_touched(self) noexcept nogil
    cdef uint64_t sweep(self, int64_t now_ms, uint64_t budget) noexcept nogil
    cdef const char* _key_of(self, uint32_t entry, EntryList which, size_t* size) noexcept nogil
    cdef uint32_t* _links(self, uint32_t entry, EntryList which) noexcept nogil
    cdef uint32_t _due_tick(self, uint32_t entry) noexcept nogil
    cdef void _fire(self, uint32_t entry) noexcept nogil
    cdef uint32_t _list_tag(self, EntryList which, const char* key, size_t size) noexcept nogil
    cdef void _change_head(self, EntryList which, const char* key, size_t size, uint32_t head, uint32_t new_head) noexcept nogil

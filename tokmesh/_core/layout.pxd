# The bytes of an entry: slot (hot, one cache line), row (cold, beside it in another zone), and the block of strings in the arena.
# Another process may have these mapped: a change here needs a new ZONE_LAYOUT.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "atomics.h" nogil:
    uint32_t tm_load_acquire_u32(const uint32_t* p)
    uint32_t tm_load_relaxed_u32(const uint32_t* p)
    void tm_store_relaxed_u32(uint32_t* p, uint32_t value)
    void tm_store_release_u32(uint32_t* p, uint32_t value)
    void tm_fence_acquire()
    void tm_fence_release()

cdef enum SlotState:
    SLOT_FREE = 0
    SLOT_LIVE = 1                    # in the user's and the device's list, counted as active; may be past its deadline until swept
    SLOT_EXPIRED = 2                 # tombstone
    SLOT_REVOKED = 3                 # tombstone
    SLOT_ALIAS = 4                   # token that a rotation replaced: `block` is the session's entry, `expires_at_ms` its end
    SLOT_ALIAS_ENDED = 5             # the same after a further rotation: expired, belongs to no session

cdef enum SlotFlag:                  # the writer's own
    FLAG_TOUCHED = 1                 # since the last drain
    FLAG_QUEUED = 2                  # in the queue of touched entries, perhaps for an earlier session of this entry
    FLAG_IP_CHANGED = 4
    FLAG_UA_CHANGED = 8

# `sequence` is a seqlock over the slot and everything its `block` leads to, except last_active_ms, which is one atomic word.
cdef struct Slot:
    uint8_t token_hash[32]
    uint32_t sequence
    uint8_t state
    uint8_t flags
    uint16_t wheel_bucket
    int64_t expires_at_ms
    int64_t last_active_ms
    uint32_t block
    uint32_t idle_seconds            # 0: no idle limit

# Lists are doubly linked through entry numbers; 0 ends them.
cdef struct Row:
    uint32_t user_prev
    uint32_t user_next
    uint32_t device_prev
    uint32_t device_next
    uint32_t wheel_prev
    uint32_t wheel_next              # of a free entry: the next free one
    uint32_t partner                 # of a session: its SLOT_ALIAS entry; of that one: the session
    uint32_t gone_tick               # of a revoked session or an alias: the second at which it is forgotten

# Arena block of a session, followed by user id, device id, address, last address (all escaped for JSON) and data.
cdef struct Block:
    uint8_t session_id[16]
    int64_t created_at_ms
    uint64_t version
    uint32_t user_agent              # interned
    uint32_t last_access_ua          # interned
    uint32_t created_by              # interned
    uint16_t user_size
    uint16_t device_size
    uint16_t ip_size
    uint16_t last_ip_size            # SAME_AS_IP: not stored twice
    uint16_t data_size
    uint16_t granules

cdef enum:
    SAME_AS_IP = 0xFFFF

cdef enum:
    SHARD_COUNT = 64

# What a session's fields may measure. Escaping makes at most six bytes of a character.
cdef enum:
    USER_CHARS_MAX = 128
    DEVICE_CHARS_MAX = 128
    IP_CHARS_MAX = 64
    UA_CHARS_MAX = 512
    KEY_ID_CHARS_MAX = 64
    DATA_BYTES_MAX = 4096
    ESCAPED_MAX = 6
    SESSION_JSON_BYTES_MAX = 16384   # 36 + all of the above + 300 of names and numbers, rounded up


cdef inline void slot_open(Slot* slot) noexcept nogil:
    tm_store_relaxed_u32(&slot.sequence, slot.sequence + 1)
    tm_fence_release()


cdef inline void slot_close(Slot* slot) noexcept nogil:
    tm_store_release_u32(&slot.sequence, slot.sequence + 1)


# The shard of a session (16-byte id) or of a token (32-byte hash), known to every node. A session's tokens are made so that they
# are of its shard (ids.py): who has a token alone knows where its session is.
cdef inline uint32_t shard_of_id(const uint8_t* session_id) noexcept nogil:
    return session_id[15] & (SHARD_COUNT - 1)


cdef inline uint32_t shard_of_hash(const uint8_t* token_hash) noexcept nogil:
    return token_hash[31] & (SHARD_COUNT - 1)


cdef inline int64_t slot_deadline_ms(const Slot* slot) noexcept nogil:
    cdef int64_t idle_end_ms = slot.last_active_ms + <int64_t>slot.idle_seconds * 1000
    return idle_end_ms if slot.idle_seconds != 0 and idle_end_ms < slot.expires_at_ms else slot.expires_at_ms


# When the wheel ends the session, which is for its idle limit no earlier than `idle_ends_from_ms`.
cdef inline int64_t slot_sweep_ms(const Slot* slot, int64_t idle_ends_from_ms) noexcept nogil:
    cdef int64_t deadline_ms = slot_deadline_ms(slot)
    return deadline_ms if deadline_ms >= idle_ends_from_ms else min(slot.expires_at_ms, idle_ends_from_ms)

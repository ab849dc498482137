"""How a session begins: where it is put, and who must make place for it.

The part of the table's writer that needs no Python object, so that a record's bytes can become a session without one (stated.pyx).
Invariant: a session has begun whole or, with any outcome but INSERTED, nothing has changed.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tokmesh._core.arena cimport granules_for
from tokmesh._core.layout cimport SAME_AS_IP, SLOT_LIVE, Block, Slot, SlotState, slot_close, slot_open


cdef class Begins(Views):
    """The half of Table's writing that makes entries."""

    cdef int begin_session(self, const uint8_t* id16, const uint8_t* hash32, const Fields* fields, int64_t created_at_ms,
                           int64_t expires_at_ms, uint32_t idle_seconds, const char* data, size_t data_size,
                           uint32_t* entry) noexcept nogil:
        # A session (or alias) that holds the id or the token and is dead at created_at_ms is forgotten.
        cdef uint32_t id_holder = self.find_session(id16), token_holder = self.find_holder(hash32)
        if id_holder != 0 and not self.is_dead(id_holder, created_at_ms):
            return ID_EXISTS
        if token_holder != 0 and not self.is_dead(token_holder, created_at_ms):
            return TOKEN_EXISTS
        cdef uint32_t block_number = self._new_block(id16, created_at_ms, fields, data, data_size)
        if block_number == 0:
            return FULL
        entry[0] = self.take_entry()
        if entry[0] == 0:
            self.release_block(block_number)
            return FULL
        if id_holder != 0:
            self.remove_session(id_holder)
            token_holder = self.find_holder(hash32)
        if token_holder != 0:
            self.remove_holder(token_holder)
        self._fill_slot(entry[0], hash32, SLOT_LIVE, expires_at_ms, created_at_ms, block_number, idle_seconds)
        self.tokens.put(self.tokens.tag_of(hash32, 32), entry[0])
        self.ids.put(self.ids.tag_of(id16, 16), entry[0])
        self.link_lists(entry[0])
        self.wheel.start_at(self.tick_after(created_at_ms - 999, 0))  # the second under way, which has not passed
        self.schedule(entry[0])
        return INSERTED

    cdef uint32_t _new_block(self, const uint8_t* id16, int64_t created_at_ms, const Fields* fields, const char* data,
                             size_t data_size) noexcept nogil:
        # The arena block of a new session; 0, and nothing changed, if the arena is full.
        cdef uint32_t user_agent = self.interned.acquire(fields.user_agent, fields.user_agent_size)
        cdef uint32_t created_by = self.interned.acquire(fields.created_by, fields.created_by_size)
        cdef size_t size = sizeof(Block) + fields.user_size + fields.device_size + fields.ip_size + data_size
        cdef uint32_t number = 0
        if (user_agent != 0 or fields.user_agent_size == 0) and (created_by != 0 or fields.created_by_size == 0):
            number = self.arena.allocate(granules_for(size))
        if number == 0:
            self.interned.release(user_agent)
            self.interned.release(created_by)
            return 0
        self.interned.share(user_agent)
        cdef Block* block = <Block*>self.arena.at(number)
        cdef char* text = <char*>block + sizeof(Block)
        memcpy(block.session_id, id16, 16)
        block.created_at_ms = created_at_ms
        block.version = 1
        block.user_agent = block.last_access_ua = user_agent
        block.created_by = created_by
        block.user_size = <uint16_t>fields.user_size
        block.device_size = <uint16_t>fields.device_size
        block.ip_size = <uint16_t>fields.ip_size
        block.last_ip_size = SAME_AS_IP
        block.data_size = <uint16_t>data_size
        block.granules = <uint16_t>granules_for(size)
        memcpy(text, fields.user, fields.user_size)
        memcpy(text + fields.user_size, fields.device, fields.device_size)
        memcpy(text + fields.user_size + fields.device_size, fields.ip, fields.ip_size)
        memcpy(text + fields.user_size + fields.device_size + fields.ip_size, data, data_size)
        return number

    cdef void _fill_slot(self, uint32_t entry, const uint8_t* hash32, SlotState state, int64_t expires_at_ms,
                         int64_t last_active_ms, uint32_t block, uint32_t idle_seconds) noexcept nogil:
        cdef Slot* slot = &self.slots[entry]
        slot_open(slot)
        memcpy(slot.token_hash, hash32, 32)
        slot.state = <uint8_t>state
        slot.expires_at_ms = expires_at_ms
        slot.last_active_ms = last_active_ms
        slot.block = block
        slot.idle_seconds = idle_seconds
        slot_close(slot)

"""Entries: what a session (or the alias of a rotated token) occupies, and its passage from live to forgotten.

An entry is a number: slot, row and arena block (layout.pxd). It stays the same from insertion until the session is forgotten.
This file keeps the structures consistent; table.pyx decides.

Invariants: entry 0 is none. A used entry is in the token index once and in the wheel once; a session also in the id index; a
SLOT_LIVE one also in its user's list, and in its device's if it has one. A session and its SLOT_ALIAS are each other's partner. A
slot changes only between slot_open and slot_close; an arena block is freed only after the slot that led to it has changed.
"""

import hashlib
import os

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from tokmesh._core.arena cimport BLOCK_GRANULES_MAX, GRANULE_BYTES, Arena, granules_for
from tokmesh._core.image cimport Image
from tokmesh._core.index cimport Index, Probe, probe_next, probe_start
from tokmesh._core.interned cimport Interned
from tokmesh._core.layout cimport (
    FLAG_QUEUED, FLAG_TOUCHED, SAME_AS_IP, SLOT_ALIAS, SLOT_ALIAS_ENDED, SLOT_EXPIRED, SLOT_FREE, SLOT_LIVE, Block, Row,
    Slot, shard_of_id, slot_close, slot_deadline_ms, slot_open, slot_sweep_ms,
)
from tokmesh._core.lookup cimport same_hash
from tokmesh._core.memory cimport PAGE_BYTES, ZONE_QUEUE, ZONE_ROWS, ZONE_SLOTS, Zone
from tokmesh._core.wheel cimport Wheel

cdef enum:
    TICK_MAX = 0xFFFFFFFE            # the year 2106: later deadlines come due then
    ENTRIES_MAX = 0x7FFFFFFF
    EXPIRED_TAG = 1                  # what the tags of a user's two lists differ by


cdef class Entries:
    """Nothing but structures; see Table for the parameters."""

    def __cinit__(self, *, int64_t tombstone_ttl_ms, bytes seed=None, uint64_t entries_max=2**26,
                  uint64_t arena_bytes_max=2**35):
        if not 1 <= entries_max <= ENTRIES_MAX or arena_bytes_max < PAGE_BYTES or tombstone_ttl_ms < 0:
            raise ValueError("a table needs room, and a tombstone's life is not negative")
        keys = hashlib.blake2b(os.urandom(32) if seed is None else seed).digest()
        more_keys = hashlib.blake2b(keys).digest()
        cdef uint64_t epoch = int.from_bytes(more_keys[16:24], "little")
        self.tombstone_ttl_ms = tombstone_ttl_ms
        self.entries_max = <uint32_t>entries_max
        self.entries_begun = 1
        self.held_shards = ~<uint64_t>0
        self.slots_zone = Zone("slots", ZONE_SLOTS, (entries_max + 1) * sizeof(Slot), epoch)
        self.rows_zone = Zone("rows", ZONE_ROWS, (entries_max + 1) * sizeof(Row), epoch)
        self.queue_zone = Zone("touched", ZONE_QUEUE, entries_max * sizeof(uint32_t), epoch)
        self.slots = <Slot*>(self.slots_zone.base + PAGE_BYTES)
        self.rows = <Row*>(self.rows_zone.base + PAGE_BYTES)
        self.queue = <uint32_t*>(self.queue_zone.base + PAGE_BYTES)
        self.arena = Arena(arena_bytes_max, epoch)
        self.tokens = Index("tokens", keys[0:16], entries_max, epoch)
        self.ids = Index("ids", keys[16:32], entries_max, epoch)
        self.users = Index("users", keys[32:48], entries_max, epoch)
        self.devices = Index("devices", keys[48:64], entries_max, epoch)
        self.interned = Interned(self.arena, more_keys[0:16], entries_max, epoch)
        self.image = Image()
        self.image.slots = self.slots
        self.image.rows = self.rows
        self.image.arena = self.arena.zone.base
        self.wheel = Wheel()
        self.wheel.slots = self.slots
        self.wheel.rows = self.rows
        self.region.slots = self.slots
        self.region.arena = self.arena.zone.base
        self.region.token_index = self.tokens.zone.base
        self.region.token_key[0] = self.tokens.key[0]
        self.region.token_key[1] = self.tokens.key[1]
        self.region.entries_max = self.entries_max
        self.region.granules_max = <uint32_t>self.arena.granules_max
        self.scratch = <char*>malloc(BLOCK_GRANULES_MAX * GRANULE_BYTES)
        if self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.scratch)

    cdef Block* block_of(self, uint32_t entry) noexcept nogil:
        return <Block*>self.arena.at(self.slots[entry].block)

    cdef uint32_t take_entry(self) noexcept nogil:
        # A free entry, 0 when all are used.
        cdef uint32_t entry = self.free_head
        if entry != 0:
            self.free_head = self.rows[entry].wheel_next
            self.rows[entry].wheel_next = 0
        elif self.entries_begun <= self.entries_max:
            entry = self.entries_begun
            self.entries_begun += 1
        self.image.skip(entry)       # it began after the moment of an image under way
        return entry

    cdef void free_entry(self, uint32_t entry) noexcept nogil:
        cdef Slot* slot = &self.slots[entry]
        slot_open(slot)
        slot.state = SLOT_FREE
        slot.flags &= FLAG_QUEUED
        slot.block = 0
        slot_close(slot)
        self.rows[entry].partner = 0
        self.rows[entry].wheel_next = self.free_head
        self.free_head = entry

    # ---- finding -------------------------------------------------------------------------------------------------------------

    cdef uint32_t find_session(self, const uint8_t* session_id) noexcept nogil:
        cdef Probe probe
        cdef uint32_t entry
        probe_start(&probe, self.ids.zone.base, self.ids.tag_of(session_id, 16))
        while True:
            entry = probe_next(&probe)
            if entry == 0 or memcmp(self.block_of(entry).session_id, session_id, 16) == 0:
                return entry

    cdef uint32_t find_holder(self, const uint8_t* token_hash) noexcept nogil:
        # The entry with this token: a session in any state or an alias; 0 when unknown.
        cdef Probe probe
        cdef uint32_t entry
        probe_start(&probe, self.tokens.zone.base, self.tokens.tag_of(token_hash, 32))
        while True:
            entry = probe_next(&probe)
            if entry == 0 or same_hash(self.slots[entry].token_hash, token_hash):
                return entry

    cdef const char* _key_of(self, uint32_t entry, EntryList which, size_t* size) noexcept nogil:
        cdef Block* block = self.block_of(entry)
        cdef const char* text = <const char*>block + sizeof(Block)
        if which == DEVICE_LIST:
            size[0] = block.device_size
            return text + block.user_size
        size[0] = block.user_size
        return text

    cdef uint32_t find_list(self, EntryList which, const char* key, size_t size) noexcept nogil:
        # The newest entry of the list with this key (escaped as stored); 0 when there is none.
        cdef Probe probe
        cdef uint32_t entry
        cdef size_t other_size[1]
        cdef const char* other
        probe_start(&probe, self.devices.zone.base if which == DEVICE_LIST else self.users.zone.base,
                    self._list_tag(which, key, size))
        while True:
            entry = probe_next(&probe)
            if entry == 0:
                return 0
            other = self._key_of(entry, which, other_size)
            if other_size[0] == size and memcmp(other, key, size) == 0:
                return entry

    # ---- lists of a user and of a device -------------------------------------------------------------------------------------

    cdef uint32_t _list_tag(self, EntryList which, const char* key, size_t size) noexcept nogil:
        if which == DEVICE_LIST:
            return self.devices.tag_of(key, size)
        return self.users.tag_of(key, size) ^ (EXPIRED_TAG if which == EXPIRED_LIST else 0)

    cdef void _change_head(self, EntryList which, const char* key, size_t size, uint32_t head, uint32_t new_head) noexcept nogil:
        # The list with this key, which began with `head`, begins with `new_head`; 0: it was, or is, empty.
        cdef uint32_t tag = self._list_tag(which, key, size)
        if which == DEVICE_LIST:
            self.devices.exchange(tag, head, new_head)
        else:
            self.users.exchange(tag, head, new_head)
        self.expired_lists += (<uint64_t>(head == 0) - <uint64_t>(new_head == 0)) if which == EXPIRED_LIST else 0

    cdef uint32_t* _links(self, uint32_t entry, EntryList which) noexcept nogil:
        # [0] previous, [1] next
        return &self.rows[entry].device_prev if which == DEVICE_LIST else &self.rows[entry].user_prev

    cdef void link(self, uint32_t entry, EntryList which) noexcept nogil:
        cdef size_t size[1]
        cdef const char* key = self._key_of(entry, which, size)
        cdef uint32_t head
        if size[0] == 0 and which == DEVICE_LIST:
            return
        head = self.find_list(which, key, size[0])
        self._links(entry, which)[0] = 0
        self._links(entry, which)[1] = head
        if head != 0:
            self._links(head, which)[0] = entry
        self._change_head(which, key, size[0], head, entry)

    cdef void unlink(self, uint32_t entry, EntryList which) noexcept nogil:
        cdef size_t size[1]
        cdef const char* key = self._key_of(entry, which, size)
        cdef uint32_t previous = self._links(entry, which)[0], following = self._links(entry, which)[1]
        if size[0] == 0 and which == DEVICE_LIST:
            return
        if following != 0:
            self._links(following, which)[0] = previous
        if previous != 0:
            self._links(previous, which)[1] = following
        else:
            self._change_head(which, key, size[0], entry, following)

    cdef void link_lists(self, uint32_t entry) noexcept nogil:
        self.link(entry, USER_LIST)
        self.link(entry, DEVICE_LIST)
        self.live.all += 1
        self.live.by_shard[shard_of_id(self.block_of(entry).session_id)] += 1

    cdef void unlink_lists(self, uint32_t entry) noexcept nogil:
        self.unlink(entry, USER_LIST)
        self.unlink(entry, DEVICE_LIST)
        self.live.all -= 1
        self.live.by_shard[shard_of_id(self.block_of(entry).session_id)] -= 1

    # ---- time ----------------------------------------------------------------------------------------------------------------

    cdef bint is_dead(self, uint32_t entry, int64_t time_ms) noexcept nogil:
        # By the records alone, whatever the sweeper has got round to: applying must come out the same everywhere.
        cdef Slot* slot = &self.slots[entry]
        if slot.state == SLOT_ALIAS:
            return slot.expires_at_ms <= time_ms or self.is_dead(self.rows[entry].partner, time_ms)
        if slot.state == SLOT_LIVE or slot.state == SLOT_EXPIRED:
            return slot_deadline_ms(slot) <= time_ms
        return True

    cdef uint32_t tick_after(self, int64_t time_ms, int64_t more_ms) noexcept nogil:
        # The first tick at or after time_ms + more_ms.
        if time_ms < 0:
            return 0
        if time_ms >= <int64_t>TICK_MAX * 1000 or more_ms >= <int64_t>TICK_MAX * 1000 - time_ms:
            return <uint32_t>TICK_MAX
        return <uint32_t>((time_ms + more_ms + 999) // 1000)

    cdef uint32_t _due_tick(self, uint32_t entry) noexcept nogil:
        cdef Slot* slot = &self.slots[entry]
        if slot.state == SLOT_LIVE:
            return self.tick_after(slot_sweep_ms(slot, self.idle_ends_from_ms), 0)
        if slot.state == SLOT_EXPIRED:
            return self.tick_after(slot_sweep_ms(slot, self.idle_ends_from_ms), self.tombstone_ttl_ms)
        return self.rows[entry].gone_tick

    cdef void schedule(self, uint32_t entry) noexcept nogil:
        self.wheel.unlink(entry)
        self.wheel.link(entry, self._due_tick(entry))

    cdef void settle(self, uint32_t entry) noexcept nogil:
        # After a session's deadline was moved by a change that was decided while it lived: back among the living if it was swept
        # meanwhile, and a new place in the wheel.
        cdef Slot* slot = &self.slots[entry]
        if slot.state == SLOT_EXPIRED and self.tick_after(slot_deadline_ms(slot), 0) > self.wheel.tick:
            slot_open(slot)
            slot.state = SLOT_LIVE
            slot_close(slot)
            self.tombstone_count -= 1
            self.unlink(entry, EXPIRED_LIST)
            self.link_lists(entry)
        self.schedule(entry)

    cdef uint64_t sweep(self, int64_t now_ms, uint64_t budget) noexcept nogil:
        cdef uint32_t now_tick = <uint32_t>min(max(now_ms, <int64_t>0) // 1000, <int64_t>TICK_MAX)
        cdef uint32_t entry
        while budget != 0:
            entry = self.wheel.pop(now_tick)
            if entry == 0:
                break
            budget -= 1
            if self._due_tick(entry) > self.wheel.tick:
                self.schedule(entry)
            else:
                self._fire(entry)
        return self.wheel.backlog(now_tick)

    cdef void _fire(self, uint32_t entry) noexcept nogil:
        cdef Slot* slot = &self.slots[entry]
        if slot.state == SLOT_LIVE:
            self.image.save(entry)
            self.unlink_lists(entry)
            self.link(entry, EXPIRED_LIST)
            slot_open(slot)
            slot.state = SLOT_EXPIRED
            slot_close(slot)
            self.tombstone_count += 1
            self.schedule(entry)
        else:
            self.remove_holder(entry)

    # ---- forgetting ----------------------------------------------------------------------------------------------------------

    cdef void remove_session(self, uint32_t entry) noexcept nogil:
        cdef Slot* slot = &self.slots[entry]
        cdef uint32_t block_number = slot.block
        self.image.save(entry)
        if self.rows[entry].partner != 0:
            self.remove_alias(self.rows[entry].partner)
        if slot.state == SLOT_LIVE:
            self.unlink_lists(entry)
        else:
            self.tombstone_count -= 1
            if slot.state == SLOT_EXPIRED:
                self.unlink(entry, EXPIRED_LIST)
        self.wheel.unlink(entry)
        self.tokens.remove(self.tokens.tag_of(slot.token_hash, 32), entry)
        self.ids.remove(self.ids.tag_of(self.block_of(entry).session_id, 16), entry)
        self.free_entry(entry)
        self.release_block(block_number)

    cdef void remove_alias(self, uint32_t entry) noexcept nogil:
        self.image.save(self.rows[entry].partner if self.rows[entry].partner != 0 else entry)
        self.wheel.unlink(entry)
        self.tokens.remove(self.tokens.tag_of(self.slots[entry].token_hash, 32), entry)
        if self.rows[entry].partner != 0:
            self.rows[self.rows[entry].partner].partner = 0
        self.alias_count -= 1
        self.free_entry(entry)

    cdef void remove_holder(self, uint32_t entry) noexcept nogil:
        if self.slots[entry].state == SLOT_ALIAS or self.slots[entry].state == SLOT_ALIAS_ENDED:
            self.remove_alias(entry)
        else:
            self.remove_session(entry)

    # ---- blocks --------------------------------------------------------------------------------------------------------------

    cdef size_t compose(self, uint32_t entry, const char* last_ip, Py_ssize_t last_ip_size, const char* data,
                        Py_ssize_t data_size) noexcept nogil:
        # The entry's block into `scratch`, with another last address (unless NULL) and other data (unless NULL); its size.
        cdef const Block* old = self.block_of(entry)
        cdef const char* text = <const char*>old + sizeof(Block)
        cdef Block* block = <Block*>self.scratch
        cdef size_t size = sizeof(Block) + old.user_size + old.device_size + old.ip_size
        cdef size_t old_last_size = 0 if old.last_ip_size == SAME_AS_IP else old.last_ip_size
        cdef const char* old_last = <const char*>old + size
        cdef const char* ip = text + old.user_size + old.device_size
        memcpy(self.scratch, old, size)
        if last_ip == NULL:
            last_ip = old_last
            last_ip_size = <Py_ssize_t>old_last_size
        elif <size_t>last_ip_size == old.ip_size and memcmp(ip, last_ip, <size_t>last_ip_size) == 0:
            block.last_ip_size = SAME_AS_IP
            last_ip_size = 0
        else:
            block.last_ip_size = <uint16_t>last_ip_size
        memcpy(self.scratch + size, last_ip, <size_t>last_ip_size)
        size += <size_t>last_ip_size
        if data == NULL:
            data = old_last + old_last_size
            data_size = old.data_size
        block.data_size = <uint16_t>data_size
        memcpy(self.scratch + size, data, <size_t>data_size)
        return size + <size_t>data_size

    cdef bint store_composed(self, uint32_t entry, size_t size) noexcept nogil:
        # Makes `scratch` the entry's block; False, and nothing changed, if the arena is full.
        cdef Slot* slot = &self.slots[entry]
        cdef Block* block = <Block*>self.scratch
        cdef uint32_t old_number = slot.block, number
        cdef uint16_t old_granules = (<Block*>self.arena.at(old_number)).granules
        cdef uint32_t granules = granules_for(size)
        block.granules = <uint16_t>granules
        if granules == old_granules:
            slot_open(slot)
            memcpy(self.arena.at(old_number), block, size)
            slot_close(slot)
            return True
        number = self.arena.allocate(granules)
        if number == 0:
            return False
        memcpy(self.arena.at(number), block, size)
        slot_open(slot)
        slot.block = number
        slot_close(slot)
        self.arena.free(old_number, old_granules)
        return True

    cdef void release_block(self, uint32_t block_number) noexcept nogil:
        cdef Block* block = <Block*>self.arena.at(block_number)
        self.interned.release(block.user_agent)
        self.interned.release(block.last_access_ua)
        self.interned.release(block.created_by)
        self.arena.free(block_number, block.granules)

    # ---- touched entries -----------------------------------------------------------------------------------------------------

    cdef void mark_touched(self, uint32_t entry, uint8_t flags) noexcept nogil:
        # An entry is queued at most once, so the ring never overflows; FLAG_QUEUED outlives the session that caused it.
        cdef Slot* slot = &self.slots[entry]
        slot.flags |= flags | FLAG_TOUCHED
        if not slot.flags & FLAG_QUEUED:
            slot.flags |= FLAG_QUEUED
            self.queue[(self.queue_head + self.queue_size) % self.entries_max] = entry
            self.queue_size += 1

    cdef uint32_t pop_touched(self) noexcept nogil:
        # The longest queued entry, its flags still set (it may belong to nobody by now); 0 when there is none.
        if self.queue_size == 0:
            return 0
        cdef uint32_t entry = self.queue[self.queue_head]
        self.queue_size -= 1
        # An empty ring starts over, so that it keeps using the same few pages.
        self.queue_head = (self.queue_head + 1) % self.entries_max if self.queue_size != 0 else 0
        self.slots[entry].flags &= ~<uint8_t>FLAG_QUEUED
        return entry

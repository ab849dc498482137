"""The token table: sessions by token hash, id, user and device, their expiry, and what is remembered of the dead.

A pure function of the calls made to it: no clock, no randomness but the seed of its hashes. One writer; every change is bounded
(but for the lists it returns, see each) and either done or, with FULL, not begun. What readers see is described in lookup.pxd,
what a session occupies in layout.pxd, how it is kept consistent in entries.pyx.

Times are Unix ms, ids 16 bytes, token hashes 32 bytes, text is escaped for JSON once, when it is stored.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from tokmesh._core.begins cimport (
    ALREADY, DONE, FULL, MISSING, REVOKED_ALREADY, TOKEN_EXISTS, Begins, Fields,
)
from tokmesh._core.created cimport SessionCreated
from tokmesh._core.entries cimport EXPIRED_LIST
from tokmesh._core.layout cimport (
    DATA_BYTES_MAX, DEVICE_CHARS_MAX, ESCAPED_MAX, FLAG_IP_CHANGED, FLAG_TOUCHED, FLAG_UA_CHANGED, IP_CHARS_MAX,
    KEY_ID_CHARS_MAX, SAME_AS_IP, SLOT_ALIAS, SLOT_ALIAS_ENDED, SLOT_EXPIRED, SLOT_FREE, SLOT_LIVE, SLOT_REVOKED, UA_CHARS_MAX,
    USER_CHARS_MAX, Block, Slot, shard_of_hash, shard_of_id, slot_close, slot_open,
)
from tokmesh._core.lookup cimport FOUND_VALID, look_up, write_session
from tokmesh._core.views cimport escape_field, fixed_bytes

from tokmesh._core.begins import Outcome  # no-cython-lint: part of this module's interface
from tokmesh._core.session_view import SessionView  # no-cython-lint: part of this module's interface
from tokmesh._core.views import Status  # no-cython-lint: part of this module's interface


cdef extern from "atomics.h" nogil:
    void tm_store_relaxed_u64(uint64_t* p, uint64_t value)

globals()["SESSION_JSON_BYTES_MAX"] = SESSION_JSON_BYTES_MAX


cdef int escape_fields(Fields* fields, str user_id, str device_id, str ip_address, str user_agent, str created_by) except -1:
    fields.user_size = escape_field(user_id, USER_CHARS_MAX, fields.user)
    fields.device_size = escape_field(device_id, DEVICE_CHARS_MAX, fields.device)
    fields.ip_size = escape_field(ip_address, IP_CHARS_MAX, fields.ip)
    fields.user_agent_size = escape_field(user_agent, UA_CHARS_MAX, fields.user_agent)
    fields.created_by_size = escape_field(created_by, KEY_ID_CHARS_MAX, fields.created_by)
    return 0


cdef class Table(Begins):
    """The table of at most `entries_max` sessions and aliases, with at most `arena_bytes_max` bytes of strings and data.

    Both are reservations of address space; memory is used as sessions come. tombstone_ttl_ms: how long a dead session is remembered
    as expired or revoked. seed: of the keyed hashes; random when None. OSError when the system refuses the reservation.
    ValueError, from any method: a field longer than layout.pxd allows, an id or hash of the wrong size, text that is not UTF-8.
    """

    # ---- reading -------------------------------------------------------------------------------------------------------------

    cdef int check_token(self, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                         int64_t touch_ms) noexcept nogil:
        cdef uint32_t entry[1]
        cdef int verdict
        cdef Slot* slot
        if not (self.held_shards >> shard_of_hash(token_hash)) & 1:
            return VERDICT_ELSEWHERE
        if touch_ms <= 0:
            return look_up(&self.region, token_hash, now_ms, out, written, entry)
        verdict = look_up(&self.region, token_hash, now_ms, NULL, NULL, entry)
        if verdict == FOUND_VALID:
            self._raise_last_active(entry[0], touch_ms)
            slot = &self.slots[entry[0]]
            if out != NULL:
                written[0] = write_session(&self.region, slot.block, slot.expires_at_ms, slot.last_active_ms, out)
        return verdict

    def check(self, bytes token_hash, int64_t now_ms, int64_t touch_ms=0) -> tuple[int, bytes]:
        """check_token for Python: the verdict and, if VALID, the session's JSON, else b""."""
        cdef char out[SESSION_JSON_BYTES_MAX]
        cdef Py_ssize_t written[1]
        cdef int verdict = self.check_token(fixed_bytes(token_hash, 32), now_ms, out, written, touch_ms)
        return verdict, PyBytes_FromStringAndSize(out, written[0]) if verdict == VERDICT_VALID else b""

    # ---- writing -------------------------------------------------------------------------------------------------------------

    def begin(self, SessionCreated record not None) -> int:
        """A new session, version 1, last active when created. INSERTED, ID_EXISTS, TOKEN_EXISTS or FULL.

        A session (or alias) that holds the id or the token and is dead when it begins is forgotten; what the record evicts is the
        caller's business.
        """
        cdef Fields fields
        cdef uint32_t entry[1]
        escape_fields(&fields, record.user_id, record.device_id, record.ip_address, record.user_agent, record.created_by)
        if len(record.data) > DATA_BYTES_MAX:
            raise ValueError("data is too long")
        return self.begin_session(
            fixed_bytes(record.session_id, 16), fixed_bytes(record.token_hash, 32), &fields, record.time_ms, record.expires_at_ms,
            record.idle_seconds, record.data, len(record.data), entry)

    def insert(self, bytes session_id, bytes token_hash, str user_id, str device_id, str ip_address, str user_agent,
               str created_by, int64_t created_at_ms, int64_t expires_at_ms, uint32_t idle_seconds, bytes data) -> int:
        """`begin`, of a session whose fields are these. data: a compact JSON object."""
        return self.begin(SessionCreated(created_at_ms, session_id, token_hash, user_id, device_id, ip_address, user_agent,
                                         created_by, expires_at_ms, idle_seconds, data))

    def renew(self, bytes session_id, int64_t expires_at_ms, int64_t time_ms) -> int:
        """Another expiry; version + 1, last_active at least time_ms. DONE, MISSING or REVOKED_ALREADY.

        Whether the session still lived at time_ms was decided before: one that was swept since lives again.
        """
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        cdef int outcome = self._changeable(entry)
        if outcome == DONE:
            slot_open(&self.slots[entry])
            self.slots[entry].expires_at_ms = expires_at_ms
            slot_close(&self.slots[entry])
            self._finish_change(entry, time_ms)
        return outcome

    def update(self, bytes session_id, bytes data, int64_t time_ms) -> int:
        """Other data; version + 1, last_active at least time_ms. DONE, MISSING, REVOKED_ALREADY or FULL."""
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        cdef int outcome = self._changeable(entry)
        if len(data) > DATA_BYTES_MAX:
            raise ValueError("data is too long")
        if outcome != DONE:
            return outcome
        if not self.store_composed(entry, self.compose(entry, NULL, 0, data, len(data))):
            return FULL
        self._finish_change(entry, time_ms)
        return DONE

    def rotate(self, bytes session_id, bytes new_hash, int64_t old_valid_until_ms, int64_t time_ms) -> int:
        """Another token; the old one stays good until old_valid_until_ms, an older one's grace ends at time_ms; version + 1,
        last_active at least time_ms. DONE, MISSING, REVOKED_ALREADY, TOKEN_EXISTS (unless its holder is dead at time_ms) or FULL.
        """
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        return self.rotate_session(entry, fixed_bytes(new_hash, 32), old_valid_until_ms, time_ms)

    cdef int rotate_session(self, uint32_t entry, const uint8_t* hash32, int64_t old_valid_until_ms,
                            int64_t time_ms) noexcept nogil:
        cdef int outcome = self._changeable(entry)
        if outcome != DONE:
            return outcome
        cdef uint32_t holder = self.find_holder(hash32), alias
        if holder != 0 and (holder == entry or not self.is_dead(holder, time_ms)):
            return TOKEN_EXISTS
        alias = self.take_entry()
        if alias == 0:
            return FULL
        if holder != 0:
            self.remove_holder(holder)
        if self.rows[entry].partner != 0:
            self._end_alias(self.rows[entry].partner, time_ms)
        cdef Slot* slot = &self.slots[entry]
        cdef uint32_t old_tag = self.tokens.tag_of(slot.token_hash, 32)
        self._fill_slot(alias, slot.token_hash, SLOT_ALIAS, old_valid_until_ms, 0, entry, 0)
        self.rows[alias].partner = entry
        self.rows[entry].partner = alias
        self.rows[alias].gone_tick = self.tick_after(old_valid_until_ms, self.tombstone_ttl_ms)
        self.alias_count += 1
        self.tokens.put(self.tokens.tag_of(hash32, 32), entry)
        self.tokens.redirect(old_tag, entry, alias)
        slot_open(slot)
        memcpy(slot.token_hash, hash32, 32)
        slot_close(slot)
        self.schedule(alias)
        self._finish_change(entry, time_ms)
        return DONE

    def revoke(self, bytes session_id, int64_t time_ms) -> int:
        """Ends the session, expired ones too; remembered for the tombstone's life from time_ms. DONE, ALREADY or MISSING."""
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        cdef int outcome = self._changeable(entry)
        if outcome != DONE:
            return ALREADY if outcome == REVOKED_ALREADY else outcome
        cdef Slot* slot = &self.slots[entry]
        cdef bint was_live = slot.state == SLOT_LIVE
        slot_open(slot)
        slot.state = SLOT_REVOKED
        slot_close(slot)
        if was_live:
            self.unlink_lists(entry)
            self.tombstone_count += 1
        else:
            self.unlink(entry, EXPIRED_LIST)
        self.rows[entry].gone_tick = self.tick_after(time_ms, self.tombstone_ttl_ms)
        self.schedule(entry)
        return DONE

    def touch(self, bytes session_id, int64_t last_active_ms, str ip_address=None, str user_agent=None) -> int:
        """Soft: raises last_active (never lowers it), and notes where the session was last used from, where given.
        DONE, MISSING, REVOKED_ALREADY or FULL (address and user agent only; nothing changed).
        """
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        cdef int outcome = self._changeable(entry)
        if outcome != DONE:
            return outcome
        if ip_address is not None or user_agent is not None:
            if not self._note_origin(entry, ip_address, user_agent):
                return FULL
        self._raise_last_active(entry, last_active_ms)
        if self.slots[entry].state == SLOT_EXPIRED:
            self.settle(entry)
        return DONE

    def set_version(self, bytes session_id, uint64_t version) -> int:
        """The version that the session has where it comes from. DONE, MISSING or REVOKED_ALREADY."""
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        cdef int outcome = self._changeable(entry)
        if outcome == DONE:
            slot_open(&self.slots[entry])
            self.block_of(entry).version = version
            slot_close(&self.slots[entry])
        return outcome

    def drain_touched(self, Py_ssize_t limit) -> list[tuple[bytes, int, str | None, str | None]]:
        """Sessions touched since they were last drained, at most `limit`, longest waiting first: id, last_active, and last address
        and user agent where those changed. [] only when none are left.
        """
        cdef uint32_t entry
        cdef uint8_t flags
        touched = []
        while len(touched) < limit:
            entry = self.pop_touched()
            if entry == 0:
                break
            flags = self.slots[entry].flags
            self.slots[entry].flags = 0
            if flags & FLAG_TOUCHED and self.slots[entry].state != SLOT_FREE:
                view = self.session(entry)
                touched.append((view.id, view.last_active, view.last_access_ip if flags & FLAG_IP_CHANGED else None,
                                view.last_access_ua if flags & FLAG_UA_CHANGED else None))
        return touched

    def advance(self, int64_t now_ms, int64_t budget) -> int:
        """Sweeps what is due at now_ms, at most `budget` entries; how many are left over (an upper bound; 0 means none)."""
        self.last_backlog = self.sweep(now_ms, <uint64_t>max(budget, 0))
        return self.last_backlog

    def begin_forgetting(self, uint64_t shards) -> None:
        """Sessions of these shards (bits) are forgotten from now on, by `forget`, together with those that still are."""
        self.forgetting |= shards
        self.forget_cursor = 1 if self.forgetting else self.entries_begun

    def forget(self, int64_t budget) -> int:
        """Looks at `budget` more entries; how many are left to be looked at, 0 when all is forgotten that was to be."""
        cdef uint32_t last = <uint32_t>min(<int64_t>self.entries_begun, self.forget_cursor + max(budget, <int64_t>0))
        if self.forgetting == 0:
            return 0
        while self.forget_cursor < last:
            self._forget(self.forget_cursor)
            self.forget_cursor += 1
        if self.forget_cursor == self.entries_begun:
            self.forgetting = 0
        return self.entries_begun - self.forget_cursor

    cdef void _forget(self, uint32_t entry) noexcept nogil:
        cdef uint8_t state = self.slots[entry].state
        if SLOT_LIVE <= state <= SLOT_REVOKED:
            if (self.forgetting >> shard_of_id(self.block_of(entry).session_id)) & 1:
                self.remove_session(entry)
        elif state == SLOT_ALIAS_ENDED and (self.forgetting >> shard_of_hash(self.slots[entry].token_hash)) & 1:
            self.remove_alias(entry)    # of no session any more

    # ---- the table as a whole ------------------------------------------------------------------------------------------------

    def begin_image(self) -> tuple[int, int, int]:
        """`image` begins now, to be taken step by step; how many sessions, live or remembered, and users and devices of live ones.
        MemoryError."""
        self.image.begin(self.entries_begun)
        return self.ids.live, self.users.live - self.expired_lists, self.devices.live

    def exchange(self, Table other not None) -> None:
        """This table and the other become each other. Nobody else may read or change either meanwhile, in whatever process."""
        self.slots_zone, other.slots_zone = other.slots_zone, self.slots_zone
        self.rows_zone, other.rows_zone = other.rows_zone, self.rows_zone
        self.queue_zone, other.queue_zone = other.queue_zone, self.queue_zone
        self.arena, other.arena = other.arena, self.arena
        self.interned, other.interned = other.interned, self.interned
        self.wheel, other.wheel = other.wheel, self.wheel
        self.image, other.image = other.image, self.image
        self.tokens, other.tokens = other.tokens, self.tokens
        self.ids, other.ids = other.ids, self.ids
        self.users, other.users = other.users, self.users
        self.devices, other.devices = other.devices, self.devices
        self.slots, other.slots = other.slots, self.slots
        self.rows, other.rows = other.rows, self.rows
        self.region, other.region = other.region, self.region
        self.scratch, other.scratch = other.scratch, self.scratch
        self.tombstone_ttl_ms, other.tombstone_ttl_ms = other.tombstone_ttl_ms, self.tombstone_ttl_ms
        self.entries_max, other.entries_max = other.entries_max, self.entries_max
        self.entries_begun, other.entries_begun = other.entries_begun, self.entries_begun
        self.free_head, other.free_head = other.free_head, self.free_head
        self.live, other.live = other.live, self.live
        self.expired_lists, other.expired_lists = other.expired_lists, self.expired_lists
        self.tombstone_count, other.tombstone_count = other.tombstone_count, self.tombstone_count
        self.alias_count, other.alias_count = other.alias_count, self.alias_count
        self.queue, other.queue = other.queue, self.queue
        self.queue_head, other.queue_head = other.queue_head, self.queue_head
        self.queue_size, other.queue_size = other.queue_size, self.queue_size
        self.last_backlog, other.last_backlog = other.last_backlog, self.last_backlog

    # ---- parts of the above --------------------------------------------------------------------------------------------------

    cdef int _changeable(self, uint32_t entry) noexcept nogil:
        # Asked by every change of a session before it begins.
        if entry == 0:
            return MISSING
        self.image.save(entry)
        return REVOKED_ALREADY if self.slots[entry].state == SLOT_REVOKED else DONE

    cdef void _finish_change(self, uint32_t entry, int64_t time_ms) noexcept nogil:
        # What every durable change of a session brings: a version, activity, and perhaps another deadline.
        cdef Slot* slot = &self.slots[entry]
        slot_open(slot)
        self.block_of(entry).version += 1
        if time_ms > slot.last_active_ms:
            slot.last_active_ms = time_ms
        slot_close(slot)
        self.settle(entry)

    cdef void _end_alias(self, uint32_t alias, int64_t time_ms) noexcept nogil:
        cdef Slot* slot = &self.slots[alias]
        self.rows[self.rows[alias].partner].partner = 0
        self.rows[alias].partner = 0
        slot_open(slot)
        slot.state = SLOT_ALIAS_ENDED
        slot.expires_at_ms = min(slot.expires_at_ms, time_ms)
        slot_close(slot)
        self.rows[alias].gone_tick = self.tick_after(slot.expires_at_ms, self.tombstone_ttl_ms)
        self.schedule(alias)

    cdef void _raise_last_active(self, uint32_t entry, int64_t last_active_ms) noexcept nogil:
        # One atomic word, outside the seqlock; the wheel finds a later deadline by itself when the old one comes.
        cdef Slot* slot = &self.slots[entry]
        if last_active_ms > slot.last_active_ms:
            tm_store_relaxed_u64(<uint64_t*>&slot.last_active_ms, <uint64_t>last_active_ms)
        self.mark_touched(entry, 0)

    cdef int _note_origin(self, uint32_t entry, str ip_address, str user_agent) except -1:
        # Last address and user agent, each unless None; 0, and nothing changed, if the arena is full.
        cdef char ip[IP_CHARS_MAX * ESCAPED_MAX]
        cdef char text[UA_CHARS_MAX * ESCAPED_MAX]
        cdef Block* block = self.block_of(entry)
        cdef Block* composed = <Block*>self.scratch
        cdef Py_ssize_t size = 0, text_size
        cdef uint32_t old_agent = block.last_access_ua, agent = old_agent
        cdef uint8_t flags = 0
        if ip_address is not None:
            size = escape_field(ip_address, IP_CHARS_MAX, ip)
            if not self._is_last_ip(block, ip, size):
                flags |= FLAG_IP_CHANGED
        if user_agent is not None:
            text_size = escape_field(user_agent, UA_CHARS_MAX, text)
            agent = self.interned.acquire(text, text_size)
            if agent == 0 and text_size != 0:
                return 0
            if agent == old_agent:
                self.interned.release(agent)
            else:
                flags |= FLAG_UA_CHANGED
        if flags == 0:
            return 1
        cdef size_t composed_size = self.compose(entry, ip if flags & FLAG_IP_CHANGED else NULL, size, NULL, 0)
        composed.last_access_ua = agent
        if not self.store_composed(entry, composed_size):
            if flags & FLAG_UA_CHANGED:
                self.interned.release(agent)
            return 0
        if flags & FLAG_UA_CHANGED:
            self.interned.release(old_agent)
        self.mark_touched(entry, flags)
        return 1

    cdef bint _is_last_ip(self, const Block* block, const char* ip, Py_ssize_t size) noexcept nogil:
        cdef const char* first = <const char*>block + sizeof(Block) + block.user_size + block.device_size
        if block.last_ip_size == SAME_AS_IP:
            return <size_t>size == block.ip_size and memcmp(first, ip, <size_t>size) == 0
        return <size_t>size == block.last_ip_size and memcmp(first + block.ip_size, ip, <size_t>size) == 0

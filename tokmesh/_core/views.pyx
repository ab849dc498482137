"""What Python reads of the table: sessions as values and as JSON, lists, figures. Nothing here changes anything.

An entry number that a caller kept is checked before use: an entry without a session is an IndexError, never stale memory.
"""

import json

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tokmesh._core.arena cimport GRANULE_BYTES
from tokmesh._core.entries cimport DEVICE_LIST, EXPIRED_LIST, USER_LIST, Entries, EntryList
from tokmesh._core.index cimport Index
from tokmesh._core.interned cimport InternedString
from tokmesh._core.layout cimport (
    DEVICE_CHARS_MAX, ESCAPED_MAX, SAME_AS_IP, SESSION_JSON_BYTES_MAX, SHARD_COUNT, SLOT_ALIAS, SLOT_EXPIRED, SLOT_LIVE,
    SLOT_REVOKED, USER_CHARS_MAX, Block, Slot, slot_deadline_ms,
)
from tokmesh._core.lookup cimport look_up, write_session
from tokmesh._core.survey cimport Survey
from tokmesh._core.text cimport escape_json

from tokmesh._core.session_view import SessionView


cdef Py_ssize_t escape_field(str text, Py_ssize_t chars_max, char* out) except -1:
    cdef Py_ssize_t size[1]
    cdef const char* utf8
    if len(text) > chars_max:
        raise ValueError(f"a field is longer than {chars_max} characters")
    utf8 = PyUnicode_AsUTF8AndSize(text, size)
    return escape_json(utf8, size[0], out)


cdef const uint8_t* fixed_bytes(bytes value, Py_ssize_t size) except NULL:
    if len(value) != size:
        raise ValueError(f"expected {size} bytes")
    return <const uint8_t*><const char*>value


cdef str unescape(const char* text, size_t size):
    cdef bytes raw = text[:size]
    return json.loads(b'"' + raw + b'"') if b"\\" in raw else raw.decode()


cdef class Views(Entries):
    """The reading half of Table."""

    cdef Slot* session_slot(self, entry) except NULL:
        if not 0 < entry < self.entries_begun:
            raise IndexError(entry)
        cdef Slot* slot = &self.slots[<uint32_t>entry]
        if not SLOT_LIVE <= slot.state <= SLOT_REVOKED:
            raise IndexError(entry)
        return slot

    cdef str _interned_text(self, uint32_t block):
        if block == 0:
            return ""
        cdef InternedString* string = <InternedString*>self.arena.at(block)
        return unescape(<const char*>string + sizeof(InternedString), string.size)

    cdef list _list_entries(self, EntryList which, const char* key, Py_ssize_t size):
        cdef uint32_t entry = self.find_list(which, key, size)
        entries = []
        while entry != 0:
            entries.append(entry)
            entry = self.rows[entry].device_next if which == DEVICE_LIST else self.rows[entry].user_next
        return entries

    def find(self, bytes session_id) -> int:
        """The session's entry, alive or remembered; -1 when unknown."""
        cdef uint32_t entry = self.find_session(fixed_bytes(session_id, 16))
        return entry if entry != 0 else -1

    def find_token(self, bytes token_hash, int64_t now_ms) -> tuple[int, int]:
        """Verdict on a token, and its session's entry; -1 when it has none (any more)."""
        cdef uint32_t entry[1]
        cdef int verdict = look_up(&self.region, fixed_bytes(token_hash, 32), now_ms, NULL, NULL, entry)
        return verdict, entry[0] if entry[0] != 0 else -1

    def token_known(self, bytes token_hash) -> bool:
        """Whether the token is in the table in any state."""
        return self.find_holder(fixed_bytes(token_hash, 32)) != 0

    def status(self, entry, int64_t now_ms) -> int:
        """Status at now_ms, exact whatever the sweeper has got round to. IndexError if the entry holds no session."""
        cdef Slot* slot = self.session_slot(entry)
        if slot.state == SLOT_REVOKED:
            return REVOKED
        return EXPIRED if slot.state == SLOT_EXPIRED or slot_deadline_ms(slot) <= now_ms else LIVE

    def session(self, entry) -> SessionView:
        """The session's fields. IndexError if the entry holds no session."""
        cdef Slot* slot = self.session_slot(entry)
        cdef Block* block = <Block*>self.arena.at(slot.block)
        cdef const char* text = <const char*>block + sizeof(Block)
        cdef const char* ip = text + block.user_size + block.device_size
        cdef const char* last_ip = ip + block.ip_size
        cdef size_t last_ip_size = block.last_ip_size
        cdef const char* data = last_ip
        if last_ip_size == SAME_AS_IP:
            last_ip, last_ip_size = ip, block.ip_size
        else:
            data += last_ip_size
        return SessionView(
            <bytes>(<const char*>block.session_id)[:16],
            unescape(text, block.user_size),
            unescape(text + block.user_size, block.device_size),
            unescape(ip, block.ip_size),
            self._interned_text(block.user_agent),
            unescape(last_ip, last_ip_size),
            self._interned_text(block.last_access_ua),
            self._interned_text(block.created_by),
            block.created_at_ms, slot.expires_at_ms, slot.last_active_ms, <bytes>data[:block.data_size], block.version,
            slot.idle_seconds,
        )

    def hashes(self, entry) -> tuple[bytes, bytes, int]:
        """The session's token hash; of a token rotated away and in its grace hash and end (b"" and 0 without one). IndexError."""
        cdef Slot* slot = self.session_slot(entry)
        cdef uint32_t alias = self.rows[<uint32_t>entry].partner
        current = <bytes>(<const char*>slot.token_hash)[:32]
        if alias == 0 or self.slots[alias].state != SLOT_ALIAS:
            return current, b"", 0
        return current, <bytes>(<const char*>self.slots[alias].token_hash)[:32], self.slots[alias].expires_at_ms

    def session_json(self, entry) -> bytes:
        """The session as JSON (docs/api.md), at most SESSION_JSON_BYTES_MAX bytes. IndexError if the entry holds no session."""
        cdef Slot* slot = self.session_slot(entry)
        cdef char out[SESSION_JSON_BYTES_MAX]
        cdef Py_ssize_t size = write_session(&self.region, slot.block, slot.expires_at_ms, slot.last_active_ms, out)
        return PyBytes_FromStringAndSize(out, size)

    def user_entries(self, str user_id, bint expired=False) -> list[int]:
        """Entries of the user's sessions that are not swept yet, newest first; as many as the quota lets a user have. expired: of
        those that were swept and are remembered, the last swept first."""
        cdef char key[USER_CHARS_MAX * ESCAPED_MAX]
        return self._list_entries(EXPIRED_LIST if expired else USER_LIST, key, escape_field(user_id, USER_CHARS_MAX, key))

    def device_entries(self, str device_id) -> list[int]:
        """Entries of the device's sessions that are not swept yet, newest first; none for the empty device id."""
        cdef char key[DEVICE_CHARS_MAX * ESCAPED_MAX]
        return self._list_entries(DEVICE_LIST, key, escape_field(device_id, DEVICE_CHARS_MAX, key))

    def scan(self, cursor, Py_ssize_t limit, bint revoked=False) -> tuple[list[int], int]:
        """Entries of sessions that are not swept yet, in ascending order from `cursor` (0 at first); and the next cursor, -1 at the
        end. At most `limit` of them, after looking at no more than 64 * limit + 1024 entries: a page may be short, even empty.
        revoked: of those that are remembered as revoked, in their place.
        """
        cdef uint64_t entry = max(cursor, 1), seen = 0, seen_max
        limit = min(max(limit, 1), 65536)
        seen_max = 64 * limit + 1024
        entries = []
        while entry < self.entries_begun:
            if len(entries) == limit or seen == seen_max:
                return entries, entry
            if self.slots[entry].state == (SLOT_REVOKED if revoked else SLOT_LIVE):
                entries.append(entry)
            entry += 1
            seen += 1
        return entries, -1

    def shard_counts(self) -> list[int]:
        """Live sessions by shard (layout.pxd says which): as exact as `sessions_active`, and their sum."""
        return [self.live.by_shard[shard] for shard in range(SHARD_COUNT)]

    def begin_survey(self, key: tuple[int, int], int64_t beyond_ms) -> Survey:
        """A survey of this moment, to be taken step by step; key, beyond_ms: see Survey.begin. One at a time. MemoryError."""
        cdef Survey survey = self.image.survey
        survey.slots = self.slots
        survey.rows = self.rows
        survey.arena = self.arena.zone.base
        survey.begin(self.entries_begun, key, beyond_ms)
        return survey

    def stats(self) -> dict[str, int | float]:
        """Figures for telemetry; a few system calls, no scan."""
        zones = (self.slots_zone, self.rows_zone, self.queue_zone, self.arena.zone)
        indexes = (self.tokens, self.ids, self.users, self.devices, self.interned.index)
        cdef Index index
        load, rebuilding = 0.0, 0
        for index in indexes:
            load = max(load, index.load())
            rebuilding += index.header.old_capacity != 0
        every = zones + tuple(index.zone for index in indexes)
        return {
            "sessions_active": self.live.all,
            "entries_used": self.live.all + self.tombstone_count + self.alias_count,
            "tombstones": self.tombstone_count,
            "aliases": self.alias_count,
            "memory_bytes": sum(zone.committed() for zone in every),
            "memory_reserved_bytes": sum(zone.bytes_max for zone in every),
            "index_load": load,
            "index_rebuilding": rebuilding,
            "expiry_backlog": self.last_backlog,
            "interned_strings": self.interned.index.live,
            "arena_free_bytes": self.arena.granules_free * GRANULE_BYTES,
        }

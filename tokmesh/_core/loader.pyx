"""Fills an empty table from images (image.pxd), as fast as memory allows: five million sessions in a few seconds.

Half of what an insertion costs is waiting for memory, so images are read LOOKAHEAD at a time: the cells that the next ones will
need are asked for while the ones before are put in. Nothing is trusted: an image that is not exactly one, or whose id or token is
there already, is a ValueError, after which the table is to be thrown away.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tokmesh._core.arena cimport granules_for
from tokmesh._core.entries cimport EXPIRED_LIST
from tokmesh._core.image cimport (
    IMAGE_ALIAS_BYTES, IMAGE_ENDED_ALIAS, IMAGE_HEAD_BYTES, IMAGE_SAME, IMAGE_SESSION, IMAGE_SESSION_BYTES, IMAGE_TEXTS,
)
from tokmesh._core.index cimport Index, home_position
from tokmesh._core.layout cimport (
    DATA_BYTES_MAX, DEVICE_CHARS_MAX, ESCAPED_MAX, IP_CHARS_MAX, KEY_ID_CHARS_MAX, SAME_AS_IP, SLOT_ALIAS, SLOT_ALIAS_ENDED,
    SLOT_EXPIRED, SLOT_LIVE, SLOT_REVOKED, UA_CHARS_MAX, USER_CHARS_MAX, Block, SlotState,
)
from tokmesh._core.table cimport Table


cdef extern from "platform.h" nogil:
    uint32_t tm_get32(const uint8_t* data)
    uint64_t tm_get64(const uint8_t* data)

cdef extern from *:
    void __builtin_prefetch(const void* address, int write) noexcept nogil

cdef enum:
    LOOKAHEAD = 16

# By position in an image.
cdef enum:
    TEXT_USER = 0
    TEXT_DEVICE = 1
    TEXT_IP = 2
    TEXT_LAST_IP = 3
    TEXT_AGENT = 4
    TEXT_LAST_AGENT = 5
    TEXT_BY = 6
    TEXT_DATA = 7

cdef uint16_t[8] _SIZES_MAX
_SIZES_MAX[:] = [
    USER_CHARS_MAX * ESCAPED_MAX, DEVICE_CHARS_MAX * ESCAPED_MAX, IP_CHARS_MAX * ESCAPED_MAX, IP_CHARS_MAX * ESCAPED_MAX,
    UA_CHARS_MAX * ESCAPED_MAX, UA_CHARS_MAX * ESCAPED_MAX, KEY_ID_CHARS_MAX * ESCAPED_MAX, DATA_BYTES_MAX,
]

cdef dict _REASONS = {
    LOAD_MALFORMED: "not an image of a session",
    LOAD_TWICE: "a session is in it twice",
    LOAD_FULL: "more sessions than the table holds",
}


cdef inline void prefetch_cell(Index index, uint32_t tag) noexcept nogil:
    __builtin_prefetch(index.zone.base + index.header.array + home_position(tag, index.header.capacity) * 8, 1)


cdef class Loader:
    """For a table without entries. time_ms: the moment of the images; sessions, users, devices: how many of each there will be, for
    room to be made at once (a hint, 0 is right as well)."""

    def __init__(self, Table table not None, *, int64_t time_ms, uint64_t sessions=0, uint64_t users=0, uint64_t devices=0):
        assert table.entries_begun == 1
        self.table = table
        table.tokens.reserve(min(sessions, <uint64_t>table.entries_max))
        table.ids.reserve(min(sessions, <uint64_t>table.entries_max))
        table.users.reserve(min(users, <uint64_t>table.entries_max))
        table.devices.reserve(min(devices, <uint64_t>table.entries_max))
        table.wheel.start_at(table.tick_after(time_ms - 999, 0))

    def load(self, const uint8_t[::1] data) -> None:
        """Puts in every image of `data`, which holds whole ones. ValueError, see the module."""
        cdef Parsed[LOOKAHEAD] ahead
        cdef size_t at = 0, size = <size_t>data.shape[0]
        cdef int status = LOADED, position, parsed
        if size == 0:
            return
        cdef const uint8_t* start = &data[0]
        with nogil:
            while at < size and status == LOADED:
                parsed = 0
                while parsed < LOOKAHEAD and at < size:
                    status = parse(self.table, start + at, size - at, &ahead[parsed])
                    if status != LOADED:
                        break
                    at += ahead[parsed].size
                    parsed += 1
                for position in range(parsed):
                    if status != LOADED:
                        break
                    status = load_one(self.table, &ahead[position])
                    self.count += status == LOADED
        if status != LOADED:
            raise ValueError(_REASONS[status])


cdef int parse(Table table, const uint8_t* data, size_t size, Parsed* parsed) noexcept nogil:
    cdef size_t at = IMAGE_SESSION_BYTES
    cdef uint8_t state
    cdef int text
    if size < IMAGE_HEAD_BYTES or tm_get32(data) > size:
        return LOAD_MALFORMED
    size = tm_get32(data)
    state = data[5]
    parsed.bytes = data
    parsed.size = size
    parsed.is_session = data[4] == IMAGE_SESSION
    parsed.has_alias = data[6] == 1
    parsed.token_tag = table.tokens.tag_of(data + 8, 32)
    prefetch_cell(table.tokens, parsed.token_tag)
    if data[6] > 1 or data[7] != 0 or <int64_t>tm_get64(data + 40) < 0:
        return LOAD_MALFORMED
    if not parsed.is_session:
        if data[4] != IMAGE_ENDED_ALIAS or state != SLOT_ALIAS_ENDED or size != IMAGE_HEAD_BYTES or parsed.has_alias:
            return LOAD_MALFORMED
        return LOADED
    if size < IMAGE_SESSION_BYTES or (state != SLOT_LIVE and state != SLOT_EXPIRED and state != SLOT_REVOKED):
        return LOAD_MALFORMED
    if parsed.has_alias:
        at += IMAGE_ALIAS_BYTES
    for text in range(IMAGE_TEXTS):
        parsed.sizes[text] = <uint16_t>(data[96 + 2 * text] | <uint16_t>data[97 + 2 * text] << 8)
        parsed.texts[text] = <const char*>data + at
        if parsed.sizes[text] == IMAGE_SAME and (text == TEXT_LAST_IP or text == TEXT_LAST_AGENT):
            continue
        if parsed.sizes[text] > _SIZES_MAX[text]:
            return LOAD_MALFORMED
        at += parsed.sizes[text]
    if at != size or parsed.sizes[TEXT_USER] == 0:
        return LOAD_MALFORMED
    parsed.id_tag = table.ids.tag_of(data + 56, 16)
    prefetch_cell(table.ids, parsed.id_tag)
    parsed.user_tag = table.users.tag_of(parsed.texts[TEXT_USER], parsed.sizes[TEXT_USER])
    prefetch_cell(table.users, parsed.user_tag)
    return LOADED


cdef int load_one(Table table, const Parsed* parsed) noexcept nogil:
    cdef const uint8_t* data = parsed.bytes
    if parsed.is_session:
        return load_session(table, parsed)
    return load_alias(table, data + 8, <int64_t>tm_get64(data + 40), tm_get32(data + 48), 0)


cdef int load_session(Table table, const Parsed* parsed) noexcept nogil:
    cdef const uint8_t* data = parsed.bytes
    cdef uint32_t entry, block
    cdef uint8_t state = data[5]
    if table.find_session(data + 56) != 0 or table.find_holder(data + 8) != 0:
        return LOAD_TWICE
    entry = table.take_entry()
    block = block_for(table, parsed) if entry != 0 else 0
    if block == 0:
        return LOAD_FULL
    table._fill_slot(entry, data + 8, <SlotState>state, <int64_t>tm_get64(data + 40), <int64_t>tm_get64(data + 80), block,
                     tm_get32(data + 52))
    table.rows[entry].gone_tick = tm_get32(data + 48)
    table.tokens.put(parsed.token_tag, entry)
    table.ids.put(parsed.id_tag, entry)
    if state == SLOT_LIVE:
        table.link_lists(entry)
    else:
        table.tombstone_count += 1
        if state == SLOT_EXPIRED:
            table.link(entry, EXPIRED_LIST)
    table.schedule(entry)
    if parsed.has_alias:
        data += IMAGE_SESSION_BYTES
        return load_alias(table, data, <int64_t>tm_get64(data + 32), tm_get32(data + 40), entry)
    return LOADED


cdef int load_alias(Table table, const uint8_t* token_hash, int64_t expires_at_ms, uint32_t gone_tick,
                    uint32_t session) noexcept nogil:
    # session: whose token it was; 0 for one that is ended.
    cdef uint32_t entry
    if expires_at_ms < 0:
        return LOAD_MALFORMED
    if table.find_holder(token_hash) != 0:
        return LOAD_TWICE
    entry = table.take_entry()
    if entry == 0:
        return LOAD_FULL
    table._fill_slot(entry, token_hash, SLOT_ALIAS if session != 0 else SLOT_ALIAS_ENDED, expires_at_ms, 0, session, 0)
    table.rows[entry].gone_tick = gone_tick
    if session != 0:
        table.rows[entry].partner = session
        table.rows[session].partner = entry
    table.alias_count += 1
    table.tokens.put(table.tokens.tag_of(token_hash, 32), entry)
    table.schedule(entry)
    return LOADED


cdef uint32_t block_for(Table table, const Parsed* parsed) noexcept nogil:
    # The arena block of a session; 0 if the arena is full.
    cdef const uint8_t* data = parsed.bytes
    cdef size_t last_ip_size = parsed.sizes[TEXT_LAST_IP] if parsed.sizes[TEXT_LAST_IP] != IMAGE_SAME else 0
    cdef size_t stored = parsed.sizes[TEXT_USER] + parsed.sizes[TEXT_DEVICE] + parsed.sizes[TEXT_IP] + last_ip_size
    cdef size_t size = sizeof(Block) + stored + parsed.sizes[TEXT_DATA]
    cdef uint32_t number = table.arena.allocate(granules_for(size))
    cdef Block* block
    cdef char* text
    if number == 0:
        return 0
    block = <Block*>table.arena.at(number)
    text = <char*>block + sizeof(Block)
    memset(block, 0, sizeof(Block))
    memcpy(block.session_id, data + 56, 16)
    block.created_at_ms = <int64_t>tm_get64(data + 72)
    block.version = tm_get64(data + 88)
    block.user_agent = table.interned.acquire(parsed.texts[TEXT_AGENT], parsed.sizes[TEXT_AGENT])
    block.created_by = table.interned.acquire(parsed.texts[TEXT_BY], parsed.sizes[TEXT_BY])
    if parsed.sizes[TEXT_LAST_AGENT] == IMAGE_SAME:
        block.last_access_ua = block.user_agent
        table.interned.share(block.user_agent)
    else:
        block.last_access_ua = table.interned.acquire(parsed.texts[TEXT_LAST_AGENT], parsed.sizes[TEXT_LAST_AGENT])
        if block.last_access_ua == 0 and parsed.sizes[TEXT_LAST_AGENT] != 0:
            return 0
    if (block.user_agent == 0 and parsed.sizes[TEXT_AGENT] != 0) or (block.created_by == 0 and parsed.sizes[TEXT_BY] != 0):
        return 0
    block.user_size = parsed.sizes[TEXT_USER]
    block.device_size = parsed.sizes[TEXT_DEVICE]
    block.ip_size = parsed.sizes[TEXT_IP]
    block.last_ip_size = SAME_AS_IP if parsed.sizes[TEXT_LAST_IP] == IMAGE_SAME else parsed.sizes[TEXT_LAST_IP]
    block.data_size = parsed.sizes[TEXT_DATA]
    block.granules = <uint16_t>granules_for(size)
    memcpy(text, parsed.texts[TEXT_USER], stored)      # the first four texts lie one after the other, as in a block
    memcpy(text + stored, parsed.texts[TEXT_DATA], parsed.sizes[TEXT_DATA])
    return number

# Reading the table: token hash → verdict and session JSON. Takes no lock, allocates nothing, writes nothing but the caller's
# buffer; works the same beside the writer, in another thread, and on a read-only mapping in another process.
#
# A reader trusts nothing before it has re-checked the slot's sequence: sizes are clamped and numbers bounded, so that what is read
# during a change is at worst wrong bytes inside the mappings, which are then thrown away.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from tokmesh._core.arena cimport GRANULE_BYTES
from tokmesh._core.index cimport Probe, probe_changed, probe_next, probe_start, tm_siphash13
from tokmesh._core.interned cimport InternedString
from tokmesh._core.layout cimport (
    DATA_BYTES_MAX, DEVICE_CHARS_MAX, ESCAPED_MAX, IP_CHARS_MAX, KEY_ID_CHARS_MAX, SAME_AS_IP, SLOT_ALIAS, SLOT_ALIAS_ENDED,
    SLOT_EXPIRED, SLOT_FREE, SLOT_LIVE, SLOT_REVOKED, UA_CHARS_MAX, USER_CHARS_MAX, Block, Slot, slot_deadline_ms,
    tm_fence_acquire, tm_load_acquire_u32, tm_load_relaxed_u32,
)
from tokmesh._core.text cimport write_i64, write_u64, write_ulid

# The values of table.Verdict, and two that stay inside.
cdef enum:
    FOUND_VALID = 0
    FOUND_UNKNOWN = 1
    FOUND_EXPIRED = 2
    FOUND_REVOKED = 3
    FOUND_BUSY = 4
    FOUND_ALIAS = 5
    FOUND_OTHER = 6                  # the entry is not, or no longer, the token's

cdef enum:
    ATTEMPTS_MAX = 100000            # about a millisecond; then the writer is paused or dead, and the answer is BUSY

# Where the zones are mapped in this process.
cdef struct Region:
    const Slot* slots
    const char* arena
    const char* token_index
    uint64_t token_key[2]
    uint32_t entries_max
    uint32_t granules_max


cdef extern from *:
    """
    /* Most strings of a session have fewer than 64 bytes, where a call of memcpy, or the `rep movs` that compilers make of a copy
     * with a known bound, costs more than the copy: a quarter of what writing a session took. Sixteen bytes at a time write and
     * read up to 15 beyond the end: SESSION_JSON_BYTES_MAX and the arena's last block leave room for that. */
    static inline char *tm_put(char *out, const char *text, size_t size) {
        char *end = out + size;
        for (; out < end; out += 16, text += 16)
            __builtin_memcpy(out, text, 16);
        return end;
    }
    """
    char* put "tm_put"(char* out, const char* text, size_t size) noexcept nogil


cdef inline char* put_name(char* out, const char* name) noexcept nogil:
    cdef size_t size = strlen(name)          # a literal's length, and with it the copy, is the compiler's to know
    memcpy(out, name, size)
    return out + size


cdef inline size_t clamp(size_t size, size_t chars_max) noexcept nogil:
    return size if size <= chars_max * ESCAPED_MAX else chars_max * ESCAPED_MAX


cdef inline char* put_interned(char* out, const Region* region, uint32_t block, size_t chars_max) noexcept nogil:
    cdef const InternedString* string
    if block == 0 or block >= region.granules_max:
        return out
    string = <const InternedString*>(region.arena + <size_t>block * GRANULE_BYTES)
    return put(out, <const char*>string + sizeof(InternedString), clamp(string.size, chars_max))


cdef inline Py_ssize_t write_session(const Region* region, uint32_t block_number, int64_t expires_at_ms, int64_t last_active_ms,
                                     char* out) noexcept nogil:
    # At most SESSION_JSON_BYTES_MAX bytes, whatever the block holds.
    if block_number >= region.granules_max:
        return 0
    cdef const Block* block = <const Block*>(region.arena + <size_t>block_number * GRANULE_BYTES)
    cdef const char* text = <const char*>block + sizeof(Block)
    cdef size_t user_size = clamp(block.user_size, USER_CHARS_MAX)
    cdef size_t device_size = clamp(block.device_size, DEVICE_CHARS_MAX)
    cdef size_t ip_size = clamp(block.ip_size, IP_CHARS_MAX)
    cdef size_t last_ip_size = block.last_ip_size
    cdef size_t data_size = block.data_size if block.data_size <= DATA_BYTES_MAX else DATA_BYTES_MAX
    cdef const char* ip = text + user_size + device_size
    cdef const char* last_ip = ip + ip_size
    cdef const char* data = last_ip
    if last_ip_size == SAME_AS_IP:
        last_ip = ip
        last_ip_size = ip_size
    else:
        last_ip_size = clamp(last_ip_size, IP_CHARS_MAX)
        data += last_ip_size
    cdef char* end = put_name(out, b'{"id":"tmss-')
    end += write_ulid(block.session_id, end)
    end = put(put_name(end, b'","user_id":"'), text, user_size)
    end = put(put_name(end, b'","device_id":"'), text + user_size, device_size)
    end = put(put_name(end, b'","ip_address":"'), ip, ip_size)
    end = put_interned(put_name(end, b'","user_agent":"'), region, block.user_agent, UA_CHARS_MAX)
    end = put(put_name(end, b'","last_access_ip":"'), last_ip, last_ip_size)
    end = put_interned(put_name(end, b'","last_access_ua":"'), region, block.last_access_ua, UA_CHARS_MAX)
    end = put_interned(put_name(end, b'","created_by":"'), region, block.created_by, KEY_ID_CHARS_MAX)
    end = put_name(end, b'","created_at":')
    end += write_i64(block.created_at_ms, end)
    end = put_name(end, b',"expires_at":')
    end += write_i64(expires_at_ms, end)
    end = put_name(end, b',"last_active":')
    end += write_i64(last_active_ms, end)
    end = put(put_name(end, b',"data":'), data, data_size)
    end = put_name(end, b',"version":')
    end += write_u64(block.version, end)
    return put_name(end, b'}') - out


cdef inline bint same_hash(const uint8_t* one, const uint8_t* other) noexcept nogil:
    # In constant time.
    cdef uint64_t a[4]
    cdef uint64_t b[4]
    memcpy(a, one, 32)
    memcpy(b, other, 32)
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) == 0


cdef inline int read_slot(const Region* region, uint32_t entry, const uint8_t* token_hash, int64_t now_ms, char* out,
                          Py_ssize_t* written, Slot* seen) noexcept nogil:
    # What the slot says at now_ms, all of it from one moment; `seen` receives its fixed part. token_hash NULL: any token.
    cdef const Slot* slot = &region.slots[entry]
    cdef uint32_t attempts = 0
    cdef int found
    seen.state = SLOT_FREE
    while attempts < ATTEMPTS_MAX:
        attempts += 1
        seen.sequence = tm_load_acquire_u32(&slot.sequence)
        if seen.sequence & 1:
            continue
        seen.state = slot.state
        seen.expires_at_ms = slot.expires_at_ms
        seen.last_active_ms = slot.last_active_ms
        seen.block = slot.block
        seen.idle_seconds = slot.idle_seconds
        found = FOUND_OTHER
        if token_hash != NULL and not same_hash(slot.token_hash, token_hash):
            pass
        elif seen.state == SLOT_LIVE:
            found = FOUND_VALID if now_ms < slot_deadline_ms(seen) else FOUND_EXPIRED
            if found == FOUND_VALID and out != NULL:
                written[0] = write_session(region, seen.block, seen.expires_at_ms, seen.last_active_ms, out)
        elif seen.state == SLOT_REVOKED:
            found = FOUND_REVOKED
        elif seen.state == SLOT_EXPIRED or seen.state == SLOT_ALIAS_ENDED:
            found = FOUND_EXPIRED
        elif seen.state == SLOT_ALIAS:
            found = FOUND_ALIAS
        tm_fence_acquire()
        if tm_load_relaxed_u32(&slot.sequence) == seen.sequence:
            return found
    return FOUND_BUSY


cdef inline int look_up(const Region* region, const uint8_t* token_hash, int64_t now_ms, char* out, Py_ssize_t* written,
                        uint32_t* entry) noexcept nogil:
    # FOUND_VALID … FOUND_BUSY. `entry`: the session's, 0 where the token belongs to none (any more).
    cdef Probe probe
    cdef Slot seen, session
    cdef uint32_t tag = <uint32_t>(tm_siphash13(region.token_key, token_hash, 32) >> 32)
    cdef uint32_t attempts = 0
    cdef int found
    cdef bint again
    while attempts < ATTEMPTS_MAX:
        attempts += 1
        again = False
        probe_start(&probe, region.token_index, tag)
        while True:
            entry[0] = probe_next(&probe)
            if entry[0] == 0:
                break
            if entry[0] > region.entries_max:
                continue
            found = read_slot(region, entry[0], token_hash, now_ms, out, written, &seen)
            if found == FOUND_OTHER:
                continue
            if found != FOUND_ALIAS:
                if seen.state == SLOT_ALIAS_ENDED:
                    entry[0] = 0
                return found
            if seen.block > region.entries_max:
                again = True
                break
            found = read_slot(region, seen.block, NULL, now_ms, out, written, &session)
            if found == FOUND_BUSY or tm_load_acquire_u32(&region.slots[entry[0]].sequence) == seen.sequence:
                entry[0] = seen.block
                return FOUND_EXPIRED if found == FOUND_VALID and now_ms >= seen.expires_at_ms else found
            again = True
            break
        if not again and not probe_changed(&probe, region.token_index):
            return FOUND_UNKNOWN
    entry[0] = 0
    return FOUND_BUSY

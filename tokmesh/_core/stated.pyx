"""The short way from the bytes of a record Streamed into the table, for the many that a node meets when it starts from the stream
alone: a session as it is (SessionStated) that is not in the table, and the end of sessions (SessionsRevoked) of which none is.

It means what `Store.apply` makes of the same record, and is called by the store only. Invariant: what it takes, it takes as the
ordinary way would; whatever it does not know well (another kind, a session that is there, a token that another has, bounds, text
that is not UTF-8) it leaves, untouched, for the ordinary way. The bytes are told in log/record.py.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tokmesh._core.begins cimport DONE, INSERTED, TOKEN_EXISTS, Fields
from tokmesh._core.layout cimport (
    DATA_BYTES_MAX, DEVICE_CHARS_MAX, IP_CHARS_MAX, KEY_ID_CHARS_MAX, SLOT_EXPIRED, UA_CHARS_MAX, USER_CHARS_MAX, shard_of_id,
    slot_close, slot_open,
)
from tokmesh._core.streamed cimport (
    ENVELOPE_BYTES, ENVELOPE_FORMAT, ORIGIN_LENGTH_AT, RECORD_FORMAT, REQUEST_LENGTH_AT, STREAMED_BYTES, STREAMED_POSITION_AT,
    STREAMED_PREVIOUS_AT, StreamedBatch,
)
from tokmesh._core.table cimport Table
from tokmesh._core.text cimport escape_json


cdef extern from "platform.h" nogil:
    uint16_t tm_get16(const uint8_t* data)
    uint32_t tm_get32(const uint8_t* data)
    uint64_t tm_get64(const uint8_t* data)

cdef extern from "Python.h":
    str PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef enum:
    NODE_ID_BYTES_MAX = 128
    REQUEST_ID_BYTES_MAX = 64
    REVOKED_KIND = 4
    STATED_KIND = 7
    HEAD_BYTES = 10                  # of every record: kind, format, time_ms
    ID_BYTES = 16
    # Where the fields of a SessionStated are.
    TIME_AT = 2
    ID_AT = 10
    HASH_AT = 26
    OLD_HASH_AT = 58
    OLD_UNTIL_AT = 90
    CREATED_AT = 98
    EXPIRES_AT = 106
    ACTIVE_AT = 114
    VERSION_AT = 122
    IDLE_AT = 130
    USER_LENGTH_AT = 134
    DEVICE_LENGTH_AT = 136
    IP_LENGTH_AT = 138
    AGENT_LENGTH_AT = 139
    BY_LENGTH_AT = 141
    DATA_LENGTH_AT = 142
    STATED_BYTES = 144               # before the texts


cdef enum Form:
    FORM_UNKNOWN
    FORM_STATED
    FORM_REVOKED

# Where a record's parts are. Of FORM_REVOKED those before `sizes`.
cdef struct Stated:
    const uint8_t* bytes
    size_t size
    uint64_t position
    size_t sizes[5]                  # user_id, device_id, ip_address, user_agent, created_by
    size_t data_size


def entries_after(Table table not None, uint32_t more) -> int:
    """Numbers of entries that there are at most after so many more records: a session may bring the token it had before."""
    return <uint64_t>table.entries_begun + 2 * <uint64_t>more + 1


def begin_stated(Table table not None, StreamedBatch batch not None, uint32_t start, uint32_t end, uint64_t position,
                 uint64_t held, uint64_t[::1] sequence_by_entry) -> int:
    """Takes records `start` ≤ n < `end` of the batch, in order, up to the first that is not for it; how many. position: that the
    following has come to; held: shards (bits) whose sessions are kept; sequence_by_entry: told where each session's record stands,
    as large as `entries_after` says."""
    cdef Stated stated
    cdef Fields fields
    cdef uint32_t index = start, entry
    cdef int outcome
    cdef Form form
    if end > batch.count:
        raise IndexError(end)
    if sequence_by_entry.shape[0] < <Py_ssize_t>(<uint64_t>table.entries_begun + 2 * <uint64_t>(end - start) + 1):
        raise ValueError("sequence_by_entry is too small")
    while index < end:
        form = find_parts(batch, index, position, &stated)
        if form == FORM_STATED:
            if not escape_texts(&stated, &fields):
                break
            if (held >> shard_of_id(stated.bytes + ID_AT)) & 1:
                if table.find_session(stated.bytes + ID_AT) != 0:
                    break
                entry = 0
                outcome = begin(table, &stated, &fields, &entry)
                if outcome == TOKEN_EXISTS:
                    break
                if outcome == INSERTED:
                    sequence_by_entry[entry] = stated.position
        elif form != FORM_REVOKED or not are_unknown(table, &stated):
            break
        position = stated.position
        index += 1
    return index - start


cdef int begin(Table table, const Stated* stated, const Fields* fields, uint32_t* entry) noexcept nogil:
    # As Store's way: the session begins, and is then brought to its token, its version and its last activity.
    cdef const uint8_t* record = stated.bytes
    cdef const char* data = <const char*>record + STATED_BYTES
    cdef int64_t created_at_ms = <int64_t>tm_get64(record + CREATED_AT)
    cdef int64_t last_active_ms = <int64_t>tm_get64(record + ACTIVE_AT)
    cdef int64_t old_until_ms = <int64_t>tm_get64(record + OLD_UNTIL_AT)
    cdef uint64_t version = tm_get64(record + VERSION_AT)
    cdef int outcome
    cdef int part
    for part in range(5):
        data += stated.sizes[part]
    outcome = table.begin_session(record + ID_AT, record + (HASH_AT if old_until_ms == 0 else OLD_HASH_AT), fields, created_at_ms,
                                  <int64_t>tm_get64(record + EXPIRES_AT), tm_get32(record + IDLE_AT), data, stated.data_size, entry)
    if outcome != INSERTED:
        return outcome
    if old_until_ms != 0:
        table.rotate_session(entry[0], record + HASH_AT, old_until_ms, <int64_t>tm_get64(record + TIME_AT))
    if version != 1 and table._changeable(entry[0]) == DONE:
        slot_open(&table.slots[entry[0]])
        table.block_of(entry[0]).version = version
        slot_close(&table.slots[entry[0]])
    if last_active_ms > created_at_ms and table._changeable(entry[0]) == DONE:
        table._raise_last_active(entry[0], last_active_ms)
        if table.slots[entry[0]].state == SLOT_EXPIRED:
            table.settle(entry[0])
    return outcome


cdef bint are_unknown(Table table, const Stated* revoked) noexcept nogil:
    # Whether none of the sessions that ended is there: then nothing changes.
    cdef size_t at = HEAD_BYTES
    while at < revoked.size:    # of whole ids
        if table.find_session(revoked.bytes + at) != 0:
            return False
        at += ID_BYTES
    return True


cdef Form find_parts(StreamedBatch batch, uint32_t index, uint64_t position, Stated* stated) noexcept nogil:
    # What a record is that is the next of the following, its envelope within every bound that decoding has.
    cdef size_t size = 0, origin_size, request_size, at
    cdef const uint8_t* streamed = batch.at(index, &size)
    cdef const uint8_t* envelope = streamed + STREAMED_BYTES
    cdef const uint8_t* record
    stated.position = tm_get64(streamed + STREAMED_POSITION_AT)
    if tm_get64(streamed + STREAMED_PREVIOUS_AT) != position or stated.position <= position:
        return FORM_UNKNOWN
    size -= STREAMED_BYTES
    if size < ENVELOPE_BYTES or envelope[0] != ENVELOPE_FORMAT:
        return FORM_UNKNOWN
    origin_size = envelope[ORIGIN_LENGTH_AT]
    request_size = envelope[REQUEST_LENGTH_AT]
    at = <size_t>ENVELOPE_BYTES + origin_size + request_size
    if not 0 < origin_size <= NODE_ID_BYTES_MAX or request_size > REQUEST_ID_BYTES_MAX or size < at + HEAD_BYTES:
        return FORM_UNKNOWN
    if not is_ascii(envelope + ENVELOPE_BYTES, origin_size + request_size):
        return FORM_UNKNOWN
    record = stated.bytes = envelope + at
    stated.size = size - at
    if record[1] != RECORD_FORMAT or <int64_t>tm_get64(record + TIME_AT) < 0:
        return FORM_UNKNOWN
    if record[0] == STATED_KIND:
        return FORM_STATED if is_stated(stated) else FORM_UNKNOWN
    if record[0] == REVOKED_KIND and (stated.size - HEAD_BYTES) % ID_BYTES == 0:
        return FORM_REVOKED
    return FORM_UNKNOWN


cdef bint is_stated(Stated* stated) noexcept nogil:
    # Whether it is a session as it is within every bound that its decoding has; where its parts are.
    cdef const uint8_t* record = stated.bytes
    cdef size_t texts = 0
    cdef int part
    if stated.size < STATED_BYTES:
        return False
    stated.sizes[0] = tm_get16(record + USER_LENGTH_AT)
    stated.sizes[1] = tm_get16(record + DEVICE_LENGTH_AT)
    stated.sizes[2] = record[IP_LENGTH_AT]
    stated.sizes[3] = tm_get16(record + AGENT_LENGTH_AT)
    stated.sizes[4] = record[BY_LENGTH_AT]
    stated.data_size = tm_get16(record + DATA_LENGTH_AT)
    for part in range(5):
        texts += stated.sizes[part]
    # An UTF-8 character has at most four bytes; how many characters there are is looked at with the text.
    return (
        stated.size == STATED_BYTES + texts + stated.data_size
        and 0 < stated.sizes[0] <= 4 * USER_CHARS_MAX
        and stated.sizes[1] <= 4 * DEVICE_CHARS_MAX
        and stated.sizes[2] <= IP_CHARS_MAX
        and stated.sizes[3] <= 4 * UA_CHARS_MAX
        and stated.sizes[4] <= KEY_ID_CHARS_MAX
        and stated.data_size <= DATA_BYTES_MAX
        and are_within(record)
    )


cdef bint are_within(const uint8_t* record) noexcept nogil:
    # The numbers of a SessionStated: it has the hash and the end of a token that was rotated away, or neither.
    cdef uint64_t hash_bits = 0
    cdef int at
    for at in range(OLD_HASH_AT, OLD_UNTIL_AT, 8):
        hash_bits |= tm_get64(record + at)
    return (
        (hash_bits != 0) == (tm_get64(record + OLD_UNTIL_AT) != 0)
        and <int64_t>tm_get64(record + OLD_UNTIL_AT) >= 0
        and <int64_t>tm_get64(record + CREATED_AT) >= 0
        and <int64_t>tm_get64(record + EXPIRES_AT) >= 0
        and <int64_t>tm_get64(record + ACTIVE_AT) >= 0
        and tm_get64(record + VERSION_AT) >= 1
    )


cdef bint escape_texts(const Stated* stated, Fields* fields) except -1:
    # The texts as the table keeps them; False when one is no UTF-8, or longer than the table takes.
    cdef const char* text = <const char*>stated.bytes + STATED_BYTES
    cdef char* outs[5]
    cdef Py_ssize_t* sizes[5]
    cdef Py_ssize_t[5] chars_max = [USER_CHARS_MAX, DEVICE_CHARS_MAX, IP_CHARS_MAX, UA_CHARS_MAX, KEY_ID_CHARS_MAX]
    cdef int part
    outs[0], outs[1], outs[2], outs[3], outs[4] = fields.user, fields.device, fields.ip, fields.user_agent, fields.created_by
    sizes[0], sizes[1], sizes[2] = &fields.user_size, &fields.device_size, &fields.ip_size
    sizes[3], sizes[4] = &fields.user_agent_size, &fields.created_by_size
    for part in range(5):
        if not fits(text, stated.sizes[part], chars_max[part]):
            return False
        sizes[part][0] = escape_json(text, <Py_ssize_t>stated.sizes[part], outs[part])
        text += stated.sizes[part]
    return True


cdef bint fits(const char* text, size_t size, Py_ssize_t chars_max) except -1:
    # Whether it is UTF-8 of at most so many characters.
    if is_ascii(<const uint8_t*>text, size):
        return <Py_ssize_t>size <= chars_max
    try:
        return len(PyUnicode_DecodeUTF8(text, <Py_ssize_t>size, NULL)) <= chars_max
    except UnicodeDecodeError:
        return False


cdef bint is_ascii(const uint8_t* text, size_t size) noexcept nogil:
    cdef uint8_t bits = 0
    cdef size_t at
    for at in range(size):
        bits |= text[at]
    return bits < 0x80

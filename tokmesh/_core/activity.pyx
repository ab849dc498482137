"""Who was active: last-active times of a table's sessions with an idle limit, collected piece by piece, and taken by another table.

Bytes: for each session its id (16 bytes) and its last-active time (u64 little-endian, Unix ms, at most TIME_MS_MAX). Collected are
live sessions that were active after their creation, and since a time that the caller gives. A time that is taken only ever moves
forward; a session that is unknown or revoked is passed over, one that had ended for its idle limit meanwhile lives again, as by any
touch (table.pyx).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tokmesh._core.begins cimport DONE
from tokmesh._core.layout cimport SLOT_EXPIRED, SLOT_LIVE, Block, Slot
from tokmesh._core.table cimport Table


cdef extern from "platform.h" nogil:
    uint64_t tm_get64(const uint8_t* data)
    void tm_put64(uint8_t* data, uint64_t value)

cdef enum:
    ITEM_BYTES = 24
    BLOCKS_MAX = 2048                # looked at for a piece, each far away: as many sessions are in it at most
    SLOTS_MAX = 65536                # looked at for a piece, side by side
    TIME_MS_MAX = 0x1FFFFFFFFFFFFF   # an idle limit can be added

globals()["ACTIVITY_ITEM_BYTES"] = ITEM_BYTES
globals()["ACTIVITY_PIECE_BYTES_MAX"] = BLOCKS_MAX * ITEM_BYTES


def collect_activity(Table table not None, uint64_t cursor, int64_t since_ms) -> tuple[bytes, int]:
    """The next piece from `cursor` on (0 at first), perhaps an empty one, and the cursor behind it; 0 at the end."""
    cdef uint8_t[BLOCKS_MAX * ITEM_BYTES] out
    cdef uint64_t entry = cursor if cursor != 0 else 1, last
    cdef Py_ssize_t size = 0, blocks = 0
    cdef const Slot* slot
    cdef const Block* block
    if entry >= table.entries_begun:
        return b"", 0
    last = min(<uint64_t>table.entries_begun, entry + SLOTS_MAX)
    while entry < last and blocks < BLOCKS_MAX:
        slot = &table.slots[entry]
        if slot.state == SLOT_LIVE and slot.idle_seconds != 0 and slot.last_active_ms >= since_ms:
            block = table.block_of(<uint32_t>entry)
            blocks += 1
            if slot.last_active_ms > block.created_at_ms:
                memcpy(out + size, block.session_id, 16)
                tm_put64(out + size + 16, <uint64_t>slot.last_active_ms)
                size += ITEM_BYTES
        entry += 1
    return PyBytes_FromStringAndSize(<const char*>out, size), entry if entry < table.entries_begun else 0


def take_activity(Table table not None, const uint8_t[::1] data) -> int:
    """Notes what another table has collected; in how many sessions that is later than what was known.

    ValueError, and nothing noted: it is not whole items, or a time cannot be."""
    cdef Py_ssize_t at, size = data.shape[0]
    cdef uint32_t entry
    cdef int64_t last_active_ms
    cdef int raised = 0
    if size % ITEM_BYTES != 0:
        raise ValueError("not whole items")
    for at in range(0, size, ITEM_BYTES):
        if tm_get64(&data[at + 16]) > <uint64_t>TIME_MS_MAX:
            raise ValueError("a time cannot be")
    for at in range(0, size, ITEM_BYTES):
        entry = table.find_session(&data[at])
        last_active_ms = <int64_t>tm_get64(&data[at + 16])
        if entry == 0 or table.slots[entry].last_active_ms >= last_active_ms or table._changeable(entry) != DONE:
            continue
        table._raise_last_active(entry, last_active_ms)
        if table.slots[entry].state == SLOT_EXPIRED:
            table.settle(entry)
        raised += 1
    return raised

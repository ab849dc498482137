"""The log on disk: segment and frame codec, the scanner's eyes, and the leaf calls that write and sync without the GIL.

All integers are little-endian. A segment is a header of 64 bytes, frames back to back, zeros to its preallocated end:

     0  magic "TMESHLOG"   8  format version u32   12  flags u32 (0: plain, 1: encrypted)
    16  segment id u64, random: bytes of any other segment, or quoted in a record, are never taken for a frame of this one
    24  first sequence u64   32  size in bytes the file was made with, u64   40  chain before the first frame u32
    44  plain: zeros (16); encrypted: second half of the salt (8), whose first half is the segment id, and the key's id (8)
    60  CRC-32C of bytes 0..59

A frame is one commit group, a header of 56 bytes and its payload:

     0  magic "TMFR"   4  format version u8   5  flags u8 (those of its segment)   6  zero u16
     8  segment id u64   16  first sequence u64   24  durable sequence u64: what was known durable when this was written
    32  record count u32   36  payload length u32   40  payload CRC-32C u32
    44  chain u32 = CRC-32C of bytes 0..43 continued from the chain of the frame before, also across segments
    48  plain: zero; encrypted: nonce counter u32, of the frames sealed for this segment   52  CRC-32C of bytes 0..51
    56  payload: per record, length u32 and the bytes. A frame of no records is the seal of an orderly stop.
        Encrypted: AES-256-GCM of that, 16 bytes of tag behind it. Associated data: bytes 0..39 and the chain before this frame.

Invariants: a header alone, its CRC and segment id being right, proves that everything up to its durable sequence was on the
disk before it was written; that is what tells damage (refuse) from a torn tail (cut). Nothing here trusts a byte it has not
checked, and nothing here decides: verdicts are `storage/recovery.py`'s.
"""

from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "platform.h" nogil:
    uint32_t tm_crc32c(uint32_t crc, const uint8_t* data, size_t size)
    void tm_put32(uint8_t* out, uint32_t value)
    void tm_put64(uint8_t* out, uint64_t value)
    uint32_t tm_get32(const uint8_t* data)
    uint64_t tm_get64(const uint8_t* data)

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void* data, size_t size, int64_t offset)
    int fdatasync(int fd)

cdef enum:
    SEGMENT_HEADER_SIZE = 64
    VERSION = 1
    SALT_HALF = 8
    KEY_ID_SIZE = 8

cdef const char* SEGMENT_MAGIC = b"TMESHLOG"

FORMAT_VERSION = VERSION
SEGMENT_HEADER_BYTES = SEGMENT_HEADER_SIZE
FRAME_HEADER_BYTES = FRAME_HEADER_SIZE
RECORD_HEADER_BYTES = RECORD_HEADER_SIZE
TAG_BYTES = TAG_SIZE


class SegmentHeader(NamedTuple):
    """What a segment says about itself. size_bytes: the length it was preallocated to; chain: before its first frame; salt, key_id:
    of an encrypted one, empty for a plain one; the salt begins with the segment id."""

    segment_id: int
    first_sequence: int
    size_bytes: int
    chain: int
    salt: bytes = b""
    key_id: bytes = b""


class Frame(NamedTuple):
    """A frame as read: `end` is the offset after it; `records` are its payloads in order, the first has `first_sequence`."""

    first_sequence: int
    end: int
    chain: int
    records: list


# ── leaves ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

cdef uint32_t write_frame_header(uint8_t* out, const FrameHeader* header, uint32_t chain_before) noexcept nogil:
    # Writes FRAME_HEADER_SIZE bytes; returns the chain after this frame (header.chain is ignored).
    cdef uint32_t chain
    memset(out, 0, FRAME_HEADER_SIZE)
    _write_start(out, header)
    tm_put32(out + 40, header.payload_crc)
    chain = tm_crc32c(chain_before, out, 44)
    tm_put32(out + 44, chain)
    tm_put32(out + 48, header.nonce_counter)
    tm_put32(out + 52, tm_crc32c(0, out, 52))
    return chain


cdef void write_aad(uint8_t* out, const FrameHeader* header, uint32_t chain_before) noexcept nogil:
    # Writes AAD_SIZE bytes: all of a header that is known before its payload is encrypted. With the chain, no frame that was sealed
    # for this place and came to nothing can take the place of the one that was kept.
    _write_start(out, header)
    tm_put32(out + 40, chain_before)


cdef void _write_start(uint8_t* out, const FrameHeader* header) noexcept nogil:
    # Bytes 0..39 of a header.
    memcpy(out, b"TMFR", 4)
    out[4] = VERSION
    out[5] = header.flags
    out[6] = out[7] = 0
    tm_put64(out + 8, header.segment_id)
    tm_put64(out + 16, header.first_sequence)
    tm_put64(out + 24, header.durable_sequence)
    tm_put32(out + 32, header.record_count)
    tm_put32(out + 36, header.payload_bytes)


cdef bint read_frame_header(const uint8_t* data, size_t size, FrameHeader* header) noexcept nogil:
    # True when the bytes are a whole header with the right CRC, version and reserved bytes; fills `header`.
    if size < FRAME_HEADER_SIZE or memcmp(data, b"TMFR", 4) != 0:
        return False
    if tm_get32(data + 52) != tm_crc32c(0, data, 52):
        return False
    if data[4] != VERSION or data[6] != 0 or data[7] != 0 or (data[5] == 0 and tm_get32(data + 48) != 0):
        return False
    header.flags = data[5]
    header.segment_id = tm_get64(data + 8)
    header.first_sequence = tm_get64(data + 16)
    header.durable_sequence = tm_get64(data + 24)
    header.record_count = tm_get32(data + 32)
    header.payload_bytes = tm_get32(data + 36)
    header.payload_crc = tm_get32(data + 40)
    header.chain = tm_get32(data + 44)
    header.nonce_counter = tm_get32(data + 48)
    return True


cdef bint is_payload_whole(const uint8_t* start, size_t size, const FrameHeader* header) noexcept nogil:
    # True when the payload behind the header at `start` is within `size` bytes and has the right CRC.
    if header.payload_bytes > size - FRAME_HEADER_SIZE:
        return False
    return header.payload_crc == tm_crc32c(0, start + FRAME_HEADER_SIZE, header.payload_bytes)


cdef bint is_foreign_header(const uint8_t* data, size_t size, uint64_t segment_id) noexcept nogil:
    # True when the bytes are a whole frame header of this segment that read_frame_header does not know: of a later version.
    if size < FRAME_HEADER_SIZE or memcmp(data, b"TMFR", 4) != 0 or tm_get64(data + 8) != segment_id:
        return False
    return tm_get32(data + 52) == tm_crc32c(0, data, 52)


cdef int write_fully(int fd, const uint8_t* data, size_t size, int64_t offset) noexcept nogil:
    # 0, or the errno that stopped it; anything between none and all of the bytes may then be in the file. A call that
    # writes less than asked is continued: on a full disk the next call names the reason. The loop ends: each turn writes
    # at least a byte or is an interruption by a signal.
    cdef ssize_t written
    while size > 0:
        written = pwrite(fd, data, size, offset)
        if written < 0:
            if errno == EINTR:
                continue
            return errno
        if written == 0:
            return EIO
        data += written
        offset += written
        size -= <size_t>written
    return 0


cdef int sync_data(int fd) noexcept nogil:
    # 0 or the errno. Never called again on a file after it failed: the kernel may have dropped the pages and forgotten. A
    # call that a signal interrupted has not told of any failure and is made again; each turn takes one signal.
    while fdatasync(fd) != 0:
        if errno != EINTR:
            return errno
    return 0


# ── what Python sees ────────────────────────────────────────────────────────────────────────────────────────────────────

def crc32c(const uint8_t[::1] data, uint32_t crc=0) -> int:
    """CRC-32C of `data`, continued from `crc`."""
    return tm_crc32c(crc, &data[0], data.shape[0]) if data.shape[0] else crc


def encode_segment_header(header) -> bytes:
    """The 64 bytes of a SegmentHeader."""
    cdef uint8_t[64] out
    memset(out, 0, SEGMENT_HEADER_SIZE)
    memcpy(out, SEGMENT_MAGIC, 8)
    tm_put32(out + 8, VERSION)
    tm_put64(out + 16, header.segment_id)
    tm_put64(out + 24, header.first_sequence)
    tm_put64(out + 32, header.size_bytes)
    tm_put32(out + 40, header.chain)
    if header.key_id:
        tm_put32(out + 12, FLAGS_ENCRYPTED)
        put_key(out, header.salt, header.key_id)
    tm_put32(out + 60, tm_crc32c(0, out, 60))
    return PyBytes_FromStringAndSize(<const char*>out, SEGMENT_HEADER_SIZE)


def decode_segment_header(const uint8_t[::1] data):
    """The SegmentHeader at the start of `data`, or None when the bytes are not one of this version."""
    if data.shape[0] < SEGMENT_HEADER_SIZE or memcmp(&data[0], SEGMENT_MAGIC, 8) != 0:
        return None
    cdef uint32_t flags = tm_get32(&data[12])
    if tm_get32(&data[60]) != tm_crc32c(0, &data[0], 60) or tm_get32(&data[8]) != VERSION or flags > FLAGS_ENCRYPTED:
        return None
    header = SegmentHeader(tm_get64(&data[16]), tm_get64(&data[24]), tm_get64(&data[32]), tm_get32(&data[40]))
    if flags == FLAGS_ENCRYPTED:
        salt = data[16:16 + SALT_HALF], data[44:44 + SALT_HALF]
        return header._replace(salt=bytes(salt[0]) + bytes(salt[1]), key_id=bytes(data[52:52 + KEY_ID_SIZE]))
    cdef int index
    for index in range(44, 60):
        if data[index] != 0:
            return None
    return header


cdef int put_key(uint8_t* out, bytes salt, bytes key_id) except -1:
    # The second half of the salt and the id, into a segment header whose segment id is the first half.
    assert len(salt) == 2 * SALT_HALF and len(key_id) == KEY_ID_SIZE and memcmp(out + 16, PyBytes_AS_STRING(salt), SALT_HALF) == 0
    memcpy(out + 44, PyBytes_AS_STRING(salt) + SALT_HALF, SALT_HALF)
    memcpy(out + 52, PyBytes_AS_STRING(key_id), KEY_ID_SIZE)
    return 0


cdef bytes payload_of(list records):
    # The payload of a frame of these `bytes`. OverflowError when it does not fit 32 bits of length.
    cdef size_t payload_bytes = 0
    cdef bytes record
    for record in records:
        payload_bytes += RECORD_HEADER_SIZE + PyBytes_GET_SIZE(record)
    if payload_bytes > 0xffffffff:
        raise OverflowError("a frame holds less than 4 GiB")
    payload = PyBytes_FromStringAndSize(NULL, payload_bytes)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(payload)
    cdef Py_ssize_t size
    for record in records:
        size = PyBytes_GET_SIZE(record)
        tm_put32(at, <uint32_t>size)
        memcpy(at + RECORD_HEADER_SIZE, PyBytes_AS_STRING(record), size)
        at += RECORD_HEADER_SIZE + size
    return payload


def encode_frame(uint64_t segment_id, uint64_t first_sequence, uint64_t durable_sequence, uint32_t chain, list records):
    """(frame bytes, chain after it) of a list of `bytes`, an empty one making the seal.

    chain: after the frame before. OverflowError when the payload does not fit 32 bits of length."""
    cdef bytes payload = payload_of(records)
    cdef FrameHeader header
    cdef uint8_t[FRAME_HEADER_SIZE] out
    memset(&header, 0, sizeof(header))
    header.segment_id = segment_id
    header.first_sequence = first_sequence
    header.durable_sequence = durable_sequence
    header.record_count = <uint32_t>len(records)
    header.payload_bytes = <uint32_t>len(payload)
    header.payload_crc = tm_crc32c(0, <const uint8_t*>PyBytes_AS_STRING(payload), header.payload_bytes)
    chain = write_frame_header(out, &header, chain)
    return PyBytes_FromStringAndSize(<const char*>out, FRAME_HEADER_SIZE) + payload, chain


def read_frame(const uint8_t[::1] data, Py_ssize_t offset, uint64_t segment_id, uint64_t sequence_due, uint32_t chain, opener=None):
    """(FrameStatus, Frame or None) of the bytes at `offset`, which must be the frame that starts with `sequence_due` and
    follows `chain`. FRAME_END only when every byte from `offset` on is zero; a seal is a Frame of no records. opener: of an
    encrypted segment, None of a plain one: opener.open(counter, aad, sealed) gives the payload, None when it is not genuine."""
    cdef Py_ssize_t size = data.shape[0] - offset
    if offset < 0 or size < 0:
        raise IndexError(offset)
    if size == 0 or (data[offset] == 0 and first_nonzero(data, offset) < 0):
        return FRAME_END, None
    cdef const uint8_t* start = &data[offset]
    cdef FrameHeader header
    if not read_frame_header(start, size, &header):
        return FRAME_MISPLACED if is_foreign_header(start, size, segment_id) else FRAME_DAMAGED, None
    if header.segment_id != segment_id or not is_payload_whole(start, size, &header):
        return FRAME_DAMAGED, None
    if header.first_sequence != sequence_due or header.chain != tm_crc32c(chain, start, 44):
        return FRAME_MISPLACED, None
    if header.flags != (FLAGS_PLAIN if opener is None else FLAGS_ENCRYPTED):
        return FRAME_MISPLACED, None
    cdef bytes payload = None
    if opener is not None:
        payload = open_payload(start + FRAME_HEADER_SIZE, &header, chain, opener)
        if payload is None:
            return FRAME_FORGED, None
    frame = frame_of(start, offset, &header, payload)
    return (FRAME_MISPLACED if frame is None else FRAME_VALID), frame


cdef object frame_of(const uint8_t* start, Py_ssize_t offset, const FrameHeader* header, bytes opened):
    # The Frame that starts at `offset` and is whole, or None when its payload is no list of records. opened: the payload of an
    # encrypted one, None of a plain one. Raises MemoryError.
    if opened is None:
        records = split_payload(start + FRAME_HEADER_SIZE, header.payload_bytes, header.record_count)
    else:
        records = split_payload(<const uint8_t*>PyBytes_AS_STRING(opened), <size_t>len(opened), header.record_count)
    if records is None:
        return None
    cdef Py_ssize_t end = offset + FRAME_HEADER_SIZE + <Py_ssize_t>header.payload_bytes
    return Frame(header.first_sequence, end, header.chain, records)


cdef bytes open_payload(const uint8_t* sealed, const FrameHeader* header, uint32_t chain_before, opener):
    # The payload of an encrypted frame, or None when header or payload is not what was sealed. Raises MemoryError.
    cdef uint8_t[AAD_SIZE] aad
    write_aad(aad, header, chain_before)
    return opener.open(header.nonce_counter, aad[:AAD_SIZE], sealed[:header.payload_bytes])


cdef list split_payload(const uint8_t* payload, size_t size, uint32_t record_count):
    # The records of a payload, or None when its lengths do not add up to `size` and `record_count`. Raises MemoryError.
    cdef size_t at = 0
    cdef size_t record_bytes
    records = []
    while at < size:
        if size - at < RECORD_HEADER_SIZE:
            return None
        record_bytes = tm_get32(payload + at)
        at += RECORD_HEADER_SIZE
        if record_bytes > size - at:
            return None
        records.append(PyBytes_FromStringAndSize(<const char*>payload + at, record_bytes))
        at += record_bytes
    return records if <size_t>len(records) == record_count else None


def first_nonzero(const uint8_t[::1] data, Py_ssize_t offset) -> int:
    """Offset of the first byte that is not zero at or after `offset`, or -1."""
    cdef Py_ssize_t size = data.shape[0]
    cdef uint64_t word = 0
    while offset + 8 <= size:
        memcpy(&word, &data[offset], 8)
        if word != 0:
            break
        offset += 8
    while offset < size:
        if data[offset] != 0:
            return offset
        offset += 1
    return -1


def write_at(int fd, const uint8_t[::1] data, int64_t offset) -> int:
    """Writes all of `data` at `offset` without the GIL; 0 or an errno, after which part of it may have been written."""
    cdef int outcome
    cdef const uint8_t* start = &data[0] if data.shape[0] else NULL
    cdef size_t size = data.shape[0]
    with nogil:
        outcome = write_fully(fd, start, size, offset)
    return outcome

"""What comes from the stream on its way into the node's own log: batches of records Streamed, in the bytes that the log writes.

A consumer's messages are put into batches as they are cut from the connection, without an object each. Invariants: positions rise
within a batch and from one to the next; each record's `previous` is the position of the record before it, of a batch's first the
batch's own `previous`; a batch has at most BATCH_RECORDS_MAX records, and one larger than ALONE_BYTES is alone in its batch.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy


cdef extern from "platform.h" nogil:
    void tm_put32(uint8_t* out, uint32_t value)
    void tm_put64(uint8_t* out, uint64_t value)
    uint32_t tm_get32(const uint8_t* data)
    uint64_t tm_get64(const uint8_t* data)

cdef enum:
    LENGTH_BYTES = 4
    FIRST_BYTES = 32768              # a batch's first room: what a connection is read by
    FIRST_STARTS = 64
    INNER_TIME_AT = 2                # of the record in an envelope, behind kind and format
    DIGITS_MAX = 18                  # of a number in a subject

# Where an acknowledgement would go:
# $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>;
# with domain and account behind $JS.ACK there are eleven tokens, and perhaps a random one at the end.
cdef enum:
    TOKENS = 9
    TOKENS_DOMAIN = 11
    TOKENS_MAX = 12


cdef class StreamedBatch:
    """Empty, behind the position `previous`. clock: tells the time of what has none of its own."""

    def __init__(self, uint64_t previous, Clock clock not None) -> None:
        self._clock = clock
        self.previous = self.position = previous

    def __dealloc__(self):
        free(self.bytes)
        free(self.starts)

    def __len__(self) -> int:
        return self.count

    def append(self, uint64_t position, bytes envelope not None) -> None:
        """What stood at that position of the stream, the next there is. ValueError when it is not, or the batch is full;
        MemoryError."""
        cdef size_t size = <size_t>PyBytes_GET_SIZE(envelope)
        if position <= self.position or not self.has_room(size):
            raise ValueError("not the next record of this batch")
        if not self.add(position, <const uint8_t*>PyBytes_AS_STRING(envelope), size):
            raise MemoryError()

    def record(self, uint32_t index) -> bytes:
        """The bytes of the record with that index. IndexError."""
        cdef size_t size = 0
        cdef const uint8_t* start
        if index >= self.count:
            raise IndexError(index)
        start = self.at(index, &size)
        return PyBytes_FromStringAndSize(<const char*>start, <Py_ssize_t>size)

    def envelope(self, uint32_t index) -> bytes:
        """What stood in the stream, of the record with that index. IndexError."""
        cdef size_t size = 0
        cdef const uint8_t* start
        if index >= self.count:
            raise IndexError(index)
        start = self.at(index, &size)
        return PyBytes_FromStringAndSize(<const char*>start + STREAMED_BYTES, <Py_ssize_t>(size - STREAMED_BYTES))

    def last_missing(self, uint32_t start, uint32_t end) -> int:
        """The last position, of records `start` ≤ n < `end`, before which the stream had one that is not there; 0 for none."""
        cdef size_t size = 0
        cdef const uint8_t* record
        cdef uint64_t position
        cdef uint32_t index = min(end, self.count)
        while index > start:
            index -= 1
            record = self.at(index, &size)
            position = tm_get64(record + STREAMED_POSITION_AT)
            if tm_get64(record + STREAMED_PREVIOUS_AT) + 1 != position:
                return position
        return 0

    def place(self, uint32_t index) -> tuple[int, int]:
        """Position and time_ms of the record with that index. IndexError."""
        cdef size_t size = 0
        cdef const uint8_t* start
        if index >= self.count:
            raise IndexError(index)
        start = self.at(index, &size)
        return tm_get64(start + STREAMED_POSITION_AT), <int64_t>tm_get64(start + STREAMED_TIME_AT)

    def find(self, bytes mark not None, uint32_t start, uint32_t end) -> int:
        """Index of the first record from `start` on whose envelope begins with `mark`; `end` when there is none before that."""
        cdef size_t mark_size = <size_t>PyBytes_GET_SIZE(mark), size = 0
        cdef const char* wanted = PyBytes_AS_STRING(mark)
        cdef const uint8_t* record
        cdef uint32_t index
        for index in range(start, min(end, self.count)):
            record = self.at(index, &size)
            if size >= STREAMED_BYTES + mark_size and memcmp(record + STREAMED_BYTES, wanted, mark_size) == 0:
                return index
        return end

    cdef bint has_room(self, size_t size) noexcept nogil:
        # Whether an envelope of that size may be added.
        if self.count == 0:
            return True
        return self.count < BATCH_RECORDS_MAX and size <= ALONE_BYTES and self.largest <= ALONE_BYTES + STREAMED_BYTES

    cdef const uint8_t* at(self, uint32_t index, size_t* size) noexcept nogil:
        # The record with that index, which is one, and its bytes.
        cdef const uint8_t* start = self.bytes + self.starts[index]
        size[0] = tm_get32(start - LENGTH_BYTES)
        return start

    cdef bint add(self, uint64_t position, const uint8_t* envelope, size_t size) noexcept nogil:
        # Position rises and there is room; False, and nothing was added, for want of memory.
        cdef size_t record_size = STREAMED_BYTES + size, time_at
        cdef int64_t time_ms = -1
        cdef uint8_t* out
        if not self._grow(LENGTH_BYTES + record_size):
            return False
        out = self.bytes + self.size
        tm_put32(out, <uint32_t>record_size)
        out += LENGTH_BYTES
        out[0] = STREAMED_KIND
        out[1] = RECORD_FORMAT
        # The time of the record in the envelope, of which nothing else is looked at.
        if size >= ENVELOPE_BYTES:
            time_at = <size_t>ENVELOPE_BYTES + envelope[ORIGIN_LENGTH_AT] + envelope[REQUEST_LENGTH_AT] + INNER_TIME_AT
            if size >= time_at + 8:
                time_ms = max(<int64_t>0, <int64_t>tm_get64(envelope + time_at))
        if time_ms < 0:
            time_ms = max(<int64_t>0, self._clock.read_ms())
        tm_put64(out + STREAMED_TIME_AT, <uint64_t>time_ms)
        tm_put64(out + STREAMED_POSITION_AT, position)
        tm_put64(out + STREAMED_PREVIOUS_AT, self.position)
        memcpy(out + STREAMED_BYTES, envelope, size)
        self.starts[self.count] = self.size + LENGTH_BYTES
        self.count += 1
        self.size += LENGTH_BYTES + record_size
        self.position = position
        self.largest = max(self.largest, record_size)
        return True

    cdef bint _grow(self, size_t size) noexcept nogil:
        # Room for one more record of that many bytes.
        cdef size_t needed = self.size + size
        cdef uint32_t starts_needed
        cdef void* grown
        if needed > self.capacity:
            needed = max(needed, 2 * self.capacity, <size_t>FIRST_BYTES)
            grown = realloc(self.bytes, needed)
            if grown == NULL:
                return False
            self.bytes = <uint8_t*>grown
            self.capacity = needed
        if self.count == self.starts_capacity:
            starts_needed = max(2 * self.starts_capacity, <uint32_t>FIRST_STARTS)
            grown = realloc(self.starts, starts_needed * sizeof(size_t))
            if grown == NULL:
                return False
            self.starts = <size_t*>grown
            self.starts_capacity = starts_needed
        return True


cdef class Deliveries:
    """Of one consumer, which begins behind `position`. Each delivery has the next number, or nothing more is taken: `fault`."""

    def __init__(self, uint64_t position, Clock clock not None) -> None:
        self._clock = clock
        self._ready = []
        self.position = position
        self.due = 1

    def deliver(self, bytes reply not None, bytes envelope not None) -> bool:
        """One message by its reply subject; False when that is no delivery's."""
        return self.add(PyBytes_AS_STRING(reply), <size_t>PyBytes_GET_SIZE(reply),
                        <const uint8_t*>PyBytes_AS_STRING(envelope), <size_t>PyBytes_GET_SIZE(envelope))

    def take(self) -> list[StreamedBatch]:
        """What has come since this was last asked, in order."""
        ready = self._ready
        self._ready = []
        return ready

    cdef bint add(self, const char* reply, size_t reply_size, const uint8_t* envelope, size_t size) except -1:
        # False: not a delivery.
        cdef uint64_t sequence = 0, number = 0
        cdef StreamedBatch batch
        cdef bint is_new
        if not read_places(reply, reply_size, &sequence, &number):
            return False
        if self.fault is not None:
            return True
        if number != self.due:
            self.fault = f"delivery {number} came where {self.due} was due"
            return True
        self.due += 1
        if sequence <= self.position:
            return True
        batch = <StreamedBatch>self._ready[len(self._ready) - 1] if self._ready else None
        is_new = batch is None or not batch.has_room(size)
        if is_new:
            batch = StreamedBatch(self.position, self._clock)
        if not batch.add(sequence, envelope, size):
            self.fault = "there is no memory for a delivery"    # it must come again, and nothing may come before it
            return True
        if is_new:
            self._ready.append(batch)
        self.position = sequence
        return True


cdef bint read_places(const char* reply, size_t size, uint64_t* sequence, uint64_t* number) noexcept nogil:
    # Sequence in the stream and number of the delivery; False for any other subject.
    cdef const char* tokens[TOKENS_MAX + 1]
    cdef const char* end = reply + size
    cdef const char* dot
    cdef size_t count = 1, first
    if size < 8 or memcmp(reply, b"$JS.ACK.", 8) != 0:
        return False
    tokens[0] = reply
    while count <= TOKENS_MAX:
        dot = <const char*>memchr(tokens[count - 1], c".", <size_t>(end - tokens[count - 1]))
        if dot == NULL:
            break
        tokens[count] = dot + 1
        count += 1
    if count != TOKENS and count != TOKENS_DOMAIN and count != TOKENS_MAX:
        return False
    first = 5 if count == TOKENS else 7
    return (read_number(tokens[first], tokens[first + 1] - 1, sequence)
            and read_number(tokens[first + 1], tokens[first + 2] - 1, number))


cdef bint read_number(const char* text, const char* end, uint64_t* value) noexcept nogil:
    # A decimal number that is the whole text.
    cdef uint64_t read = 0
    if text >= end or end - text > DIGITS_MAX:
        return False
    while text < end:
        if not c"0" <= text[0] <= c"9":
            return False
        read = read * 10 + <uint64_t>(text[0] - c"0")
        text += 1
    value[0] = read
    return True

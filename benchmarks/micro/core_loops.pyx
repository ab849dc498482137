# cython: language_level=3, boundscheck=False, wraparound=False
"""Loops around the core's C functions, so that one call from Python measures thousands of them.

Built into benchmarks/out by conftest.py, never part of the package. Every function runs `count` operations and returns
something the operations produced, so that no compiler can leave them out.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from tokmesh._core.counters cimport VALIDATE_VALID, CounterBlock
from tokmesh._core.digest cimport tm_sha256, tm_sha256_has_shani
from tokmesh._core.head cimport Head
from tokmesh._core.histogram cimport HistogramBlock
from tokmesh._core.reader cimport MessageReader
from tokmesh._core.table cimport SESSION_JSON_BYTES_MAX, Table


def observe(HistogramBlock block not None, int count) -> int:
    """Durations spread over six decades of nanoseconds, as a server sees them."""
    cdef uint64_t state = 88172645463325252
    cdef int _number
    for _number in range(count):
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        block.observe(0, state >> (34 + (state & 15)))
    return count


def count_events(CounterBlock block not None, int count) -> int:
    cdef int _number
    for _number in range(count):
        block.add(VALIDATE_VALID, 1)
    return count


def hash_tokens(const uint8_t[::1] token not None, int count, bint portable) -> int:
    """SHA-256 of one token, `count` times, each differing from the last in a byte."""
    cdef uint8_t message[64]
    cdef uint8_t digest[32]
    cdef int shani = 0 if portable else tm_sha256_has_shani()
    cdef int number
    cdef Py_ssize_t position
    for position in range(48):
        message[position] = token[position]
    for number in range(count):
        message[47] = <uint8_t>number
        tm_sha256(message, 48, digest, shani)
        message[46] = digest[0]
    return message[46]


def check_tokens(Table table not None, const uint8_t[::1] hashes not None, int64_t now_ms, bint with_json) -> int:
    """Looks up every 32-byte hash of `hashes` → how many were valid."""
    cdef char session[SESSION_JSON_BYTES_MAX]
    cdef char* out = session if with_json else NULL
    cdef Py_ssize_t written = 0, offset
    cdef int valid = 0
    for offset in range(0, hashes.shape[0], 32):
        valid += table.check_token(&hashes[offset], now_ms, out, &written, 0) == 0
    return valid


def read_requests(MessageReader reader not None, bytes request not None, int count, bint repeated) -> int:
    """Pushes and takes the same request `count` times: through the parser, or by the remembered head → bytes of bodies."""
    cdef const char* body = NULL
    cdef Py_ssize_t body_size = 0, total = 0
    cdef int _number
    cdef Head head
    for _number in range(count):
        reader.push(request)
        head = reader.next_repeated(&body, &body_size) if repeated else None
        if head is None:
            head = reader.next_head()
            body_size = len(reader.take_body())
        total += body_size
    return total

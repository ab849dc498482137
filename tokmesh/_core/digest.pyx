"""sha256.h for Python: what the tests compare with hashlib. The wire path includes the header itself."""

from libc.stdint cimport uint8_t

HAS_SHANI = bool(tm_sha256_has_shani())


def sha256(bytes data not None) -> bytes:
    """The 32-byte digest, with the processor's SHA instructions where it has them."""
    cdef uint8_t out[32]
    tm_sha256(<const uint8_t*><const char*>data, len(data), out, tm_sha256_has_shani())
    return <bytes>(<char*>out)[:32]


def sha256_portable(bytes data not None) -> bytes:
    """The 32-byte digest, without them."""
    cdef uint8_t out[32]
    tm_sha256(<const uint8_t*><const char*>data, len(data), out, 0)
    return <bytes>(<char*>out)[:32]

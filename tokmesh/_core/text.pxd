# Text as JSON wants it: strings escaped exactly as orjson does, decimal numbers, ULIDs. Everything writes to memory that the
# caller has made large enough, and returns how many bytes it wrote.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy


cdef extern from *:
    """
    static const char tm_hex_digits[] = "0123456789abcdef";
    static const char tm_ulid_digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    static const char tm_digit_pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960"
        "616263646566676869707172737475767778798081828384858687888990919293949596979899";
    static inline char tm_short_escape(unsigned char c) {
        switch (c) {
        case '"': return '"';
        case 0x5c: return 0x5c;
        case 0x08: return 'b';
        case 0x09: return 't';
        case 0x0a: return 'n';
        case 0x0c: return 'f';
        case 0x0d: return 'r';
        default: return 0;
        }
    }
    static inline unsigned long long tm_load_be64(const unsigned char *bytes) {
        unsigned long long word;
        __builtin_memcpy(&word, bytes, 8);
        return __builtin_bswap64(word);
    }
    static inline void tm_store_be64(unsigned char *out, unsigned long long word) {
        word = __builtin_bswap64(word);
        __builtin_memcpy(out, &word, 8);
    }
    """
    const char* tm_hex_digits
    const char* tm_ulid_digits
    const char* tm_digit_pairs
    char tm_short_escape(unsigned char c) noexcept nogil
    unsigned long long tm_load_be64(const unsigned char* bytes) noexcept nogil
    void tm_store_be64(unsigned char* out, unsigned long long word) noexcept nogil


cdef inline Py_ssize_t escape_json(const char* text, Py_ssize_t size, char* out) noexcept nogil:
    # UTF-8 in, the inside of a JSON string out: at most 6 * size bytes.
    cdef Py_ssize_t index, written = 0
    cdef uint8_t byte
    cdef char short_form
    for index in range(size):
        byte = <uint8_t>text[index]
        if byte >= 0x20 and byte != 0x22 and byte != 0x5C:
            out[written] = <char>byte
            written += 1
            continue
        short_form = tm_short_escape(byte)
        out[written] = 0x5C
        if short_form != 0:
            out[written + 1] = short_form
            written += 2
        else:
            memcpy(out + written + 1, "u00", 3)
            out[written + 4] = tm_hex_digits[byte >> 4]
            out[written + 5] = tm_hex_digits[byte & 15]
            written += 6
    return written


cdef enum:
    NUMBER_BYTES_MAX = 20    # of a decimal number of 64 bits, with its sign


cdef inline Py_ssize_t write_u64(uint64_t value, char* out) noexcept nogil:
    # At most NUMBER_BYTES_MAX bytes.
    cdef char digits[20]
    cdef int position = 20
    cdef uint64_t rest
    while value >= 100:
        rest = value // 100
        position -= 2
        memcpy(&digits[position], &tm_digit_pairs[2 * (value - rest * 100)], 2)
        value = rest
    if value >= 10:
        position -= 2
        memcpy(&digits[position], &tm_digit_pairs[2 * value], 2)
    else:
        position -= 1
        digits[position] = <char>(0x30 + value)
    memcpy(out, &digits[position], 20 - position)
    return 20 - position


cdef inline Py_ssize_t write_i64(int64_t value, char* out) noexcept nogil:
    if value >= 0:
        return write_u64(<uint64_t>value, out)
    out[0] = 0x2D
    return 1 + write_u64(0 - <uint64_t>value, out + 1)


cdef inline Py_ssize_t write_ulid(const uint8_t* id16, char* out) noexcept nogil:
    # 26 digits of 5 bits, most significant first, of a 128-bit number: the first digit holds 3 bits.
    cdef uint64_t high = tm_load_be64(id16), low = tm_load_be64(id16 + 8)
    cdef int index
    for index in range(12):
        out[25 - index] = tm_ulid_digits[(low >> (5 * index)) & 31]
    out[13] = tm_ulid_digits[(low >> 60) | ((high & 1) << 4)]
    for index in range(12):
        out[12 - index] = tm_ulid_digits[(high >> (1 + 5 * index)) & 31]
    out[0] = tm_ulid_digits[high >> 61]
    return 26

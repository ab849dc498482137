/* SipHash-1-3 (Aumasson, Bernstein 2012) with a 128-bit key: positions in a hash table that a client cannot aim at, although
 * it may choose its own tokens, user ids and user agents. */
#ifndef TOKMESH_SIPHASH_H
#define TOKMESH_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TM_SIP_ROTL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define TM_SIP_ROUND(a, b, c, d)                                                                                             \
    do {                                                                                                                     \
        a += b; b = TM_SIP_ROTL(b, 13) ^ a; a = TM_SIP_ROTL(a, 32);                                                          \
        c += d; d = TM_SIP_ROTL(d, 16) ^ c;                                                                                  \
        a += d; d = TM_SIP_ROTL(d, 21) ^ a;                                                                                  \
        c += b; b = TM_SIP_ROTL(b, 17) ^ c; c = TM_SIP_ROTL(c, 32);                                                          \
    } while (0)

static inline uint64_t tm_siphash13(const uint64_t key[2], const void *data, size_t size) {
    const uint8_t *bytes = (const uint8_t *)data;
    uint64_t a = key[0] ^ 0x736f6d6570736575ULL, b = key[1] ^ 0x646f72616e646f6dULL;
    uint64_t c = key[0] ^ 0x6c7967656e657261ULL, d = key[1] ^ 0x7465646279746573ULL;
    uint64_t last = (uint64_t)size << 56, word;
    size_t rest = size;
    for (; rest >= 8; rest -= 8, bytes += 8) {
        memcpy(&word, bytes, 8); /* little-endian machines only, as everything mapped here */
        d ^= word;
        TM_SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    for (size_t i = 0; i < rest; i++)
        last |= (uint64_t)bytes[i] << (8 * i);
    d ^= last;
    TM_SIP_ROUND(a, b, c, d);
    a ^= last;
    c ^= 0xff;
    TM_SIP_ROUND(a, b, c, d);
    TM_SIP_ROUND(a, b, c, d);
    TM_SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#endif

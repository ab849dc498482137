/* SHA-256 (FIPS 180-4) of short messages, allocation-free: a token is 48 bytes, one block.
 *
 * Why not hashlib: a call through the interpreter with its two objects costs several hundred nanoseconds on a path that
 * has a budget of 800; this costs about 60 with the processor's SHA instructions. benchmarks/micro compares the two, and
 * tests/unit/test_sha256.py holds both code paths against hashlib over every length up to 4 blocks. */
#ifndef TOKMESH_SHA256_H
#define TOKMESH_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const uint32_t tm_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t tm_sha256_rotr(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static void tm_sha256_block_portable(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               (uint32_t)block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = tm_sha256_rotr(w[i - 15], 7) ^ tm_sha256_rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t s1 = tm_sha256_rotr(w[i - 2], 17) ^ tm_sha256_rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = tm_sha256_rotr(e, 6) ^ tm_sha256_rotr(e, 11) ^ tm_sha256_rotr(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + tm_sha256_k[i] + w[i];
        uint32_t s0 = tm_sha256_rotr(a, 2) ^ tm_sha256_rotr(a, 13) ^ tm_sha256_rotr(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* Four rounds a step; the processor keeps the state as two registers, ABEF and CDGH. */
__attribute__((target("sha,sse4.1,ssse3"))) static void tm_sha256_block_shani(uint32_t state[8], const uint8_t *block) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i dcba = _mm_loadu_si128((const __m128i *)&state[0]);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)&state[4]);
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
    __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    const __m128i abef_start = abef, cdgh_start = cdgh;
    __m128i w[4];
    for (int i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), swap);
    for (int step = 0; step < 16; step++) {
        __m128i now = w[step & 3];
        __m128i wk = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)&tm_sha256_k[4 * step]));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
        if (step < 12) { /* w[t] for the step four ahead replaces the one just used */
            __m128i next1 = w[(step + 1) & 3], next2 = w[(step + 2) & 3], next3 = w[(step + 3) & 3];
            __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(now, next1), _mm_alignr_epi8(next3, next2, 4));
            w[step & 3] = _mm_sha256msg2_epu32(sum, next3);
        }
    }
    abef = _mm_add_epi32(abef, abef_start);
    cdgh = _mm_add_epi32(cdgh, cdgh_start);
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(dchg, feba, 8));
}

/* CPUID leaf 7, EBX bit 29: SHA extensions; __builtin_cpu_supports does not know "sha" in every supported compiler. */
static inline int tm_sha256_has_shani(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}
#else
static inline int tm_sha256_has_shani(void) { return 0; }
static inline void tm_sha256_block_shani(uint32_t state[8], const uint8_t *block) { tm_sha256_block_portable(state, block); }
#endif

/* Digest of `size` bytes into out[32]. `shani` is tm_sha256_has_shani(), asked once by the caller. */
static void tm_sha256(const uint8_t *data, size_t size, uint8_t out[32], int shani) {
    void (*compress)(uint32_t *, const uint8_t *) = shani ? tm_sha256_block_shani : tm_sha256_block_portable;
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[128] = {0};
    size_t rest = size;
    for (; rest >= 64; rest -= 64, data += 64)
        compress(state, data);
    memcpy(tail, data, rest);
    tail[rest] = 0x80;
    size_t tail_size = rest < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++)
        tail[tail_size - 1 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    compress(state, tail);
    if (tail_size == 128)
        compress(state, tail + 64);
    for (int i = 0; i < 8; i++) {
        out[4 * i] = (uint8_t)(state[i] >> 24);
        out[4 * i + 1] = (uint8_t)(state[i] >> 16);
        out[4 * i + 2] = (uint8_t)(state[i] >> 8);
        out[4 * i + 3] = (uint8_t)state[i];
    }
}

#endif

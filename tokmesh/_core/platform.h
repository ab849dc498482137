/* What differs between operating systems and processors, behind one name each: clocks, shareable memory, bytes of numbers,
 * CRC-32C. No logic of TokMesh lives here. */
#ifndef TOKMESH_PLATFORM_H
#define TOKMESH_PLATFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Unix milliseconds of the settable clock. */
static inline int64_t tm_wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Nanoseconds of a clock that is never set, and goes on while the machine is suspended; its zero has no meaning. */
static inline int64_t tm_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* As that, but standing still while the machine is suspended: the clock of the system's timed waits. */
static inline int64_t tm_awake_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A sparse file in memory of `size` bytes that a descriptor can pass to other processes; memory is committed on first touch.
 * The descriptor, or -1 with errno. */
static inline int tm_memory_file(const char *name, size_t size) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Maps it, shared, kept out of core dumps (it holds personal data). NULL with errno on failure. */
static inline void *tm_memory_map(int fd, size_t size) {
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return NULL;
    madvise(base, size, MADV_DONTDUMP);
    return base;
}

/* Gives whole pages back; they read as zeros afterwards. */
static inline void tm_memory_release(void *start, size_t size) {
    if (size != 0 && madvise(start, size, MADV_REMOVE) != 0)
        memset(start, 0, size);
}

/* Bytes committed by a memory file, 0 if unknown. */
static inline size_t tm_memory_committed(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? (size_t)status.st_blocks * 512 : 0;
}

/* Little-endian numbers in files, whatever the processor's order and the address's alignment. */
static inline void tm_put16(uint8_t *out, uint16_t value) {
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

static inline uint16_t tm_get16(const uint8_t *data) {
    return (uint16_t)(data[0] | data[1] << 8);
}

static inline void tm_put32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}
static inline void tm_put64(uint8_t *out, uint64_t value) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}
static inline uint32_t tm_get32(const uint8_t *data) {
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}
static inline uint64_t tm_get64(const uint8_t *data) {
    return (uint64_t)tm_get32(data) | (uint64_t)tm_get32(data + 4) << 32;
}

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4); `crc` is the running value, 0 at first. Two implementations, one result. */
static inline uint32_t tm_crc32c_portable(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    while (size--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static inline uint32_t tm_crc32c_sse42(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t state = (uint32_t)~crc;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        state = _mm_crc32_u64(state, word);
        data += 8;
        size -= 8;
    }
    uint32_t tail = (uint32_t)state;
    while (size--)
        tail = _mm_crc32_u8(tail, *data++);
    return ~tail;
}
static inline uint32_t tm_crc32c(uint32_t crc, const uint8_t *data, size_t size) {
    return __builtin_cpu_supports("sse4.2") ? tm_crc32c_sse42(crc, data, size) : tm_crc32c_portable(crc, data, size);
}
#else
static inline uint32_t tm_crc32c(uint32_t crc, const uint8_t *data, size_t size) {
    return tm_crc32c_portable(crc, data, size);
}
#endif

#endif

/* C11 atomics on plain memory that is shared between a writer and readers, threads or processes. No logic lives here.
 *
 * A seqlock, as used for slots and for index headers: the writer makes the sequence odd, fences, writes, and makes it even with
 * release; a reader loads it with acquire, copies, fences, and keeps the copy only if the sequence is unchanged and even. */
#ifndef TOKMESH_ATOMICS_H
#define TOKMESH_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

static inline uint32_t tm_load_acquire_u32(const uint32_t *p) {
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_acquire);
}
static inline uint32_t tm_load_relaxed_u32(const uint32_t *p) {
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_relaxed);
}
static inline void tm_store_relaxed_u32(uint32_t *p, uint32_t value) {
    atomic_store_explicit((_Atomic uint32_t *)p, value, memory_order_relaxed);
}
static inline void tm_store_release_u32(uint32_t *p, uint32_t value) {
    atomic_store_explicit((_Atomic uint32_t *)p, value, memory_order_release);
}
static inline uint64_t tm_load_acquire_u64(const uint64_t *p) {
    return atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_acquire);
}
static inline uint64_t tm_load_relaxed_u64(const uint64_t *p) {
    return atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_relaxed);
}
static inline void tm_store_relaxed_u64(uint64_t *p, uint64_t value) {
    atomic_store_explicit((_Atomic uint64_t *)p, value, memory_order_relaxed);
}
static inline void tm_store_release_u64(uint64_t *p, uint64_t value) {
    atomic_store_explicit((_Atomic uint64_t *)p, value, memory_order_release);
}
static inline void tm_fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }
static inline void tm_fence_release(void) { atomic_thread_fence(memory_order_release); }

#endif

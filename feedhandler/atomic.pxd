"""Acquire and release on words that several processes share.

The C is in this file, so that embedders need no include path. C11 semantics by the
GCC/Clang builtins; the words must be naturally aligned.
"""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    #ifndef FH_ATOMIC_PXD
    #define FH_ATOMIC_PXD
    #include <stddef.h>
    #include <stdint.h>

    static inline uint64_t fh_load_acquire(const uint64_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline uint64_t fh_load_relaxed(const uint64_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_RELAXED);
    }
    static inline void fh_store_release(uint64_t *word, uint64_t value)
    {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    static inline void fh_store_relaxed(uint64_t *word, uint64_t value)
    {
        __atomic_store_n(word, value, __ATOMIC_RELAXED);
    }
    static inline uint32_t fh_load_acquire32(const uint32_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline void fh_store_release32(uint32_t *word, uint32_t value)
    {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    static inline void fh_fence_acquire(void)
    {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    }
    static inline void fh_fence_release(void)
    {
        __atomic_thread_fence(__ATOMIC_RELEASE);
    }
    /* The only one that keeps a load from going before an earlier store. */
    static inline void fh_fence_full(void)
    {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    /* Payload of a seqlock: words of any type (hence may_alias), each relaxed. */
    typedef uint64_t __attribute__((may_alias)) fh_word;

    static inline void fh_store_words(void *shared, const void *own, size_t words)
    {
        fh_word *to = (fh_word *)shared;
        const fh_word *from = (const fh_word *)own;
        for (size_t i = 0; i < words; i++)
            __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
    }
    static inline void fh_load_words(void *own, const void *shared, size_t words)
    {
        fh_word *to = (fh_word *)own;
        const fh_word *from = (const fh_word *)shared;
        for (size_t i = 0; i < words; i++)
            to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
    static inline void fh_pause(void)
    {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("yield");
    #endif
    }
    #endif
    """
    uint64_t load_acquire "fh_load_acquire"(const uint64_t *word) noexcept nogil
    uint64_t load_relaxed "fh_load_relaxed"(const uint64_t *word) noexcept nogil
    void store_release "fh_store_release"(uint64_t *word, uint64_t value) noexcept nogil
    void store_relaxed "fh_store_relaxed"(uint64_t *word, uint64_t value) noexcept nogil
    uint32_t load_acquire32 "fh_load_acquire32"(const uint32_t *word) noexcept nogil
    void store_release32 "fh_store_release32"(uint32_t *word, uint32_t value) noexcept nogil
    void fence_acquire "fh_fence_acquire"() noexcept nogil
    void fence_release "fh_fence_release"() noexcept nogil
    void fence_full "fh_fence_full"() noexcept nogil
    void store_words "fh_store_words"(void *shared, const void *own, size_t words) noexcept nogil
    void load_words "fh_load_words"(void *own, const void *shared, size_t words) noexcept nogil
    void cpu_pause "fh_pause"() noexcept nogil

"""Sleep on a word that several processes share, and wake whoever sleeps there.

Never the PRIVATE operations, which see one process only. Waiting needs no write access
to the word.
"""

from libc.stdint cimport int64_t, uint32_t


cdef extern from *:
    """
    #ifndef FH_FUTEX_PXD
    #define FH_FUTEX_PXD
    #include <limits.h>
    #include <linux/futex.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* Sleep for *ns* at most, unless the word is no longer *seen*: the kernel compares
       under its own lock, so a wake between the look and the sleep is not lost. */
    static inline void fh_futex_wait(const uint32_t *word, uint32_t seen, int64_t ns)
    {
        struct timespec timeout = {ns / 1000000000, ns % 1000000000};
        syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
    }
    static inline void fh_futex_wake(const uint32_t *word)
    {
        syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    #endif
    """
    void futex_wait "fh_futex_wait"(const uint32_t *word, uint32_t seen, int64_t ns) noexcept nogil
    void futex_wake "fh_futex_wake"(const uint32_t *word) noexcept nogil

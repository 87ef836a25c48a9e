"""Nanoseconds, monotonic and wall; read by shells and the control loop only.

Everything below them takes the time as an argument.
"""

from libc.stdint cimport int64_t


cdef extern from *:
    """
    #ifndef FH_CLOCK_PXD
    #define FH_CLOCK_PXD
    #include <stdint.h>
    #include <time.h>

    static inline int64_t fh_clock_ns(clockid_t clock)
    {
        struct timespec now;
        clock_gettime(clock, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    static inline int64_t fh_monotonic_ns(void)
    {
        return fh_clock_ns(CLOCK_MONOTONIC);
    }
    static inline int64_t fh_realtime_ns(void)
    {
        return fh_clock_ns(CLOCK_REALTIME);
    }
    #endif
    """
    int64_t monotonic_ns "fh_monotonic_ns"() noexcept nogil
    int64_t realtime_ns "fh_realtime_ns"() noexcept nogil

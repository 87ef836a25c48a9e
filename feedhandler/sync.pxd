"""Stitch snapshots and a stream of updates into one gapless sequence: numbers in, a verdict out."""

from libc.stdint cimport int64_t


cpdef enum Verdict:
    HOLD = 0                    # keep the update until what is missing comes
    SKIP = 1                    # already part of the book
    APPLY = 2                   # the next one
    RESYNC = 3                  # as HOLD, and a snapshot is needed from now on


cdef class Sync:
    cdef readonly int64_t applied       # the last sequence in the book; -1: none
    cdef int64_t highest                # the highest sequence seen since the snapshot
    cdef int64_t repeated               # the last sequence skipped
    cdef int run                        # length of a contiguous run of skipped ones
    cdef bint broken                    # only a snapshot can mend it

    cdef Verdict delta(self, int64_t sequence) noexcept nogil
    cdef Verdict skip(self, int64_t sequence) noexcept nogil
    cdef void snapshot(self, int64_t sequence) noexcept nogil
    cdef void seen(self, int64_t sequence) noexcept nogil
    cdef void reset(self) noexcept nogil
    cdef bint lost(self) noexcept nogil
    cdef bint in_sync(self) noexcept nogil

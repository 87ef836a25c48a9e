"""Price levels of one instrument: two pairs of sorted arrays, the best level last."""

from libc.stdint cimport int32_t

from feedhandler.records cimport LevelsView


cdef struct Level:
    double price
    double size


cdef struct Side:
    # prices ascend for bids and descend for asks, so prices[count - 1] is the best.
    double *prices
    double *sizes
    int32_t count
    int32_t capacity


cdef class OrderBook:
    cdef readonly int depth         # levels kept on each side
    cdef Side bids
    cdef Side asks
    cdef Side next_bids             # where the next snapshot is built, then swapped in
    cdef Side next_asks
    cdef int32_t bid_changed        # the best rank that the last message touched
    cdef int32_t ask_changed

    # Both take levels that were validated (finite, price > 0, size >= 0) and return 0, or
    # -1 without memory; then the book is what it was.
    cdef int replace(self, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) noexcept nogil
    cdef int _update_one(self, bint is_bid, double price, double size) except -1
    cdef int update(self, const Level *bids, int bid_count,
                    const Level *asks, int ask_count) noexcept nogil
    # Whether the last replace() changed nothing; true only until the next one.
    cdef bint replaced_by_same(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef void view(self, LevelsView *levels) noexcept nogil

"""One symbol's order book at the venue: who trades with whom, in ticks and lots.

Price first, then time. Orders are a pool of structs that link to their neighbours in the
queue of their price; a side is an array of prices sorted so that the best is last.
"""

from libc.stdint cimport int32_t, int64_t


cpdef enum Side:
    BUY = 0
    SELL = 1

cpdef enum TimeInForce:
    GTC = 0                     # what does not trade rests
    IOC = 1                     # what does not trade is canceled


cdef struct Order:
    int64_t id
    int64_t price_ticks
    int64_t lots                # what is left of it
    int32_t owner
    int32_t side
    int32_t older               # slots of the neighbours in its queue; -1 at the ends
    int32_t newer               # in a free slot: the next free one

cdef struct Level:
    int64_t price_ticks
    int64_t lots                # the sum over its queue
    int32_t oldest
    int32_t newest

cdef struct Ladder:
    Level *levels               # best last
    Py_ssize_t count
    Py_ssize_t capacity


cdef class Fill:
    cdef readonly int64_t maker_id
    cdef readonly int32_t maker_owner
    cdef readonly int64_t maker_lots        # what is left of the maker
    cdef readonly int64_t price_ticks
    cdef readonly int64_t lots


cdef class Report:
    cdef readonly int64_t order_id
    cdef readonly int32_t owner
    cdef readonly int32_t side
    cdef readonly int64_t filled_lots
    cdef readonly int64_t resting_lots      # what of it is in the book now
    cdef readonly int64_t canceled_lots
    cdef readonly list fills                # of Fill, in the order of matching
    cdef readonly list changes              # (side, price_ticks, lots): levels as they are now


cdef class Engine:
    cdef Ladder sides[2]
    cdef Order *orders
    cdef int32_t capacity
    cdef int32_t free                       # first free slot, -1 if none
    cdef int64_t last_id
    cdef dict slots                         # order id -> slot

    cpdef Report submit(self, int32_t owner, int side, int64_t lots, object price_ticks=*,
                        int time_in_force=*)
    cpdef Report cancel(self, int64_t order_id)
    cpdef Report reduce(self, int64_t order_id, int64_t lots)
    cpdef list top(self, int side, Py_ssize_t count)
    cpdef object price_at(self, int side, Py_ssize_t rank)
    cpdef int64_t lots_at(self, int side, int64_t price_ticks)

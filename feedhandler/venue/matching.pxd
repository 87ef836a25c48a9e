"""One symbol's matching engine at the venue: who trades with whom, in ticks and lots.

Price first, then time.
"""

from libc.stdint cimport int32_t, int64_t

from feedhandler.venue.orders cimport Orders


cpdef enum Side:
    BUY = 0
    SELL = 1

cpdef enum TimeInForce:
    GTC = 0                     # what does not trade rests
    IOC = 1                     # what does not trade is canceled
    FOK = 2                     # trades in full at once, or not at all
    DAY = 3                     # as GTC: the day's end is not known here


cdef struct Match:
    int64_t maker_id
    int64_t maker_lots          # what is left of the maker
    int64_t price_ticks
    int64_t lots
    int32_t maker_owner

cdef struct Change:
    int64_t price_ticks
    int64_t lots                # what is at that price now
    int32_t side

cdef struct Tape:               # what one operation did
    Match *matches              # in the order of matching
    Py_ssize_t match_count
    Change *changes
    Py_ssize_t change_count


cdef class Fill:
    cdef Match match


cdef class Report:
    cdef readonly int64_t order_id
    cdef readonly int32_t owner
    cdef readonly int32_t side
    cdef readonly int64_t filled_lots
    cdef readonly int64_t resting_lots      # what of it is in the book now
    cdef readonly int64_t waiting_lots      # what of it is a stop that has not been activated
    cdef readonly int64_t canceled_lots
    cdef readonly bint self_trade_prevented
    cdef Tape tape
    cdef list made_fills                    # None until somebody asks


cdef class Engine:
    cdef Orders orders
    cdef int64_t last_id

    cpdef Report submit(self, int32_t owner, int side, int64_t lots, object price_ticks=*,
                        int time_in_force=*, object stop_ticks=*, bint self_trade=*)
    cpdef Report activate(self, int64_t order_id)
    cpdef Report cancel(self, int64_t order_id)
    cpdef Report reduce(self, int64_t order_id, int64_t lots)
    cpdef Report modify(self, int64_t order_id, int64_t lots, object price_ticks=*,
                        object stop_ticks=*)
    cpdef int64_t next_due(self) noexcept
    cpdef list top(self, int side, Py_ssize_t count)
    cpdef object price_at(self, int side, Py_ssize_t rank)
    cpdef int64_t lots_at(self, int side, int64_t price_ticks)
    cpdef tuple walk(self, int side, int64_t lots)

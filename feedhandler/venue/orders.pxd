"""The orders of one symbol, where they are: in the book, or waiting as stops.

Orders are a pool of structs, and a slot is a place in it. Those of one price link to their
neighbours in its queue; a side of the book is an array of prices sorted so that the best is
last. Stops wait in a heap for each side, then, due, in a queue of their own.
"""

from libc.stdint cimport int8_t, int32_t, int64_t


cdef enum:
    BUY = 0                     # matching.Side
    SELL = 1
    NONE = -1                   # no slot

cdef enum State:
    RESTING
    WAITING                     # a stop that no trade has reached
    DUE                         # a stop that one has, and that is not activated yet


cdef struct Order:
    int64_t id
    int64_t price_ticks         # 0: any price will do
    int64_t stop_ticks          # 0: never was a stop
    int64_t lots                # what is left of it
    int32_t owner
    int32_t older               # slots of the neighbours in its queue
    int32_t newer               # in a free slot: the next free one
    int32_t chained             # the next slot of its bucket
    int32_t place               # in its heap, while it waits
    int8_t side
    int8_t time_in_force
    int8_t state
    bint self_trade             # may meet orders of its own owner

cdef struct Queue:
    int32_t oldest
    int32_t newest

cdef struct Level:
    int64_t price_ticks
    int64_t lots                # the sum over its queue
    Queue queue

cdef struct Ladder:
    Level *levels               # best last
    Py_ssize_t count
    Py_ssize_t capacity

cdef struct Heap:
    int32_t *slots              # the first to be due is on top
    int32_t count
    int32_t capacity

cdef struct Orders:
    Ladder sides[2]
    Heap stops[2]
    Queue due
    Order *pool
    int32_t *buckets            # as many as slots: order id -> slot
    int bucket_shift
    int32_t capacity
    int32_t count
    int32_t free                # the first free slot
    int64_t last_ticks          # of the last trade; 0 before the first


cdef int open_orders(Orders *orders) except -1
cdef void close_orders(Orders *orders) noexcept nogil

# Room first; what is below these three cannot fail.
cdef int reserve_slot(Orders *orders) except -1
cdef int reserve_level(Orders *orders, int side) except -1
cdef int reserve_stop(Orders *orders, int side) except -1

cdef int32_t find_slot(const Orders *orders, int64_t order_id) noexcept nogil
cdef Level *level_at(const Orders *orders, int side, int64_t price_ticks) noexcept nogil

cdef int32_t admit(Orders *orders, const Order *order) noexcept nogil
cdef Level *rest(Orders *orders, int32_t slot) noexcept nogil
cdef void wait(Orders *orders, int32_t slot) noexcept nogil
cdef void leave(Orders *orders, int32_t slot) noexcept nogil
cdef void leave_front(Orders *orders, Level *level) noexcept nogil
cdef void reprice(Orders *orders, int32_t slot, int64_t price_ticks,
                  int64_t stop_ticks) noexcept nogil
cdef void trigger(Orders *orders, int64_t last_ticks) noexcept nogil
cdef bint reached(int side, int64_t stop_ticks, int64_t last_ticks) noexcept nogil

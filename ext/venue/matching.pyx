"""One symbol's matching engine: orders in, trades and level changes out.

Integers only: a price is a number of ticks, a quantity a number of lots. Knows nothing of
accounts, channels, time or decimals.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

cdef enum:
    FIRST_CAPACITY = 256
    NONE = -1

# Bounds that keep the sum of any level's queue within 64 bits.
cdef int64_t MAX_LOTS = 1 << 40
cdef int64_t MAX_TICKS = 1 << 52


cdef class Fill:
    """One match: *lots* at *price_ticks* against a resting order."""


cdef class Report:
    """What one operation did to its order and to the book."""


cdef class Engine:
    """Match the orders of one symbol by price, then time.

    An operation either raises and changes nothing, or returns a Report.
    """

    def __cinit__(self):
        self.capacity = 0
        self.free = NONE
        self.slots = {}

    def __dealloc__(self):
        free(self.orders)
        free(self.sides[0].levels)
        free(self.sides[1].levels)

    cpdef Report submit(self, int32_t owner, int side, int64_t lots, object price_ticks=None,
                        int time_in_force=TimeInForce.GTC):
        """Trade what crosses, then rest or cancel the remainder.

        Without a price it is a market order, of which nothing ever rests.
        """
        cdef int64_t limit = check_order(side, lots, price_ticks)
        cdef bint rests = price_ticks is not None and time_in_force == TimeInForce.GTC
        cdef Report report = new_report(owner, side)
        if rests:
            # Room first: running out of memory after a match would lose the remainder.
            reserve_slot(self)
            reserve_level(&self.sides[side])
        self.last_id += 1
        report.order_id = self.last_id
        cdef int64_t left = match(self, report, side, limit, lots)
        report.filled_lots = lots - left
        if left == 0:
            return report
        if rests:
            rest(self, report, limit, left)
            report.resting_lots = left
        else:
            report.canceled_lots = left
        return report

    cpdef Report cancel(self, int64_t order_id):
        """Take an order out of the book; KeyError if it is not in it."""
        cdef int32_t slot = self.slots[order_id]
        return self.reduce(order_id, self.orders[slot].lots)

    cpdef Report reduce(self, int64_t order_id, int64_t lots):
        """Take *lots* off an order, which keeps its place; KeyError if it is not in the book.

        Taking all that is left, or more, takes the order out.
        """
        cdef int32_t slot = self.slots[order_id]
        cdef Order *order = &self.orders[slot]
        if lots <= 0:
            raise ValueError(f"{lots} lots to take off, not at least 1")
        cdef int64_t taken = min(lots, order.lots)
        cdef Report report = new_report(order.owner, order.side)
        cdef Ladder *ladder = &self.sides[order.side]
        cdef Py_ssize_t index = find(ladder, order.side, order.price_ticks)
        cdef Level *level = &ladder.levels[index]
        report.order_id = order_id
        report.canceled_lots = taken
        report.resting_lots = order.lots - taken
        order.lots -= taken
        level.lots -= taken
        report.changes.append((order.side, level.price_ticks, level.lots))
        if order.lots == 0:
            unlink(self, level, slot)
            forget(self, slot)
        if level.oldest == NONE:
            drop_level(ladder, index)
        return report

    cpdef list top(self, int side, Py_ssize_t count):
        """Return the best *count* levels as (price_ticks, lots), best first."""
        cdef Ladder *ladder = &self.sides[check_side(side)]
        cdef Py_ssize_t i
        cdef Py_ssize_t stop = max(ladder.count - max(count, 0), 0)
        return [
            (ladder.levels[i].price_ticks, ladder.levels[i].lots)
            for i in range(ladder.count - 1, stop - 1, -1)
        ]

    cpdef object price_at(self, int side, Py_ssize_t rank):
        """Return the price of the level at *rank*, 0 being the best; None beyond the last."""
        cdef Ladder *ladder = &self.sides[check_side(side)]
        if rank < 0 or rank >= ladder.count:
            return None
        return ladder.levels[ladder.count - 1 - rank].price_ticks

    cpdef int64_t lots_at(self, int side, int64_t price_ticks):
        """Return the quantity at a price, 0 if nobody is there."""
        cdef Ladder *ladder = &self.sides[check_side(side)]
        cdef Py_ssize_t index = find(ladder, side, price_ticks)
        if index == ladder.count or ladder.levels[index].price_ticks != price_ticks:
            return 0
        return ladder.levels[index].lots

    def depth(self, int side):
        """Return the number of levels of a side."""
        return self.sides[check_side(side)].count

    def queue(self, int side, int64_t price_ticks):
        """Return (order_id, owner, lots) of the orders at a price, oldest first."""
        cdef Ladder *ladder = &self.sides[check_side(side)]
        cdef Py_ssize_t index = find(ladder, side, price_ticks)
        cdef list orders = []
        cdef int32_t slot = NONE
        if index < ladder.count and ladder.levels[index].price_ticks == price_ticks:
            slot = ladder.levels[index].oldest
        while slot != NONE:
            orders.append(
                (self.orders[slot].id, self.orders[slot].owner, self.orders[slot].lots))
            slot = self.orders[slot].newer
        return orders

    def order(self, int64_t order_id):
        """Return (owner, side, price_ticks, lots left) of a resting order, else None."""
        found = self.slots.get(order_id)
        if found is None:
            return None
        cdef int32_t slot = found
        return (self.orders[slot].owner, self.orders[slot].side,
                self.orders[slot].price_ticks, self.orders[slot].lots)

    def __len__(self):
        return len(self.slots)


cdef int check_side(int side) except -1:
    if side != Side.BUY and side != Side.SELL:
        raise ValueError(f"side is {side}, not BUY or SELL")
    return side


cdef int64_t check_order(int side, int64_t lots, object price_ticks) except -1:
    """Return the limit: the price, or for a market order one that crosses everything."""
    check_side(side)
    if not 0 < lots <= MAX_LOTS:
        raise ValueError(f"{lots} lots, not 1 to {MAX_LOTS}")
    if price_ticks is None:
        return INT64_MAX if side == Side.BUY else 0
    cdef int64_t ticks = price_ticks
    if not 0 < ticks <= MAX_TICKS:
        raise ValueError(f"price of {ticks} ticks, not 1 to {MAX_TICKS}")
    return ticks


cdef Report new_report(int32_t owner, int side):
    cdef Report report = Report.__new__(Report)
    report.owner = owner
    report.side = side
    report.fills = []
    report.changes = []
    return report


cdef int64_t match(Engine engine, Report report, int side, int64_t limit,
                   int64_t lots) except -1:
    """Trade up to *lots* against the other side; return what is left."""
    cdef Ladder *ladder = &engine.sides[1 - side]
    cdef Level *level
    while lots > 0 and ladder.count > 0:
        level = &ladder.levels[ladder.count - 1]
        if level.price_ticks > limit if side == Side.BUY else level.price_ticks < limit:
            break
        lots = sweep(engine, report, level, lots)
        report.changes.append((1 - side, level.price_ticks, level.lots))
        if level.oldest == NONE:
            ladder.count -= 1
    return lots


cdef int64_t sweep(Engine engine, Report report, Level *level, int64_t lots) except -1:
    """Trade up to *lots* with the queue of one level, oldest first; return what is left."""
    cdef Order *maker
    cdef Fill fill
    cdef int32_t slot
    while lots > 0 and level.oldest != NONE:
        slot = level.oldest
        maker = &engine.orders[slot]
        fill = Fill.__new__(Fill)
        fill.lots = min(lots, maker.lots)
        maker.lots -= fill.lots
        level.lots -= fill.lots
        lots -= fill.lots
        fill.maker_id = maker.id
        fill.maker_owner = maker.owner
        fill.maker_lots = maker.lots
        fill.price_ticks = level.price_ticks
        report.fills.append(fill)
        if maker.lots == 0:
            unlink(engine, level, slot)
            forget(engine, slot)
    return lots


cdef int rest(Engine engine, Report report, int64_t price_ticks, int64_t lots) except -1:
    """Put the report's order at the end of the queue of its price; room is reserved."""
    cdef Ladder *ladder = &engine.sides[report.side]
    cdef Py_ssize_t index = find(ladder, report.side, price_ticks)
    cdef int32_t slot = engine.free
    engine.slots[report.order_id] = slot
    if index == ladder.count or ladder.levels[index].price_ticks != price_ticks:
        insert_level(ladder, index, price_ticks)
    cdef Level *level = &ladder.levels[index]
    cdef Order *order = &engine.orders[slot]
    engine.free = order.newer
    order.id = report.order_id
    order.price_ticks = price_ticks
    order.lots = lots
    order.owner = report.owner
    order.side = report.side
    order.older = level.newest
    order.newer = NONE
    if level.newest == NONE:
        level.oldest = slot
    else:
        engine.orders[level.newest].newer = slot
    level.newest = slot
    level.lots += lots
    report.changes.append((report.side, price_ticks, level.lots))
    return 0


cdef int forget(Engine engine, int32_t slot) except -1:
    """Give back the slot of an order that is in no queue any more."""
    del engine.slots[engine.orders[slot].id]
    engine.orders[slot].newer = engine.free
    engine.free = slot
    return 0


cdef int reserve_slot(Engine engine) except -1:
    """Make sure that a slot is free; pointers to orders become invalid."""
    cdef int32_t capacity, slot
    cdef Order *grown
    if engine.free != NONE:
        return 0
    capacity = engine.capacity * 2 if engine.capacity else FIRST_CAPACITY
    grown = <Order *> realloc(engine.orders, capacity * sizeof(Order))
    if grown == NULL:
        raise MemoryError()
    engine.orders = grown
    for slot in range(engine.capacity, capacity):
        grown[slot].newer = slot + 1
    grown[capacity - 1].newer = NONE
    engine.free = engine.capacity
    engine.capacity = capacity
    return 0


cdef int reserve_level(Ladder *ladder) except -1:
    """Make sure that one more level fits; pointers to levels become invalid."""
    cdef Py_ssize_t capacity
    cdef Level *grown
    if ladder.count < ladder.capacity:
        return 0
    capacity = ladder.capacity * 2 if ladder.capacity else FIRST_CAPACITY
    grown = <Level *> realloc(ladder.levels, capacity * sizeof(Level))
    if grown == NULL:
        raise MemoryError()
    ladder.levels = grown
    ladder.capacity = capacity
    return 0


cdef Py_ssize_t find(const Ladder *ladder, int side, int64_t price_ticks) noexcept nogil:
    """Return the index of a price, or where it would be inserted."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = ladder.count
    cdef Py_ssize_t middle
    cdef int64_t price
    while low < high:
        middle = (low + high) // 2
        price = ladder.levels[middle].price_ticks
        if price < price_ticks if side == Side.BUY else price > price_ticks:
            low = middle + 1
        else:
            high = middle
    return low


cdef void insert_level(Ladder *ladder, Py_ssize_t index, int64_t price_ticks) noexcept nogil:
    """Open an empty level at *index*; room is reserved."""
    cdef Level *level = &ladder.levels[index]
    memmove(level + 1, level, (ladder.count - index) * sizeof(Level))
    ladder.count += 1
    level.price_ticks = price_ticks
    level.lots = 0
    level.oldest = NONE
    level.newest = NONE


cdef void drop_level(Ladder *ladder, Py_ssize_t index) noexcept nogil:
    cdef Level *level = &ladder.levels[index]
    ladder.count -= 1
    memmove(level, level + 1, (ladder.count - index) * sizeof(Level))


cdef void unlink(Engine engine, Level *level, int32_t slot) noexcept:
    """Take an order out of the queue of its level."""
    cdef Order *order = &engine.orders[slot]
    if order.older == NONE:
        level.oldest = order.newer
    else:
        engine.orders[order.older].newer = order.newer
    if order.newer == NONE:
        level.newest = order.older
    else:
        engine.orders[order.newer].older = order.older

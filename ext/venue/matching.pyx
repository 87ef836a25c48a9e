"""One symbol's matching engine: orders in, trades and level changes out.

Integers only: a price is a number of ticks, a quantity a number of lots. Knows nothing of
accounts, channels, time or decimals.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t

from feedhandler.venue.orders cimport (
    DUE, NONE, RESTING, WAITING, Ladder, Level, Order, Orders, admit, close_orders, find_slot,
    leave, leave_front, level_at, open_orders, reached, reprice, reserve_level, reserve_slot,
    reserve_stop, rest, trigger, wait)

# Bounds that keep the sum of any level's queue within 64 bits.
cdef int64_t MAX_LOTS = 1 << 40
cdef int64_t MAX_TICKS = 1 << 52

cdef struct Plan:
    int64_t lots                # that an order would trade at once
    Py_ssize_t matches
    Py_ssize_t levels
    bint prevented              # it would stop at an order of its own owner


class StopReached(ValueError):
    """The last trade, at *last_ticks*, has already reached the stop at *stop_ticks*."""

    def __init__(self, stop_ticks: int, last_ticks: int) -> None:
        super().__init__(f"stop at {stop_ticks} ticks, not beyond the last trade at {last_ticks}")
        self.stop_ticks = stop_ticks
        self.last_ticks = last_ticks


@cython.freelist(64)
cdef class Fill:
    """One match: *lots* at *price_ticks* against a resting order."""

    @property
    def maker_id(self):
        return self.match.maker_id

    @property
    def maker_owner(self):
        return self.match.maker_owner

    @property
    def maker_lots(self):
        """What is left of the maker."""
        return self.match.maker_lots

    @property
    def price_ticks(self):
        return self.match.price_ticks

    @property
    def lots(self):
        return self.match.lots


@cython.freelist(64)
cdef class Report:
    """What one operation did to its order and to the book.

    What an order had before is filled, resting, waiting or canceled now; of a modified one
    that got more, the new number of lots is.
    """

    def __dealloc__(self):
        PyMem_Free(self.tape.matches)
        PyMem_Free(self.tape.changes)

    @property
    def fills(self):
        """The Fills, in the order of matching."""
        if self.made_fills is None:
            self.made_fills = [
                new_fill(&self.tape.matches[i]) for i in range(self.tape.match_count)]
        return self.made_fills

    @property
    def changes(self):
        """(side, price_ticks, lots there now) of each level that was touched.

        The last one of a level is the truth.
        """
        cdef const Change *changes = self.tape.changes
        return [
            (changes[i].side, changes[i].price_ticks, changes[i].lots)
            for i in range(self.tape.change_count)
        ]


cdef class Engine:
    """Match the orders of one symbol by price, then time.

    An operation either raises and changes nothing, or returns a Report. ValueError is for
    impossible numbers (OverflowError beyond 64 bits), KeyError for an order that is
    unknown or gone.

    Trades make stops due, but do not activate them: after every operation the caller
    activates, or cancels, what next_due() names, until that is nothing.
    """

    def __cinit__(self):
        open_orders(&self.orders)

    def __dealloc__(self):
        close_orders(&self.orders)

    cpdef Report submit(self, int32_t owner, int side, int64_t lots, object price_ticks=None,
                        int time_in_force=TimeInForce.GTC, object stop_ticks=None,
                        bint self_trade=True):
        """Trade what crosses, then rest or cancel the remainder; a stop waits instead.

        Without a price it takes any, and nothing of it ever rests. With *self_trade* False
        the order is canceled where it would meet one of its owner.
        """
        cdef Order order
        order.side = check_side(side)
        order.owner = owner
        order.lots = check_lots(lots)
        order.time_in_force = check_time_in_force(time_in_force)
        order.price_ticks = 0
        order.stop_ticks = 0
        order.self_trade = self_trade
        if price_ticks is None:
            order.time_in_force = TimeInForce.IOC
        else:
            order.price_ticks = check_ticks("price", price_ticks)
        order.id = self.last_id + 1
        if stop_ticks is None:
            return enter(self, order, NONE)
        order.stop_ticks = check_stop(self, side, stop_ticks)
        return hold(self, &order)

    cpdef Report activate(self, int64_t order_id):
        """Submit a due stop as the market or limit order it stands for, under its id."""
        cdef int32_t slot = known(self, order_id)
        if self.orders.pool[slot].state != DUE:
            raise KeyError(order_id)
        return enter(self, self.orders.pool[slot], slot)

    cpdef Report cancel(self, int64_t order_id):
        """Take an order out."""
        return keep(self, known(self, order_id), 0)

    cpdef Report reduce(self, int64_t order_id, int64_t lots):
        """Take *lots* off an order, which keeps its place.

        Taking all that is left, or more, takes the order out.
        """
        cdef int32_t slot = known(self, order_id)
        if lots <= 0:
            raise ValueError(f"{lots} lots to take off, not at least 1")
        return keep(self, slot, max(self.orders.pool[slot].lots - lots, 0))

    cpdef Report modify(self, int64_t order_id, int64_t lots, object price_ticks=None,
                        object stop_ticks=None):
        """Let an order have *lots* left, and other prices where they are given.

        A resting order whose price changes or whose lots increase comes in again: it may
        trade, and goes to the back of its queue. No lots take an order out.
        """
        cdef int32_t slot = known(self, order_id)
        cdef Order order = self.orders.pool[slot]
        if lots != 0:
            check_lots(lots)
        if price_ticks is not None:
            if order.price_ticks == 0:
                raise ValueError(f"price for order {order_id}, not a limit order")
            order.price_ticks = check_ticks("price", price_ticks)
        if stop_ticks is not None:
            if order.state != WAITING:
                raise ValueError(f"stop for order {order_id}, not a waiting stop")
            order.stop_ticks = check_stop(self, order.side, stop_ticks)
        if order.state == RESTING and lots > 0 and (
                lots > order.lots or order.price_ticks != self.orders.pool[slot].price_ticks):
            order.lots = lots
            return enter(self, order, slot)
        cdef Report report = keep(self, slot, lots)
        if lots > 0:
            reprice(&self.orders, slot, order.price_ticks, order.stop_ticks)
        return report

    cpdef int64_t next_due(self) noexcept:
        """Return the id of the stop that became due first, 0 if none is."""
        return 0 if self.orders.due.oldest == NONE else self.orders.pool[self.orders.due.oldest].id

    @property
    def last_ticks(self):
        """The price of the last trade, None before the first."""
        return self.orders.last_ticks if self.orders.last_ticks else None

    cpdef list top(self, int side, Py_ssize_t count):
        """Return the best *count* levels as (price_ticks, lots), best first."""
        cdef Ladder *ladder = &self.orders.sides[check_side(side)]
        cdef Py_ssize_t i
        cdef Py_ssize_t stop = max(ladder.count - max(count, 0), 0)
        return [
            (ladder.levels[i].price_ticks, ladder.levels[i].lots)
            for i in range(ladder.count - 1, stop - 1, -1)
        ]

    cpdef object price_at(self, int side, Py_ssize_t rank):
        """Return the price of the level at *rank*, 0 being the best; None beyond the last."""
        cdef Ladder *ladder = &self.orders.sides[check_side(side)]
        if rank < 0 or rank >= ladder.count:
            return None
        return ladder.levels[ladder.count - 1 - rank].price_ticks

    cpdef int64_t lots_at(self, int side, int64_t price_ticks):
        """Return the quantity at a price, 0 if nobody is there."""
        cdef const Level *level = level_at(&self.orders, check_side(side), price_ticks)
        return 0 if level == NULL else level.lots

    cpdef tuple walk(self, int side, int64_t lots):
        """Return what a market order would pay at most, and how many lots it would get."""
        cdef Ladder *ladder = &self.orders.sides[1 - check_side(side)]
        cdef Py_ssize_t index = ladder.count
        cdef int64_t left = check_lots(lots)
        cdef int64_t taken
        cost = 0
        while left > 0 and index > 0:
            index -= 1
            taken = min(left, ladder.levels[index].lots)
            left -= taken
            # Up to 92 bits, so in Python's integers.
            cost += <object> ladder.levels[index].price_ticks * <object> taken
        return cost, lots - left

    def depth(self, int side):
        """Return the number of levels of a side."""
        return self.orders.sides[check_side(side)].count

    def queue(self, int side, int64_t price_ticks):
        """Return (order_id, owner, lots) of the orders at a price, oldest first."""
        cdef const Level *level = level_at(&self.orders, check_side(side), price_ticks)
        cdef int32_t slot = NONE if level == NULL else level.queue.oldest
        cdef list orders = []
        while slot != NONE:
            orders.append(
                (self.orders.pool[slot].id, self.orders.pool[slot].owner, self.orders.pool[slot].lots))
            slot = self.orders.pool[slot].newer
        return orders

    def order(self, int64_t order_id):
        """Return (owner, side, price_ticks, lots left) of a resting order, else None."""
        cdef int32_t slot = find_slot(&self.orders, order_id)
        if slot == NONE or self.orders.pool[slot].state != RESTING:
            return None
        cdef const Order *order = &self.orders.pool[slot]
        return order.owner, order.side, order.price_ticks, order.lots

    def stop(self, int64_t order_id):
        """Return a stop that is not activated, else None.

        As (owner, side, stop_ticks, price_ticks or None, lots left, whether it is due).
        """
        cdef int32_t slot = find_slot(&self.orders, order_id)
        if slot == NONE or self.orders.pool[slot].state == RESTING:
            return None
        cdef const Order *order = &self.orders.pool[slot]
        price = order.price_ticks if order.price_ticks else None
        return (order.owner, order.side, order.stop_ticks, price, order.lots,
                order.state == DUE)

    def __len__(self):
        return self.orders.count


# ── arguments ─────────────────────────────────────────────────────────────────────────

cdef int check_side(int side) except -1:
    if side != Side.BUY and side != Side.SELL:
        raise ValueError(f"side is {side}, not BUY or SELL")
    return side


cdef int64_t check_lots(int64_t lots) except -1:
    if not 0 < lots <= MAX_LOTS:
        raise ValueError(f"{lots} lots, not 1 to {MAX_LOTS}")
    return lots


cdef int64_t check_ticks(str what, int64_t ticks) except -1:
    if not 0 < ticks <= MAX_TICKS:
        raise ValueError(f"{what} of {ticks} ticks, not 1 to {MAX_TICKS}")
    return ticks


cdef int check_time_in_force(int time_in_force) except -1:
    if time_in_force < 0 or time_in_force > TimeInForce.DAY:
        raise ValueError(f"time in force is {time_in_force}, not GTC, IOC, FOK or DAY")
    return time_in_force


cdef int64_t check_stop(Engine engine, int side, int64_t stop_ticks) except -1:
    check_ticks("stop", stop_ticks)
    cdef int64_t last_ticks = engine.orders.last_ticks
    if last_ticks and reached(side, stop_ticks, last_ticks):
        raise StopReached(stop_ticks, last_ticks)
    return stop_ticks


cdef int32_t known(Engine engine, int64_t order_id) except -1:
    """Return the slot of an order that is here."""
    cdef int32_t slot = find_slot(&engine.orders, order_id)
    if slot == NONE:
        raise KeyError(order_id)
    return slot


# ── what operations are made of ───────────────────────────────────────────────────────
# Everything that may fail comes first: a plan, room for orders and levels, a report with
# room for all that will be in it. From there on nothing can fail.

cdef Report enter(Engine engine, Order order, int32_t slot):
    """Match an order that comes in, out of *slot* if it has one, as its kind demands."""
    cdef Plan plan = foresee(&engine.orders, &order)
    cdef bint rests = plan.lots < order.lots and not plan.prevented and (
        order.time_in_force == TimeInForce.GTC or order.time_in_force == TimeInForce.DAY)
    if rests:
        reserve_level(&engine.orders, order.side)
        if slot == NONE:
            reserve_slot(&engine.orders)
    cdef const Level *level
    cdef Report report = new_report(&order, plan.matches, plan.levels + 2)
    if slot == NONE:
        engine.last_id = order.id
    else:
        report.canceled_lots = max(engine.orders.pool[slot].lots - order.lots, 0)
        take_out(&engine.orders, &report.tape, slot)
    trade(&engine.orders, &report.tape, order.side, plan.lots)
    order.lots -= plan.lots
    report.filled_lots = plan.lots
    report.self_trade_prevented = plan.prevented
    if rests:
        report.resting_lots = order.lots
        level = rest(&engine.orders, admit(&engine.orders, &order))
        touch(&report.tape, order.side, order.price_ticks, level.lots)
    else:
        report.canceled_lots += order.lots
    return report


cdef Report hold(Engine engine, const Order *order):
    """Let a new stop wait."""
    reserve_slot(&engine.orders)
    reserve_stop(&engine.orders, order.side)
    cdef Report report = new_report(order, 0, 0)
    engine.last_id = order.id
    wait(&engine.orders, admit(&engine.orders, order))
    report.waiting_lots = order.lots
    return report


cdef Report keep(Engine engine, int32_t slot, int64_t lots):
    """Let an order have *lots* left, in its place; none take it out."""
    cdef Order *order = &engine.orders.pool[slot]
    cdef Report report = new_report(order, 0, 1)
    cdef Level *level
    report.canceled_lots = max(order.lots - lots, 0)
    if lots == 0:
        take_out(&engine.orders, &report.tape, slot)
        return report
    if order.state == RESTING:
        report.resting_lots = lots
        level = level_at(&engine.orders, order.side, order.price_ticks)
        level.lots += lots - order.lots
        touch(&report.tape, order.side, order.price_ticks, level.lots)
    else:
        report.waiting_lots = lots
    order.lots = lots
    return report


cdef void take_out(Orders *orders, Tape *tape, int32_t slot) noexcept nogil:
    """Take an order out, and tell what is left at its price if it was in the book."""
    cdef const Order *order = &orders.pool[slot]
    cdef Level *level
    if order.state == RESTING:
        level = level_at(orders, order.side, order.price_ticks)
        touch(tape, order.side, order.price_ticks, level.lots - order.lots)
    leave(orders, slot)


cdef Report new_report(const Order *order, Py_ssize_t matches, Py_ssize_t changes):
    """Return a report on an order, with room for so many matches and changes."""
    cdef Report report = Report.__new__(Report)
    report.order_id = order.id
    report.owner = order.owner
    report.side = order.side
    if matches:
        report.tape.matches = <Match *> PyMem_Malloc(matches * sizeof(Match))
        if report.tape.matches == NULL:
            raise MemoryError()
    if changes:
        report.tape.changes = <Change *> PyMem_Malloc(changes * sizeof(Change))
        if report.tape.changes == NULL:
            raise MemoryError()
    return report


cdef Fill new_fill(const Match *match):
    cdef Fill fill = Fill.__new__(Fill)
    fill.match = match[0]
    return fill


# ── matching ──────────────────────────────────────────────────────────────────────────

cdef Plan foresee(const Orders *orders, const Order *taker) noexcept nogil:
    """Say what an order that comes in would trade."""
    cdef Plan plan = Plan(0, 0, 0, False)
    cdef const Ladder *ladder = &orders.sides[1 - taker.side]
    cdef const Order *maker
    cdef Py_ssize_t index = ladder.count
    cdef int32_t slot
    while index > 0 and plan.lots < taker.lots and not plan.prevented:
        index -= 1
        if not crosses(taker, ladder.levels[index].price_ticks):
            break
        plan.levels += 1
        slot = ladder.levels[index].queue.oldest
        while slot != NONE and plan.lots < taker.lots:
            maker = &orders.pool[slot]
            if maker.owner == taker.owner and not taker.self_trade:
                plan.prevented = True
                break
            plan.matches += 1
            plan.lots = min(plan.lots + maker.lots, taker.lots)
            slot = maker.newer
    if taker.time_in_force == TimeInForce.FOK and plan.lots < taker.lots:
        return Plan(0, 0, 0, plan.prevented)
    return plan


cdef inline bint crosses(const Order *taker, int64_t price_ticks) noexcept nogil:
    if taker.price_ticks == 0:
        return True
    if taker.side == Side.BUY:
        return price_ticks <= taker.price_ticks
    return price_ticks >= taker.price_ticks


cdef void trade(Orders *orders, Tape *tape, int side, int64_t lots) noexcept nogil:
    """Trade *lots*, which are known to be there, with the other side's best orders."""
    cdef Ladder *ladder = &orders.sides[1 - side]
    cdef Level *level
    while lots > 0:
        level = &ladder.levels[ladder.count - 1]
        lots = sweep(orders, tape, level, lots)
        touch(tape, 1 - side, level.price_ticks, level.lots)
        trigger(orders, level.price_ticks)
        if level.queue.oldest == NONE:
            ladder.count -= 1


cdef int64_t sweep(Orders *orders, Tape *tape, Level *level, int64_t lots) noexcept nogil:
    """Trade up to *lots* with the queue of one level, oldest first; return what is left."""
    cdef Order *maker
    cdef Match *match
    while lots > 0 and level.queue.oldest != NONE:
        maker = &orders.pool[level.queue.oldest]
        match = &tape.matches[tape.match_count]
        tape.match_count += 1
        match.lots = min(lots, maker.lots)
        maker.lots -= match.lots
        level.lots -= match.lots
        lots -= match.lots
        match.maker_id = maker.id
        match.maker_owner = maker.owner
        match.maker_lots = maker.lots
        match.price_ticks = level.price_ticks
        if maker.lots == 0:
            leave_front(orders, level)
    return lots


cdef void touch(Tape *tape, int side, int64_t price_ticks, int64_t lots) noexcept nogil:
    tape.changes[tape.change_count] = Change(price_ticks, lots, side)
    tape.change_count += 1

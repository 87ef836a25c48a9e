"""Keep the orders of one symbol: find, queue and sort them, and know which stop is next.

Knows nothing of who may trade with whom.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset

cdef enum:
    FIRST_SLOTS = 1 << 8        # powers of two, as there are as many buckets as slots
    MOST_SLOTS = 1 << 22        # of the most lots, their sum is within 64 bits
    FIRST_BUCKET_SHIFT = 64 - 8
    FIRST_CAPACITY = 64         # levels of a side, stops of a side


cdef int open_orders(Orders *orders) except -1:
    memset(orders, 0, sizeof(Orders))
    orders.free = NONE
    orders.due.oldest = NONE
    orders.due.newest = NONE
    return reserve_slot(orders)


cdef void close_orders(Orders *orders) noexcept nogil:
    cdef int side
    free(orders.pool)
    free(orders.buckets)
    for side in range(2):
        free(orders.sides[side].levels)
        free(orders.stops[side].slots)


# ── room ──────────────────────────────────────────────────────────────────────────────

cdef int reserve_slot(Orders *orders) except -1:
    """Make sure that a slot is free; pointers to orders become invalid."""
    cdef int32_t slot, capacity
    if orders.free != NONE:
        return 0
    if orders.capacity == MOST_SLOTS:
        raise MemoryError(f"no room for more than {MOST_SLOTS} orders")
    capacity = orders.capacity * 2 if orders.capacity else FIRST_SLOTS
    orders.pool = <Order *> resized(orders.pool, capacity * sizeof(Order))
    orders.buckets = <int32_t *> resized(orders.buckets, capacity * sizeof(int32_t))
    orders.bucket_shift = orders.bucket_shift - 1 if orders.capacity else FIRST_BUCKET_SHIFT
    for slot in range(capacity):
        orders.buckets[slot] = NONE
    for slot in range(orders.capacity):
        chain(orders, slot)
    for slot in range(orders.capacity, capacity):
        orders.pool[slot].newer = slot + 1
    orders.pool[capacity - 1].newer = NONE
    orders.free = orders.capacity
    orders.capacity = capacity
    return 0


cdef int reserve_level(Orders *orders, int side) except -1:
    """Make sure that one more level fits; pointers to levels become invalid."""
    cdef Ladder *ladder = &orders.sides[side]
    cdef Py_ssize_t capacity
    if ladder.count < ladder.capacity:
        return 0
    capacity = ladder.capacity * 2 if ladder.capacity else FIRST_CAPACITY
    ladder.levels = <Level *> resized(ladder.levels, capacity * sizeof(Level))
    ladder.capacity = capacity
    return 0


cdef int reserve_stop(Orders *orders, int side) except -1:
    """Make sure that one more stop can wait."""
    cdef Heap *heap = &orders.stops[side]
    cdef int32_t capacity
    if heap.count < heap.capacity:
        return 0
    capacity = heap.capacity * 2 if heap.capacity else FIRST_CAPACITY
    heap.slots = <int32_t *> resized(heap.slots, capacity * sizeof(int32_t))
    heap.capacity = capacity
    return 0


cdef void *resized(void *block, size_t size) except NULL:
    cdef void *moved = realloc(block, size)
    if moved == NULL:
        raise MemoryError()
    return moved


# ── slots ─────────────────────────────────────────────────────────────────────────────

cdef int32_t find_slot(const Orders *orders, int64_t order_id) noexcept nogil:
    """Return the slot of an order, NONE if it is unknown or gone."""
    cdef int32_t slot = bucket_of(orders, order_id)[0]
    while slot != NONE and orders.pool[slot].id != order_id:
        slot = orders.pool[slot].chained
    return slot


cdef inline int32_t *bucket_of(const Orders *orders, int64_t order_id) noexcept nogil:
    # Multiplied by 2^64 over the golden ratio, so that regular ids do not share a bucket.
    return &orders.buckets[
        (<uint64_t> order_id * 0x9E3779B97F4A7C15ULL) >> orders.bucket_shift]


cdef int32_t admit(Orders *orders, const Order *order) noexcept nogil:
    """Give an order a slot, which is reserved, but no place yet."""
    cdef int32_t slot = orders.free
    orders.free = orders.pool[slot].newer
    orders.pool[slot] = order[0]
    orders.count += 1
    chain(orders, slot)
    return slot


cdef void chain(Orders *orders, int32_t slot) noexcept nogil:
    cdef int32_t *bucket = bucket_of(orders, orders.pool[slot].id)
    orders.pool[slot].chained = bucket[0]
    bucket[0] = slot


cdef void leave(Orders *orders, int32_t slot) noexcept nogil:
    """Take an order out, wherever it is, and give back its slot."""
    cdef const Order *order = &orders.pool[slot]
    cdef Level *level
    if order.state == WAITING:
        pull(orders.pool, &orders.stops[order.side], order.place)
    elif order.state == DUE:
        unlink(orders.pool, &orders.due, slot)
    else:
        level = level_at(orders, order.side, order.price_ticks)
        level.lots -= order.lots
        unlink(orders.pool, &level.queue, slot)
        if level.queue.oldest == NONE:
            drop_level(&orders.sides[order.side], level)
    forget(orders, slot)


cdef void leave_front(Orders *orders, Level *level) noexcept nogil:
    """Take the oldest order of a level out; the level stays, were it empty."""
    cdef int32_t slot = level.queue.oldest
    level.lots -= orders.pool[slot].lots
    unlink(orders.pool, &level.queue, slot)
    forget(orders, slot)


cdef void forget(Orders *orders, int32_t slot) noexcept nogil:
    cdef int32_t *link = bucket_of(orders, orders.pool[slot].id)
    while link[0] != slot:
        link = &orders.pool[link[0]].chained
    link[0] = orders.pool[slot].chained
    orders.pool[slot].newer = orders.free
    orders.free = slot
    orders.count -= 1


# ── queues ────────────────────────────────────────────────────────────────────────────

cdef void append(Order *pool, Queue *queue, int32_t slot) noexcept nogil:
    pool[slot].older = queue.newest
    pool[slot].newer = NONE
    if queue.newest == NONE:
        queue.oldest = slot
    else:
        pool[queue.newest].newer = slot
    queue.newest = slot


cdef void unlink(Order *pool, Queue *queue, int32_t slot) noexcept nogil:
    cdef const Order *order = &pool[slot]
    if order.older == NONE:
        queue.oldest = order.newer
    else:
        pool[order.older].newer = order.newer
    if order.newer == NONE:
        queue.newest = order.older
    else:
        pool[order.newer].older = order.older


# ── levels ────────────────────────────────────────────────────────────────────────────

cdef Level *rest(Orders *orders, int32_t slot) noexcept nogil:
    """Put an order at the end of the queue of its price; room is reserved."""
    cdef Order *order = &orders.pool[slot]
    cdef Ladder *ladder = &orders.sides[order.side]
    cdef Py_ssize_t index = find(ladder, order.side, order.price_ticks)
    cdef Level *level = &ladder.levels[index]
    if index == ladder.count or level.price_ticks != order.price_ticks:
        insert_level(ladder, index, order.price_ticks)
    order.state = RESTING
    append(orders.pool, &level.queue, slot)
    level.lots += order.lots
    return level


cdef Level *level_at(const Orders *orders, int side, int64_t price_ticks) noexcept nogil:
    """Return the level at a price, NULL if nobody is there."""
    cdef const Ladder *ladder = &orders.sides[side]
    cdef Py_ssize_t index = find(ladder, side, price_ticks)
    if index == ladder.count or ladder.levels[index].price_ticks != price_ticks:
        return NULL
    return &ladder.levels[index]


cdef Py_ssize_t find(const Ladder *ladder, int side, int64_t price_ticks) noexcept nogil:
    """Return the index of a price, or where it would be inserted."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = ladder.count
    cdef Py_ssize_t middle
    cdef int64_t price
    while low < high:
        middle = (low + high) // 2
        price = ladder.levels[middle].price_ticks
        if price < price_ticks if side == BUY else price > price_ticks:
            low = middle + 1
        else:
            high = middle
    return low


cdef void insert_level(Ladder *ladder, Py_ssize_t index, int64_t price_ticks) noexcept nogil:
    cdef Level *level = &ladder.levels[index]
    memmove(level + 1, level, (ladder.count - index) * sizeof(Level))
    ladder.count += 1
    level.price_ticks = price_ticks
    level.lots = 0
    level.queue.oldest = NONE
    level.queue.newest = NONE


cdef void drop_level(Ladder *ladder, Level *level) noexcept nogil:
    ladder.count -= 1
    memmove(level, level + 1, (ladder.count - (level - ladder.levels)) * sizeof(Level))


# ── stops ─────────────────────────────────────────────────────────────────────────────
# A side's waiting stops are a binary heap: the nearest to the last trade is on top, the
# oldest of equals first. Each order knows its place in it.

cdef void wait(Orders *orders, int32_t slot) noexcept nogil:
    """Let a stop wait for the trade that reaches it; room is reserved."""
    orders.pool[slot].state = WAITING
    push(orders.pool, &orders.stops[orders.pool[slot].side], slot)


cdef void trigger(Orders *orders, int64_t last_ticks) noexcept nogil:
    """Make due what waited for a trade at *last_ticks*, which is the last one now."""
    cdef Heap *heap
    cdef int32_t slot
    cdef int side
    orders.last_ticks = last_ticks
    for side in range(2):
        heap = &orders.stops[side]
        while heap.count > 0:
            slot = heap.slots[0]
            if not reached(side, orders.pool[slot].stop_ticks, last_ticks):
                break
            pull(orders.pool, heap, 0)
            orders.pool[slot].state = DUE
            append(orders.pool, &orders.due, slot)


cdef bint reached(int side, int64_t stop_ticks, int64_t last_ticks) noexcept nogil:
    return stop_ticks <= last_ticks if side == BUY else stop_ticks >= last_ticks


cdef void reprice(Orders *orders, int32_t slot, int64_t price_ticks,
                  int64_t stop_ticks) noexcept nogil:
    """Give a stop other prices."""
    cdef Order *order = &orders.pool[slot]
    cdef Heap *heap = &orders.stops[order.side]
    order.price_ticks = price_ticks
    if stop_ticks != order.stop_ticks:
        pull(orders.pool, heap, order.place)
        order.stop_ticks = stop_ticks
        push(orders.pool, heap, slot)


cdef inline bint sooner(const Order *a, const Order *b) noexcept nogil:
    """Say whether *a* is due before *b*, a stop of the same side."""
    if a.stop_ticks == b.stop_ticks:
        return a.id < b.id
    return (a.stop_ticks < b.stop_ticks) == (a.side == BUY)


cdef inline void put(Order *pool, Heap *heap, int32_t place, int32_t slot) noexcept nogil:
    heap.slots[place] = slot
    pool[slot].place = place


cdef void push(Order *pool, Heap *heap, int32_t slot) noexcept nogil:
    heap.count += 1
    rise(pool, heap, heap.count - 1, slot)


cdef void pull(Order *pool, Heap *heap, int32_t place) noexcept nogil:
    """Take the stop at *place* out of a heap; the last one fills the gap."""
    heap.count -= 1
    if place < heap.count:
        fall(pool, heap, place, heap.slots[heap.count])
        rise(pool, heap, place, heap.slots[place])


cdef void rise(Order *pool, Heap *heap, int32_t place, int32_t slot) noexcept nogil:
    """Put a stop at *place*, or above what is due after it."""
    cdef int32_t above
    while place > 0:
        above = (place - 1) // 2
        if not sooner(&pool[slot], &pool[heap.slots[above]]):
            break
        put(pool, heap, place, heap.slots[above])
        place = above
    put(pool, heap, place, slot)


cdef void fall(Order *pool, Heap *heap, int32_t place, int32_t slot) noexcept nogil:
    """Put a stop at *place*, or below what is due before it."""
    cdef int32_t below = 2 * place + 1
    while below < heap.count:
        if below + 1 < heap.count and sooner(
                &pool[heap.slots[below + 1]], &pool[heap.slots[below]]):
            below += 1
        if not sooner(&pool[heap.slots[below]], &pool[slot]):
            break
        put(pool, heap, place, heap.slots[below])
        place = below
        below = 2 * place + 1
    put(pool, heap, place, slot)

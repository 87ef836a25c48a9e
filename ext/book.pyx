"""Price levels of one instrument: two pairs of sorted arrays, the best level last.

Most updates touch the top of a book, so with the best level last they move a few bytes; a
full-depth side costs a binary search and two memmoves. Nothing is allocated for an update
that fits; capacity doubles. Knows nothing of sequence numbers, sessions or time.
"""

cimport cython
from libc.math cimport NAN, isfinite
from libc.stdint cimport INT32_MAX
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcmp, memmove

from feedhandler.protocol.channels import MAX_DEPTH


cdef enum:
    NEAR = 8                    # levels from the best that are searched one by one
    FEW = 4                     # so many levels at least are worth a merge
    WINDOW = 64                 # how far from one level of a sorted message the next is
    BATCH = 256                 # levels merged at a time, which bounds the stack
    ON_STACK = 64               # levels from Python that need no memory of their own


# *is_bid* is a constant at every call, so each function becomes two plain ones.


cdef inline bint worse(bint is_bid, double a, double b) noexcept nogil:
    """Tell whether price *a* is further from the market than *b*."""
    return a < b if is_bid else a > b


cdef inline int32_t lower_bound(const double *prices, int32_t count, bint is_bid,
                                double price) noexcept nogil:
    """Count the prices worse than *price*; without branches that could be guessed wrong."""
    cdef const double *base = prices
    cdef int32_t half
    if count == 0:
        return 0
    while count > 1:
        half = count >> 1
        base = base + half if worse(is_bid, base[half - 1], price) else base
        count -= half
    return <int32_t> (base - prices) + worse(is_bid, base[0], price)


cdef inline int32_t find(const Side *side, bint is_bid, double price) noexcept nogil:
    """Count the levels worse than *price*, which is the index where it belongs."""
    cdef const double *prices = side.prices
    cdef int32_t count = side.count
    cdef int32_t far = count - NEAR if count > NEAR else 0
    while count > far:
        if worse(is_bid, prices[count - 1], price):
            return count
        count -= 1
    return lower_bound(prices, count, is_bid, price)


cdef int reserve(Side *side, int32_t capacity) noexcept nogil:
    """Make room for *capacity* levels; -1 without memory, and nothing is lost."""
    cdef int32_t size = side.capacity if side.capacity > 0 else 16
    cdef void *grown
    if capacity <= side.capacity:
        return 0
    while size < capacity:
        size *= 2
    grown = realloc(side.prices, size * sizeof(double))
    if grown == NULL:
        return -1
    side.prices = <double *> grown
    grown = realloc(side.sizes, size * sizeof(double))
    if grown == NULL:
        return -1
    side.sizes = <double *> grown
    side.capacity = size
    return 0


cdef inline int32_t set_level(Side *side, bint is_bid, double price, double size) noexcept nogil:
    """Put one level; return the rank it touched (0 = best), or INT32_MAX for no change."""
    cdef int32_t index = find(side, is_bid, price)
    cdef int32_t behind = side.count - index        # levels at or better than the price
    cdef double *prices = side.prices + index
    cdef double *sizes = side.sizes + index
    if behind > 0 and prices[0] == price:
        if size > 0.0:
            if sizes[0] == size:
                return INT32_MAX
            sizes[0] = size
            return behind - 1
        memmove(prices, prices + 1, (behind - 1) * sizeof(double))
        memmove(sizes, sizes + 1, (behind - 1) * sizeof(double))
        side.count -= 1
        return behind - 1
    if not size > 0.0:
        return INT32_MAX                            # the removal of a level we do not hold
    memmove(prices + 1, prices, behind * sizeof(double))
    memmove(sizes + 1, sizes, behind * sizeof(double))
    prices[0] = price
    sizes[0] = size
    side.count += 1
    return behind


cdef struct Op:
    double price
    double size
    int32_t index               # where, in the side as it was
    int32_t kind                # 1: insert before it, -1: remove it


cdef inline int32_t direction(bint is_bid, const Level *levels, int count) noexcept nogil:
    """Return 1 for levels that are sorted best first, -1 for worst first, 0 for neither."""
    cdef bint best_first = worse(is_bid, levels[1].price, levels[0].price)
    cdef int i
    for i in range(1, count):
        if best_first:
            if not worse(is_bid, levels[i].price, levels[i - 1].price):
                return 0
        elif not worse(is_bid, levels[i - 1].price, levels[i].price):
            return 0
    return 1 if best_first else -1


cdef inline int32_t find_below(const double *prices, int32_t end, bint is_bid,
                               double price) noexcept nogil:
    """Count the levels worse than *price* among the first *end*, looking near *end* first."""
    cdef int32_t start = end - WINDOW
    if start > 0 and worse(is_bid, prices[start], price):
        return start + lower_bound(prices + start, WINDOW, is_bid, price)
    return lower_bound(prices, end, is_bid, price)


cdef inline void place(Side *side, const Op *op, int32_t shift) noexcept nogil:
    side.prices[op.index + shift] = op.price
    side.sizes[op.index + shift] = op.size


cdef inline void shift_after(Side *side, const Op *ops, int k, int32_t by) noexcept nogil:
    """Move the levels between ops[k] and the next better one."""
    cdef int32_t start = ops[k].index + (ops[k].kind < 0)
    cdef int32_t size = (ops[k - 1].index if k > 0 else side.count) - start
    if by != 0 and size > 0:
        memmove(side.prices + start + by, side.prices + start, size * sizeof(double))
        memmove(side.sizes + start + by, side.sizes + start, size * sizeof(double))


cdef void restructure(Side *side, const Op *ops, int count) noexcept nogil:
    """Insert and remove *count* levels, ops[0] the best, moving every level at most once.

    Between two operations all levels move by the same distance: the sum of the kinds so
    far, from the worst. Where that is to the left, it is safe to move from the worst
    level up; where it is to the right, from the best level down. The distance changes by
    one at a time, so between a run of one sort and a run of the other it is zero, and
    neither reaches into the other.
    """
    cdef int32_t shift = 0
    cdef int k = count - 1                          # the op in hand; worst first
    cdef int run, i
    while k >= 0:
        if shift < 0 or ops[k].kind < 0:
            if ops[k].kind > 0:
                place(side, &ops[k], shift)
            shift += ops[k].kind
            shift_after(side, ops, k, shift)
            k -= 1
            continue
        run = k                                     # to the right, until shift is 0 again
        shift = 1
        while shift > 0 and run > 0:
            run -= 1
            shift += ops[run].kind
        for i in range(run, k + 1):
            shift_after(side, ops, i, shift)
            shift -= ops[i].kind
            if ops[i].kind > 0:
                place(side, &ops[i], shift)
        k = run - 1


cdef int32_t merge(Side *side, bint is_bid, const Level *best, int32_t step,
                   int count) noexcept nogil:
    """Put at most BATCH sorted levels at once; return the best rank that changed.

    *best* is the best of them; *step* leads to the next worse one.
    """
    cdef Op ops[BATCH]
    cdef int32_t changed = INT32_MAX
    cdef int32_t end = side.count
    cdef int32_t total = 0
    cdef int32_t rank, index
    cdef int n = 0
    cdef int i
    cdef double price, size
    for i in range(count):
        price = best[i * step].price
        size = best[i * step].size
        index = find_below(side.prices, end, is_bid, price)
        if index < end and side.prices[index] == price:
            rank = side.count - index - 1
            if size > 0.0:
                if side.sizes[index] == size:
                    rank = INT32_MAX
                side.sizes[index] = size
            else:
                ops[n] = Op(price, size, index, -1)
                total -= 1
                n += 1
        elif size > 0.0:
            rank = side.count - index
            ops[n] = Op(price, size, index, 1)
            total += 1
            n += 1
        else:
            rank = INT32_MAX
        end = index
        if rank < changed:
            changed = rank
    restructure(side, ops, n)
    side.count += total
    return changed


cdef inline int32_t set_levels(Side *side, bint is_bid, const Level *levels,
                               int count) noexcept nogil:
    """Put *count* levels, in their order; return the best rank that changed."""
    cdef int32_t changed = INT32_MAX
    cdef int32_t rank
    cdef int32_t step = direction(is_bid, levels, count) if count >= FEW else 0
    cdef int i, batch
    if step != 0:
        i = 0
        while i < count:
            batch = count - i if count - i < BATCH else BATCH
            rank = merge(side, is_bid, levels + (i if step > 0 else count - 1 - i), step, batch)
            if rank < changed:
                changed = rank
            i += batch
        return changed
    for i in range(count):
        rank = set_level(side, is_bid, levels[i].price, levels[i].size)
        if rank < changed:
            changed = rank
    return changed


cdef inline void prune(Side *side, int32_t depth) noexcept nogil:
    """Forget levels beyond *depth*: the venue tells no more about them."""
    cdef int32_t extra = side.count - depth
    if extra > 0:
        memmove(side.prices, side.prices + extra, depth * sizeof(double))
        memmove(side.sizes, side.sizes + extra, depth * sizeof(double))
        side.count = depth


cdef struct Ordered:
    double price
    double size
    int index                   # its place in the message: the last one wins


cdef int by_bid(const void *a, const void *b) noexcept nogil:
    cdef const Ordered *one = <const Ordered *> a
    cdef const Ordered *two = <const Ordered *> b
    if one.price != two.price:
        return -1 if one.price < two.price else 1
    return -1 if one.index < two.index else 1


cdef int by_ask(const void *a, const void *b) noexcept nogil:
    cdef const Ordered *one = <const Ordered *> a
    cdef const Ordered *two = <const Ordered *> b
    if one.price != two.price:
        return -1 if one.price > two.price else 1
    return -1 if one.index < two.index else 1


cdef int fill_unsorted(Side *side, bint is_bid, const Level *levels, int count,
                       int32_t depth) noexcept nogil:
    """Fill an empty side from levels in any order, keeping the last of equal prices."""
    cdef Ordered *sorted_levels = <Ordered *> malloc(count * sizeof(Ordered))
    cdef int i
    if sorted_levels == NULL:
        return -1
    for i in range(count):
        sorted_levels[i] = Ordered(levels[i].price, levels[i].size, i)
    if is_bid:
        qsort(sorted_levels, count, sizeof(Ordered), by_bid)
    else:
        qsort(sorted_levels, count, sizeof(Ordered), by_ask)
    side.count = 0
    for i in range(count):
        if i + 1 < count and sorted_levels[i].price == sorted_levels[i + 1].price:
            continue
        if sorted_levels[i].size > 0.0:
            side.prices[side.count] = sorted_levels[i].price
            side.sizes[side.count] = sorted_levels[i].size
            side.count += 1
    free(sorted_levels)
    prune(side, depth)
    return 0


cdef inline int fill(Side *side, bint is_bid, const Level *levels, int count,
                     int32_t depth) noexcept nogil:
    """Build a side from a snapshot's levels: best first as a rule, but any order will do."""
    cdef int i
    if reserve(side, count) < 0:
        return -1
    for i in range(1, count):
        if not worse(is_bid, levels[i].price, levels[i - 1].price):
            return fill_unsorted(side, is_bid, levels, count, depth)
    side.count = 0
    for i in range(count - 1, -1, -1):
        if levels[i].size > 0.0:
            side.prices[side.count] = levels[i].price
            side.sizes[side.count] = levels[i].size
            side.count += 1
    prune(side, depth)
    return 0


cdef inline void swap(Side *a, Side *b) noexcept nogil:
    cdef Side held = a[0]
    a[0] = b[0]
    b[0] = held


cdef inline bint same(const Side *a, const Side *b) noexcept nogil:
    cdef size_t size = a.count * sizeof(double)
    return a.count == b.count and (
        a.count == 0
        or (memcmp(a.prices, b.prices, size) == 0 and memcmp(a.sizes, b.sizes, size) == 0)
    )


cdef void free_side(Side *side) noexcept nogil:
    free(side.prices)
    free(side.sizes)


cdef inline int check_level(const Level *level) except -1:
    """Raise ValueError for a level that no venue may send."""
    if not (isfinite(level.price) and level.price > 0.0):
        raise ValueError(f"price {level.price} is not above 0")
    if not (isfinite(level.size) and level.size >= 0.0):
        raise ValueError(f"size {level.size} is not 0 or more")
    return 0


@cython.boundscheck(True)       # a caller's numbers may run code that shortens his list
cdef int take_levels(object levels, Level *out, Py_ssize_t count) except -1:
    """Copy a Python list of (price, size) to an array, validated."""
    cdef Py_ssize_t i
    cdef tuple pair
    for i in range(count):
        level = levels[i]
        if type(level) is tuple and len(<tuple> level) == 2:
            pair = <tuple> level
            out[i].price, out[i].size = <object> pair[0], <object> pair[1]
        else:
            out[i].price, out[i].size = level
        check_level(&out[i])
    return 0


cdef list side_levels(const Side *side, object limit):
    cdef Py_ssize_t count = side.count
    cdef Py_ssize_t i
    if limit is not None:
        count = min(count, max(0, limit))
    return [
        (side.prices[side.count - 1 - i], side.sizes[side.count - 1 - i])
        for i in range(count)
    ]


cdef class OrderBook:
    """The price levels of one instrument, at most *depth* on each side.

    Not safe across threads: one loop owns it. Raises ValueError for a depth outside
    1..5000.
    """

    def __cinit__(self, int depth=MAX_DEPTH):
        if not 1 <= depth <= MAX_DEPTH:
            raise ValueError(f"depth {depth} is not 1 to {MAX_DEPTH}")
        self.depth = depth
        self.bid_changed = INT32_MAX
        self.ask_changed = INT32_MAX

    def __dealloc__(self):
        free_side(&self.bids)
        free_side(&self.asks)
        free_side(&self.next_bids)
        free_side(&self.next_asks)

    cdef int replace(self, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) noexcept nogil:
        if fill(&self.next_bids, True, bids, bid_count, self.depth) < 0:
            return -1
        if fill(&self.next_asks, False, asks, ask_count, self.depth) < 0:
            return -1
        swap(&self.bids, &self.next_bids)
        swap(&self.asks, &self.next_asks)
        self.bid_changed = 0
        self.ask_changed = 0
        return 0

    cdef int update(self, const Level *bids, int bid_count,
                    const Level *asks, int ask_count) noexcept nogil:
        # All the room first, so that a message is applied whole or not at all.
        if reserve(&self.bids, self.bids.count + bid_count) < 0:
            return -1
        if reserve(&self.asks, self.asks.count + ask_count) < 0:
            return -1
        self.bid_changed = set_levels(&self.bids, True, bids, bid_count)
        self.ask_changed = set_levels(&self.asks, False, asks, ask_count)
        prune(&self.bids, self.depth)
        prune(&self.asks, self.depth)
        return 0

    cdef bint replaced_by_same(self) noexcept nogil:
        # The sides that replace() took out wait where the next ones will be built.
        return same(&self.bids, &self.next_bids) and same(&self.asks, &self.next_asks)

    def replaced(self):
        """Return the bids and asks that the last replacement took out, best first.

        True only until the next one, as replaced_by_same().
        """
        return side_levels(&self.next_bids, None), side_levels(&self.next_asks, None)

    cdef void clear(self) noexcept nogil:
        self.bids.count = 0
        self.asks.count = 0
        self.bid_changed = 0
        self.ask_changed = 0

    cdef void view(self, LevelsView *levels) noexcept nogil:
        levels.bid_prices = self.bids.prices
        levels.bid_sizes = self.bids.sizes
        levels.ask_prices = self.asks.prices
        levels.ask_sizes = self.asks.sizes
        levels.bid_count = self.bids.count
        levels.ask_count = self.asks.count
        levels.bid_changed = self.bid_changed
        levels.ask_changed = self.ask_changed

    def replace_levels(self, bids, asks) -> None:
        """Replace the book by lists of (price, size), in any order; the last of equals wins.

        Raises ValueError for a level that no venue may send; then nothing changed.
        """
        self._apply(bids, asks, True)

    def update_levels(self, bids, asks) -> None:
        """Apply lists of (price, size), each an absolute quantity; 0 removes the level.

        Raises ValueError for a level that no venue may send; then nothing changed.
        """
        self._apply(bids, asks, False)

    def update_bid(self, double price, double size) -> None:
        """Set the absolute quantity at one price; 0 removes the level.

        As update_levels([(price, size)], []), without the lists.
        """
        self._update_one(True, price, size)

    def update_ask(self, double price, double size) -> None:
        """Set the absolute quantity at one price, as update_bid()."""
        self._update_one(False, price, size)

    cdef int _update_one(self, bint is_bid, double price, double size) except -1:
        cdef Level level
        level.price = price
        level.size = size
        check_level(&level)
        if self.update(&level, is_bid, &level, not is_bid) < 0:
            raise MemoryError
        return 0

    def _apply(self, bids, asks, bint whole):
        cdef Level few[ON_STACK]
        cdef Level *levels = few
        cdef Py_ssize_t bid_count = len(bids)
        cdef Py_ssize_t ask_count = len(asks)
        cdef int failed
        if bid_count + ask_count > ON_STACK:
            levels = <Level *> malloc((bid_count + ask_count) * sizeof(Level))
            if levels == NULL:
                raise MemoryError
        try:
            take_levels(bids, levels, bid_count)
            take_levels(asks, levels + bid_count, ask_count)
            if whole:
                failed = self.replace(levels, bid_count, levels + bid_count, ask_count)
            else:
                failed = self.update(levels, bid_count, levels + bid_count, ask_count)
            if failed:
                raise MemoryError
        finally:
            if levels != few:
                free(levels)

    def bid_levels(self, limit=None) -> list:
        """Return up to *limit* bids as (price, size), best first."""
        return side_levels(&self.bids, limit)

    def ask_levels(self, limit=None) -> list:
        """Return up to *limit* asks as (price, size), best first."""
        return side_levels(&self.asks, limit)

    @property
    def best_bid(self):
        """The best bid as (price, size), or None."""
        if self.bids.count == 0:
            return None
        return self.bids.prices[self.bids.count - 1], self.bids.sizes[self.bids.count - 1]

    @property
    def best_ask(self):
        """The best ask as (price, size), or None."""
        if self.asks.count == 0:
            return None
        return self.asks.prices[self.asks.count - 1], self.asks.sizes[self.asks.count - 1]

    @property
    def top(self):
        """The best levels: bid price and size, ask price and size; NaN and 0 for none."""
        cdef int32_t bid = self.bids.count - 1
        cdef int32_t ask = self.asks.count - 1
        return (
            self.bids.prices[bid] if bid >= 0 else NAN,
            self.bids.sizes[bid] if bid >= 0 else 0.0,
            self.asks.prices[ask] if ask >= 0 else NAN,
            self.asks.sizes[ask] if ask >= 0 else 0.0,
        )

    def __len__(self) -> int:
        return self.bids.count + self.asks.count

    def __repr__(self) -> str:
        return f"<OrderBook depth={self.depth} bid={self.best_bid} ask={self.best_ask}>"

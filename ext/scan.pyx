"""The hot messages read straight from a frame's bytes: no Python objects, no allocation.

Recognises ``orderbook``, ``orderbook_update`` and ``trade`` as venues send them: compact
JSON, the keys in the reference's order, plain numbers, texts without escapes. Whatever
differs by a byte is NOT_HOT, so that a decoder of JSON says what it is; what is recognised
means, to the bit, what that decoder would have read.

Numbers are exact: an integer of at most 2**53 divided by a power of ten of at most 10**22
is rounded once (W. D. Clinger, "How to read floating point numbers accurately", 1990).
Longer ones are NOT_HOT. They are taken two digits at a time: eight at a time, as words, or
without branches that depend on the length, was slower on real markets.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef extern from *:
    """
    /* Words are read with the first byte lowest; elsewhere every message is NOT_HOT. */
    #define FH_LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
    #define fh_zeros(word) __builtin_ctzll(word)
    #define FH_ONES 0x0101010101010101ULL
    #define FH_HIGHS 0x8080808080808080ULL
    #define FH_EXACT (1ULL << 53)
    #define FH_TIME_LIMIT (1LL << 43)           /* as in codec.pyx */

    static const double fh_divisors[] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8,
        1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    };
    """
    const bint LITTLE "FH_LITTLE"
    const uint64_t ONES "FH_ONES"
    const uint64_t HIGHS "FH_HIGHS"
    const uint64_t EXACT "FH_EXACT"
    const int64_t TIME_LIMIT_MS "FH_TIME_LIMIT"
    const double *DIVISORS "fh_divisors"
    int zeros_below "fh_zeros"(uint64_t word) noexcept nogil


cdef enum:
    WORD = 8
    SHORTEST = 96               # bytes; below that, no message with all its keys
    ROOM = 32                   # more than any text that starts() looks for in the middle
    MOST_DIGITS = 16            # before and after the point, together
    FEW = 16                    # levels to begin with


# ── words ─────────────────────────────────────────────────────────────────────────────


cdef inline uint64_t word_at(const char *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, WORD)
    return word


cdef inline bint starts(const char *at, const char *text, Py_ssize_t size) noexcept nogil:
    """Tell whether *size* bytes are those of *text*; *size*, 8 or more, is a constant."""
    cdef uint64_t differ = word_at(at + size - WORD) ^ word_at(text + size - WORD)
    cdef Py_ssize_t i
    for i in range(0, size - WORD, 8):
        differ |= word_at(at + i) ^ word_at(text + i)
    return differ == 0


# ── values: each returns where it ends, before the end of the payload, or NULL ────────


cdef inline const char *digits(const char *at, uint64_t *value) noexcept nogil:
    """Go on with *value* for up to 18 digits; a byte that is none ends the payload."""
    cdef const char *limit = at + MOST_DIGITS
    cdef unsigned int one, two
    while at <= limit:
        one = <unsigned char> at[0] - <unsigned int> c"0"
        if one > 9:
            break
        two = <unsigned char> at[1] - <unsigned int> c"0"
        if two > 9:
            value[0] = value[0] * 10 + one
            return at + 1
        value[0] = value[0] * 100 + (one * 10 + two)
        at += 2
    return at


cdef inline const char *whole(const char *at, int64_t *out) noexcept nogil:
    """Read an integer of up to 16 digits."""
    cdef uint64_t value = 0
    cdef const char *end = digits(at, &value)
    if end == at or end - at > MOST_DIGITS or at[0] == c"0" and end - at > 1:
        return NULL
    out[0] = <int64_t> value
    return end


cdef inline const char *number(const char *at, double *out) noexcept nogil:
    """Read a number of up to 16 digits."""
    cdef uint64_t value = 0
    cdef const char *point = digits(at, &value)
    cdef const char *end
    if point == at or point - at > MOST_DIGITS or at[0] == c"0" and point - at > 1:
        return NULL
    if point[0] != c".":
        if value > EXACT:
            return NULL
        out[0] = <double> <int64_t> value
        return point
    end = digits(point + 1, &value)
    if end == point + 1 or end - at > MOST_DIGITS + 1 or value > EXACT:
        return NULL
    out[0] = <double> <int64_t> value / DIVISORS[end - point - 1]
    return end


cdef inline const char *text(const char *at, const char *end, Text *out) noexcept nogil:
    """Read a text of plain ASCII up to its closing quote, which is where it ends."""
    cdef uint64_t word, quotes, slashes, others
    out.data = at
    while end - at >= WORD:
        word = word_at(at)
        quotes = word ^ ONES * c'"'
        slashes = word ^ ONES * c"\\"
        # The lowest bit set of each is right: borrows only go up.
        quotes = (quotes - ONES) & ~quotes & HIGHS
        slashes = (slashes - ONES) & ~slashes & HIGHS
        others = ((word - ONES * 0x20) & ~word | word) & HIGHS
        others |= slashes
        if quotes | others:
            if not quotes or (others and zeros_below(others) < zeros_below(quotes)):
                return NULL
            at += zeros_below(quotes) >> 3
            out.size = at - out.data
            return at
        at += WORD
    return NULL


cdef inline const char *levels(const char *at, Levels *out) noexcept nogil:
    """Read the levels of a side, from behind its opening bracket to behind its closing one."""
    cdef double price, size
    out.count = 0
    if at[0] == c"]":
        return at + 1
    while True:
        if at[0] != c"[":
            return NULL
        at = number(at + 1, &price)
        if at == NULL or at[0] != c"," or not price > 0.0:
            return NULL
        at = number(at + 1, &size)
        if at == NULL or at[0] != c"]":
            return NULL
        if out.count == out.capacity and reserve(out, out.count + 1) < 0:
            return NULL
        out.levels[out.count].price = price
        out.levels[out.count].size = size
        out.count += 1
        if at[1] == c"]":
            return at + 2
        if at[1] != c",":
            return NULL
        at += 2


cdef inline bint ends(const char *at, const char *end, Scanned *out) noexcept nogil:
    """Read channel and timestamp, with which all messages of a channel end."""
    if end - at < ROOM or not starts(at, b'},"channel":"', 13):
        return False
    at = text(at + 13, end, &out.channel)
    if at == NULL or end - at < 16 or not starts(at, b'","timestamp":', 14):
        return False
    at = whole(at + 14, &out.timestamp_ms)
    return at == end - 1 and at[0] == c"}" and out.timestamp_ms < TIME_LIMIT_MS


# ── messages ──────────────────────────────────────────────────────────────────────────


cdef inline bint book(const char *at, const char *end, Scanned *out) noexcept nogil:
    """Read a book message from its symbol on."""
    at = text(at, end, &out.symbol)
    if at == NULL or end - at < ROOM or not starts(at, b'","bids":[', 10):
        return False
    at = levels(at + 10, &out.bids)
    if at == NULL or end - at < ROOM or not starts(at, b',"asks":[', 9):
        return False
    at = levels(at + 9, &out.asks)
    if at == NULL or end - at < ROOM or not starts(at, b',"sequence":', 12):
        return False
    at = whole(at + 12, &out.sequence)
    return at != NULL and <uint64_t> out.sequence < EXACT and ends(at, end, out)


cdef inline bint trade(const char *at, const char *end, Scanned *out) noexcept nogil:
    """Read a trade from its symbol on."""
    at = text(at, end, &out.symbol)
    if at == NULL or end - at < ROOM or not starts(at, b'","price":', 10):
        return False
    at = number(at + 10, &out.price)
    if at == NULL or end - at < ROOM or not starts(at, b',"size":', 8):
        return False
    at = number(at + 8, &out.size)
    if at == NULL or end - at < ROOM or not (out.price > 0.0 and out.size > 0.0):
        return False
    out.buy = starts(at, b',"side":"buy","trade_id":"', 26)
    if not out.buy and not starts(at, b',"side":"sell","trade_id":"', 27):
        return False
    at = text(at + (26 if out.buy else 27), end, &out.trade_id)
    if at == NULL or end - at < ROOM or not starts(at, b'","trade_time":', 15):
        return False
    at = whole(at + 15, &out.trade_ms)
    return at != NULL and out.trade_ms < TIME_LIMIT_MS and ends(at, end, out)


cdef Hot scan(const char *payload, Py_ssize_t size, Scanned *out) noexcept nogil:
    """Read a message that is hot and to the letter; NOT_HOT for all else.

    Texts are borrowed from *payload*, levels are kept in *out* until the next call.
    """
    cdef const char *end = payload + size
    # The brace is what every number ends before, at the latest.
    if not LITTLE or size < SHORTEST or payload[size - 1] != c"}":
        return NOT_HOT
    if starts(payload, b'{"type":"orderbook_update","data":{"symbol":"', 45):
        return HOT_UPDATE if book(payload + 45, end, out) else NOT_HOT
    if starts(payload, b'{"type":"trade","data":{"symbol":"', 34):
        return HOT_TRADE if trade(payload + 34, end, out) else NOT_HOT
    if starts(payload, b'{"type":"orderbook","data":{"symbol":"', 38):
        return HOT_SNAPSHOT if book(payload + 38, end, out) else NOT_HOT
    return NOT_HOT


# ── memory ────────────────────────────────────────────────────────────────────────────


cdef int reserve(Levels *out, Py_ssize_t count) noexcept nogil:
    """Make room for *count* levels; -1 without memory, and what is there stays."""
    cdef Py_ssize_t size = 2 * count if count > FEW else FEW
    cdef Level *grown
    if count <= out.capacity:
        return 0
    grown = <Level *> realloc(out.levels, size * sizeof(Level))
    if grown == NULL:
        return -1
    out.levels = grown
    out.capacity = <int> size
    return 0


cdef void release(Levels *levels) noexcept nogil:
    free(levels.levels)
    levels.levels = NULL
    levels.count = levels.capacity = 0

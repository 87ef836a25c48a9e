"""The records that travel through shared memory, and what their bits mean.

A record's first word belongs to the ring that carries it (`seq`); a producer leaves it
zero. Every `_ns` is UTC: CLOCK_MONOTONIC plus the fixed offset of the segment's meta
page, so it never steps and turns back into monotonic time exactly.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cpdef enum Flags:
    LIVE = 0x01                 # in sequence with the venue, and sound
    STALE = 0x02                # may not be what the venue has now
    GAP = 0x04                  # updates were lost; stays until the next snapshot
    CROSSED = 0x08              # bid >= ask: what the venue says, but not LIVE
    NO_BID = 0x10
    NO_ASK = 0x20
    SNAPSHOT = 0x40             # this record came from a snapshot
    MARKET_CLOSED = 0x80        # only where the venue tells

cdef enum:
    EPOCH_SHIFT = 8             # bits 8-15 of Quote.flags and Trade.flags: session epoch mod 256


cpdef enum TradeFlags:
    BUY = 0x01                  # the aggressor bought
    SELL = 0x02                 # the aggressor sold
    ID_CUT = 0x04               # the venue's id is longer than 16 bytes


cpdef enum Interval:
    M1 = 0
    M5 = 1
    M15 = 2
    H1 = 3
    H4 = 4
    D1 = 5
    W1 = 6

cdef enum:
    INTERVALS = 7


cdef struct Quote:              # 64 bytes
    uint64_t seq                # the slot's own word: n + 1 when record n is complete
    int64_t venue_ns            # the venue's clock; 0 if it sends none
    int64_t recv_ns             # our clock, when the bytes were read
    uint16_t instrument         # index into the directory
    uint16_t flags
    uint32_t sequence           # low 32 bits of the venue's sequence
    double bid_price            # the wire's JSON number, unchanged; NaN beside NO_BID
    double bid_size
    double ask_price
    double ask_size


cdef struct Trade:              # 64 bytes
    uint64_t seq
    int64_t venue_ns            # the venue's trade_time
    int64_t recv_ns
    uint16_t instrument
    uint16_t flags              # TradeFlags, session epoch in bits 8-15
    char trade_id[16]           # not terminated when all 16 are used
    uint32_t reserved
    double price
    double size


cdef struct Ticker:             # 128 bytes; NaN where the venue does not know
    uint64_t seq
    int64_t venue_ns
    int64_t recv_ns
    uint16_t instrument
    uint16_t flags
    uint32_t reserved
    double last_price
    double last_size
    double bid
    double ask
    double volume
    double daily_change
    double daily_change_percent
    double high
    double low
    double open
    uint64_t pad[2]


cdef struct Candle:             # 64 bytes
    int64_t start_ns            # of the bucket, inclusive; 0 before the first candle
    int64_t end_ns              # exclusive
    int64_t recv_ns
    double open
    double high
    double low
    double close
    double volume


cdef struct LevelsView:
    # One book's sides, lent for the length of a call. Levels are sorted so that the best is
    # last: rank r (0 = best) of the bids is bid_prices[bid_count - 1 - r].
    const double *bid_prices
    const double *bid_sizes
    const double *ask_prices
    const double *ask_sizes
    int32_t bid_count
    int32_t ask_count
    int32_t bid_changed         # the best rank that this change touched; INT32_MAX: none
    int32_t ask_changed

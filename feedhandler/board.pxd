"""The latest of everything, per instrument: one seqlocked entry each, one writer.

Late joiners get a full picture at once, and slow readers skip what is outdated.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from feedhandler.records cimport Candle, LevelsView, Quote, Ticker
from feedhandler.segment cimport SegmentReader, SegmentWriter

#    0x2000                       slots_offset          + entry_size
#    +--------+--------+----      +---------------------+---------------------+----
#    | symbol | symbol | …        | entry of symbol 0   | entry of symbol 1   | …
#    +--------+--------+----      +---------------------+---------------------+----
#      32 bytes each, zero-padded; head in the live page says how many are valid


cpdef enum EntryStatus:
    LISTED = 1
    REMOVED = 2                 # nothing more will come, unless it is added again


cdef enum:
    INTERVALS_KEPT = 7
    LEVELS_MAX = 100
    SYMBOL_BYTES = 32
    INSTRUMENTS_MAX = 65536     # Quote.instrument has 16 bits


cdef struct Level:
    double price                # NaN below the last level
    double size


cdef struct Entry:              # 704 bytes, then bids[levels], asks[levels]; best first
    uint64_t seq                # times written; with BUSY while it is being written again
    uint32_t status             # EntryStatus
    uint32_t reserved
    uint64_t sequence           # the venue's, all of it
    uint32_t session_epoch
    int32_t bid_count           # levels kept below; the book may have more
    int32_t ask_count
    uint32_t pad[7]
    Quote quote                 # the words seq of quote and ticker are not used
    Ticker ticker
    Candle candles[7]


cdef class Board(SegmentWriter):
    cdef char *entries          # NULL when there is no segment: nothing is stored
    cdef uint32_t count         # instruments added
    cdef uint32_t entry_size
    cdef readonly int levels
    cdef readonly int capacity
    cdef dict ids
    cdef list names

    # An instrument that was not added is ignored. *levels* may be NULL: keep what is there.
    cdef void store_quote(
        self, const Quote *quote, uint64_t sequence, uint32_t epoch, const LevelsView *levels
    ) noexcept nogil
    cdef void store_ticker(self, const Ticker *ticker) noexcept nogil
    cdef void store_candle(self, int instrument, int interval, const Candle *candle) noexcept nogil


cdef class BoardReader(SegmentReader):
    cdef const char *entries
    cdef uint32_t capacity
    cdef uint32_t entry_size
    cdef readonly int levels
    cdef dict ids
    cdef list names

    # Copy the first *words* words of an entry as they were at one moment. Returns the
    # entry's seq, or 0 when the writer would not stop writing, or died while it was.
    cdef uint64_t read(self, uint32_t instrument, void *out, size_t words) noexcept nogil

"""A strategy in the feed handler's process: it sees every event before it is published."""

from libc.stdint cimport uint32_t, uint64_t

from feedhandler cimport Flags, LevelsView, Quote, Sink, Trade, require_abi

cdef extern from "feedhandler.h":
    struct fh_quote:            # the same record, as other languages see it
        pass

# First of all: with another layout than we were compiled for, nothing below is true.
require_abi()


cdef class Strategy(Sink):
    """Counts what it sees; raises on quote number *fail_at*, if that is not 0."""

    cdef readonly uint64_t quotes
    cdef readonly uint64_t live
    cdef readonly uint64_t trades
    cdef readonly uint64_t last_sequence
    cdef readonly double bid_price
    cdef readonly int deepest
    cdef uint64_t fail_at

    def __init__(self, fail_at: int = 0):
        self.fail_at = fail_at

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        self.quotes += 1
        if quote.flags & Flags.LIVE:
            self.live += 1
        self.bid_price = quote.bid_price
        self.last_sequence = sequence
        if levels != NULL and levels.bid_count > self.deepest:
            self.deepest = levels.bid_count
        if self.quotes == self.fail_at:
            raise RuntimeError(f"quote {self.quotes} is not to my liking")
        return 0

    cdef int on_trade(self, const Trade *trade) except -1:
        self.trades += 1
        return 0


def record_sizes() -> tuple[int, int]:
    """Return the bytes of a quote, as Cython and as C have it."""
    return sizeof(Quote), sizeof(fh_quote)

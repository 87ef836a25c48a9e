"""The Sink that writes the rings and the board: what other processes of the machine see."""

from libc.stdint cimport uint32_t, uint64_t

from feedhandler.records cimport Candle, LevelsView, Quote, Ticker, Trade


cdef class Publisher(Sink):
    """Write quotes and trades to their rings and the latest of everything to the board.

    The only writer of all three. Never fails, blocks or allocates.
    """

    def __cinit__(self, Ring quotes not None, Ring trades not None, Board board not None):
        self.quotes = quotes
        self.trades = trades
        self.board = board

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        self.quotes.publish(quote)
        self.board.store_quote(quote, sequence, epoch, levels)
        return 0

    cdef int on_depth(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        self.board.store_quote(quote, sequence, epoch, levels)
        return 0

    cdef int on_trade(self, const Trade *trade) except -1:
        self.trades.publish(trade)
        return 0

    cdef int on_ticker(self, const Ticker *ticker) except -1:
        self.board.store_ticker(ticker)
        return 0

    cdef int on_candle(self, int instrument, int interval, const Candle *candle) except -1:
        self.board.store_candle(instrument, interval, candle)
        return 0

    cdef int flush(self) except -1:
        self.quotes.wake()
        self.trades.wake()
        return 0

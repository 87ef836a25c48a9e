"""Where normalised events go: the Sink, two ways to combine it, and the Tap of raw frames."""

from typing import NamedTuple

from feedhandler.records import INTERVAL_NAMES


cdef class Sink:
    """Take normalised events on the loop's thread; override what you need (in Cython).

    The default of every method is to ignore the event. For Python see PythonSink.
    """

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        return 0

    cdef int on_depth(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        return 0

    cdef int on_trade(self, const Trade *trade) except -1:
        return 0

    cdef int on_ticker(self, const Ticker *ticker) except -1:
        return 0

    cdef int on_candle(self, int instrument, int interval, const Candle *candle) except -1:
        return 0

    cdef int flush(self) except -1:
        return 0


cdef class Tee(Sink):
    """Give every event to *first*, then to *second*.

    What *first* raises is given to *on_error* and goes no further: an embedder's mistake
    must not keep a quote from everybody else.
    """

    def __cinit__(self, Sink first not None, Sink second not None, on_error not None):
        self.first = first
        self.second = second
        self.on_error = on_error

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        try:
            self.first.on_quote(quote, sequence, epoch, levels)
        except Exception as error:
            self.on_error(error)
        return self.second.on_quote(quote, sequence, epoch, levels)

    cdef int on_depth(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        try:
            self.first.on_depth(quote, sequence, epoch, levels)
        except Exception as error:
            self.on_error(error)
        return self.second.on_depth(quote, sequence, epoch, levels)

    cdef int on_trade(self, const Trade *trade) except -1:
        try:
            self.first.on_trade(trade)
        except Exception as error:
            self.on_error(error)
        return self.second.on_trade(trade)

    cdef int on_ticker(self, const Ticker *ticker) except -1:
        try:
            self.first.on_ticker(ticker)
        except Exception as error:
            self.on_error(error)
        return self.second.on_ticker(ticker)

    cdef int on_candle(self, int instrument, int interval, const Candle *candle) except -1:
        try:
            self.first.on_candle(instrument, interval, candle)
        except Exception as error:
            self.on_error(error)
        return self.second.on_candle(instrument, interval, candle)

    cdef int flush(self) except -1:
        try:
            self.first.flush()
        except Exception as error:
            self.on_error(error)
        return self.second.flush()


class QuoteEvent(NamedTuple):
    """A quote as a Python sink sees it; see records.pxd for the units."""

    instrument: int
    flags: int
    sequence: int
    epoch: int
    venue_ns: int
    recv_ns: int
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float


class TradeEvent(NamedTuple):
    """A trade as a Python sink sees it."""

    instrument: int
    flags: int
    venue_ns: int
    recv_ns: int
    trade_id: str
    price: float
    size: float


class TickerEvent(NamedTuple):
    """A ticker as a Python sink sees it; NaN where the venue does not know."""

    instrument: int
    venue_ns: int
    recv_ns: int
    last_price: float
    last_size: float
    bid: float
    ask: float
    volume: float
    daily_change: float
    daily_change_percent: float
    high: float
    low: float
    open: float


class CandleEvent(NamedTuple):
    """A candle as a Python sink sees it."""

    instrument: int
    interval: str
    start_ns: int
    end_ns: int
    recv_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


cdef class PythonSink(Sink):
    """A Sink to subclass in Python: override quote, trade, ticker or candle.

    Called on the loop's thread before the event is published; costs about a
    microsecond an event, which a Cython Sink does not.
    """

    def quote(self, event):
        """Take a QuoteEvent."""

    def trade(self, event):
        """Take a TradeEvent."""

    def ticker(self, event):
        """Take a TickerEvent."""

    def candle(self, event):
        """Take a CandleEvent."""

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        self.quote(QuoteEvent(
            quote.instrument, quote.flags & 0xFF, sequence, epoch,
            quote.venue_ns, quote.recv_ns,
            quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size,
        ))
        return 0

    cdef int on_trade(self, const Trade *trade) except -1:
        self.trade(TradeEvent(
            trade.instrument, trade.flags & 0xFF, trade.venue_ns, trade.recv_ns,
            trade.trade_id[:16].rstrip(b"\0").decode("utf-8", "replace"),
            trade.price, trade.size,
        ))
        return 0

    cdef int on_ticker(self, const Ticker *ticker) except -1:
        self.ticker(TickerEvent(
            ticker.instrument, ticker.venue_ns, ticker.recv_ns,
            ticker.last_price, ticker.last_size, ticker.bid, ticker.ask, ticker.volume,
            ticker.daily_change, ticker.daily_change_percent,
            ticker.high, ticker.low, ticker.open,
        ))
        return 0

    cdef int on_candle(self, int instrument, int interval, const Candle *candle) except -1:
        self.candle(CandleEvent(
            instrument, INTERVAL_NAMES[interval],
            candle.start_ns, candle.end_ns, candle.recv_ns,
            candle.open, candle.high, candle.low, candle.close, candle.volume,
        ))
        return 0


cdef class Tap:
    """See every raw frame before it is decoded; override on_frame (in Cython)."""

    cdef int on_frame(self, const char *payload, Py_ssize_t size, int64_t recv_ns) except -1:
        return 0

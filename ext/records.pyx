"""The records that travel through shared memory, as numpy dtypes and flag names.

The offsets below are those of the structs in records.pxd, checked when this is imported.
"""

import numpy as np

from feedhandler.records cimport Candle, Quote, Ticker, Trade


def _layout(itemsize: int, *fields: tuple[str, str, int]):
    names, formats, offsets = zip(*fields)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
    )


QUOTE = _layout(
    64,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("instrument", "<u2", 24),
    ("flags", "<u2", 26),
    ("sequence", "<u4", 28),
    ("bid_price", "<f8", 32),
    ("bid_size", "<f8", 40),
    ("ask_price", "<f8", 48),
    ("ask_size", "<f8", 56),
)
TRADE = _layout(
    64,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("instrument", "<u2", 24),
    ("flags", "<u2", 26),
    ("trade_id", "S16", 28),
    ("price", "<f8", 48),
    ("size", "<f8", 56),
)
TICKER = _layout(
    128,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("instrument", "<u2", 24),
    ("flags", "<u2", 26),
    ("last_price", "<f8", 32),
    ("last_size", "<f8", 40),
    ("bid", "<f8", 48),
    ("ask", "<f8", 56),
    ("volume", "<f8", 64),
    ("daily_change", "<f8", 72),
    ("daily_change_percent", "<f8", 80),
    ("high", "<f8", 88),
    ("low", "<f8", 96),
    ("open", "<f8", 104),
)
CANDLE = _layout(
    64,
    ("start_ns", "<i8", 0),
    ("end_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("open", "<f8", 24),
    ("high", "<f8", 32),
    ("low", "<f8", 40),
    ("close", "<f8", 48),
    ("volume", "<f8", 56),
)

INTERVAL_NAMES = ("1m", "5m", "15m", "1h", "4h", "1d", "1w")


def flag_names(flags: int) -> list[str]:
    """Name the bits of a quote's *flags*, lowest first; the session epoch is left out."""
    return [flag.name for flag in Flags if flags & flag]


def trade_flag_names(flags: int) -> list[str]:
    """Name the bits of a trade's *flags*, lowest first."""
    return [flag.name for flag in TradeFlags if flags & flag]


cdef int _offset(const void *record, const void *field) noexcept:
    return <int> (<const char *> field - <const char *> record)


def struct_layout() -> dict[str, dict[str, int]]:
    """Return what the C compiler made of the structs: offsets of all fields, and the size."""
    cdef Quote quote
    cdef Trade trade
    cdef Ticker ticker
    cdef Candle candle
    return {
        "QUOTE": {
            "seq": _offset(&quote, &quote.seq),
            "venue_ns": _offset(&quote, &quote.venue_ns),
            "recv_ns": _offset(&quote, &quote.recv_ns),
            "instrument": _offset(&quote, &quote.instrument),
            "flags": _offset(&quote, &quote.flags),
            "sequence": _offset(&quote, &quote.sequence),
            "bid_price": _offset(&quote, &quote.bid_price),
            "bid_size": _offset(&quote, &quote.bid_size),
            "ask_price": _offset(&quote, &quote.ask_price),
            "ask_size": _offset(&quote, &quote.ask_size),
            "itemsize": sizeof(Quote),
        },
        "TRADE": {
            "seq": _offset(&trade, &trade.seq),
            "venue_ns": _offset(&trade, &trade.venue_ns),
            "recv_ns": _offset(&trade, &trade.recv_ns),
            "instrument": _offset(&trade, &trade.instrument),
            "flags": _offset(&trade, &trade.flags),
            "trade_id": _offset(&trade, &trade.trade_id),
            "price": _offset(&trade, &trade.price),
            "size": _offset(&trade, &trade.size),
            "itemsize": sizeof(Trade),
        },
        "TICKER": {
            "seq": _offset(&ticker, &ticker.seq),
            "venue_ns": _offset(&ticker, &ticker.venue_ns),
            "recv_ns": _offset(&ticker, &ticker.recv_ns),
            "instrument": _offset(&ticker, &ticker.instrument),
            "flags": _offset(&ticker, &ticker.flags),
            "last_price": _offset(&ticker, &ticker.last_price),
            "last_size": _offset(&ticker, &ticker.last_size),
            "bid": _offset(&ticker, &ticker.bid),
            "ask": _offset(&ticker, &ticker.ask),
            "volume": _offset(&ticker, &ticker.volume),
            "daily_change": _offset(&ticker, &ticker.daily_change),
            "daily_change_percent": _offset(&ticker, &ticker.daily_change_percent),
            "high": _offset(&ticker, &ticker.high),
            "low": _offset(&ticker, &ticker.low),
            "open": _offset(&ticker, &ticker.open),
            "itemsize": sizeof(Ticker),
        },
        "CANDLE": {
            "start_ns": _offset(&candle, &candle.start_ns),
            "end_ns": _offset(&candle, &candle.end_ns),
            "recv_ns": _offset(&candle, &candle.recv_ns),
            "open": _offset(&candle, &candle.open),
            "high": _offset(&candle, &candle.high),
            "low": _offset(&candle, &candle.low),
            "close": _offset(&candle, &candle.close),
            "volume": _offset(&candle, &candle.volume),
            "itemsize": sizeof(Candle),
        },
    }

"""The records that travel through shared memory, as numpy dtypes and flag names.

The offsets below are those of the structs in records.pxd, checked when this is imported.
"""

import numpy as np

from feedhandler.records cimport (
    Account,
    Candle,
    Command,
    Fill,
    Notice,
    OrderEvent,
    Quote,
    Ticker,
    Trade,
)


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

ORDER_EVENT = _layout(
    192,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("created_ns", "<i8", 24),
    ("updated_ns", "<i8", 32),
    ("instrument", "<u2", 40),
    ("flags", "<u2", 42),
    ("side", "|u1", 44),
    ("type", "|u1", 45),
    ("status", "|u1", 46),
    ("tif", "|u1", 47),
    ("order_id", "S32", 48),
    ("client_id", "S32", 80),
    ("symbol", "S32", 112),
    ("quantity", "<f8", 144),
    ("filled", "<f8", 152),
    ("remaining", "<f8", 160),
    ("price", "<f8", 168),
    ("stop_price", "<f8", 176),
    ("pending", "|u1", 184),
    ("cause", "|u1", 185),
    ("reason", "<u2", 186),
    ("operation", "|u1", 188),
)
FILL = _layout(
    192,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("instrument", "<u2", 24),
    ("flags", "<u2", 26),
    ("side", "|u1", 28),
    ("trade_id", "S32", 32),
    ("order_id", "S32", 64),
    ("client_id", "S32", 96),
    ("symbol", "S32", 128),
    ("price", "<f8", 160),
    ("quantity", "<f8", 168),
    ("fee", "<f8", 176),
    ("fee_currency", "S8", 184),
)
ACCOUNT = _layout(
    128,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("instrument", "<u2", 24),
    ("flags", "<u2", 26),
    ("kind", "|u1", 28),
    ("rows_left", "<u2", 30),
    ("name", "S32", 32),
    ("available", "<f8", 64),
    ("reserved", "<f8", 72),
    ("total", "<f8", 80),
    ("quantity", "<f8", 88),
    ("average_price", "<f8", 96),
    ("unrealized_pnl", "<f8", 104),
    ("realized_pnl", "<f8", 112),
)
NOTICE = _layout(
    1024,
    ("seq", "<u8", 0),
    ("venue_ns", "<i8", 8),
    ("recv_ns", "<i8", 16),
    ("triggered_ns", "<i8", 24),
    ("instrument", "<u2", 32),
    ("flags", "<u2", 34),
    ("kind", "|u1", 36),
    ("threshold", "<f8", 40),
    ("current_value", "<f8", 48),
    ("id", "S32", 56),
    ("level", "S16", 88),
    ("symbol", "S32", 104),
    ("condition", "S32", 136),
    ("title", "S128", 168),
    ("link", "S216", 296),
    ("message", "S512", 512),
)
COMMAND = _layout(
    192,
    ("seq", "<u8", 0),
    ("writer_epoch", "<u8", 8),
    ("deadline_ns", "<i8", 16),
    ("sent_ns", "<i8", 24),
    ("kind", "|u1", 32),
    ("side", "|u1", 33),
    ("type", "|u1", 34),
    ("tif", "|u1", 35),
    ("client_id", "S32", 40),
    ("order_id", "S32", 72),
    ("symbol", "S32", 104),
    ("quantity", "<f8", 136),
    ("price", "<f8", 144),
    ("stop_price", "<f8", 152),
)

# The streams of a feed with an API key, and what they carry.
PRIVATE_STREAMS = {
    "orders": ORDER_EVENT,
    "fills": FILL,
    "account": ACCOUNT,
    "notices": NOTICE,
}

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
    cdef OrderEvent order
    cdef Fill fill
    cdef Account account
    cdef Notice notice
    cdef Command command
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
        "ORDER_EVENT": {
            "seq": _offset(&order, &order.seq),
            "venue_ns": _offset(&order, &order.venue_ns),
            "recv_ns": _offset(&order, &order.recv_ns),
            "created_ns": _offset(&order, &order.created_ns),
            "updated_ns": _offset(&order, &order.updated_ns),
            "instrument": _offset(&order, &order.instrument),
            "flags": _offset(&order, &order.flags),
            "side": _offset(&order, &order.side),
            "type": _offset(&order, &order.type),
            "status": _offset(&order, &order.status),
            "tif": _offset(&order, &order.tif),
            "order_id": _offset(&order, &order.order_id),
            "client_id": _offset(&order, &order.client_id),
            "symbol": _offset(&order, &order.symbol),
            "quantity": _offset(&order, &order.quantity),
            "filled": _offset(&order, &order.filled),
            "remaining": _offset(&order, &order.remaining),
            "price": _offset(&order, &order.price),
            "stop_price": _offset(&order, &order.stop_price),
            "pending": _offset(&order, &order.pending),
            "cause": _offset(&order, &order.cause),
            "reason": _offset(&order, &order.reason),
            "operation": _offset(&order, &order.operation),
            "itemsize": sizeof(OrderEvent),
        },
        "FILL": {
            "seq": _offset(&fill, &fill.seq),
            "venue_ns": _offset(&fill, &fill.venue_ns),
            "recv_ns": _offset(&fill, &fill.recv_ns),
            "instrument": _offset(&fill, &fill.instrument),
            "flags": _offset(&fill, &fill.flags),
            "side": _offset(&fill, &fill.side),
            "trade_id": _offset(&fill, &fill.trade_id),
            "order_id": _offset(&fill, &fill.order_id),
            "client_id": _offset(&fill, &fill.client_id),
            "symbol": _offset(&fill, &fill.symbol),
            "price": _offset(&fill, &fill.price),
            "quantity": _offset(&fill, &fill.quantity),
            "fee": _offset(&fill, &fill.fee),
            "fee_currency": _offset(&fill, &fill.fee_currency),
            "itemsize": sizeof(Fill),
        },
        "ACCOUNT": {
            "seq": _offset(&account, &account.seq),
            "venue_ns": _offset(&account, &account.venue_ns),
            "recv_ns": _offset(&account, &account.recv_ns),
            "instrument": _offset(&account, &account.instrument),
            "flags": _offset(&account, &account.flags),
            "kind": _offset(&account, &account.kind),
            "rows_left": _offset(&account, &account.rows_left),
            "name": _offset(&account, &account.name),
            "available": _offset(&account, &account.available),
            "reserved": _offset(&account, &account.reserved),
            "total": _offset(&account, &account.total),
            "quantity": _offset(&account, &account.quantity),
            "average_price": _offset(&account, &account.average_price),
            "unrealized_pnl": _offset(&account, &account.unrealized_pnl),
            "realized_pnl": _offset(&account, &account.realized_pnl),
            "itemsize": sizeof(Account),
        },
        "NOTICE": {
            "seq": _offset(&notice, &notice.seq),
            "venue_ns": _offset(&notice, &notice.venue_ns),
            "recv_ns": _offset(&notice, &notice.recv_ns),
            "triggered_ns": _offset(&notice, &notice.triggered_ns),
            "instrument": _offset(&notice, &notice.instrument),
            "flags": _offset(&notice, &notice.flags),
            "kind": _offset(&notice, &notice.kind),
            "threshold": _offset(&notice, &notice.threshold),
            "current_value": _offset(&notice, &notice.current_value),
            "id": _offset(&notice, &notice.id),
            "level": _offset(&notice, &notice.level),
            "symbol": _offset(&notice, &notice.symbol),
            "condition": _offset(&notice, &notice.condition),
            "title": _offset(&notice, &notice.title),
            "link": _offset(&notice, &notice.link),
            "message": _offset(&notice, &notice.message),
            "itemsize": sizeof(Notice),
        },
        "COMMAND": {
            "seq": _offset(&command, &command.seq),
            "writer_epoch": _offset(&command, &command.writer_epoch),
            "deadline_ns": _offset(&command, &command.deadline_ns),
            "sent_ns": _offset(&command, &command.sent_ns),
            "kind": _offset(&command, &command.kind),
            "side": _offset(&command, &command.side),
            "type": _offset(&command, &command.type),
            "tif": _offset(&command, &command.tif),
            "client_id": _offset(&command, &command.client_id),
            "order_id": _offset(&command, &command.order_id),
            "symbol": _offset(&command, &command.symbol),
            "quantity": _offset(&command, &command.quantity),
            "price": _offset(&command, &command.price),
            "stop_price": _offset(&command, &command.stop_price),
            "itemsize": sizeof(Command),
        },
    }

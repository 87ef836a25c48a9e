"""Market data of one symbol: trades, depth windows, ticker and candles from reports.

A message is encoded once for its channel, and only while somebody is subscribed. The
sequence of a book counts per channel name and outlives its subscribers.
"""

from collections.abc import Callable, Iterable

import msgspec

from feedhandler.protocol.channels import INTERVAL_MS, Channel
from feedhandler.protocol.messages import (
    Candle,
    CandleData,
    Level,
    Orderbook,
    OrderbookData,
    OrderbookUpdate,
    Ticker,
    TickerData,
    Trade,
    TradeData,
)
from feedhandler.venue.candles import Candles, CandleTicks, bucket_start_ms
from feedhandler.venue.listing import Listing
from feedhandler.venue.market import Push
from feedhandler.venue.matching import Engine, Report, Side

__all__ = ["TICKER_EVERY_MS", "MarketData"]

TICKER_EVERY_MS = 100
DAY = "1d"
SIDE_NAMES = {Side.BUY.value: "buy", Side.SELL.value: "sell"}

# Plain integers: comparing with a member of an IntEnum takes five times as long.
BUY, SELL = Side.BUY.value, Side.SELL.value

Change = tuple[int, int, int]
Levels = list[tuple[int, int]]

encode = msgspec.json.Encoder().encode


class Window:
    """What a subscriber of one depth holds: the top levels of both sides.

    Fed every change, it returns exactly what turns the old top into the new one.
    """

    def __init__(self, engine: Engine, depth: int) -> None:
        self._engine = engine
        self._depth = depth
        self._held: list[dict[int, int]] = [{}, {}]
        self._edges: list[int | None] = [None, None]
        for side in (Side.BUY, Side.SELL):
            self._held[side] = dict(engine.top(side, depth))
            self._edges[side] = engine.price_at(side, depth - 1)

    def take(self, touched: list[Levels]) -> list[Levels]:
        """Return (price, lots) to send for each side, 0 lots for what left."""
        return [
            self._take_side(side, levels) if levels else []
            for side, levels in enumerate(touched)
        ]

    def _take_side(self, side: int, touched: Levels) -> Levels:
        edge = self._engine.price_at(side, self._depth - 1)
        if edge != self._edges[side]:
            self._edges[side] = edge
            return self._replace(side)
        held = self._held[side]
        sent = []
        for level in touched:
            price, lots = level
            if held.get(price, 0) == lots:
                continue
            if edge is not None and (price < edge if side == BUY else price > edge):
                continue
            if lots:
                held[price] = lots
            else:
                del held[price]
            sent.append(level)
        return sent

    def _replace(self, side: int) -> Levels:
        """Levels moved over the edge: compare the whole window."""
        old = self._held[side]
        new = dict(self._engine.top(side, self._depth))
        self._held[side] = new
        sent = [(price, 0) for price in old if price not in new]
        sent += [level for level in new.items() if old.get(level[0]) != level[1]]
        return sent


class BookChannel:
    """One orderbook channel: its window while open, its sequence for ever."""

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        # The snapshot before any update has 1: to some clients 0 means none.
        self.sequence = 1
        self.window: Window | None = None


class Day:
    """The running summary of a UTC day, in ticks and lots."""

    def __init__(self, previous_close: int | None) -> None:
        self.previous_close = previous_close
        self.last: int | None = None
        self.last_lots: int | None = None
        self.start_ms: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.open: int | None = None
        self.high: int | None = None
        self.low: int | None = None
        self.lots = 0

    def roll(self, now_ms: int) -> bool:
        """Begin the day of *now_ms*; tell whether it is another one."""
        start_ms = bucket_start_ms(DAY, now_ms)
        if start_ms == self.start_ms:
            return False
        if self.start_ms is not None and self.last is not None:
            self.previous_close = self.last
        self.start_ms = start_ms
        self._clear()
        return True

    def add(self, ticks: int, lots: int) -> None:
        """Count a trade of this day."""
        if self.open is None or self.high is None or self.low is None:
            self.open = self.high = self.low = ticks
        self.high = max(self.high, ticks)
        self.low = min(self.low, ticks)
        self.last, self.last_lots = ticks, lots
        self.lots += lots


class TickerChannel:
    """When the ticker may be sent again, and what was sent last."""

    def __init__(self) -> None:
        self.opened = False
        self.dirty = False
        self.next_ms = 0
        self.sent: bytes = b""


class MarketData:
    """The public channels of one symbol."""

    def __init__(self, listing: Listing, engine: Engine, most_depths: int = 64) -> None:
        self.listing = listing
        self._most_depths = most_depths
        self.on_book: Callable[[str, int], None] | None = None
        self._engine = engine
        self._books: dict[str, BookChannel] = {}
        self._open_books: list[BookChannel] = []
        self._open_candles: set[str] = set()
        self._trades_opened = False
        self._ticker = TickerChannel()
        self._candles = Candles()
        self._day = Day(listing.previous_close_ticks)

    def has_room(self, depth: int, others: Iterable[int] = ()) -> bool:
        """Say whether a depth may be opened beside *others*: each costs a window."""
        taken = {book.depth for book in self._open_books}.union(others)
        return depth in taken or len(taken) < self._most_depths

    # ── subscribers ───────────────────────────────────────────────────────────────

    def open(self, channel: Channel, name: str, now_ms: int) -> list[bytes]:
        """Start or keep producing; return the snapshot or ticker to begin with."""
        if channel.kind == "trades":
            self._trades_opened = True
        elif channel.kind == "candles":
            self._open_candles.add(channel.interval)
        elif channel.kind == "ticker":
            return [self._open_ticker(now_ms)]
        else:
            return [self._open_book(name, channel.depth, now_ms)]
        return []

    def release(self, channel: Channel, name: str) -> None:
        """Stop producing: nobody is subscribed any more."""
        if channel.kind == "trades":
            self._trades_opened = False
        elif channel.kind == "candles":
            self._open_candles.discard(channel.interval)
        elif channel.kind == "ticker":
            self._ticker.opened = False
        elif name in self._books:
            book = self._books[name]
            book.window = None
            self._open_books = [
                other for other in self._open_books if other is not book
            ]

    def _open_book(self, name: str, depth: int, now_ms: int) -> bytes:
        book = self._books.setdefault(name, BookChannel(name, depth))
        if book.window is None:
            book.window = Window(self._engine, depth)
            self._open_books.append(book)
        bids = self._levels(self._engine.top(Side.BUY, depth))
        asks = self._levels(self._engine.top(Side.SELL, depth))
        data = OrderbookData(self.listing.name, bids, asks, book.sequence)
        return encode(Orderbook(data, name, now_ms))

    def _open_ticker(self, now_ms: int) -> bytes:
        self._day.roll(now_ms)
        ticker = self._ticker
        data = self._ticker_data()
        if not ticker.opened:
            ticker.opened = True
            ticker.dirty = False
            ticker.sent = encode(data)
            ticker.next_ms = now_ms + TICKER_EVERY_MS
        return encode(Ticker(data, f"ticker:{self.listing.name}", now_ms))

    # ── events ────────────────────────────────────────────────────────────────────

    def take(self, report: Report, trade_ids: list[str], now_ms: int) -> list[Push]:
        """Turn what an operation did into messages: trades, then books, then ticker.

        *trade_ids* names the fills: the parties are told the same.
        """
        pushes: list[Push] = []
        if report.fills:
            pushes += self._close_candles(now_ms)
            self._day.roll(now_ms)
            for fill in report.fills:
                self._day.add(fill.price_ticks, fill.lots)
                self._candles.add(now_ms, fill.price_ticks, fill.lots)
            if self._trades_opened:
                pushes += self._trade_pushes(report, trade_ids, now_ms)
        changes = report.changes
        if changes:
            touched = by_side(changes)
            for book in self._open_books:
                pushes += self._book_pushes(book, touched, now_ms)
            self._ticker.dirty = True
        return pushes + self._ticker_pushes(now_ms)

    def advance(self, now_ms: int) -> list[Push]:
        """Return what time brings: closed candles, a ticker held back, a new day."""
        pushes = self._close_candles(now_ms)
        if self._day.start_ms is not None and self._day.roll(now_ms):
            self._ticker.dirty = True
        return pushes + self._ticker_pushes(now_ms)

    def due_ms(self) -> int | None:
        """Return when advance() next has something to say; None for not of itself."""
        due = [] if self._candles.due_ms is None else [self._candles.due_ms]
        if self._ticker.opened:
            if self._ticker.dirty:
                due.append(self._ticker.next_ms)
            if self._day.start_ms is not None:
                due.append(self._day.start_ms + INTERVAL_MS[DAY])
        return min(due, default=None)

    # ── messages ──────────────────────────────────────────────────────────────────

    def _trade_pushes(
        self, report: Report, trade_ids: list[str], now_ms: int
    ) -> list[Push]:
        symbol = self.listing.name
        name = f"trades:{symbol}"
        side = SIDE_NAMES[report.side]
        pushes = []
        for fill, trade_id in zip(report.fills, trade_ids, strict=True):
            data = TradeData(
                symbol,
                self.listing.tick.number(fill.price_ticks),
                self.listing.lot.number(fill.lots),
                side,  # type: ignore[arg-type]
                trade_id,
                now_ms,
            )
            pushes.append(Push(name, encode(Trade(data, name, now_ms))))
        return pushes

    def _book_pushes(
        self, book: BookChannel, touched: list[Levels], now_ms: int
    ) -> list[Push]:
        if book.window is None:
            return []
        bids, asks = book.window.take(touched)
        if not bids and not asks:
            return []
        book.sequence += 1
        if self.on_book is not None:
            self.on_book(book.name, book.sequence)
        data = OrderbookData(
            self.listing.name, self._levels(bids), self._levels(asks), book.sequence
        )
        return [Push(book.name, encode(OrderbookUpdate(data, book.name, now_ms)))]

    def _ticker_pushes(self, now_ms: int) -> list[Push]:
        ticker = self._ticker
        if not (ticker.opened and ticker.dirty and now_ms >= ticker.next_ms):
            return []
        ticker.dirty = False
        data = self._ticker_data()
        state = encode(data)
        if state == ticker.sent:
            return []
        ticker.sent = state
        ticker.next_ms = now_ms + TICKER_EVERY_MS
        name = f"ticker:{self.listing.name}"
        return [Push(name, encode(Ticker(data, name, now_ms)))]

    def _ticker_data(self) -> TickerData:
        day = self._day
        change = percent = None
        if day.last is not None and day.previous_close is not None:
            moved = day.last - day.previous_close
            change = self._price(moved)
            percent = round(100 * moved / day.previous_close, 2)
        return TickerData(
            self.listing.name,
            self._price(day.last),
            None if day.last_lots is None else self.listing.lot.number(day.last_lots),
            self._price(self._engine.price_at(Side.BUY, 0)),
            self._price(self._engine.price_at(Side.SELL, 0)),
            self.listing.lot.number(day.lots),
            change,
            percent,
            self._price(day.high),
            self._price(day.low),
            self._price(day.open),
        )

    def _close_candles(self, now_ms: int) -> list[Push]:
        return [
            self._candle_push(candle, now_ms)
            for candle in self._candles.close(now_ms)
            if candle.interval in self._open_candles
        ]

    def _candle_push(self, candle: CandleTicks, now_ms: int) -> Push:
        symbol, price = self.listing.name, self.listing.tick.number
        data = CandleData(
            symbol,
            candle.interval,
            price(candle.open),
            price(candle.high),
            price(candle.low),
            price(candle.close),
            self.listing.lot.number(candle.lots),
            candle.start_ms,
            candle.end_ms,
        )
        name = f"candles:{symbol}:{candle.interval}"
        return Push(name, encode(Candle(data, name, now_ms)))

    def _levels(self, levels: Levels) -> list[Level]:
        if not levels:
            return []
        price, quantity = self.listing.tick.number, self.listing.lot.number
        return [(price(ticks), quantity(lots)) for ticks, lots in levels]

    def _price(self, ticks: int | None) -> float | None:
        return None if ticks is None else self.listing.tick.number(ticks)


def by_side(changes: list[Change]) -> list[Levels]:
    """Return the levels of each side that changed, for all windows."""
    touched: list[Levels] = [[], []]
    for side, price, lots in changes:
        touched[side].append((price, lots))
    return touched

"""cryptofeed's path of a book, of a feed that is the user's own.

In it: a Feed's message_handler as those of its exchanges are, its JSON decoder
(yapic.json), its OrderBook, Feed.book_callback and a BookCallback, which reads the best
levels. Not in it: its connection, which is `websockets` and as text, its watcher and
its backends. The book's sequence is compared as its feeds do where a venue has one.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from cryptofeed.callback import BookCallback
from cryptofeed.defines import ASK, BID, L2_BOOK
from cryptofeed.feed import Feed
from cryptofeed.symbols import Symbols
from cryptofeed.types import OrderBook
from yapic import json

from benchmarks.peers import Best, GapError, Instrument


class Venue(Feed):
    """A feed as cryptofeed's own are: Decimals, and a list of what changed."""

    id = "BENCHMARK"
    websocket_endpoints: list[Any] = []  # noqa: RUF012
    rest_endpoints: list[Any] = []  # noqa: RUF012
    websocket_channels = {L2_BOOK: "orderbook"}  # noqa: RUF012

    async def message_handler(self, msg: str, conn: Any, timestamp: float) -> None:
        message = json.loads(msg, parse_float=Decimal)
        data = message["data"]
        pair = self.exchange_symbol_to_std_symbol(data["symbol"])
        if message["type"] == "orderbook":
            await self._snapshot(pair, data, timestamp)
            return
        sequence = data["sequence"]
        if sequence != self._sequence_no[pair] + 1:
            raise GapError(pair, self._sequence_no[pair] + 1, sequence)
        self._sequence_no[pair] = sequence
        delta: dict[str, list[Any]] = {BID: [], ASK: []}
        whole = self._l2_book[pair]
        book = whole.book
        for side, levels in ((BID, data["bids"]), (ASK, data["asks"])):
            changed, prices = delta[side], book[side]
            for price, size in levels:
                if size == 0:
                    if price in prices:
                        del prices[price]
                        changed.append((price, 0))
                else:
                    prices[price] = size
                    changed.append((price, size))
        await self.book_callback(
            L2_BOOK, whole, timestamp, timestamp=message["timestamp"],
            raw=message, delta=delta, sequence_number=sequence,
        )  # fmt: skip

    async def _snapshot(self, pair: str, data: Any, timestamp: float) -> None:
        self._sequence_no[pair] = data["sequence"]
        bids, asks = dict(data["bids"]), dict(data["asks"])
        self._l2_book[pair] = OrderBook(self.id, pair, bids=bids, asks=asks)
        await self.book_callback(L2_BOOK, self._l2_book[pair], timestamp)


class LeanVenue(Venue):
    """The same with floats, and nothing kept of what changed."""

    async def message_handler(self, msg: str, conn: Any, timestamp: float) -> None:
        message = json.loads(msg)
        data = message["data"]
        pair = self.exchange_symbol_to_std_symbol(data["symbol"])
        if message["type"] == "orderbook":
            await self._snapshot(pair, data, timestamp)
            return
        sequence = data["sequence"]
        if sequence != self._sequence_no[pair] + 1:
            raise GapError(pair, self._sequence_no[pair] + 1, sequence)
        self._sequence_no[pair] = sequence
        whole = self._l2_book[pair]
        book = whole.book
        bids, asks = book.bids, book.asks
        for price, size in data["bids"]:
            if size:
                bids[price] = size
            elif price in bids:
                del bids[price]
        for price, size in data["asks"]:
            if size:
                asks[price] = size
            elif price in asks:
                del asks[price]
        await self.book_callback(L2_BOOK, whole, timestamp, sequence_number=sequence)


def start(
    instruments: list[Instrument], venue: type[Venue] = Venue
) -> Callable[[str], Awaitable[Best]]:
    best: Best = None

    async def on_book(whole: OrderBook, receipt_timestamp: float) -> None:
        nonlocal best
        bids, asks = whole.book.bids, whole.book.asks
        try:
            best = bids.index(0), asks.index(0)
        except IndexError:
            best = None

    symbols = {each.symbol: each.symbol for each in instruments}
    Symbols.set(venue.id, symbols, {"instrument_type": {}})
    feed = venue(
        symbols=list(symbols),
        channels=[L2_BOOK],
        callbacks={L2_BOOK: BookCallback(on_book)},
    )
    take = feed.message_handler

    async def handle(message: str) -> Best:
        await take(message, None, 0.0)
        return best

    return handle


def start_lean(instruments: list[Instrument]) -> Callable[[str], Awaitable[Best]]:
    return start(instruments, LeanVenue)

"""msgspec and nautilus_trader's OrderBook.

In it: its Price, Quantity and BookOrder of every level, and its book, which is Rust
behind Cython. Not in it: its adapters' connections, its data engine, cache and message
bus. The times of messages are left at 0.
"""

from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BookOrder, OrderBookDelta, OrderBookDeltas
from nautilus_trader.model.enums import BookAction, BookType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity

from benchmarks.peers import Best, GapError, Handle, Instrument
from benchmarks.peers.messages import Snapshot, decode

BUY, SELL = OrderSide.BUY, OrderSide.SELL
UPDATE, DELETE = BookAction.UPDATE, BookAction.DELETE


class Book:
    """A book, its instrument's decimals, and the sequence that it is of."""

    __slots__ = ("id", "levels", "price_decimals", "sequence", "size_decimals")

    def __init__(self, instrument: Instrument) -> None:
        self.id = InstrumentId.from_str(f"{instrument.symbol}.VENUE")
        self.levels = OrderBook(self.id, BookType.L2_MBP)
        self.price_decimals = instrument.price_decimals
        self.size_decimals = instrument.size_decimals
        self.sequence = 0


def start(instruments: list[Instrument]) -> Handle:
    """Change the book level by level, with nothing made but the levels."""
    books = {each.channel: Book(each) for each in instruments}

    def handle(payload: bytes) -> Best:
        message = decode(payload)
        data = message.data
        sequence = data.sequence
        book = books[message.channel]
        levels = book.levels
        if type(message) is Snapshot:
            levels.clear(0, sequence)
        elif sequence != book.sequence + 1:
            raise GapError(message.channel, book.sequence + 1, sequence)
        book.sequence = sequence
        p, q = book.price_decimals, book.size_decimals
        for price, size in data.bids:
            order = BookOrder(BUY, Price(price, p), Quantity(size, q), 0)
            if size:
                levels.update(order, 0, 0, sequence)
            else:
                levels.delete(order, 0, 0, sequence)
        for price, size in data.asks:
            order = BookOrder(SELL, Price(price, p), Quantity(size, q), 0)
            if size:
                levels.update(order, 0, 0, sequence)
            else:
                levels.delete(order, 0, 0, sequence)
        return best_of(levels)

    return handle


def start_deltas(instruments: list[Instrument]) -> Handle:
    """Make deltas and apply them as one, as its adapters and its data engine do."""
    books = {each.channel: Book(each) for each in instruments}

    def handle(payload: bytes) -> Best:
        message = decode(payload)
        data = message.data
        sequence = data.sequence
        book = books[message.channel]
        levels, instrument = book.levels, book.id
        deltas = []
        if type(message) is Snapshot:
            deltas.append(OrderBookDelta.clear(instrument, sequence, 0, 0))
        elif sequence != book.sequence + 1:
            raise GapError(message.channel, book.sequence + 1, sequence)
        book.sequence = sequence
        p, q = book.price_decimals, book.size_decimals
        for side, changes in ((BUY, data.bids), (SELL, data.asks)):
            for price, size in changes:
                order = BookOrder(side, Price(price, p), Quantity(size, q), 0)
                action = UPDATE if size else DELETE
                deltas.append(
                    OrderBookDelta(instrument, action, order, 0, sequence, 0, 0)
                )
        levels.apply_deltas(OrderBookDeltas(instrument, deltas))
        return best_of(levels)

    return handle


def best_of(levels: OrderBook) -> Best:
    bid, ask = levels.best_bid_price(), levels.best_ask_price()
    if bid is None or ask is None:
        return None
    return (bid, levels.best_bid_size()), (ask, levels.best_ask_size())

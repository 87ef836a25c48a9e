"""The order book through Python: ours, and that of the PyPI package order-book.

Both are given levels that are Python objects already; bench_book.py compares.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.updates import Message, Stream
from feedhandler.book import OrderBook

PACKAGE = "order_book"


class Case(NamedTuple):
    """A book's first levels and the messages that follow: bids and asks of each."""

    depth: int
    first: Message
    messages: list[Message]


def version() -> str | None:
    """Return the package's version, None if it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    return importlib.metadata.version(PACKAGE)


def of_stream(stream: Stream) -> Case:
    messages: list[Message] = [
        ([(price, size)], []) if is_bid else ([], [(price, size)])
        for price, size, _sequence, _book, is_bid in stream.updates.tolist()
    ]
    return Case(stream.depths[0], stream.first[0], messages)


def of_recording(path: Path, count: int) -> Case:
    """Return the first *count* messages of a recording's first book."""
    frames = map(json.loads, harness.book_frames(path))
    first = next(frames)
    messages = [
        levels_of(frame) for frame in frames if frame["channel"] == first["channel"]
    ]
    depth = int(first["channel"].rsplit(":", 1)[1])
    return Case(depth, levels_of(first), messages[:count])


def levels_of(message: dict[str, Any]) -> Message:
    bids, asks = (
        [(float(price), float(size)) for price, size in message["data"][side]]
        for side in ("bids", "asks")
    )
    return bids, asks


def make_ours(case: Case) -> OrderBook:
    book = OrderBook(case.depth)
    book.replace_levels(*case.first)
    return book


def make_theirs(case: Case) -> Any:
    """Return their book, without a limit of levels where none is ever exceeded."""
    module = importlib.import_module(PACKAGE)
    book = module.OrderBook()
    book.bids, book.asks = map(dict, case.first)
    return book


def changes_of(book: Any, message: Message) -> list[tuple[Any, float, float]]:
    """Return a message as (side, price, size), looked up beforehand in their favour."""
    bids, asks = message
    return [(book.bids, *level) for level in bids] + [
        (book.asks, *level) for level in asks
    ]


def check(case: Case) -> Message:
    """Compare what the two books are at the end, and return that."""
    ours, theirs = make_ours(case), make_theirs(case)
    apply_ours(ours, case, read=False)
    apply_theirs(theirs, case, read=False)
    assert ours.bid_levels() == theirs.bids.to_list()
    assert ours.ask_levels() == theirs.asks.to_list()
    return ours.bid_levels(), ours.ask_levels()


def time_ours(case: Case, read: bool) -> int:
    return apply_ours(make_ours(case), case, read)


def time_theirs(case: Case, read: bool) -> int:
    return apply_theirs(make_theirs(case), case, read)


def apply_ours(book: OrderBook, case: Case, read: bool) -> int:
    """Return the ns of all messages; if *read*, the best levels are read after each."""
    if all(len(bids) + len(asks) == 1 for bids, asks in case.messages):
        return apply_ours_single(book, case, read)
    messages, update = case.messages, book.update_levels
    start = time.thread_time_ns()
    if not read:
        for bids, asks in messages:
            update(bids, asks)
    else:
        for bids, asks in messages:
            update(bids, asks)
            _best = book.top
    return time.thread_time_ns() - start


def apply_ours_single(book: OrderBook, case: Case, read: bool) -> int:
    """Return the ns of messages of one level, side and level looked up beforehand."""
    bid, ask = book.update_bid, book.update_ask
    changes = [
        (bid, *bids[0]) if bids else (ask, *asks[0]) for bids, asks in case.messages
    ]
    start = time.thread_time_ns()
    if not read:
        for update, price, size in changes:
            update(price, size)
    else:
        for update, price, size in changes:
            update(price, size)
            _best = book.top
    return time.thread_time_ns() - start


def apply_theirs(book: Any, case: Case, read: bool) -> int:
    """Return the ns of the same, by the shortest loop that does it."""
    messages = [changes_of(book, message) for message in case.messages]
    if all(len(changes) == 1 for changes in messages):
        return apply_single(book, [changes[0] for changes in messages], read)
    best_bid, best_ask = book.bids.index, book.asks.index
    start = time.thread_time_ns()
    for changes in messages:
        for side, price, size in changes:
            if size:
                side[price] = size
            elif price in side:
                del side[price]
        if read:
            _best = best_bid(0), best_ask(0)
    return time.thread_time_ns() - start


def apply_single(book: Any, changes: list[tuple[Any, float, float]], read: bool) -> int:
    """Return the ns of messages of one level; no removal is of a level not there."""
    best_bid, best_ask = book.bids.index, book.asks.index
    start = time.thread_time_ns()
    if not read:
        for side, price, size in changes:
            if size:
                side[price] = size
            else:
                del side[price]
    else:
        for side, price, size in changes:
            if size:
                side[price] = size
            else:
                del side[price]
            _best = best_bid(0), best_ask(0)
    return time.thread_time_ns() - start

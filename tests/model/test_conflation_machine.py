"""One quote for a read against one for every message: those between are missing."""

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from feedhandler.board import Board, BoardReader
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE, Flags
from feedhandler.ring import Ring
from feedhandler.sink import Tee
from feedhandler.tracker import COUNTERS, Action
from tests.feeds import Feed, Levels, Recorder

SYMBOLS = ("AAPL", "MSFT", "TSLA")
WINDOW = 3
DEPTH = 5
# What the two may count otherwise; the first two add up.
OTHERWISE = ("quotes", "conflated", "crossings", "resyncs")

books = st.sampled_from(SYMBOLS)
sizes = st.sampled_from([0.0, 1.0, 2.0])


def side(first: int, last: int) -> st.SearchStrategy[Levels]:
    prices = st.integers(first, last).map(float)
    return st.lists(st.tuples(prices, sizes), max_size=3)


bids, asks, crossing = side(1, 8), side(9, 16), side(6, 11)


class Noting(Recorder):
    """Keeps quotes that equal themselves, without NaN."""

    def quote(self, event: Any) -> None:
        prices = {
            side: None if math.isnan(getattr(event, side)) else getattr(event, side)
            for side in ("bid_price", "ask_price")
        }
        super().quote(event._replace(**prices))


class Played:
    """A feed, all that it published since the read began, and its board."""

    def __init__(self, **options: Any) -> None:
        self.recorder = Noting()
        self.errors: list[Exception] = []
        memory = bytearray(Board.size_for(len(SYMBOLS), WINDOW))
        self.board = Board(memory, len(SYMBOLS), WINDOW)
        for symbol in SYMBOLS:
            self.board.add(symbol)
        self.reader = BoardReader(memory)
        rings = [
            Ring(bytearray(Ring.size_for(kind, 64)), kind, 64)
            for kind in (QUOTE, TRADE)
        ]
        sink = Tee(self.recorder, Publisher(*rings, self.board), self.errors.append)
        channels = map(channel_of, SYMBOLS)
        self.feed = Feed(*channels, sink=sink, answers=True, **options)
        self.counter = self.feed.counter

    def of(self, symbol: str) -> list[Any]:
        number = SYMBOLS.index(symbol)
        return [q for q in self.recorder.quotes if q.instrument == number]


def channel_of(symbol: str) -> str:
    return f"orderbook:{symbol}:{DEPTH}"


class Conflation(RuleBasedStateMachine):
    """*sent* is the venue's last sequence of every book."""

    def __init__(self) -> None:
        super().__init__()
        self.every = Played()
        self.last = Played(last_in_read=True)
        self.sent = dict.fromkeys(SYMBOLS, 100)
        self.may_cross = False

    @initialize(may_cross=st.booleans())
    def begin(self, may_cross: bool) -> None:
        # A book that was crossed within a read is asked for by one of them only; so
        # either they cross, or no time passes in which it matters what was asked for.
        self.may_cross = may_cross
        for symbol in SYMBOLS:
            self.snapshot(symbol, [(5.0, 1.0)], [(12.0, 1.0)], 0)
        self.end_read(0)

    def both(self, act: Any) -> None:
        """Do the same to both, and connect anew where that is what they ask for."""
        actions = [act(played.feed) or 0 for played in (self.every, self.last)]
        wanted = {each & Action.CLOSE for each in actions}
        assert len(wanted) == 1
        if wanted.pop():
            self.reconnect(0.0)

    def message(self, kind: str, symbol: str, sequence: int, *levels: Levels) -> None:
        channel = channel_of(symbol)
        self.both(lambda feed: getattr(feed, kind)(sequence, *levels, channel=channel))

    @property
    def held(self) -> list[str]:
        routes = self.every.feed.session.routes
        return [symbol for symbol in SYMBOLS if channel_of(symbol) in routes]

    # ── what the venue sends ──────────────────────────────────────────────────────

    @rule(symbol=books, bids=bids, asks=asks, jump=st.sampled_from([1] * 9 + [2]))
    def update(self, symbol: str, bids: Levels, asks: Levels, jump: int) -> None:
        self.sent[symbol] += jump
        self.message("update", symbol, self.sent[symbol], bids, asks)

    @rule(symbols=st.lists(books, min_size=2, max_size=8), bids=bids)
    def updates(self, symbols: list[str], bids: Levels) -> None:
        for symbol in symbols:
            self.update(symbol, bids, [], 1)

    @precondition(lambda self: self.may_cross)
    @rule(symbol=books, bids=crossing, asks=crossing)
    def update_that_may_cross(self, symbol: str, bids: Levels, asks: Levels) -> None:
        self.update(symbol, bids, asks, 1)

    @rule(symbol=books, bids=bids, back=st.integers(0, 3))
    def update_again(self, symbol: str, bids: Levels, back: int) -> None:
        self.message("update", symbol, self.sent[symbol] - back, bids, [])

    @rule(symbol=books, bids=bids, asks=asks, back=st.sampled_from([0, 0, -3, 1, 2]))
    def snapshot(self, symbol: str, bids: Levels, asks: Levels, back: int) -> None:
        sequence = self.sent[symbol] - back
        self.sent[symbol] = max(sequence, self.sent[symbol])
        self.message("snapshot", symbol, sequence, bids, asks)

    @rule(symbol=books)
    def snapshot_of_what_is_held(self, symbol: str) -> None:
        if symbol in self.held:
            book = self.every.feed.book(channel_of(symbol))
            sides = book.bids(), book.asks()
            self.message("snapshot", symbol, book.sequence, *sides)

    @rule(symbol=books)
    def impossible_update(self, symbol: str) -> None:
        self.sent[symbol] += 1
        self.message("update", symbol, self.sent[symbol], [(-1.0, 1.0)], [])

    @rule(payload=st.sampled_from([b"?", b'{"type":"novelty"}', b"\xff"]))
    def something_else(self, payload: bytes) -> None:
        self.both(lambda feed: feed.receive(payload))

    # ── what happens to the connection ────────────────────────────────────────────

    @rule(after_s=st.sampled_from([0.0, 0.0, 0.25]))
    def end_read(self, after_s: float) -> None:
        self.every.feed.session.read_ended()
        self.last.feed.session.read_ended()
        for symbol in SYMBOLS:
            every, last = self.every.of(symbol), self.last.of(symbol)
            assert last[-1:] == every[-1:]
            rest = iter(every)
            assert all(quote in rest for quote in last), "not in their order"
        for symbol in self.held:
            book = self.last.feed.book(channel_of(symbol))
            depth = self.last.reader.depth(symbol)
            if book.sequence:
                assert depth.bids.tolist() == [list(x) for x in book.bids(WINDOW)]
                assert depth.asks.tolist() == [list(x) for x in book.asks(WINDOW)]
                assert depth.top.flags & 0xFF == book.flags
                assert depth.top.sequence == book.sequence
        every, last = (played.counter for played in (self.every, self.last))
        assert last("quotes") + last("conflated") == every("quotes")
        for played in (self.every, self.last):
            played.recorder.quotes.clear()
            played.feed.pass_s(after_s)

    @precondition(lambda self: not self.may_cross)
    @rule(after_s=st.sampled_from([0.1, 0.1, 3.0]))
    def tick(self, after_s: float) -> None:
        # No host lets time pass in the middle of a read.
        self.end_read(after_s)
        self.both(lambda feed: feed.tick())

    @rule(after_s=st.sampled_from([0.0, 1.0]))
    def reconnect(self, after_s: float) -> None:
        for played in (self.every, self.last):
            played.feed.pass_s(after_s)
            played.feed.close()
            played.feed.open()

    @rule(symbol=books)
    def give_up(self, symbol: str) -> None:
        self.both(lambda feed: feed.session.remove(channel_of(symbol)))

    @rule(symbol=books)
    def come_back(self, symbol: str) -> None:
        # As from the handler: epochs go on.
        number = SYMBOLS.index(symbol)
        self.both(lambda feed: feed.session.add(channel_of(symbol), number, 50))

    @rule(closed=st.sets(books))
    def close_markets(self, closed: set[str]) -> None:
        self.both(lambda feed: feed.session.mark_markets(closed, feed.now_ns))

    # ── what is always so ─────────────────────────────────────────────────────────

    @invariant()
    def what_is_not_trusted_is_said_at_once(self) -> None:
        for symbol in SYMBOLS:
            every, last = (
                [quote for quote in played.of(symbol) if quote.flags & Flags.STALE]
                for played in (self.every, self.last)
            )
            assert last == every
        for symbol in self.held:
            every, last = (
                played.feed.book(channel_of(symbol)).flags & Flags.STALE
                for played in (self.every, self.last)
            )
            assert last == every

    @invariant()
    def no_book_is_behind(self) -> None:
        assert self.every.errors == self.last.errors == []
        for symbol in self.held:
            every, last = (
                played.feed.book(channel_of(symbol))
                for played in (self.every, self.last)
            )
            assert (last.bids(), last.asks()) == (every.bids(), every.asks())
            assert (last.sequence, last.epoch) == (every.sequence, every.epoch)

    def teardown(self) -> None:
        self.end_read(0)
        for name in COUNTERS:
            if name not in OTHERWISE:
                assert self.last.counter(name) == self.every.counter(name), name


@pytest.mark.req("I-03", "I-04")
class TestConflation(Conflation.TestCase):
    settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.stress
class TestConflationForLong(Conflation.TestCase):
    settings = settings(max_examples=5_000, stateful_step_count=40, deadline=None)

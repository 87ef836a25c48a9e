"""The order book against a dict that is sorted when it is looked at."""

import math

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

from feedhandler.book import OrderBook

PRICES = st.integers(1, 60).map(lambda ticks: ticks / 4)
SIZES = st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e9])
LEVEL = st.tuples(PRICES, SIZES)
LEVELS = st.lists(LEVEL, max_size=12)
NONE = (math.nan, 0.0)
RUNS = st.dictionaries(PRICES, SIZES, max_size=40).flatmap(
    lambda levels: st.sampled_from(
        [sorted(levels.items()), sorted(levels.items())[::-1]]
    )
)
MESSAGES = LEVELS | RUNS
BAD = st.sampled_from(
    [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))]
)


class Book(RuleBasedStateMachine):
    @initialize(depth=st.integers(1, 20))
    def begin(self, depth: int) -> None:
        self.depth = depth
        self.book = OrderBook(depth)
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def keep_best(self) -> None:
        for side, best_first in ((self.bids, True), (self.asks, False)):
            kept = sorted(
                ((p, s) for p, s in side.items() if s > 0), reverse=best_first
            )
            side.clear()
            side.update(kept[: self.depth])

    @rule(bids=MESSAGES, asks=MESSAGES)
    def snapshot(self, bids, asks) -> None:
        self.book.replace_levels(bids, asks)
        self.bids, self.asks = dict(bids), dict(asks)
        self.keep_best()

    @rule(bids=MESSAGES, asks=MESSAGES)
    def update(self, bids, asks) -> None:
        self.book.update_levels(bids, asks)
        self.bids.update(bids)
        self.asks.update(asks)
        self.keep_best()

    @precondition(lambda self: self.bids)
    @rule(size=SIZES)
    def touch_the_best_bid(self, size: float) -> None:
        price = max(self.bids)
        self.book.update_bid(price, size)
        self.bids[price] = size
        self.keep_best()

    @rule(level=LEVEL, is_bid=st.booleans())
    def update_one_level(self, level: tuple[float, float], is_bid: bool) -> None:
        (self.book.update_bid if is_bid else self.book.update_ask)(*level)
        (self.bids if is_bid else self.asks).update([level])
        self.keep_best()

    @rule(good=LEVELS, bad=BAD, ask_side=st.booleans(), whole=st.booleans())
    def send_an_illegal_level(self, good, bad, ask_side, whole) -> None:
        message = (good, [*good, bad]) if ask_side else ([*good, bad], good)
        apply = self.book.replace_levels if whole else self.book.update_levels
        try:
            apply(*message)
        except ValueError:
            return
        raise AssertionError(f"{bad} was taken")

    @invariant()
    def both_have_the_same_levels(self) -> None:
        best = (*(self.book.best_bid or NONE), *(self.book.best_ask or NONE))
        assert repr(self.book.top) == repr(best)
        assert self.book.bid_levels() == sorted(self.bids.items(), reverse=True)
        assert self.book.ask_levels() == sorted(self.asks.items())
        assert len(self.book) == len(self.bids) + len(self.asks)


class TestBook(Book.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.stress
class TestBookForLong(Book.TestCase):
    settings = settings(max_examples=2_000, stateful_step_count=30, deadline=None)

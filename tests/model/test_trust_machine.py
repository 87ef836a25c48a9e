"""A tracked book against a venue that is a dict, on a wire that does what it likes."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from feedhandler.records import Flags
from tests.feeds import AAPL, Feed
from tests.markets import Market

LIVE = int(Flags.LIVE)


class Trust(RuleBasedStateMachine):
    """The wire, the venue and time do what they like; trust must follow."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.market = Market(seed)
        self.feed = Feed(AAPL, answers=True, quiet_after_ns=5_000_000_000)
        self.late: list[dict[str, Any]] = []
        self.last = (0, -1)
        self.give_snapshot()

    # ── what the venue sends ──────────────────────────────────────────────────────────

    def deliver(self, message: Any) -> None:
        self.feed.receive(message)
        self.judge()

    def give_snapshot(self) -> None:
        self.deliver(self.market.snapshot())

    @rule()
    def an_update_arrives(self) -> None:
        self.deliver(self.market.change())

    @rule(count=st.integers(1, 5))
    def updates_are_lost(self, count: int) -> None:
        for _ in range(count):
            self.market.change()

    @rule()
    def an_update_is_late(self) -> None:
        self.late.append(self.market.change())

    @rule()
    def what_was_late_arrives(self) -> None:
        late, self.late = self.late, []
        for message in late:
            self.deliver(message)

    @rule(backwards=st.booleans())
    def two_updates_change_places(self, backwards: bool) -> None:
        pair = [self.market.change(), self.market.change()]
        for message in pair[::-1] if backwards else pair:
            self.deliver(message)

    @rule()
    def an_update_arrives_twice(self) -> None:
        message = self.market.change()
        self.deliver(message)
        self.deliver(message)

    @rule(what=st.sampled_from([b"{", b"[]", b'{"type":"orderbook_update"}', b"\xff"]))
    def something_else_arrives_in_its_place(self, what: bytes) -> None:
        self.market.change()
        self.deliver(what)

    @rule()
    def an_update_has_a_number_that_cannot_be(self) -> None:
        message = self.market.change()
        message["data"]["sequence"] = -1
        self.deliver(message)

    @rule()
    def a_snapshot_arrives_unasked(self) -> None:
        self.give_snapshot()

    @rule()
    def what_is_asked_for_is_given(self) -> None:
        self.feed.collect()
        if any(AAPL in channels for _, channels in self.feed.asked()):
            self.give_snapshot()

    # ── life ──────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.feed.tick(seconds)
        self.feed.heartbeat()
        self.judge()

    @rule(restarted=st.booleans())
    def the_connection_is_lost_and_made_again(self, restarted: bool) -> None:
        self.feed.close()
        self.judge()
        assert not self.feed.book().is_live
        self.late = []
        if restarted:
            self.market.restart()
        self.feed.pass_s(2)
        self.feed.open()
        self.feed.sent()

    # ── what must hold ────────────────────────────────────────────────────────────────

    def judge(self) -> None:
        """Every quote that says LIVE is the venue's book at that number."""
        for quote in self.feed.quotes():
            assert (quote.epoch, quote.sequence) >= self.last
            self.last = (quote.epoch, quote.sequence)
            if quote.flags & LIVE:
                bids, asks = self.market.history[quote.sequence]
                assert (quote.bid_price, quote.bid_size) == bids[0]
                assert (quote.ask_price, quote.ask_size) == asks[0]
                assert quote.bid_price < quote.ask_price

    @invariant()
    def a_live_book_is_the_venues(self) -> None:
        ours = self.feed.book()
        if ours.is_live:
            truth = self.market.history[ours.sequence]
            assert (ours.bids(), ours.asks()) == truth

    def teardown(self) -> None:
        """Whatever happened: a snapshot that is asked for makes it LIVE again."""
        if not hasattr(self, "feed"):
            return
        self.late = []
        for _ in range(3):
            self.feed.tick(0.1)
            self.give_snapshot()
            self.deliver(self.market.change())
        assert self.feed.book().is_live
        assert self.feed.book().sequence == self.market.sequence
        assert self.feed.counter("faults") == 0


@pytest.mark.req("BP-11", "BP-13", "BP-14")
class TestTrust(Trust.TestCase):
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.stress
class TestTrustForLong(Trust.TestCase):
    settings = settings(max_examples=10_000, stateful_step_count=40, deadline=None)

"""Sync against a set of everything seen: slow, obvious, and never too trusting."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)

from feedhandler.sync import Sync, Verdict

NUMBERS = st.integers(0, 40)


class Stitching(RuleBasedStateMachine):
    """*seen* is what came since the last snapshot."""

    def __init__(self) -> None:
        super().__init__()
        self.sync = Sync()
        self.applied = -1
        self.seen: set[int] = set()
        self.lost = True

    def deliver(self, number: int) -> None:
        was_in_sync = self.sync.is_in_sync
        verdict = self.sync.on_delta(number)
        if self.applied < 0:
            assert verdict is Verdict.HOLD
            return
        if verdict is Verdict.APPLY:
            assert number == self.applied + 1, "applied across a gap"
            assert not self.lost, "applied to a book that lost something"
            self.applied = number
        if verdict is Verdict.RESYNC:
            assert not self.sync.is_in_sync, (
                "asked for a resync and still trusts the book"
            )
            if number > self.applied:
                assert was_in_sync, "asked twice for one gap"
            else:
                self.lost = True
        if verdict is Verdict.SKIP:
            assert number <= self.applied, "skipped something new"
        self.seen.add(number)

    @rule(number=NUMBERS)
    def any_update(self, number: int) -> None:
        self.deliver(number)

    @rule()
    def next_update(self) -> None:
        self.deliver(self.applied + 1)

    @rule(ahead=st.integers(2, 5))
    def update_after_a_gap(self, ahead: int) -> None:
        self.deliver(self.applied + ahead)

    @rule(number=NUMBERS)
    def snapshot(self, number: int) -> None:
        self.sync.on_snapshot(number)
        self.applied, self.seen, self.lost = number, set(), False
        assert self.sync.is_in_sync

    @rule()
    def loss(self) -> None:
        news = self.sync.is_in_sync
        assert self.sync.on_loss() is news
        self.lost = True

    @invariant()
    def the_model_applied_the_same(self) -> None:
        assert self.sync.applied == self.applied

    @invariant()
    def no_trust_while_something_seen_is_missing(self) -> None:
        ahead = max(self.seen, default=-1) > self.applied
        assert self.sync.is_in_sync == (
            self.applied >= 0 and not self.lost and not ahead
        )


TestStitching = Stitching.TestCase
TestStitching.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)

"""The naive matcher against what was worked out by hand."""

import pytest

from tests.model.naive_matcher import (
    BUY,
    DAY,
    FOK,
    GTC,
    IOC,
    MAX_LOTS,
    MAX_TICKS,
    SELL,
    NaiveMatcher,
    StopReached,
)

ANN, BOB, CAT = 1, 2, 3


def three_asks() -> NaiveMatcher:
    """Orders 1 to 3: Ann 5 at 101, Bob 5 at 100, Cat 5 at 100."""
    matcher = NaiveMatcher()
    matcher.submit(ANN, SELL, 5, 101)
    matcher.submit(BOB, SELL, 5, 100)
    matcher.submit(CAT, SELL, 5, 100)
    return matcher


def traded_at(price_ticks: int) -> NaiveMatcher:
    """Two orders have traded at the price and are gone."""
    matcher = NaiveMatcher()
    matcher.submit(ANN, SELL, 1, price_ticks)
    matcher.submit(BOB, BUY, 1, price_ticks)
    return matcher


def books(matcher: NaiveMatcher) -> tuple[list, list]:
    return matcher.top(BUY, 9), matcher.top(SELL, 9)


def test_the_best_price_trades_first_and_at_it_the_oldest_at_the_makers_price():
    matcher = three_asks()
    report = matcher.submit(ANN, BUY, 12, 102)

    assert report.order_id == 4
    assert report.fills == (
        (2, BOB, 0, 100, 5),
        (3, CAT, 0, 100, 5),
        (1, ANN, 3, 101, 2),
    )
    assert report.filled_lots == 12
    assert report.changes == ((SELL, 100, 0), (SELL, 101, 3))
    assert matcher.last_ticks == 101
    assert books(matcher) == ([], [(101, 3)])


def test_a_sell_takes_the_highest_bid_first():
    matcher = NaiveMatcher()
    for price in (98, 100, 99):
        matcher.submit(ANN, BUY, 1, price)

    fills = matcher.submit(BOB, SELL, 3, 99).fills

    assert [fill.price_ticks for fill in fills] == [100, 99]
    assert books(matcher) == ([(98, 1)], [(99, 1)])


@pytest.mark.parametrize("time_in_force", [GTC, DAY])
def test_what_does_not_trade_of_a_limit_order_rests(time_in_force: int):
    matcher = three_asks()
    report = matcher.submit(ANN, BUY, 12, 100, time_in_force)

    assert (report.filled_lots, report.resting_lots, report.canceled_lots) == (10, 2, 0)
    assert matcher.order(4) == (ANN, BUY, 100, 2)
    assert books(matcher) == ([(100, 2)], [(101, 5)])


def test_what_does_not_trade_of_an_ioc_order_is_canceled():
    matcher = three_asks()
    report = matcher.submit(ANN, BUY, 12, 100, IOC)

    assert (report.filled_lots, report.resting_lots, report.canceled_lots) == (10, 0, 2)
    assert books(matcher) == ([], [(101, 5)])


def test_a_fok_order_trades_all_or_nothing():
    matcher = three_asks()
    killed = matcher.submit(ANN, BUY, 11, 100, FOK)

    assert (killed.fills, killed.canceled_lots, killed.changes) == ((), 11, ())
    assert matcher.last_ticks is None
    assert matcher.submit(ANN, BUY, 10, 100, FOK).filled_lots == 10


@pytest.mark.parametrize("time_in_force", [GTC, IOC, FOK, DAY])
def test_a_market_order_trades_what_there_is_and_never_rests(time_in_force: int):
    matcher = three_asks()
    report = matcher.submit(ANN, BUY, 20, None, time_in_force)

    assert (report.filled_lots, report.canceled_lots) == (15, 5)
    assert len(matcher) == 0
    assert matcher.submit(ANN, BUY, 1).canceled_lots == 1


def test_a_reduced_order_keeps_its_place():
    matcher = three_asks()
    report = matcher.reduce(2, 2)

    assert (report.resting_lots, report.canceled_lots) == (3, 2)
    assert matcher.queue(SELL, 100) == [(2, BOB, 3), (3, CAT, 5)]


def test_an_order_reduced_by_all_or_more_is_canceled():
    matcher = three_asks()

    assert matcher.reduce(2, 6).canceled_lots == 5
    assert matcher.order(2) is None
    with pytest.raises(KeyError):
        matcher.cancel(2)


def test_a_canceled_order_is_gone():
    matcher = three_asks()
    report = matcher.cancel(2)

    assert (report.owner, report.canceled_lots) == (BOB, 5)
    assert report.changes == ((SELL, 100, 5),)
    assert matcher.queue(SELL, 100) == [(3, CAT, 5)]


def test_fewer_lots_at_the_same_price_keep_priority_more_lots_lose_it():
    matcher = three_asks()
    fewer = matcher.modify(2, 4, 100)
    assert matcher.queue(SELL, 100) == [(2, BOB, 4), (3, CAT, 5)]

    more = matcher.modify(2, 6)
    assert matcher.queue(SELL, 100) == [(3, CAT, 5), (2, BOB, 6)]
    assert (fewer.resting_lots, fewer.canceled_lots) == (4, 1)
    assert (more.resting_lots, more.canceled_lots) == (6, 0)


def test_a_modified_price_goes_to_the_back_of_its_new_level():
    matcher = three_asks()
    report = matcher.modify(2, 5, 101)

    assert matcher.queue(SELL, 101) == [(1, ANN, 5), (2, BOB, 5)]
    assert report.changes == ((SELL, 100, 5), (SELL, 101, 10))


def test_a_modified_price_that_crosses_trades_with_the_same_id():
    matcher = three_asks()
    matcher.submit(ANN, BUY, 3, 99)
    report = matcher.modify(4, 8, 100)

    assert report.order_id == 4
    assert report.fills == ((2, BOB, 0, 100, 5), (3, CAT, 2, 100, 3))
    assert (report.resting_lots, report.canceled_lots) == (0, 0)
    assert matcher.submit(BOB, BUY, 1, 1).order_id == 5


def test_modifying_to_no_lots_cancels():
    matcher = three_asks()

    assert matcher.modify(1, 0).canceled_lots == 5
    assert len(matcher) == 2


def test_the_remainder_is_canceled_where_a_taker_meets_its_own_order():
    matcher = three_asks()
    report = matcher.submit(CAT, BUY, 12, 102, self_trade=False)

    assert report.fills == ((2, BOB, 0, 100, 5),)
    assert (report.resting_lots, report.canceled_lots) == (0, 7)
    assert report.self_trade_prevented
    assert books(matcher) == ([], [(100, 5), (101, 5)])


def test_a_taker_that_is_filled_before_its_own_order_met_nobody():
    report = three_asks().submit(CAT, BUY, 5, 102, self_trade=False)

    assert report.filled_lots == 5
    assert not report.self_trade_prevented


def test_what_lies_behind_its_own_order_is_not_there_for_a_fok_order():
    matcher = three_asks()
    killed = matcher.submit(CAT, BUY, 6, 102, FOK, self_trade=False)

    assert (killed.fills, killed.canceled_lots) == ((), 6)
    assert killed.self_trade_prevented
    assert matcher.submit(CAT, BUY, 5, 102, FOK, self_trade=False).filled_lots == 5


def test_a_modified_order_keeps_its_policy_on_self_trades():
    matcher = three_asks()
    matcher.submit(CAT, BUY, 9, 99, self_trade=False)
    report = matcher.modify(4, 8, 101)

    assert report.fills == ((2, BOB, 0, 100, 5),)
    assert (report.resting_lots, report.canceled_lots) == (0, 4)
    assert report.self_trade_prevented


@pytest.mark.parametrize(("side", "through"), [(BUY, 100), (SELL, 100), (BUY, 99)])
def test_a_stop_that_the_last_trade_has_reached_is_refused(side: int, through: int):
    matcher = traded_at(100)

    with pytest.raises(StopReached):
        matcher.submit(ANN, side, 1, stop_ticks=through)
    assert matcher.submit(ANN, side, 1, 50).order_id == 3


def test_a_stop_waits_unseen_until_a_trade_reaches_it():
    matcher = traded_at(100)
    waiting = matcher.submit(CAT, BUY, 5, stop_ticks=102)
    matcher.submit(ANN, SELL, 2, 101)
    matcher.submit(ANN, SELL, 9, 102)
    matcher.submit(BOB, BUY, 2)

    assert (waiting.waiting_lots, waiting.resting_lots) == (5, 0)
    assert matcher.next_due() == 0
    assert matcher.stop(3) == (CAT, BUY, 102, None, 5, False)
    with pytest.raises(KeyError):
        matcher.activate(3)

    matcher.submit(BOB, BUY, 1)
    assert matcher.next_due() == 3
    assert matcher.stop(3) == (CAT, BUY, 102, None, 5, True)
    assert matcher.activate(3).fills == ((5, ANN, 3, 102, 5),)
    assert (matcher.next_due(), matcher.stop(3)) == (0, None)


def test_any_stop_price_is_taken_before_the_first_trade_which_may_reach_both_sides():
    matcher = NaiveMatcher()
    for side, stop_ticks in [(SELL, 100), (SELL, 110), (BUY, 100), (BUY, 90)]:
        matcher.submit(CAT, side, 1, stop_ticks=stop_ticks)
    matcher.submit(CAT, BUY, 1, stop_ticks=90)
    matcher.submit(CAT, SELL, 1, stop_ticks=99)
    matcher.submit(ANN, SELL, 1, 100)
    matcher.submit(BOB, BUY, 1, 100)

    due = []
    while matcher.next_due():
        due.append(matcher.next_due())
        matcher.cancel(due[-1])
    assert due == [4, 5, 3, 2, 1]
    assert len(matcher) == 1


def test_stops_become_due_fill_by_fill():
    matcher = traded_at(100)
    high = matcher.submit(CAT, BUY, 1, stop_ticks=102).order_id
    low = matcher.submit(CAT, BUY, 1, stop_ticks=101).order_id
    matcher.submit(ANN, SELL, 1, 102)
    matcher.submit(ANN, SELL, 1, 101)
    matcher.submit(BOB, BUY, 2)

    assert matcher.next_due() == low
    matcher.activate(low)
    assert matcher.next_due() == high


def test_a_stop_that_trades_makes_the_next_one_due_behind_those_that_are():
    matcher = traded_at(100)
    first = matcher.submit(CAT, SELL, 2, stop_ticks=99).order_id
    third = matcher.submit(CAT, SELL, 1, stop_ticks=98).order_id
    second = matcher.submit(CAT, SELL, 1, 200, stop_ticks=99).order_id
    for price in (99, 98, 97):
        matcher.submit(ANN, BUY, 1, price)
    matcher.submit(BOB, SELL, 1, 99)

    assert matcher.next_due() == first
    assert [fill.price_ticks for fill in matcher.activate(first).fills] == [98, 97]
    assert matcher.next_due() == second
    assert matcher.activate(second).resting_lots == 1
    assert matcher.next_due() == third
    assert matcher.activate(third).canceled_lots == 1


def test_an_activated_stop_limit_runs_with_its_own_time_in_force_at_the_back():
    matcher = traded_at(100)
    gone = matcher.submit(CAT, BUY, 5, 103, FOK, stop_ticks=102).order_id
    rests = matcher.submit(CAT, BUY, 5, 101, GTC, stop_ticks=102).order_id
    matcher.submit(ANN, SELL, 2, 102)
    matcher.submit(BOB, BUY, 1)
    matcher.submit(BOB, BUY, 1, 101)

    assert matcher.activate(gone).canceled_lots == 5
    assert matcher.activate(rests).resting_lots == 5
    assert [order_id for order_id, *_ in matcher.queue(BUY, 101)] == [7, rests]


def test_a_waiting_stop_can_be_modified_and_keeps_the_order_of_its_id():
    matcher = traded_at(100)
    matcher.submit(CAT, BUY, 5, stop_ticks=105)
    matcher.submit(CAT, BUY, 5, 104, stop_ticks=103)
    report = matcher.modify(3, 7, stop_ticks=103)

    assert report.waiting_lots == 7
    assert matcher.modify(4, 2, 103).canceled_lots == 3
    with pytest.raises(StopReached):
        matcher.modify(3, 7, stop_ticks=100)
    with pytest.raises(ValueError, match="limit price"):
        matcher.modify(3, 7, 99)

    matcher.submit(ANN, SELL, 1, 103)
    matcher.submit(BOB, BUY, 1)
    assert matcher.next_due() == 3
    with pytest.raises(ValueError, match="does not wait"):
        matcher.modify(4, 2, 103, 110)
    assert matcher.modify(4, 9, 99).waiting_lots == 9
    assert matcher.reduce(3, 7).canceled_lots == 7
    assert matcher.next_due() == 4


def test_a_resting_order_has_no_stop_price_to_modify():
    matcher = three_asks()

    with pytest.raises(ValueError, match="does not wait"):
        matcher.modify(1, 4, stop_ticks=200)
    assert matcher.order(1) == (ANN, SELL, 101, 5)


@pytest.mark.parametrize(
    "arguments",
    [
        (ANN, BUY, 0, 100),
        (ANN, BUY, MAX_LOTS + 1, 100),
        (ANN, BUY, 1, 0),
        (ANN, BUY, 1, MAX_TICKS + 1),
        (ANN, 2, 1, 100),
        (ANN, BUY, 1, 100, 4),
        (ANN, BUY, 1, 100, GTC, 0),
        (1 << 31, BUY, 1, 100),
    ],
)
def test_bad_numbers_are_refused_and_use_up_no_id(arguments: tuple):
    matcher = NaiveMatcher()

    with pytest.raises(ValueError, match="is not from"):
        matcher.submit(*arguments)
    assert matcher.submit(ANN, BUY, 1, 100).order_id == 1


def test_a_walk_is_what_a_market_order_would_pay_at_most():
    matcher = three_asks()

    assert matcher.walk(BUY, 12) == (10 * 100 + 2 * 101, 12)
    assert matcher.walk(BUY, 99) == (10 * 100 + 5 * 101, 15)
    assert matcher.walk(SELL, 1) == (0, 0)

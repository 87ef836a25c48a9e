"""The matching engine, by example and against a naive one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.venue.matching import Engine, Side, StopReached, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
GTC, IOC, FOK, DAY = TimeInForce
MAX_LOTS, MAX_TICKS = 1 << 40, 1 << 52


def fills(report):
    return [(fill.maker_id, fill.price_ticks, fill.lots) for fill in report.fills]


def ends(report):
    return report.filled_lots, report.resting_lots, report.canceled_lots


def trade_at(engine, price):
    """Let two strangers trade one lot at *price*, against nobody else."""
    engine.submit(98, SELL, 1, price)
    report = engine.submit(99, BUY, 1, price)

    assert fills(report) == [(report.order_id - 1, price, 1)]


def due_ids(engine):
    """Cancel all due stops; return their ids in the order they were due."""
    ids = []
    while order_id := engine.next_due():
        ids.append(order_id)
        engine.cancel(order_id)
    return ids


def state(engine, ids=range(1, 100)):
    """Everything that can be asked."""
    tops = {side: engine.top(side, 1000) for side in (BUY, SELL)}
    queues = [engine.queue(side, price) for side in tops for price, _ in tops[side]]
    stops = [engine.stop(order_id) for order_id in ids]
    return tops, queues, stops, engine.next_due(), engine.last_ticks, len(engine)


def test_an_order_that_crosses_nothing_rests():
    engine = Engine()

    report = engine.submit(1, BUY, 5, 100)

    assert (report.filled_lots, report.resting_lots, report.canceled_lots) == (0, 5, 0)
    assert report.changes == [(BUY, 100, 5)]
    assert engine.top(BUY, 10) == [(100, 5)]
    assert engine.order(report.order_id) == (1, BUY, 100, 5)


@pytest.mark.req("OR-19")
def test_the_better_price_trades_first_and_then_the_older_order():
    engine = Engine()
    worse = engine.submit(1, SELL, 5, 102).order_id
    older = engine.submit(2, SELL, 5, 101).order_id
    newer = engine.submit(3, SELL, 5, 101).order_id

    report = engine.submit(4, BUY, 12, 102)

    assert fills(report) == [(older, 101, 5), (newer, 101, 5), (worse, 102, 2)]
    assert [fill.maker_owner for fill in report.fills] == [2, 3, 1]
    assert [fill.maker_lots for fill in report.fills] == [0, 0, 3]
    assert report.changes == [(SELL, 101, 0), (SELL, 102, 3)]


@pytest.mark.req("OR-05")
def test_a_limit_order_trades_at_its_limit_or_better_and_rests_the_remainder():
    engine = Engine()
    engine.submit(1, SELL, 5, 101)
    engine.submit(1, SELL, 5, 103)

    report = engine.submit(2, BUY, 8, 102)

    assert fills(report) == [(1, 101, 5)]
    assert report.resting_lots == 3
    assert engine.top(BUY, 5) == [(102, 3)]
    assert engine.top(SELL, 5) == [(103, 5)]


@pytest.mark.req("OR-09")
def test_an_ioc_order_never_rests():
    engine = Engine()
    engine.submit(1, BUY, 5, 100)

    report = engine.submit(2, SELL, 8, 100, IOC)

    assert (report.filled_lots, report.resting_lots, report.canceled_lots) == (5, 0, 3)
    assert len(engine) == 0


@pytest.mark.req("OR-04", "A-42")
def test_a_market_order_takes_every_price_and_never_rests():
    engine = Engine()
    engine.submit(1, SELL, 1, 101)
    engine.submit(1, SELL, 1, 900_000_000)

    report = engine.submit(2, BUY, 5)

    assert report.filled_lots == 2
    assert report.canceled_lots == 3
    assert engine.depth(SELL) == engine.depth(BUY) == 0


def test_a_canceled_order_leaves_the_others_in_their_places():
    engine = Engine()
    first, second, third = (engine.submit(1, BUY, 5, 100).order_id for _ in range(3))

    report = engine.cancel(second)

    assert report.canceled_lots == 5
    assert report.changes == [(BUY, 100, 10)]
    assert [order[0] for order in engine.queue(BUY, 100)] == [first, third]


@pytest.mark.req("A-20")
def test_a_reduced_order_keeps_its_place():
    engine = Engine()
    first, second = (engine.submit(1, BUY, 5, 100).order_id for _ in range(2))

    report = engine.reduce(first, 2)

    assert report.resting_lots == 3
    assert engine.queue(BUY, 100) == [(first, 1, 3), (second, 1, 5)]


def test_reducing_by_all_that_is_left_takes_the_order_out():
    engine = Engine()
    order_id = engine.submit(1, SELL, 5, 100).order_id

    report = engine.reduce(order_id, 9)

    assert (report.canceled_lots, report.changes) == (5, [(SELL, 100, 0)])
    assert engine.order(order_id) is None


def test_an_order_that_is_not_in_the_book_cannot_be_canceled_or_reduced():
    engine = Engine()

    with pytest.raises(KeyError):
        engine.cancel(7)
    with pytest.raises(KeyError):
        engine.reduce(7, 1)


@pytest.mark.parametrize(
    ("side", "lots", "price"),
    [(2, 1, 1), (-1, 1, 1), (BUY, 0, 1), (BUY, -1, 1), (BUY, 1 << 41, 1), (BUY, 1, 0),
     (BUY, 1, -5), (SELL, 1, 1 << 60)],
)  # fmt: skip
def test_an_impossible_order_is_refused_and_changes_nothing(side, lots, price):
    engine = Engine()

    with pytest.raises(ValueError, match="not"):
        engine.submit(1, side, lots, price)

    assert len(engine) == 0


@pytest.mark.parametrize("numbers", [
    (1, BUY, 1 << 63, 1), (1, BUY, 1, 1 << 63), (1 << 31, BUY, 1, 1),
    (1, BUY, 1, 1, GTC, 1 << 63), (1, BUY, 1, 1, GTC, 1 << 52 | 1),
    (1, BUY, 1, 1, GTC, 0), (1, BUY, 1, 1, 4), (1, BUY, 1, 1, -1), (1, BUY, 1, None, 4),
    (1, BUY, 1, -1, GTC, 5),
])  # fmt: skip
def test_impossible_numbers_of_any_size_use_up_no_id(numbers):
    engine = Engine()

    with pytest.raises((ValueError, OverflowError)):
        engine.submit(*numbers)

    assert len(engine) == 0
    assert engine.submit(1, BUY, 1, 1).order_id == 1


def test_ids_count_up_from_one_whatever_becomes_of_the_orders():
    engine = Engine()
    reports = [
        engine.submit(1, BUY, 1),
        engine.submit(1, BUY, 1, 100, FOK),
        engine.submit(1, BUY, 1, 100, stop_ticks=105),
        engine.submit(1, BUY, 1, 100),
    ]

    assert [report.order_id for report in reports] == [1, 2, 3, 4]


def test_ids_are_never_used_again():
    engine = Engine()
    first = engine.submit(1, BUY, 1, 100).order_id
    engine.cancel(first)

    assert engine.submit(1, BUY, 1, 100).order_id > first


def test_thousands_of_levels_and_orders_stay_sorted():
    engine = Engine()
    for price in range(5000, 0, -1):
        engine.submit(1, BUY, 2, (price * 7919) % 5003 + 1)

    prices = [price for price, _ in engine.top(BUY, 10_000)]

    assert prices == sorted(prices, reverse=True)
    assert len(prices) == engine.depth(BUY) == 5000
    assert engine.price_at(BUY, 0) == prices[0]
    assert engine.price_at(BUY, 4999) == prices[-1]
    assert engine.price_at(BUY, 5000) is None
    assert engine.lots_at(BUY, prices[17]) == 2


# ── every side, type and time in force ────────────────────────────────────────────────
# Ten lots at 100, where they have a price, against nobody, against four lots, and
# against twelve: what is filled, rests and is canceled then. Stops do it once they are
# activated.

KINDS = {
    "market": (None, None),
    "limit": (100, None),
    "stop": (None, 100),
    "stop_limit": (100, 100),
}
COMBINATIONS = [
    # side, type, time in force    empty        four         twelve
    (BUY,  "market",     GTC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "market",     IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "market",     FOK, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "market",     DAY, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "limit",      GTC, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (BUY,  "limit",      IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "limit",      FOK, [(0, 0, 10), (0, 0, 10), (10, 0, 0)]),
    (BUY,  "limit",      DAY, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (BUY,  "stop",       GTC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "stop",       IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "stop",       FOK, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "stop",       DAY, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "stop_limit", GTC, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (BUY,  "stop_limit", IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (BUY,  "stop_limit", FOK, [(0, 0, 10), (0, 0, 10), (10, 0, 0)]),
    (BUY,  "stop_limit", DAY, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (SELL, "market",     GTC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "market",     IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "market",     FOK, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "market",     DAY, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "limit",      GTC, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (SELL, "limit",      IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "limit",      FOK, [(0, 0, 10), (0, 0, 10), (10, 0, 0)]),
    (SELL, "limit",      DAY, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (SELL, "stop",       GTC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "stop",       IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "stop",       FOK, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "stop",       DAY, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "stop_limit", GTC, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
    (SELL, "stop_limit", IOC, [(0, 0, 10), (4, 0, 6), (10, 0, 0)]),
    (SELL, "stop_limit", FOK, [(0, 0, 10), (0, 0, 10), (10, 0, 0)]),
    (SELL, "stop_limit", DAY, [(0, 10, 0), (4, 6, 0), (10, 0, 0)]),
]  # fmt: skip


@pytest.mark.req("OR-12")
@pytest.mark.parametrize(("book", "there"), [("empty", 0), ("four", 4), ("twelve", 12)])
@pytest.mark.parametrize(("side", "kind", "tif", "outcomes"), COMBINATIONS)
def test_an_order_does_what_its_side_type_and_time_in_force_say(
    side, kind, tif, outcomes, book, there
):
    engine = Engine()
    price, stop = KINDS[kind]
    report = None
    if stop:
        report = engine.submit(1, side, 10, price, tif, stop)
        assert (ends(report), report.waiting_lots) == ((0, 0, 0), 10)
        assert engine.depth(side) == 0
        trade_at(engine, 100)
    if there:
        engine.submit(2, 1 - side, there, 100)
    if report:
        report = engine.activate(report.order_id)
    else:
        report = engine.submit(1, side, 10, price, tif)

    filled, resting, canceled = outcomes[["empty", "four", "twelve"].index(book)]
    assert (*ends(report), report.waiting_lots) == (filled, resting, canceled, 0)
    assert engine.top(side, 5) == ([(100, resting)] if resting else [])
    left = there - filled
    assert engine.top(1 - side, 5) == ([(100, left)] if left else [])
    assert len(engine) == bool(resting) + bool(left)


def test_the_table_has_every_combination_once():
    assert len({row[:3] for row in COMBINATIONS}) == len(COMBINATIONS) == 2 * 4 * 4


# ── fill or kill ──────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-10")
@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_killed_order_leaves_the_book_and_the_last_price_untouched(side):
    engine = Engine()
    away = 1 if side == BUY else -1
    for distance in range(3):
        engine.submit(1, 1 - side, 5, 100 + away * distance)
    before = state(engine)

    report = engine.submit(2, side, 11, 100 + away, FOK)

    assert (ends(report), fills(report), report.changes) == ((0, 0, 11), [], [])
    assert state(engine) == before


@pytest.mark.req("OR-10")
def test_a_fill_or_kill_order_takes_all_it_needs_from_several_levels():
    engine = Engine()
    for price in (100, 101, 102):
        engine.submit(1, SELL, 5, price)

    report = engine.submit(2, BUY, 11, 102, FOK)

    assert fills(report) == [(1, 100, 5), (2, 101, 5), (3, 102, 1)]
    assert engine.top(SELL, 5) == [(102, 4)]


# ── stops ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-06", "OR-07", "A-21")
@pytest.mark.parametrize(
    ("side", "stop", "waits", "reaches"), [(BUY, 105, 104, 105), (SELL, 95, 96, 95)]
)
@pytest.mark.parametrize("price", [None, 100])
def test_a_stop_waits_unseen_for_a_trade_at_its_price(
    side, stop, waits, reaches, price
):
    engine = Engine()
    trade_at(engine, 100)

    order_id = engine.submit(7, side, 3, price, GTC, stop).order_id
    assert engine.stop(order_id) == (7, side, stop, price, 3, False)
    assert (engine.order(order_id), engine.depth(side), len(engine)) == (None, 0, 1)
    trade_at(engine, waits)
    assert engine.next_due() == 0
    trade_at(engine, reaches)

    assert engine.next_due() == order_id
    assert engine.stop(order_id) == (7, side, stop, price, 3, True)
    assert len(engine) == 1


@pytest.mark.req("OR-06", "A-21")
@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_stop_beyond_which_the_last_trade_went_is_due_too(side):
    engine = Engine()
    order_id = engine.submit(1, side, 3, stop_ticks=100).order_id

    trade_at(engine, 150 if side == BUY else 50)

    assert due_ids(engine) == [order_id]


@pytest.mark.req("A-21")
@pytest.mark.parametrize(
    ("side", "stop"), [(BUY, 100), (BUY, 1), (SELL, 100), (SELL, 999)]
)
def test_a_stop_that_is_already_reached_is_refused(side, stop):
    engine = Engine()
    trade_at(engine, 100)
    before = state(engine)

    with pytest.raises(
        StopReached, match=f"stop at {stop} ticks, not beyond"
    ) as caught:
        engine.submit(1, side, 1, None, GTC, stop)

    assert (caught.value.stop_ticks, caught.value.last_ticks) == (stop, 100)
    assert isinstance(caught.value, ValueError)
    assert state(engine) == before
    assert engine.submit(1, BUY, 1, 1).order_id == 3


@pytest.mark.req("OR-06", "OR-07")
def test_due_stops_come_by_fill_then_buys_up_and_sells_down_then_by_age():
    engine = Engine()
    stops = [
        (SELL, 101), (BUY, 103), (BUY, 102), (SELL, 102), (BUY, 101), (BUY, 102),
        (SELL, 102), (SELL, 100), (BUY, 104),
    ]  # fmt: skip
    ids = [engine.submit(1, side, 1, None, GTC, stop).order_id for side, stop in stops]
    engine.submit(2, SELL, 1, 101)
    engine.submit(2, SELL, 1, 103)

    engine.submit(3, BUY, 2, 103)

    # The fill at 101: BUY 101, then the SELLs at 102, the older first, and at 101.
    # The fill at 103: the BUYs at 102, the older first, and at 103.
    order = [4, 3, 6, 0, 2, 5, 1]
    assert due_ids(engine) == [ids[index] for index in order]
    assert len(engine) == 2


@pytest.mark.req("OR-06")
def test_a_level_with_many_makers_triggers_a_stop_once():
    engine = Engine()
    order_id = engine.submit(1, BUY, 1, stop_ticks=100).order_id
    for _ in range(5):
        engine.submit(2, SELL, 1, 100)

    engine.submit(3, BUY, 5)

    assert due_ids(engine) == [order_id]


@pytest.mark.req("OR-06")
def test_an_activated_stop_may_make_others_due():
    engine = Engine()
    first = engine.submit(1, BUY, 5, stop_ticks=101).order_id
    second = engine.submit(1, BUY, 5, stop_ticks=102).order_id
    third = engine.submit(1, SELL, 5, 99, stop_ticks=99).order_id
    for price in (101, 102, 103):
        engine.submit(2, SELL, 2, price)
    bid = engine.submit(2, BUY, 1, 99).order_id
    engine.submit(3, BUY, 1, 101)

    ran = []
    while engine.next_due():
        report = engine.activate(engine.next_due())
        ran.append((report.order_id, fills(report)))
    engine.submit(3, SELL, 1, 99)
    report = engine.activate(third)

    assert ran == [(first, [(4, 101, 1), (5, 102, 2), (6, 103, 2)]), (second, [])]
    assert engine.order(bid) is None
    assert (ends(report), engine.queue(SELL, 99)) == ((0, 5, 0), [(third, 1, 5)])


@pytest.mark.req("OR-07")
def test_an_activated_stop_limit_order_keeps_its_id_and_goes_to_the_back_of_its_queue():
    engine = Engine()
    stop = engine.submit(1, SELL, 5, 100, GTC, 99).order_id
    other = engine.submit(2, SELL, 5, 100).order_id
    engine.submit(3, BUY, 2, 99)
    engine.submit(4, SELL, 2, 99)

    report = engine.activate(stop)

    assert (report.order_id, report.owner, report.side) == (stop, 1, SELL)
    assert report.changes == [(SELL, 100, 10)]
    assert engine.queue(SELL, 100) == [(other, 2, 5), (stop, 1, 5)]
    assert engine.order(stop) == (1, SELL, 100, 5)
    assert engine.stop(stop) is None
    assert engine.next_due() == 0


@pytest.mark.req("OR-06")
def test_only_a_due_stop_can_be_activated():
    engine = Engine()
    waiting = engine.submit(1, BUY, 5, stop_ticks=101).order_id
    resting = engine.submit(1, BUY, 5, 90).order_id
    before = state(engine)

    for order_id in (waiting, resting, 77, 0, -1):
        with pytest.raises(KeyError):
            engine.activate(order_id)

    assert state(engine) == before


@pytest.mark.req("OR-06")
def test_due_stops_may_be_activated_and_canceled_in_any_order():
    engine = Engine()
    first, second, third, fourth = (
        engine.submit(1, BUY, 1, 90, GTC, stop).order_id
        for stop in (101, 102, 103, 104)
    )
    trade_at(engine, 110)

    engine.activate(third)
    engine.cancel(second)
    engine.activate(fourth)

    assert due_ids(engine) == [first]
    assert [order[0] for order in engine.queue(BUY, 90)] == [third, fourth]


@pytest.mark.req("OR-06")
def test_a_due_stop_stays_due_when_the_price_comes_back():
    engine = Engine()
    order_id = engine.submit(1, BUY, 1, stop_ticks=105).order_id
    trade_at(engine, 105)
    trade_at(engine, 100)

    assert due_ids(engine) == [order_id]


@pytest.mark.req("OR-06", "A-20")
@pytest.mark.parametrize("due", [False, True])
def test_a_stop_can_be_reduced_and_canceled_before_it_is_activated(due):
    engine = Engine()
    order_id = engine.submit(1, BUY, 9, stop_ticks=105).order_id
    if due:
        trade_at(engine, 105)

    report = engine.reduce(order_id, 2)
    assert (report.waiting_lots, report.canceled_lots, report.changes) == (7, 2, [])
    assert engine.stop(order_id) == (1, BUY, 105, None, 7, due)
    report = engine.cancel(order_id)

    assert (report.waiting_lots, report.canceled_lots, report.changes) == (0, 7, [])
    assert (engine.stop(order_id), engine.next_due(), len(engine)) == (None, 0, 0)
    trade_at(engine, 106)
    assert engine.next_due() == 0


@pytest.mark.req("OR-06")
def test_many_stops_come_due_in_order_whatever_is_taken_from_between():
    engine = Engine()
    stops = {}
    for number in range(1000):
        side, stop = (BUY, SELL)[number % 2], 1001 + number * 7919 % 97
        order_id = engine.submit(1, side, 1, None, GTC, stop).order_id
        stops[order_id] = (side, stop)
    for order_id in [*stops][::3]:
        engine.cancel(order_id)
        del stops[order_id]
    for order_id in [*stops][::4]:
        side, stop = stops[order_id]
        engine.modify(order_id, 2, stop_ticks=2101 - stop)
        stops[order_id] = (side, 2101 - stop)

    engine.submit(2, BUY, 1, 1000)
    engine.submit(3, SELL, 1, 1000)
    sells = due_ids(engine)
    engine.submit(2, SELL, 1, 2000)
    engine.submit(3, BUY, 1, 2000)
    buys = due_ids(engine)

    def by(side, sign):
        found = [(sign * stop, i) for i, (s, stop) in stops.items() if s == side]
        return [order_id for _, order_id in sorted(found)]

    assert sells == by(SELL, -1)
    assert buys == by(BUY, 1)


def test_the_last_price_is_that_of_the_last_fill():
    engine = Engine()
    assert engine.last_ticks is None
    engine.submit(1, SELL, 1, 100)
    engine.submit(1, SELL, 1, 101)
    assert engine.last_ticks is None

    engine.submit(2, BUY, 2, 105)

    assert engine.last_ticks == 101


# ── self-trade prevention ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tif", "price"), [(GTC, 102), (DAY, 102), (IOC, 102), (GTC, None)]
)
def test_an_order_stops_at_the_first_one_of_its_own_owner(tif, price):
    engine = Engine()
    engine.submit(1, SELL, 5, 100)
    engine.submit(2, SELL, 5, 101)
    own = engine.submit(7, SELL, 5, 101).order_id
    engine.submit(2, SELL, 5, 101)

    report = engine.submit(7, BUY, 20, price, tif, self_trade=False)

    assert report.self_trade_prevented is True
    assert ends(report) == (10, 0, 10)
    assert fills(report) == [(1, 100, 5), (2, 101, 5)]
    assert [order[0] for order in engine.queue(SELL, 101)] == [own, own + 1]
    assert engine.depth(BUY) == 0


def test_an_order_trades_with_its_owner_if_nothing_is_said():
    engine = Engine()
    engine.submit(7, SELL, 5, 100)

    report = engine.submit(7, BUY, 5, 100)

    assert (report.filled_lots, report.self_trade_prevented) == (5, False)


def test_an_own_order_that_is_not_met_prevents_nothing():
    engine = Engine()
    engine.submit(1, SELL, 5, 100)
    engine.submit(7, SELL, 5, 100)
    engine.submit(7, SELL, 5, 101)

    exact = engine.submit(7, BUY, 5, 100, self_trade=False)
    below = engine.submit(7, BUY, 5, 99, self_trade=False)

    assert (ends(exact), exact.self_trade_prevented) == ((5, 0, 0), False)
    assert (ends(below), below.self_trade_prevented) == ((0, 5, 0), False)


@pytest.mark.req("OR-10")
def test_what_lies_behind_an_own_order_does_not_fill_a_fill_or_kill():
    engine = Engine()
    engine.submit(1, SELL, 5, 100)
    engine.submit(7, SELL, 1, 100)
    engine.submit(1, SELL, 50, 100)
    before = state(engine)

    killed = engine.submit(7, BUY, 6, 100, FOK, self_trade=False)
    assert (ends(killed), killed.self_trade_prevented) == ((0, 0, 6), True)
    assert state(engine) == before
    filled = engine.submit(7, BUY, 5, 100, FOK, self_trade=False)

    assert (ends(filled), filled.self_trade_prevented) == ((5, 0, 0), False)


def test_a_stop_takes_its_self_trade_policy_to_its_activation():
    engine = Engine()
    order_id = engine.submit(7, BUY, 5, 102, GTC, 100, self_trade=False).order_id
    trade_at(engine, 100)
    engine.submit(7, SELL, 5, 101)

    report = engine.activate(order_id)

    assert (ends(report), report.self_trade_prevented) == ((0, 0, 5), True)
    assert len(engine) == 1


def test_a_modified_order_keeps_its_self_trade_policy():
    engine = Engine()
    engine.submit(7, SELL, 5, 101)
    strict = engine.submit(7, BUY, 5, 100, self_trade=False).order_id
    loose = engine.submit(7, BUY, 5, 100).order_id

    prevented = engine.modify(strict, 6, 101)
    traded = engine.modify(loose, 5, 101)

    assert (ends(prevented), prevented.self_trade_prevented) == ((0, 0, 6), True)
    assert prevented.changes == [(BUY, 100, 5)]
    assert (ends(traded), traded.self_trade_prevented) == ((5, 0, 0), False)
    assert len(engine) == 0


# ── modify ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OR-15", "A-20")
@pytest.mark.parametrize(
    ("lots", "price", "keeps"),
    [(5, None, True), (5, 100, True), (3, None, True), (3, 100, True),
     (6, None, False), (6, 100, False), (5, 99, False), (3, 99, False), (9, 99, False)],
)  # fmt: skip
@pytest.mark.parametrize("side", [BUY, SELL])
def test_fewer_lots_keep_the_place_and_more_or_another_price_lose_it(
    side, lots, price, keeps
):
    engine = Engine()
    new_price = price or 100
    if side == SELL and price == 99:
        new_price = 101
    order_id, other = (engine.submit(1, side, 5, 100).order_id for _ in range(2))
    behind = engine.submit(1, side, 5, new_price).order_id

    report = engine.modify(order_id, lots, price and new_price)

    assert (report.order_id, report.resting_lots) == (order_id, lots)
    assert report.canceled_lots == max(5 - lots, 0)
    assert engine.order(order_id) == (1, side, new_price, lots)
    mine = (order_id, 1, lots)
    others = [(i, 1, 5) for i in ((other, behind) if new_price == 100 else (behind,))]
    queue = [mine, *others] if keeps else [*others, mine]
    assert engine.queue(side, new_price) == queue
    last = {change[:2]: change[2] for change in report.changes}
    for price_ticks in {100, new_price}:
        assert last[side, price_ticks] == engine.lots_at(side, price_ticks)


@pytest.mark.req("OR-15")
def test_a_modified_order_may_trade_at_once_and_rests_the_remainder():
    engine = Engine()
    order_id = engine.submit(1, BUY, 5, 100).order_id
    maker = engine.submit(2, SELL, 3, 102).order_id
    stop = engine.submit(3, BUY, 1, stop_ticks=102).order_id

    report = engine.modify(order_id, 8, 103)

    assert fills(report) == [(maker, 102, 3)]
    assert ends(report) == (3, 5, 0)
    assert report.changes == [(BUY, 100, 0), (SELL, 102, 0), (BUY, 103, 5)]
    assert engine.order(order_id) == (1, BUY, 103, 5)
    assert (engine.last_ticks, engine.next_due()) == (102, stop)


@pytest.mark.req("OR-15")
def test_a_modified_order_that_trades_in_full_is_gone():
    engine = Engine()
    order_id = engine.submit(1, SELL, 5, 100).order_id
    engine.submit(2, BUY, 9, 98)

    report = engine.modify(order_id, 4, 98)

    assert ends(report) == (4, 0, 1)
    assert (engine.order(order_id), len(engine)) == (None, 1)
    with pytest.raises(KeyError):
        engine.modify(order_id, 4)


@pytest.mark.req("OR-15")
def test_an_activated_stop_limit_order_that_rests_is_modified_as_a_limit_order():
    engine = Engine()
    order_id = engine.submit(1, BUY, 5, 90, DAY, 100).order_id
    trade_at(engine, 100)
    engine.activate(order_id)

    report = engine.modify(order_id, 7, 91)

    assert (report.resting_lots, engine.order(order_id)) == (7, (1, BUY, 91, 7))
    with pytest.raises(ValueError, match="not a waiting stop"):
        engine.modify(order_id, 7, stop_ticks=200)


@pytest.mark.req("OR-15")
@pytest.mark.parametrize("where", ["resting", "waiting", "due"])
def test_no_lots_left_is_a_cancel(where):
    engine = Engine()
    stop = None if where == "resting" else 105
    order_id = engine.submit(1, BUY, 5, 100, GTC, stop).order_id
    if where == "due":
        trade_at(engine, 110)

    report = engine.modify(order_id, 0)

    assert (ends(report), report.waiting_lots) == ((0, 0, 5), 0)
    assert report.changes == ([(BUY, 100, 0)] if where == "resting" else [])
    assert (len(engine), engine.next_due()) == (0, 0)


@pytest.mark.req("OR-15", "A-20")
def test_a_waiting_stop_changes_its_prices_and_lots():
    engine = Engine()
    trade_at(engine, 100)
    order_id = engine.submit(1, SELL, 5, 90, GTC, 95).order_id

    more = engine.modify(order_id, 9, 88, 97)
    assert (more.waiting_lots, more.canceled_lots, more.changes) == (9, 0, [])
    assert engine.stop(order_id) == (1, SELL, 97, 88, 9, False)
    fewer = engine.modify(order_id, 4)

    assert (fewer.waiting_lots, fewer.canceled_lots) == (4, 5)
    assert engine.stop(order_id) == (1, SELL, 97, 88, 4, False)


@pytest.mark.req("OR-15", "A-21")
def test_a_changed_stop_is_triggered_by_its_new_price_and_among_equals_by_its_id():
    engine = Engine()
    first, second, third = (
        engine.submit(1, BUY, 5, stop_ticks=stop).order_id for stop in (120, 105, 105)
    )
    engine.modify(first, 5, stop_ticks=105)
    engine.modify(second, 5, stop_ticks=110)

    trade_at(engine, 107)

    assert due_ids(engine) == [first, third]
    assert engine.stop(second) == (1, BUY, 110, None, 5, False)


@pytest.mark.req("OR-15")
def test_a_due_stop_changes_its_price_and_lots_but_not_its_turn():
    engine = Engine()
    first, second = (engine.submit(1, BUY, 5, 90, GTC, 105).order_id for _ in range(2))
    trade_at(engine, 105)

    report = engine.modify(first, 8, 91)
    with pytest.raises(ValueError, match="not a waiting stop"):
        engine.modify(first, 8, stop_ticks=120)

    assert report.waiting_lots == 8
    assert engine.stop(first) == (1, BUY, 105, 91, 8, True)
    assert engine.next_due() == first
    assert engine.activate(first).resting_lots == 8
    assert due_ids(engine) == [second]


@pytest.mark.req("OR-15")
def test_a_modification_that_is_refused_changes_nothing():
    engine = Engine()
    trade_at(engine, 100)
    limit = engine.submit(1, BUY, 5, 90).order_id
    stop = engine.submit(1, BUY, 5, stop_ticks=110).order_id
    stop_limit = engine.submit(1, SELL, 5, 80, GTC, 95).order_id
    due = engine.submit(1, BUY, 5, 80, GTC, 101).order_id
    trade_at(engine, 101)
    before = state(engine)

    refused = [
        (limit, -1), (limit, MAX_LOTS + 1), (limit, 5, 0), (limit, 5, -3),
        (limit, 5, MAX_TICKS + 1), (limit, 5, 91, 120), (limit, 0, None, 120),
        (stop, 5, 100), (stop, 5, None, 0), (stop, 5, None, 101), (stop, 9, None, 1),
        (stop, MAX_LOTS + 1, None, 120), (stop_limit, 5, 0, 90),
        (stop_limit, 5, 80, 101), (stop_limit, 4, 79, 105), (due, 5, 81, 120),
        (due, -1, 81), (due, 5, 0),
    ]  # fmt: skip
    for arguments in refused:
        with pytest.raises(ValueError, match="not"):
            engine.modify(*arguments)
        assert state(engine) == before
    for arguments in [(77, 5), (0, 5), (-1, 5, 100), (77, -1)]:
        with pytest.raises(KeyError):
            engine.modify(*arguments)

    assert state(engine) == before


@pytest.mark.parametrize("lots", [0, -1])
@pytest.mark.parametrize("stop", [None, 105])
def test_a_reduction_by_nothing_is_refused_and_changes_nothing(lots, stop):
    engine = Engine()
    order_id = engine.submit(1, BUY, 5, 100, GTC, stop).order_id
    before = state(engine)

    with pytest.raises(ValueError, match="not at least 1"):
        engine.reduce(order_id, lots)

    assert state(engine) == before


# ── bounds and room ───────────────────────────────────────────────────────────────────


def test_a_walk_says_what_a_market_order_would_pay():
    engine = Engine()
    for price, lots in ((101, 5), (102, 3), (102, 2), (105, 1)):
        engine.submit(1, SELL, lots, price)
    engine.submit(1, BUY, 4, 99)

    assert engine.walk(BUY, 3) == (3 * 101, 3)
    assert engine.walk(BUY, 7) == (5 * 101 + 2 * 102, 7)
    assert engine.walk(BUY, 50) == (5 * 101 + 5 * 102 + 105, 11)
    assert engine.walk(SELL, 5) == (4 * 99, 4)
    assert Engine().walk(SELL, 5) == (0, 0)
    report = engine.submit(2, BUY, 7)
    assert (
        sum(fill.lots * fill.price_ticks for fill in report.fills) == 5 * 101 + 2 * 102
    )


@pytest.mark.parametrize(
    ("side", "lots"), [(2, 1), (BUY, 0), (BUY, -1), (BUY, 1 << 41)]
)
def test_a_walk_of_an_impossible_order_is_refused(side, lots):
    with pytest.raises(ValueError, match="not"):
        Engine().walk(side, lots)


def test_the_largest_numbers_are_exact():
    engine = Engine()
    for _ in range(3):
        engine.submit(2**31 - 1, SELL, MAX_LOTS, MAX_TICKS)
    engine.submit(-(2**31), SELL, MAX_LOTS - 1, MAX_TICKS - 1)

    assert engine.lots_at(SELL, MAX_TICKS) == 3 * MAX_LOTS
    assert engine.walk(BUY, MAX_LOTS) == (
        (MAX_LOTS - 1) * (MAX_TICKS - 1) + MAX_TICKS,
        MAX_LOTS,
    )
    report = engine.submit(5, BUY, MAX_LOTS, MAX_TICKS)

    assert fills(report) == [(4, MAX_TICKS - 1, MAX_LOTS - 1), (1, MAX_TICKS, 1)]
    assert [fill.maker_owner for fill in report.fills] == [-(2**31), 2**31 - 1]
    assert engine.last_ticks == MAX_TICKS


def test_thousands_of_orders_are_found_when_others_come_and_go():
    engine = Engine()
    ids = [
        engine.submit(1, BUY, 1, 100, GTC, (None, 200)[i % 2]).order_id
        for i in range(5000)
    ]
    for order_id in ids[::3]:
        engine.cancel(order_id)
    more = [engine.submit(1, BUY, 2, 101).order_id for _ in range(3000)]

    left = [order_id for index, order_id in enumerate(ids) if index % 3]
    assert len(engine) == len(left) + len(more)
    resting = [order[0] for order in engine.queue(BUY, 100)]
    assert resting == [i for i in left if engine.order(i)]
    assert all(engine.order(i) or engine.stop(i) for i in left)
    assert not any(engine.order(i) or engine.stop(i) for i in ids[::3])
    assert [order[0] for order in engine.queue(BUY, 101)] == more


@pytest.mark.parametrize("name", ["submit", "modify", "activate", "cancel", "reduce"])
def test_an_operation_that_runs_out_of_memory_changes_nothing(name):
    testcapi = pytest.importorskip("_testcapi")
    engine = Engine()
    for price in (100, 101, 102):
        engine.submit(1, SELL, 1, price)
    resting = engine.submit(2, BUY, 5, 99).order_id
    due = engine.submit(2, BUY, 5, 102, GTC, 100).order_id
    engine.submit(3, BUY, 1, 100)
    arguments = {
        "submit": (2, BUY, 5, 102), "modify": (resting, 5, 102), "activate": (due,),
        "cancel": (resting,), "reduce": (resting, 2),
    }[name]  # fmt: skip
    operation, before, failures = getattr(engine, name), state(engine), 0
    # Reports that are alive, so that none that is free is used again.
    alive = [Engine().submit(1, BUY, 1) for _ in range(200)]

    while True:
        testcapi.set_nomemory(failures, failures + 1)
        try:
            report = operation(*arguments)
        except MemoryError:
            report = None
        finally:
            testcapi.remove_mem_hooks()
        if report is not None:
            break
        failures += 1
        assert state(engine) == before

    assert failures >= len({"a report", "its changes"})
    assert report.order_id == (7 if name == "submit" else arguments[0])
    assert len(alive) == 200


def test_a_report_outlives_its_engine_and_answers_the_same_again():
    engine = Engine()
    for _ in range(400):
        engine.submit(1, SELL, 1, 100)
    report = engine.submit(2, BUY, 400, 100)
    del engine

    assert [fill.maker_id for fill in report.fills] == list(range(1, 401))
    assert report.fills is report.fills
    assert report.changes == [(SELL, 100, 0)]


class NaiveEngine:
    """The same rules, as a list of orders that is searched for every match."""

    def __init__(self):
        self.orders = []
        self.last_id = 0

    def submit(self, owner, side, lots, price, tif):
        self.last_id += 1
        trades = []
        while lots:
            others = [o for o in self.orders if o["side"] != side]
            if price is not None and side == BUY:
                others = [o for o in others if o["price"] <= price]
            elif price is not None:
                others = [o for o in others if o["price"] >= price]
            if not others:
                break
            sign = 1 if side == BUY else -1
            maker = min(others, key=lambda o: (sign * o["price"], o["id"]))
            traded = min(lots, maker["lots"])
            trades.append((maker["id"], maker["price"], traded))
            lots -= traded
            maker["lots"] -= traded
            self.orders = [o for o in self.orders if o["lots"]]
        if lots and price is not None and tif == GTC:
            self.orders.append(
                {"id": self.last_id, "owner": owner, "side": side, "price": price,
                 "lots": lots}
            )  # fmt: skip
        return trades

    def reduce(self, order_id, lots):
        for order in self.orders:
            if order["id"] == order_id:
                order["lots"] -= min(lots, order["lots"])
        self.orders = [o for o in self.orders if o["lots"]]

    def top(self, side):
        levels = {}
        for order in self.orders:
            if order["side"] == side:
                levels[order["price"]] = levels.get(order["price"], 0) + order["lots"]
        return sorted(levels.items(), reverse=side == BUY)


PRICES = st.integers(95, 105)
LOTS = st.integers(1, 20)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from([BUY, SELL]),
            LOTS,
            st.one_of(PRICES, st.none()),
            st.sampled_from([GTC, GTC, IOC]),
        ),
        st.tuples(st.just("cancel"), st.integers(1, 60)),
        st.tuples(st.just("reduce"), st.integers(1, 60), LOTS),
    ),
    max_size=80,
)


@pytest.mark.req("OR-19")
@given(OPERATIONS)
def test_the_engine_does_what_a_naive_one_does(operations):
    engine, naive = Engine(), NaiveEngine()
    books = {BUY: {}, SELL: {}}
    for name, *arguments in operations:
        if name == "submit":
            side, lots, price, tif = arguments
            report = engine.submit(1, side, lots, price, tif)
            assert fills(report) == naive.submit(1, side, lots, price, tif)
            assert (
                report.filled_lots + report.resting_lots + report.canceled_lots == lots
            )
        else:
            order_id, *rest = arguments
            if engine.order(order_id) is None:
                continue
            taken = rest[0] if rest else 1 << 30
            report = engine.reduce(order_id, taken) if rest else engine.cancel(order_id)
            naive.reduce(order_id, taken)
        for side, price, lots in report.changes:
            books[side][price] = lots
        for side in (BUY, SELL):
            assert engine.top(side, 1000) == naive.top(side)
            told = {price: lots for price, lots in books[side].items() if lots}
            assert told == dict(naive.top(side))
    assert len(engine) == len(naive.orders)


# ── invariants ────────────────────────────────────────────────────────────────────────

IDS = st.integers(1, 40)
OWNERS = st.integers(1, 3)
SIDES = st.sampled_from([BUY, SELL])
MAYBE_PRICE = st.one_of(PRICES, st.none())
EVERYTHING = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            OWNERS,
            SIDES,
            LOTS,
            MAYBE_PRICE,
            st.sampled_from([GTC, GTC, IOC, FOK, DAY]),
            st.one_of(st.none(), st.none(), PRICES),
            st.booleans(),
        ),
        st.tuples(st.just("modify"), IDS, st.integers(0, 20), MAYBE_PRICE, st.none()),
        st.tuples(st.just("modify"), IDS, LOTS, MAYBE_PRICE, MAYBE_PRICE),
        st.tuples(st.just("reduce"), IDS, LOTS),
        st.tuples(st.just("cancel"), IDS),
    ),
    max_size=60,
)


class Ledger:
    """What must be true of an engine, from its reports alone."""

    def __init__(self):
        self.engine = Engine()
        self.left = {}
        self.sides = {}
        self.waiting = {}
        self.due = []
        self.levels = {}
        self.last = None

    def run(self, name, *arguments):
        """Do one operation, or see that it changed nothing."""
        before = state(self.engine)
        ids = len(self.sides)
        try:
            report = getattr(self.engine, name)(*arguments)
        except (KeyError, ValueError):
            assert state(self.engine) == before
            return
        if name == "submit":
            assert report.order_id == ids + 1
            had, self.sides[report.order_id] = arguments[2], arguments[1]
            if arguments[5] is not None:
                self.waiting[report.order_id] = arguments[5]
        else:
            assert report.order_id == arguments[0]
            had = self.left[report.order_id]
            if name == "modify":
                had = max(had, arguments[1])
                if arguments[3] is not None and arguments[1]:
                    self.waiting[report.order_id] = arguments[3]
        self.take(report, had)

    def drain(self):
        while self.due:
            assert self.engine.next_due() == self.due[0]
            self.run("activate", self.due[0])
        assert self.engine.next_due() == 0

    def take(self, report, had):
        """Add up a report."""
        order_id = report.order_id
        staying = report.resting_lots + report.waiting_lots
        assert report.filled_lots + staying + report.canceled_lots == had
        assert report.filled_lots == sum(fill.lots for fill in report.fills)
        self.left[order_id] = staying
        if not report.waiting_lots:
            self.waiting.pop(order_id, None)
            self.due = [i for i in self.due if i != order_id]
        for fill in report.fills:
            assert self.sides[fill.maker_id] != report.side
            self.left[fill.maker_id] -= fill.lots
            assert self.left[fill.maker_id] == fill.maker_lots >= 0
            self.last = fill.price_ticks
            self.trigger(BUY, 1)
            self.trigger(SELL, -1)
        for side, price, lots in report.changes:
            self.levels[side, price] = lots

    def trigger(self, side, sign):
        reached = sorted(
            (sign * stop, order_id)
            for order_id, stop in self.waiting.items()
            if self.sides[order_id] == side and sign * stop <= sign * self.last
        )
        for _, order_id in reached:
            del self.waiting[order_id]
            self.due.append(order_id)

    def check(self):
        """Compare the books."""
        engine, resting = self.engine, {}
        for side in (BUY, SELL):
            levels = engine.top(side, 1000)
            told = {p: n for (s, p), n in self.levels.items() if s == side and n}
            assert dict(levels) == told
            assert len(levels) == engine.depth(side)
            for price, lots in levels:
                queue = engine.queue(side, price)
                assert sum(order[2] for order in queue) == lots
                for order_id, owner, left in queue:
                    assert engine.order(order_id) == (owner, side, price, left)
                    resting[order_id] = left
        if engine.depth(BUY) and engine.depth(SELL):
            assert engine.price_at(BUY, 0) < engine.price_at(SELL, 0)
        stops = {i: stop for i in self.left if (stop := engine.stop(i))}
        assert {i for i in stops if stops[i][5]} == set(self.due)
        assert {i: s[2] for i, s in stops.items() if not s[5]} == self.waiting
        living = resting | {order_id: stop[4] for order_id, stop in stops.items()}
        assert living == {i: lots for i, lots in self.left.items() if lots}
        assert len(engine) == len(living)
        assert engine.last_ticks == self.last


@pytest.mark.req("OR-12", "OR-15")
@given(EVERYTHING, st.booleans())
def test_nothing_is_lost_and_nothing_crosses_whatever_is_asked(operations, at_once):
    ledger = Ledger()
    for operation in operations:
        ledger.run(*operation)
        ledger.check()
        if at_once:
            ledger.drain()
            ledger.check()
    ledger.drain()
    ledger.check()

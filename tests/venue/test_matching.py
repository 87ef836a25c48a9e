"""The matching engine, by example and against a naive one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.venue.matching import Engine, Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
GTC, IOC = TimeInForce.GTC, TimeInForce.IOC


def fills(report):
    return [(fill.maker_id, fill.price_ticks, fill.lots) for fill in report.fills]


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

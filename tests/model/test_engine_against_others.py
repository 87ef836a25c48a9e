"""The matching engine against a naive one, and both against one that others wrote."""

import inspect
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from feedhandler.venue.matching import Engine
from tests.model import naive_matcher
from tests.model.crowd import KNOWN_TO_OTHERS, Operation, random_operations
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
)


def outcome(engine: Any, operation: Operation) -> tuple[Any, ...]:
    """Return what became of the operation, and the levels that it says it changed."""
    try:
        report = getattr(engine, operation.method)(*operation.arguments)
    except KeyError:
        return "KeyError", {}
    except ValueError as error:
        reached = type(error).__name__ == "StopReached"
        return "StopReached" if reached else "ValueError", {}
    happened = (
        report.order_id,
        report.owner,
        report.side,
        report.filled_lots,
        report.resting_lots,
        report.waiting_lots,
        report.canceled_lots,
        report.self_trade_prevented,
        [
            (f.maker_id, f.maker_owner, f.maker_lots, f.price_ticks, f.lots)
            for f in report.fills
        ],
        engine.order(report.order_id),
        engine.stop(report.order_id),
    )
    return happened, {(side, price): lots for side, price, lots in report.changes}


def glance(engine: Any) -> tuple[Any, ...]:
    return (
        engine.top(BUY, 1),
        engine.top(SELL, 1),
        engine.last_ticks,
        engine.next_due(),
        len(engine),
    )


def whole_book(engine: Any) -> list[tuple[int, int, int, list[tuple[int, int, int]]]]:
    """Return side, price, lots and queue of all levels."""
    return [
        (side, price, lots, engine.queue(side, price))
        for side in (BUY, SELL)
        for price, lots in engine.top(side, engine.depth(side))
    ]


def compare(
    engine: Any, oracle: NaiveMatcher, operations: Iterator[Operation]
) -> Counter:
    """Apply the operations to both, expect the same, count what happened."""
    happened: Counter = Counter()
    for number, operation in enumerate(operations):
        where = f"operation {number}: {operation}"
        expected, changed = outcome(oracle, operation)
        found, told = outcome(engine, operation)

        assert found == expected, where
        assert glance(engine) == glance(oracle), where
        assert told | changed == told, where
        for level, lots in told.items():
            assert lots == oracle.lots_at(*level), where
        if number % 1_000 == 0:
            assert_same_books(engine, oracle, where)
        happened[operation.method] += 1
        if isinstance(expected, str):
            happened[expected] += 1
        else:
            happened["fill"] += len(expected[8])
            happened["self-trade prevented"] += expected[7]
    assert_same_books(engine, oracle, "at the end")
    return happened


def assert_same_books(engine: Any, oracle: NaiveMatcher, where: str) -> None:
    assert whole_book(engine) == whole_book(oracle), where
    for side in (BUY, SELL):
        for lots in (1, 100, MAX_LOTS):
            assert engine.walk(side, lots) == oracle.walk(side, lots), where


@pytest.mark.req("OR-19")
@pytest.mark.parametrize("seed", [1, 2])
def test_the_engine_does_what_the_naive_one_does(seed: int):
    oracle = NaiveMatcher()
    happened = compare(Engine(), oracle, random_operations(seed, 5_000, oracle))

    assert happened["fill"] > 1_000


@pytest.mark.stress
@pytest.mark.req("OR-19")
def test_the_engine_does_what_the_naive_one_does_for_long():
    oracle = NaiveMatcher()
    happened = compare(Engine(), oracle, random_operations(3, 100_000, oracle))

    assert happened["fill"] > 20_000


@pytest.mark.req("OR-19")
@pytest.mark.parametrize("make", [NaiveMatcher, Engine])
def test_an_engine_does_what_the_naive_one_does_with_the_largest_numbers(make: Any):
    operations = [
        *[Operation("submit", (1, SELL, MAX_LOTS, MAX_TICKS))] * 3,
        Operation("submit", (1, BUY, MAX_LOTS, 1)),
        Operation("submit", (2, BUY, MAX_LOTS, None, GTC, MAX_TICKS)),
        Operation("submit", (3, SELL, MAX_LOTS, 1, GTC, 1)),
        Operation("submit", (2, BUY, MAX_LOTS, MAX_TICKS, FOK)),
        Operation("activate", (5,)),
        Operation("submit", (2, SELL, 1)),
        Operation("activate", (6,)),
        Operation("modify", (3, MAX_LOTS, 1)),
    ]
    engine = make()

    assert compare(engine, NaiveMatcher(), iter(operations))["fill"] == 4
    assert engine.queue(SELL, 1) == [(6, 3, 1), (3, 1, MAX_LOTS)]
    assert engine.last_ticks == 1


def test_the_naive_one_does_what_it_does_itself_and_all_that_can_be_done():
    oracle = NaiveMatcher()
    happened = compare(NaiveMatcher(), oracle, random_operations(1, 5_000, oracle))

    for what, least in {
        "submit": 2_000,
        "activate": 200,
        "cancel": 300,
        "reduce": 150,
        "modify": 400,
        "fill": 1_000,
        "self-trade prevented": 50,
        "StopReached": 10,
        "ValueError": 50,
        "KeyError": 20,
    }.items():
        assert happened[what] >= least, what


MUTANTS = {
    "the newest of a price trades first": (
        "key=lambda ask: ask.price_ticks)",
        "key=lambda ask: (ask.price_ticks, -ask.order_id))",
    ),
    "a requeued order trades by its id": (
        "key=lambda bid: -bid.price_ticks)",
        "key=lambda bid: (-bid.price_ticks, bid.order_id))",
    ),
    "the worst price trades first": (
        "key=lambda bid: -bid.price_ticks)",
        "key=lambda bid: bid.price_ticks)",
    ),
    "a trade is at the taker's price": (
        "price = maker.price_ticks",
        "price = taker.price_ticks or maker.price_ticks",
    ),
    "a fok order is filled in part": (
        "if limited and taker.time_in_force == FOK and available < taker.lots:",
        "if False:",
    ),
    "a fok order is killed though all could trade": (
        "FOK and available < taker.lots",
        "FOK and available <= taker.lots",
    ),
    "a fok order counts what lies behind its own": (
        "available = sum(maker.lots for maker in makers)",
        "available = sum(maker.lots for maker in makers) + meets_its_own",
    ),
    "an ioc order rests": ("in (GTC, DAY) and", "in (GTC, DAY, IOC) and"),
    "a day order does not rest": ("in (GTC, DAY) and", "in (GTC,) and"),
    "what met its own order rests": (" and not prevented", ""),
    "an order meets its own though filled before": (
        "meets_its_own and available < taker.lots",
        "meets_its_own and available <= taker.lots",
    ),
    "more lots keep their priority": (" or lots > order.lots", ""),
    "fewer lots lose their priority": (
        "or lots > order.lots",
        "or lots != order.lots",
    ),
    "a modified order forgets its policy": (
        "order.time_in_force = GTC",
        "order.self_trade = True",
    ),
    "a buy stop waits for a trade beyond it": (
        "order.stop_ticks <= fill_ticks",
        "order.stop_ticks < fill_ticks",
    ),
    "stops of one fill are due by id": (
        "(order.stop_ticks, order.order_id)",
        "order.order_id",
    ),
    "newly due stops overtake": (
        "self._due += sorted(buys",
        "self._due[:0] = sorted(buys",
    ),
    "a stop at the last trade is taken": ("stop_ticks <= last", "stop_ticks < last"),
    "a refused stop uses up an id": (
        "        self._check_stop(side, stop_ticks)\n        self._newest += 1",
        "        self._newest += 1\n        self._check_stop(side, stop_ticks)",
    ),
    "a change of a level is not told": (
        "before.get(level) != now.get(level)",
        "before.get(level) != now.get(level) and level in now",
    ),
}


def mutant(old: str, new: str) -> Any:
    """Return a naive matcher with one thing wrong."""
    source = inspect.getsource(naive_matcher)
    assert source.count(old) == 1, f"{source.count(old)} places have {old!r}"
    module = ModuleType("mutant")
    exec(source.replace(old, new), module.__dict__)
    return module.NaiveMatcher()


@pytest.mark.parametrize("wrong", MUTANTS)
def test_the_comparison_has_the_power_to_find_what_is_wrong(wrong: str):
    oracle = NaiveMatcher()
    engine = mutant(*MUTANTS[wrong])

    with pytest.raises(AssertionError, match="operation"):
        compare(engine, oracle, random_operations(1, 10_000, oracle))


# obook 0.1.0 puts makers at the back of their level when it undoes a FOK order that met
# its own, so where self-trades are prevented no order is FOK.
@pytest.mark.req("OR-19")
@pytest.mark.parametrize(
    ("self_trade", "times_in_force"),
    [(True, (GTC, GTC, GTC, DAY, IOC, FOK)), (False, (GTC, GTC, GTC, DAY, IOC))],
    ids=["self-trades", "no self-trades"],
)
@pytest.mark.parametrize("make", [NaiveMatcher, Engine])
@pytest.mark.parametrize(
    "count", [10_000, pytest.param(40_000, marks=pytest.mark.stress)]
)
def test_an_engine_that_others_wrote_trades_the_same(
    make: Any, self_trade: bool, times_in_force: tuple[int, ...], count: int
):
    pytest.importorskip("obook", reason="the engine to compare with is not installed")
    from tests.model.obook_engine import ObookEngine

    engine, other = make(), ObookEngine(self_trade)
    operations = random_operations(
        4,
        count,
        engine,
        weights=KNOWN_TO_OTHERS,
        times_in_force=times_in_force,
        self_trade=self_trade,
    )
    trades = 0
    for number, (method, arguments) in enumerate(operations):
        where = f"operation {number}: {method}{arguments}"
        report = getattr(engine, method)(*arguments)
        fills = [(f.maker_id, f.price_ticks, f.lots) for f in report.fills]

        assert fills == getattr(other, method)(*arguments), where
        if number % 100 == 99:
            assert whole_queues(engine) == other.book(), where
        trades += len(fills)
    assert whole_queues(engine) == other.book()
    assert trades > count / 4


def whole_queues(engine: Any) -> list[tuple[int, int, int, int]]:
    return [
        (side, price, order_id, lots)
        for side, price, _, queue in whole_book(engine)
        for order_id, _, lots in queue
    ]

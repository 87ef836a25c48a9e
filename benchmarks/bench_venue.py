"""The venue's matching engine alone: a busy market, one Python call an operation."""

import gc
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from feedhandler.venue.matching import Engine, Report, Side, TimeInForce

COUNT = 100_000
ROUNDS = 21
LEAST_A_SECOND = 500_000
MIDDLE_TICKS = 100_000
OWNERS = 50

MIX = {"limit": 45, "cancel": 35, "take": 10, "modify": 5, "stop": 5}

Operation = tuple[str, tuple[Any, ...]]


class Crowd:
    """Seeded traders, who see the book: they act on an engine of their own."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._engine = Engine()
        self._living: list[int] = []
        self.stream: list[Operation] = []

    def act(self, count: int) -> list[Operation]:
        """Return *count* operations; what they make due is activated between."""
        for kind in self._random.choices([*MIX], [*MIX.values()], k=count):
            name, arguments = getattr(self, f"_{kind}")()
            self.stream.append((name, arguments))
            self._note(getattr(self._engine, name)(*arguments))
            while order_id := self._engine.next_due():
                self._note(self._engine.activate(order_id))
        return self.stream

    def _note(self, report: Report) -> None:
        if report.resting_lots or report.waiting_lots:
            self._living.append(report.order_id)

    def _owner_side_lots(self) -> tuple[int, int, int]:
        random = self._random
        side = random.choice((Side.BUY, Side.SELL))
        return random.randrange(OWNERS), int(side), random.randint(1, 200)

    def _near(self, side: int) -> int:
        """Return a price mostly behind the touch, sometimes across it."""
        best = self._engine.price_at(side, 0) or MIDDLE_TICKS
        behind = int(self._random.expovariate(0.1)) - 2
        return best - behind if side == Side.BUY else best + behind

    def _chosen(self) -> int | None:
        living, random = self._living, self._random
        while living:
            index = random.randrange(len(living))
            living[index], living[-1] = living[-1], living[index]
            order_id = living.pop()
            if self._engine.order(order_id) or self._engine.stop(order_id):
                return order_id
        return None

    def _limit(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        return "submit", (owner, side, lots, self._near(side))

    def _take(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        best = self._engine.price_at(1 - side, 0)
        if best is None or self._random.random() < 0.5:
            return "submit", (owner, side, lots)
        return "submit", (owner, side, lots, best, int(TimeInForce.IOC))

    def _stop(self) -> Operation:
        owner, side, lots = self._owner_side_lots()
        away = self._random.randint(1, 20) * (1 if side == Side.BUY else -1)
        stop = (self._engine.last_ticks or MIDDLE_TICKS) + away
        price = stop + 2 * away if self._random.random() < 0.5 else None
        return "submit", (owner, side, lots, price, int(TimeInForce.GTC), stop)

    def _cancel(self) -> Operation:
        order_id = self._chosen()
        return self._limit() if order_id is None else ("cancel", (order_id,))

    def _modify(self) -> Operation:
        order_id = self._chosen()
        if order_id is None:
            return self._limit()
        order, lots = self._engine.order(order_id), self._random.randint(1, 200)
        if order is None or self._random.random() < 0.5:
            return "modify", (order_id, lots)
        return "modify", (order_id, lots, self._near(order[1]))


def run(
    calls: list[tuple[Callable[..., Report], tuple[Any, ...]]], engine: Engine
) -> None:
    """Do what a caller must, and no more."""
    next_due, activate = engine.next_due, engine.activate
    for call, arguments in calls:
        call(*arguments)
        while order_id := next_due():
            activate(order_id)


def run_reading(
    calls: list[tuple[Callable[..., Report], tuple[Any, ...]]], engine: Engine
) -> None:
    """Look at every trade and every level that changed, too."""
    next_due, activate = engine.next_due, engine.activate
    for call, arguments in calls:
        report = call(*arguments)
        for fill in report.fills:
            _ = fill.price_ticks, fill.lots, fill.maker_id
        for _side, _price, _lots in report.changes:
            pass
        while order_id := next_due():
            activate(order_id)


@pytest.fixture(scope="module")
def stream() -> list[Operation]:
    return Crowd(seed=1).act(COUNT)


@pytest.mark.parametrize("runner", [run, run_reading])
def test_operations(runner, stream: list[Operation], benchmark, report: list[str]):
    """Operations on an empty book; the activations between are not counted."""
    wall, cpu = [], []

    def before():
        engine = Engine()
        methods = {
            name: getattr(engine, name) for name in ("submit", "cancel", "modify")
        }
        calls = [(methods[name], arguments) for name, arguments in stream]
        gc.collect()
        return (calls, engine), {}

    for _ in range(ROUNDS if benchmark.enabled else 1):
        arguments, _none = before()
        started, ticks = time.thread_time_ns(), time.perf_counter_ns()
        runner(*arguments)
        wall.append(time.perf_counter_ns() - ticks)
        cpu.append(time.thread_time_ns() - started)
    benchmark.pedantic(runner, setup=before, rounds=3)
    middle = statistics.median(wall) / COUNT
    what = "calls alone" if runner is run else "and reading"
    report.append(
        f"engine, {what}  min {min(wall) / COUNT:5.0f} ns   median {middle:5.0f} ns   "
        f"cpu {statistics.median(cpu) / COUNT:5.0f} ns an operation   "
        f"{1e3 / middle:5.2f} M a second"
    )
    if benchmark.enabled and runner is run:
        assert COUNT * 1e9 / statistics.median(cpu) >= LEAST_A_SECOND

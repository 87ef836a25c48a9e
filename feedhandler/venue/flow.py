"""Seeded traders that make a market in one symbol: quote, cancel, take.

What they do depends on the seed and on the book alone, never on the clock.
"""

from random import Random
from typing import Protocol

from feedhandler.venue.listing import Listing
from feedhandler.venue.matching import Engine, Report, Side, TimeInForce
from feedhandler.venue.requests import TICKS_MAX

__all__ = ["OWNER", "Trader"]

OWNER = 0
"""Whose the traders' orders are."""

# Levels a side: never fewer than the first, and drifting between the second and third.
LEAST_LEVELS = 16
FEW_LEVELS = 22
MANY_LEVELS = 40

# About how many orders rest in the book.
ORDERS = 160

# The neighbours in price of the quotes, as a part of the price.
SPACING = 2e-5
# How far the fair price strays, in spacings, before it is drawn back for good.
LEASH = 2_000
# How many spacings deep a new quote goes at most.
REACH = 30


class Desk(Protocol):
    """Where the traders trade: it matches and publishes."""

    def submit(
        self,
        symbol: str,
        owner: int,
        side: int,
        lots: int,
        *,
        price_ticks: int | None,
        time_in_force: int,
        now_ns: int,
    ) -> Report:
        """Match an order."""

    def cancel(self, symbol: str, order_id: int, *, now_ns: int) -> Report:
        """Take an order out."""


class Trader:
    """Everybody who trades one symbol, behind one random generator."""

    def __init__(self, listing: Listing, engine: Engine, desk: Desk, seed: int) -> None:
        self.symbol = listing.name
        self._engine = engine
        self._desk = desk
        self._now_ns = 0
        self._random = Random(f"{seed}:{listing.name}")
        self._base = listing.previous_close_ticks
        self._spacing = max(1, round(self._base * SPACING))
        self._fair = float(self._base)
        self._resting: list[int] = []

    def open(self, now_ns: int) -> None:
        """Put up the first quotes."""
        self._now_ns = now_ns
        for side in (Side.BUY, Side.SELL):
            for distance in range(1, FEW_LEVELS + 5):
                self._quote(side, distance)

    def step(self, now_ns: int) -> None:
        """Do one thing: what the book needs, else quote, cancel or take by chance."""
        self._now_ns = now_ns
        self._drift()
        for side in (Side.BUY, Side.SELL):
            if self._engine.depth(side) < FEW_LEVELS:
                self._quote_beyond(side)
                return
            if self._engine.depth(side) > MANY_LEVELS and self._cancel_worst(side):
                return
        chance = self._random.random()
        crowd = min(1.0, len(self._resting) / ORDERS)
        if chance < 0.08:
            self._take()
        elif chance < 0.08 + 0.46 * crowd:
            self._cancel_some()
        else:
            self._quote(self._random.choice((Side.BUY, Side.SELL)), self._distance())

    def _drift(self) -> None:
        step = self._random.gauss(0.0, 0.35 * self._spacing)
        pull = (self._base - self._fair) / LEASH
        self._fair = max(
            float(self._spacing * REACH * 2), self._fair + step + pull / 10
        )

    def _distance(self) -> int:
        return 1 + min(REACH, int(self._random.expovariate(0.22)))

    def _lots(self) -> int:
        return max(1, round(self._random.lognormvariate(4.6, 0.9)))

    def _quote(self, side: int, distance: int) -> None:
        """Rest an order *distance* spacings from the fair price, or nearer behind."""
        offset = distance * self._spacing
        if side == Side.BUY:
            price = int(self._fair) - offset
            best = self._engine.price_at(Side.SELL, 0)
            price = price if best is None else min(price, best - 1)
        else:
            price = int(self._fair) + offset
            best = self._engine.price_at(Side.BUY, 0)
            price = price if best is None else max(price, best + 1)
        self._rest(side, price)

    def _quote_beyond(self, side: int) -> None:
        """Add a level behind the worst; a near one if that is out of the market."""
        worst = self._engine.price_at(side, self._engine.depth(side) - 1)
        if worst is None:
            self._quote(side, 1)
            return
        away = self._random.randint(1, 2) * self._spacing
        price = worst - away if side == Side.BUY else worst + away
        # Others may have orders at any price.
        if self._fair / 2 < price < self._fair * 2:
            self._rest(side, price)
        else:
            self._quote(side, self._distance())

    def _rest(self, side: int, price: int) -> None:
        price = min(max(1, price), TICKS_MAX)
        report = self._submit(side, price, TimeInForce.GTC)
        if report.resting_lots:
            self._resting.append(report.order_id)

    def _take(self) -> None:
        """Hit the side that the fair price has moved towards, a few levels at most."""
        bid = self._engine.price_at(Side.BUY, 0)
        ask = self._engine.price_at(Side.SELL, 0)
        if bid is None or ask is None:
            return
        lean = 0.5 + (self._fair - (bid + ask) / 2) / (8 * self._spacing)
        side = Side.BUY if self._random.random() < lean else Side.SELL
        deepest = min(3, self._engine.depth(1 - side) - LEAST_LEVELS)
        if deepest < 1:
            return
        limit = self._engine.price_at(1 - side, self._random.randrange(deepest))
        if limit is not None:
            self._submit(side, limit, TimeInForce.IOC)

    def _cancel_some(self) -> None:
        """Cancel a resting order at random, forgetting those that traded."""
        resting = self._resting
        while resting:
            chosen = self._random.randrange(len(resting))
            resting[chosen], resting[-1] = resting[-1], resting[chosen]
            order_id = resting.pop()
            order = self._engine.order(order_id)
            if order is None:
                continue
            if self._engine.depth(order[1]) > LEAST_LEVELS:
                self._cancel(order_id)
            else:
                resting.append(order_id)
            return

    def _cancel_worst(self, side: int) -> bool:
        """Take our oldest order out of the farthest level; tell whether we have one."""
        worst = self._engine.price_at(side, self._engine.depth(side) - 1)
        if worst is None:
            return False
        for order_id, owner, _ in self._engine.queue(side, worst):
            if owner == OWNER:
                self._cancel(order_id)
                return True
        return False

    def _submit(self, side: int, price_ticks: int, time_in_force: int) -> Report:
        return self._desk.submit(
            self.symbol,
            OWNER,
            side,
            self._lots(),
            price_ticks=price_ticks,
            time_in_force=time_in_force,
            now_ns=self._now_ns,
        )

    def _cancel(self, order_id: int) -> None:
        self._desk.cancel(self.symbol, order_id, now_ns=self._now_ns)

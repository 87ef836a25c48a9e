"""Operations of a crowd of traders at a market, the same ones for the same seed."""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from tests.model.naive_matcher import (
    BUY,
    DAY,
    FOK,
    GTC,
    IOC,
    MAX_LOTS,
    MAX_TICKS,
    SELL,
)

OWNERS = [1, 2, 3, (1 << 31) - 1]
START_TICKS = 10_000
SPARSE, CROWDED = 100, 200  # orders
EVERYTHING = {
    "limit": 40,
    "market": 6,
    "stop": 9,
    "stop_limit": 8,
    "cancel": 12,
    "reduce": 6,
    "modify": 14,
    "mistake": 5,
}
KNOWN_TO_OTHERS = {"limit": 50, "market": 8, "cancel": 20, "reduce": 8, "modify": 14}


class Operation(NamedTuple):
    method: str
    arguments: tuple[Any, ...]


class Crowd:
    """Traders who choose what to do by what anybody can see of the *market*.

    Each operation but a mistake is legal, so the ids of all orders are known.
    """

    def __init__(
        self,
        seed: int,
        market: Any,
        weights: dict[str, int] = EVERYTHING,
        times_in_force: tuple[int, ...] = (GTC, GTC, GTC, GTC, DAY, IOC, FOK),
        self_trade: bool | None = None,
    ) -> None:
        self.random = Random(seed)
        self.market = market
        self.kinds, self.weights = list(weights), list(weights.values())
        self.times_in_force = times_in_force
        self.self_trade = self_trade
        self.newest = 0
        self.ids: list[int] = []

    def next(self) -> Operation:
        if head := self.market.next_due():
            return self.on_due(head)
        (kind,) = self.random.choices(self.kinds, self.weights)
        if len(self.market) > CROWDED and self.random.random() < 0.3:
            kind = "cancel"
        if len(self.market) < SPARSE and kind in ("market", "cancel", "reduce"):
            kind = "limit"
        if kind in ("limit", "market", "stop", "stop_limit"):
            return self.submit(kind)
        if kind == "mistake":
            return self.mistake()
        order_id = self.live()
        if order_id is None:
            return self.submit("limit")
        if kind == "cancel":
            return Operation("cancel", (order_id,))
        if kind == "reduce":
            return Operation("reduce", (order_id, self.random.randint(1, 25)))
        return self.modify(order_id)

    def live(self) -> int | None:
        """Return any order that rests or waits."""
        while self.ids:
            place = self.random.randrange(len(self.ids))
            order_id = self.ids[place]
            if self.market.order(order_id) or self.market.stop(order_id):
                return order_id
            self.ids[place] = self.ids[-1]
            self.ids.pop()
        return None

    def touch(self, side: int) -> int:
        """Return the best price of *side*, or what comes nearest to one."""
        for of in (side, BUY, SELL):
            if best := self.market.top(of, 1):
                return best[0][0]
        return self.market.last_ticks or START_TICKS

    def distance(self, mean: float) -> int:
        return int(self.random.expovariate(1 / mean))

    def near(self, side: int) -> int:
        """Return a limit price: mostly behind the touch, at times through the other."""
        away = self.distance(3)
        if self.random.random() < 0.2:
            price = self.touch(1 - side) + (away if side == BUY else -away)
        else:
            price = self.touch(side) + (1 - away if side == BUY else away - 1)
        return max(1, price)

    def beyond(self, side: int) -> int:
        """Return a stop price that the last trade has not reached."""
        last = self.market.last_ticks
        away = 1 + self.distance(4)
        if last is None:
            return self.touch(side) + self.random.randint(-5, 5)
        return last + away if side == BUY else max(1, last - away)

    def lots(self, side: int | None = None) -> int:
        """Return any number, or the sum of the first makers for *side*."""
        what = self.random.random()
        if what < 0.001:
            return MAX_LOTS
        if what < 0.2 and side is not None and (best := self.market.top(1 - side, 1)):
            queue = self.market.queue(1 - side, best[0][0])
            first = queue[: self.random.randint(1, len(queue))]
            return sum(lots for _, _, lots in first)
        return self.random.randint(1, 150 if self.random.random() < 0.05 else 20)

    def submit(self, kind: str) -> Operation:
        self.newest += 1
        self.ids.append(self.newest)
        side = self.random.choice((BUY, SELL))
        lots = self.lots(side)
        time_in_force = self.random.choice(self.times_in_force)
        price = stop = None
        if kind == "limit":
            price = self.near(side)
            lots = min(lots, 150) if time_in_force in (GTC, DAY) else lots
        elif kind != "market":
            stop = self.beyond(side)
        if kind == "stop_limit":
            price = max(1, stop + self.random.randint(-4, 4))
            lots = min(lots, 150)
        self_trade = self.self_trade
        if self_trade is None:
            self_trade = self.random.random() < 0.6
        owner = self.random.choice(OWNERS)
        arguments = (owner, side, lots, price, time_in_force, stop, self_trade)
        return Operation("submit", arguments)

    def modify(self, order_id: int) -> Operation:
        random = self.random
        resting = self.market.order(order_id)
        if resting is None:
            _, side, _, price, left, due = self.market.stop(order_id)
            lots = random.choice((left, self.lots() % 150, 0 if left == 1 else 1))
            price = price and random.choice((None, self.near(side)))
            if due or random.random() < 0.3:
                return Operation("modify", (order_id, lots, price))
            return Operation("modify", (order_id, lots, price, self.beyond(side)))
        _, side, price, left = resting
        what = random.random()
        if what < 0.35:
            lots = random.randint(1, left)
            return Operation("modify", (order_id, lots, random.choice((None, price))))
        if what < 0.55:
            return Operation("modify", (order_id, left + random.randint(1, 9)))
        if what < 0.57:
            return Operation("modify", (order_id, 0))
        lots = random.choice((left, random.randint(1, 30)))
        return Operation("modify", (order_id, lots, self.near(side)))

    def on_due(self, head: int) -> Operation:
        """Activate the *head*, as the one does who has checked its funds, or not."""
        what = self.random.random()
        if what < 0.80:
            return Operation("activate", (head,))
        if what < 0.85:
            return Operation("cancel", (head,))
        if what < 0.90:
            return Operation("reduce", (head, self.random.randint(1, 9)))
        if what < 0.96:
            return self.modify(head)
        if what < 0.98:
            stop = self.beyond(self.market.stop(head)[1])
            return Operation("modify", (head, 1, None, stop))
        found = (self.market.stop(order_id) for order_id in self.ids)
        due = [i for i, s in zip(self.ids, found, strict=True) if s and s[-1]]
        return Operation("activate", (self.random.choice(due),))

    def mistake(self) -> Operation:
        """Do exactly one thing that is refused."""
        gone = [0, self.newest + 1, 1 << 40]
        if (oldest := self.newest - 1_000) > 0 and self.is_gone(oldest):
            gone.append(oldest)
        nobody = self.random.choice(gone)
        slips = [
            Operation("submit", (1, BUY, 0, 100)),
            Operation("submit", (1, SELL, -1, 100)),
            Operation("submit", (1, BUY, MAX_LOTS + 1, 100)),
            Operation("submit", (1, SELL, 1, 0)),
            Operation("submit", (1, BUY, 1, -1)),
            Operation("submit", (1, SELL, 1, MAX_TICKS + 1)),
            Operation("submit", (1, 2, 1, 100)),
            Operation("submit", (1, BUY, 1, 100, 4)),
            Operation("submit", (1, BUY, 1, None, GTC, 0)),
            Operation("submit", (1, BUY, 1, None, GTC, MAX_TICKS + 1)),
            Operation("cancel", (nobody,)),
            Operation("reduce", (nobody, 1)),
            Operation("modify", (nobody, 1)),
            Operation("activate", (nobody,)),
        ]
        if last := self.market.last_ticks:
            away = self.distance(2)
            slips += [
                Operation("submit", (1, BUY, 1, None, GTC, max(1, last - away))),
                Operation("submit", (1, SELL, 1, last, GTC, last + away)),
            ]
        if (order_id := self.live()) is not None:
            slips += self.mistakes_with(order_id)
        return self.random.choice(slips)

    def mistakes_with(self, order_id: int) -> list[Operation]:
        slips = [
            Operation("activate", (order_id,)),
            Operation("reduce", (order_id, 0)),
            Operation("reduce", (order_id, -1)),
            Operation("modify", (order_id, -1)),
            Operation("modify", (order_id, MAX_LOTS + 1)),
        ]
        stop = self.market.stop(order_id)
        if stop is None:
            away = self.beyond(self.market.order(order_id)[1])
            return [*slips, Operation("modify", (order_id, 1, None, away))]
        if last := self.market.last_ticks:
            slips.append(Operation("modify", (order_id, 1, None, last)))
        if stop[3] is None:
            slips.append(Operation("modify", (order_id, 1, self.touch(BUY))))
        return slips

    def is_gone(self, order_id: int) -> bool:
        return not (self.market.order(order_id) or self.market.stop(order_id))


def random_operations(
    seed: int, count: int, market: Any, **tastes: Any
) -> Iterator[Operation]:
    """Yield operations, each drawn when the one before it was applied to *market*."""
    crowd = Crowd(seed, market, **tastes)
    for _ in range(count):
        yield crowd.next()

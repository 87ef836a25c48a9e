"""A matching engine that is slow and obviously right, for the real one to agree with.

Every order is in one of three lists, and what is asked is found by looking at all of
them. A report's canceled lots are what the operation took off its order untraded, so
filled + resting + waiting + canceled is the larger of the lots before and those asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

BUY, SELL = 0, 1
GTC, IOC, FOK, DAY = 0, 1, 2, 3
MAX_TICKS, MAX_LOTS, MAX_OWNER = 1 << 52, 1 << 40, (1 << 31) - 1


class StopReached(ValueError):
    """The last trade has reached the stop price already."""


class Fill(NamedTuple):
    maker_id: int
    maker_owner: int
    maker_lots: int
    price_ticks: int
    lots: int


class Report(NamedTuple):
    order_id: int
    owner: int
    side: int
    filled_lots: int
    resting_lots: int
    waiting_lots: int
    canceled_lots: int
    self_trade_prevented: bool
    fills: tuple[Fill, ...]
    changes: tuple[tuple[int, int, int], ...]


@dataclass(eq=False)
class Order:
    order_id: int
    owner: int
    side: int
    lots: int
    price_ticks: int | None
    time_in_force: int
    stop_ticks: int | None
    self_trade: bool


def check(value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{value} is not from {low} to {high}")


class NaiveMatcher:
    def __init__(self) -> None:
        self.last_ticks: int | None = None
        self._newest = 0
        self._resting: list[Order] = []  # those of one price in their order of arrival
        self._waiting: list[Order] = []
        self._due: list[Order] = []
        self._reported: dict[tuple[int, int], int] = {}

    def submit(
        self,
        owner: int,
        side: int,
        lots: int,
        price_ticks: int | None = None,
        time_in_force: int = GTC,
        stop_ticks: int | None = None,
        self_trade: bool = True,
    ) -> Report:
        check(owner, -MAX_OWNER - 1, MAX_OWNER)
        check(side, BUY, SELL)
        check(lots, 1, MAX_LOTS)
        check(price_ticks, 1, MAX_TICKS)
        check(time_in_force, GTC, DAY)
        self._check_stop(side, stop_ticks)
        self._newest += 1
        order = Order(
            self._newest,
            owner,
            side,
            lots,
            price_ticks,
            time_in_force,
            stop_ticks,
            self_trade,
        )
        if stop_ticks is None:
            return self._run(order)
        self._waiting.append(order)
        return self._report(order)

    def activate(self, order_id: int) -> Report:
        order = self._find(order_id, self._due)
        self._due.remove(order)
        return self._run(order)

    def cancel(self, order_id: int) -> Report:
        order = self._find(order_id, self._all())
        return self._take_off(order, order.lots)

    def reduce(self, order_id: int, lots: int) -> Report:
        order = self._find(order_id, self._all())
        check(lots, 1, MAX_LOTS)
        return self._take_off(order, min(lots, order.lots))

    def modify(
        self,
        order_id: int,
        lots: int,
        price_ticks: int | None = None,
        stop_ticks: int | None = None,
    ) -> Report:
        order = self._find(order_id, self._all())
        check(lots, 0, MAX_LOTS)
        check(price_ticks, 1, MAX_TICKS)
        if price_ticks is not None and order.price_ticks is None:
            raise ValueError("a stop order has no limit price")
        if stop_ticks is not None and order not in self._waiting:
            raise ValueError("the order does not wait for a stop price")
        self._check_stop(order.side, stop_ticks)
        if lots == 0:
            return self._take_off(order, order.lots)
        taken_off = max(0, order.lots - lots)
        moves = price_ticks not in (None, order.price_ticks) or lots > order.lots
        order.lots = lots
        order.price_ticks = price_ticks or order.price_ticks
        order.stop_ticks = stop_ticks or order.stop_ticks
        if moves and order in self._resting:
            self._resting.remove(order)
            order.time_in_force = GTC
            return self._run(order, taken_off)
        return self._report(order, canceled=taken_off)

    def _run(self, taker: Order, taken_off: int = 0) -> Report:
        """Trade what *taker* can; what is left of it rests or is canceled."""
        makers, meets_its_own = self._makers(taker)
        available = sum(maker.lots for maker in makers)
        prevented = meets_its_own and available < taker.lots
        limited = taker.price_ticks is not None
        if limited and taker.time_in_force == FOK and available < taker.lots:
            makers = []
        fills = []
        for maker in makers:
            lots = min(maker.lots, taker.lots)
            if lots == 0:
                break
            taker.lots -= lots
            maker.lots -= lots
            price = maker.price_ticks
            fills.append(Fill(maker.order_id, maker.owner, maker.lots, price, lots))
            self.last_ticks = price
            self._trigger(price)
        self._resting = [order for order in self._resting if order.lots]
        if taker.lots == 0:
            return self._report(taker, fills, taken_off, prevented)
        if limited and taker.time_in_force in (GTC, DAY) and not prevented:
            self._resting.append(taker)
            return self._report(taker, fills, taken_off, prevented)
        return self._report(taker, fills, taken_off + taker.lots, prevented)

    def _makers(self, taker: Order) -> tuple[list[Order], bool]:
        """Return the makers in order of trading, and if its own order comes next."""
        limit = taker.price_ticks
        if taker.side == BUY:
            asks = [order for order in self._resting if order.side == SELL]
            makers = [ask for ask in asks if limit is None or ask.price_ticks <= limit]
            makers.sort(key=lambda ask: ask.price_ticks)
        else:
            bids = [order for order in self._resting if order.side == BUY]
            makers = [bid for bid in bids if limit is None or bid.price_ticks >= limit]
            makers.sort(key=lambda bid: -bid.price_ticks)
        for place, maker in enumerate(makers):
            if maker.owner == taker.owner and not taker.self_trade:
                return makers[:place], True
        return makers, False

    def _trigger(self, fill_ticks: int) -> None:
        buys = [
            order
            for order in self._waiting
            if order.side == BUY and order.stop_ticks <= fill_ticks
        ]
        sells = [
            order
            for order in self._waiting
            if order.side == SELL and order.stop_ticks >= fill_ticks
        ]
        self._due += sorted(buys, key=lambda order: (order.stop_ticks, order.order_id))
        self._due += sorted(
            sells, key=lambda order: (-order.stop_ticks, order.order_id)
        )
        self._waiting = [order for order in self._waiting if order not in self._due]

    def _check_stop(self, side: int, stop_ticks: int | None) -> None:
        check(stop_ticks, 1, MAX_TICKS)
        last = self.last_ticks
        if stop_ticks is None or last is None:
            return
        if stop_ticks <= last if side == BUY else stop_ticks >= last:
            raise StopReached(f"the last trade at {last} has reached {stop_ticks}")

    def _take_off(self, order: Order, lots: int) -> Report:
        order.lots -= lots
        if order.lots == 0:
            for orders in (self._resting, self._waiting, self._due):
                if order in orders:
                    orders.remove(order)
        return self._report(order, canceled=lots)

    def _report(
        self,
        order: Order,
        fills: Sequence[Fill] = (),
        canceled: int = 0,
        prevented: bool = False,
    ) -> Report:
        before, now = self._reported, self._levels()
        self._reported = now
        return Report(
            order.order_id,
            order.owner,
            order.side,
            sum(fill.lots for fill in fills),
            order.lots if order in self._resting else 0,
            order.lots if order in self._waiting + self._due else 0,
            canceled,
            prevented,
            tuple(fills),
            tuple(
                (*level, now.get(level, 0))
                for level in sorted(before | now)
                if before.get(level) != now.get(level)
            ),
        )

    def _all(self) -> list[Order]:
        return self._resting + self._waiting + self._due

    def _find(self, order_id: int, orders: list[Order]) -> Order:
        for order in orders:
            if order.order_id == order_id:
                return order
        raise KeyError(order_id)

    def _levels(self) -> dict[tuple[int, int], int]:
        levels: dict[tuple[int, int], int] = {}
        for order in self._resting:
            level = (order.side, order.price_ticks)
            levels[level] = levels.get(level, 0) + order.lots
        return levels

    def top(self, side: int, count: int) -> list[tuple[int, int]]:
        levels = [
            (price, lots) for (of, price), lots in self._levels().items() if of == side
        ]
        return sorted(levels, reverse=side == BUY)[:count]

    def lots_at(self, side: int, price_ticks: int) -> int:
        return self._levels().get((side, price_ticks), 0)

    def depth(self, side: int) -> int:
        return len(self.top(side, len(self._resting)))

    def queue(self, side: int, price_ticks: int) -> list[tuple[int, int, int]]:
        return [
            (order.order_id, order.owner, order.lots)
            for order in self._resting
            if order.side == side and order.price_ticks == price_ticks
        ]

    def order(self, order_id: int) -> tuple[int, int, int, int] | None:
        for order in self._resting:
            if order.order_id == order_id:
                return order.owner, order.side, order.price_ticks, order.lots
        return None

    def stop(self, order_id: int) -> tuple[int, int, int, int | None, int, bool] | None:
        for order in self._waiting + self._due:
            if order.order_id == order_id:
                return (
                    order.owner,
                    order.side,
                    order.stop_ticks,
                    order.price_ticks,
                    order.lots,
                    order in self._due,
                )
        return None

    def next_due(self) -> int:
        return self._due[0].order_id if self._due else 0

    def walk(self, side: int, lots: int) -> tuple[int, int]:
        check(side, BUY, SELL)
        check(lots, 1, MAX_LOTS)
        cost = available = 0
        other = SELL if side == BUY else BUY
        for price, at_price in self.top(other, len(self._resting)):
            taken = min(at_price, lots - available)
            cost += price * taken
            available += taken
        return cost, available

    def __len__(self) -> int:
        return len(self._all())

"""The engine of the package obook, made to speak of orders as ours does.

It knows limit and market orders, good till canceled, at once, or all at once, and takes
off, cancels and replaces them. Only what both know goes through it; trades come back.
"""

from typing import NamedTuple

import obook

from tests.model.naive_matcher import BUY, DAY, FOK, GTC, IOC, SELL

TIMES_IN_FORCE = {GTC: obook.GTC, DAY: obook.GTC, IOC: obook.IOC, FOK: obook.FOK}
SIDES = {BUY: obook.BUY, SELL: obook.SELL}


class Trade(NamedTuple):
    maker_id: int
    price_ticks: int
    lots: int


class ObookEngine:
    """One book; it prevents all self-trades, so *self_trade* makes all strangers."""

    def __init__(self, self_trade: bool) -> None:
        self.self_trade = self_trade
        self._book = obook.Book()
        self._newest = 0
        self._theirs: dict[int, int] = {}  # our id to theirs
        self._ours: dict[int, int] = {}
        self._users: dict[int, int] = {}  # by our id
        self._sent: dict[int, int] = {}  # the lots of an order, those traded included

    def submit(
        self,
        owner: int,
        side: int,
        lots: int,
        price_ticks: int | None = None,
        time_in_force: int = GTC,
        stop_ticks: int | None = None,
        self_trade: bool = True,
    ) -> list[Trade]:
        if stop_ticks is not None or self_trade != self.self_trade:
            raise ValueError("obook knows neither stops nor a policy for one order")
        self._newest += 1
        self._users[self._newest] = self._newest if self_trade else owner
        result = self._book.submit(
            self._users[self._newest],
            SIDES[side],
            price_ticks or 0,
            lots,
            obook.MARKET if price_ticks is None else obook.LIMIT,
            TIMES_IN_FORCE[time_in_force],
        )
        return self._trades(self._newest, result, lots)

    def cancel(self, order_id: int) -> list[Trade]:
        result = self._book.cancel(self._theirs[order_id], self._users[order_id])
        return self._trades(order_id, result)

    def reduce(self, order_id: int, lots: int) -> list[Trade]:
        if lots >= self._resting(order_id).lots:
            return self.cancel(order_id)
        self._sent[order_id] -= lots
        result = self._book.reduce(
            self._theirs[order_id], self._sent[order_id], self._users[order_id]
        )
        return self._trades(order_id, result)

    def modify(
        self, order_id: int, lots: int, price_ticks: int | None = None
    ) -> list[Trade]:
        """Replace the order, unless it may keep its place."""
        order = self._resting(order_id)
        price_ticks = price_ticks or order.price_ticks
        if lots == order.lots and price_ticks == order.price_ticks:
            return []
        if lots == 0 or (lots < order.lots and price_ticks == order.price_ticks):
            return self.reduce(order_id, order.lots - lots)
        result = self._book.replace(
            self._theirs[order_id],
            self._users[order_id],
            SIDES[order.side],
            price_ticks,
            lots,
        )
        return self._trades(order_id, result, lots)

    def book(self) -> list[tuple[int, int, int, int]]:
        """Return side, price, id and lots: bids, then asks, in the order of trading."""
        return [(o.side, o.price_ticks, o.order_id, o.lots) for o in self._orders()]

    def _trades(
        self, order_id: int, result: obook.Result, lots: int | None = None
    ) -> list[Trade]:
        if result.reason not in (
            obook.Reason.NONE,
            obook.Reason.FOK_CANNOT_FILL,
            obook.Reason.MARKET_ORDER_NO_LIQUIDITY,
        ):
            raise RuntimeError(f"obook refused order {order_id}: {result}")
        if lots is not None:
            self._theirs[order_id], self._sent[order_id] = result.order_id, lots
            self._ours[result.order_id] = order_id
        return [
            Trade(self._ours[event.maker_id], event.price, event.qty)
            for event in self._book.events()
            if event.kind == obook.EventKind.TRADE
        ]

    def _orders(self) -> list["Resting"]:
        return [
            Resting(o.side, o.price, self._ours[o.order_id], o.qty - o.filled)
            for o in self._book.book()
        ]

    def _resting(self, order_id: int) -> "Resting":
        return next(o for o in self._orders() if o.order_id == order_id)


class Resting(NamedTuple):
    side: int
    price_ticks: int
    order_id: int
    lots: int

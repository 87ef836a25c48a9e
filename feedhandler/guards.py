"""What we refuse to send, whoever asks: limits of an order's size and price, a stop.

Sans-I/O, and closed on failure: what a guard cannot judge it refuses. Numbers are
compared as the decimals that they were written as.
"""

import math
from decimal import Decimal
from typing import NamedTuple

from feedhandler.errors import GuardRefused
from feedhandler.protocol.messages import OrderData

__all__ = ["Guards", "Top"]


class Top(NamedTuple):
    """The best prices of a book, NaN for none, and whether they are LIVE."""

    bid: float
    ask: float
    is_live: bool


class Guards:
    """The limits of all orders, each of them optional.

    *collar* is how far from the middle of the book a price may be, as a fraction of it.
    *refuse_stale* wants a book that is LIVE; without it the last prices known will do.
    *max_unknown* is how many orders may be unknown before there are to be no more.
    """

    def __init__(
        self,
        max_quantity: float | None = None,
        max_notional: float | None = None,
        collar: float | None = None,
        refuse_stale: bool = False,
        max_unknown: int | None = None,
    ) -> None:
        for name, limit in (
            ("max_quantity", max_quantity),
            ("max_notional", max_notional),
            ("collar", collar),
            ("max_unknown", max_unknown),
        ):
            if limit is not None and not 0 <= limit < math.inf:
                raise ValueError(f"{name} is {limit}, not a number from 0")
        self.max_quantity = max_quantity
        self.max_notional = max_notional
        self.collar = collar
        self.refuse_stale = refuse_stale
        self.max_unknown = max_unknown
        self.killed = False
        """While it is True nothing passes. Cancels are not asked about."""

    def check(self, data: OrderData, top: Top | None, unknown: int) -> None:
        """Raise GuardRefused for an order, or what a modification would make of one.

        *top* is the book of its symbol, None for no book; *unknown* is how many orders
        are unknown now.
        """
        if self.killed:
            raise GuardRefused("killed", "the kill switch is on")
        if self.max_unknown is not None and unknown > self.max_unknown:
            raise GuardRefused(
                "max_unknown", "too many orders are unknown", unknown, self.max_unknown
            )
        if self.refuse_stale and (top is None or not top.is_live):
            raise GuardRefused("refuse_stale", f"the book of {data.symbol} is not live")
        if data.quantity is None or isinstance(data.quantity, bool):
            raise GuardRefused("finite", "the quantity is no number")
        for number in (data.quantity, data.price, data.stop_price):
            # On the wire this would be null: no number, or no change.
            if number is not None and not math.isfinite(number):
                raise GuardRefused("finite", "a number is not finite", number)
        self._check_size(data, top)
        self._check_prices(data, top)

    def _check_size(self, data: OrderData, top: Top | None) -> None:
        if self.max_quantity is None and self.max_notional is None:
            return
        quantity = _decimal(data.quantity)
        most = self.max_quantity
        if most is not None and quantity > _decimal(most):
            raise GuardRefused("max_quantity", "too large", data.quantity, most)
        most = self.max_notional
        if most is None:
            return
        price = _dearest(data, top)
        if price is None:
            raise GuardRefused("max_notional", "no price to reckon with", None, most)
        if (notional := quantity * _decimal(price)) > _decimal(most):
            raise GuardRefused("max_notional", "worth too much", float(notional), most)

    def _check_prices(self, data: OrderData, top: Top | None) -> None:
        prices = [p for p in (data.price, data.stop_price) if p is not None]
        if self.collar is None or not prices:
            return
        sides = _sides(top)
        if not sides:
            raise GuardRefused("collar", f"{data.symbol} has no price to compare with")
        middle = sum(map(_decimal, sides), Decimal(0)) / len(sides)
        for price in prices:
            if abs(_decimal(price) - middle) > _decimal(self.collar) * middle:
                distance = float(abs(_decimal(price) / middle - 1))
                message = f"{price:g} is too far from {float(middle):g}"
                raise GuardRefused("collar", message, distance, self.collar)


def _dearest(data: OrderData, top: Top | None) -> float | None:
    """Return the highest price that an order is expected to trade at; None for none.

    A purchase with a limit pays no more than that. All else may get what the book has,
    which is more than a low limit of a sale; a price that binds nobody counts for none.
    """
    is_limited = data.type in ("limit", "stop_limit")
    if data.side == "buy" and data.price is not None and is_limited:
        return data.price
    touch = math.nan if top is None else top.ask if data.side == "buy" else top.bid
    prices = [data.price, data.stop_price, touch]
    known = [p for p in prices if p is not None and math.isfinite(p)]
    return max(known, default=None)


def _sides(top: Top | None) -> list[float]:
    """Return the prices that a book has: of one side, if the other is empty."""
    return [] if top is None else [p for p in (top.bid, top.ask) if math.isfinite(p)]


def _decimal(number: float) -> Decimal:
    return Decimal(str(number))

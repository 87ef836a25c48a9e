"""One order as far as we know it: what was asked for, and what the venue told of it.

What the venue tells is merged: the same messages leave the same order behind, in
whatever order they come and however often. Knows nothing of connections or time.
"""

from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from enum import Enum
from itertools import product
from typing import Literal, cast

from feedhandler.protocol.messages import (
    CancelOrderData,
    ModifyOrderData,
    OrderData,
    OrderResponseData,
    OrderType,
    OrderUpdateData,
    Side,
    UserTradeData,
)

__all__ = ["ENDS", "Cause", "Doubt", "Operation", "Order", "Request", "Status"]

EXACT = Context(prec=100)
ZERO = Decimal(0)


class Status(Enum):
    """Where an order is in its life; the last four are final."""

    PENDING = "pending"
    LIVE = "live"
    PARTIALLY_FILLED = "partially_filled"
    UNKNOWN = "unknown"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"


ENDS = {
    status.value: status
    for status in (Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
}
"""The final states by the venue's words; any other word is that of an open order."""


class Operation(Enum):
    """What can be asked of an order; the values are the names in a batch."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    MODIFY = "modify"


class Doubt(Enum):
    """Why it is unknown what became of an order that once existed, or may have."""

    UNMENTIONED = "not told again after a subscription"
    NOT_FOUND = "not found, and its end was not told"


class Cause(Enum):
    """What made an order other than it was; of the last four nothing was sent."""

    SENT = "sent"
    ACK = "ack"
    UPDATE = "update"
    FILL = "fill"
    REFUSED = "refused"
    LOST = "lost"
    ADOPTED = "adopted"
    SETTLED = "settled"
    EXPIRED = "expired"
    GUARDED = "guarded"
    THROTTLED = "throttled"
    NOT_CONNECTED = "not_connected"


class Request:
    """An operation that was asked for and is neither granted nor refused yet.

    *is_unknown*: no answer came, or none that settles it. *is_old*: the venue has told
    its orders anew since, so what it says of the order now settles it. *change* is what
    a modification asks for.
    """

    __slots__ = (
        "asked_ns", "change", "is_done", "is_old", "is_unknown", "operation", "order",
    )  # fmt: skip

    def __init__(
        self,
        order: "Order",
        operation: Operation,
        asked_ns: int,
        change: ModifyOrderData | None = None,
    ) -> None:
        self.order = order
        self.operation = operation
        self.asked_ns = asked_ns
        self.change = change
        self.is_done = False
        self.is_old = False
        self.is_unknown = False


class Order:
    """An order, ours or adopted. To be read by all, and changed by Orders alone.

    *remaining* is always *quantity* - *filled*. *price* and *quantity* are the last
    that the venue told, or those asked for before it told any; *created_ms* and
    *updated_ms* are its times, 0 before.
    """

    __slots__ = (
        "_cost", "_end", "_quantity", "_reason", "_told", "_trade_ids", "_traded",
        "_version", "client_id", "created_ms", "doubt", "exists", "is_foreign",
        "is_heard", "noted", "order_id", "price", "requests", "sent_ns", "side",
        "stop_price", "symbol", "time_in_force", "triggered", "type", "updated_ms",
    )  # fmt: skip

    def __init__(
        self, data: OrderData | OrderUpdateData, client_id: str | None, sent_ns: int = 0
    ) -> None:
        self.client_id = client_id
        """What it is called by us: unique, but for a stranger's."""
        self.order_id: str | None = None
        self.symbol: str = data.symbol
        self.side: str = data.side
        self.type: str = data.type
        self.price = data.price
        self.stop_price = _number(data.stop_price)
        self.time_in_force: str | None = data.time_in_force
        self.triggered: bool | None = None
        """Whether a stop's price was reached; None where the venue did not tell."""
        self.created_ms = 0
        self.updated_ms = 0
        self.sent_ns = sent_ns
        self.is_foreign = isinstance(data, OrderUpdateData)
        """Whether this process did not submit it."""
        self.exists = False
        """Whether the venue has said that it took the order."""
        self.is_heard = True
        """Whether it was told of, or sent, since the last subscription."""
        self.doubt: Doubt | None = None
        self.requests: list[Request] = []
        self.noted: tuple[object, ...] = ()
        self._end: Status | None = None
        self._reason: str | None = None
        self._quantity = _decimal(data.quantity)
        self._told = self._traded = self._cost = ZERO
        self._trade_ids: set[str] = set()
        self._version = (False, -1, -1.0)

    # ── what it is ────────────────────────────────────────────────────────────────────

    @property
    def status(self) -> Status:
        """Where it is in its life. Fills alone do not end it: the venue says when."""
        if self._end is not None:
            return self._end
        if self.doubt is not None:
            return Status.UNKNOWN
        if not self.exists:
            is_unknown = self.pending.get(Operation.SUBMIT) == "unknown"
            return Status.UNKNOWN if is_unknown else Status.PENDING
        return Status.PARTIALLY_FILLED if self._filled else Status.LIVE

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will become of it, but for fills that are told late."""
        return self._end is not None

    @property
    def is_unknown(self) -> bool:
        """Whether it may be in the market or not, for all that we know."""
        return self.status is Status.UNKNOWN

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is open, and something of it is unknown."""
        if self._end is not None:
            return False
        if self.doubt is not None:
            return True
        for request in self.requests:  # noqa: SIM110 - a tenth of any()'s time
            if request.is_unknown:
                return True
        return False

    @property
    def pending(self) -> dict[Operation, Literal["sent", "unknown"]]:
        """The operations without an outcome; "unknown" once no answer need come."""
        found: dict[Operation, Literal["sent", "unknown"]] = {}
        for request in self.requests:
            if request.is_unknown:
                found[request.operation] = "unknown"
            else:
                found.setdefault(request.operation, "sent")
        return found

    @property
    def reason(self) -> str | None:
        """Why it ended as it did, or is unknown; None where there is nothing to say."""
        if self.doubt is not None and self._end is None:
            return self.doubt.value
        return self._reason

    @property
    def quantity(self) -> float:
        """How much it is for, in all; what has traded cannot be more."""
        return float(max(self._quantity, self._filled))

    @property
    def filled(self) -> float:
        """How much has traded, by updates or by fills, whichever know of more."""
        return float(self._filled)

    @property
    def remaining(self) -> float:
        """How much has not traded."""
        filled = self._filled
        return float(EXACT.subtract(max(self._quantity, filled), filled))

    @property
    def average_price(self) -> float | None:
        """The price of the fills that were told, by quantity; None for no fill."""
        if not self._traded:
            return None
        return float(EXACT.divide(self._cost, self._traded))

    @property
    def _filled(self) -> Decimal:
        return max(self._told, self._traded)

    def snapshot(self) -> tuple[object, ...]:
        """Return all that it is, to be compared."""
        return (
            self.client_id, self.order_id, self.symbol, self.side, self.type,
            self.quantity, self.filled, self.remaining, self.price, self.stop_price,
            self.time_in_force, self.status, self.pending, self.triggered,
            self.average_price, self.reason, self.created_ms, self.updated_ms,
        )  # fmt: skip

    def version(self) -> tuple[object, ...]:
        """Return what snapshot() is made of: equal where that is, and in no time."""
        told, traded = self._told, self._traded
        return (
            self.client_id, self.order_id, self.price, self.stop_price,
            self.time_in_force, self.triggered, self._quantity,
            told if told > traded else traded, self._cost, self._end, self.doubt,
            self.exists, self._reason, self.created_ms, self.updated_ms,
            tuple([(r.operation, r.is_unknown) for r in self.requests]),
        )  # fmt: skip

    def cancellation(self) -> CancelOrderData:
        """Return how a cancel names it: by our own id, if it is ours."""
        if self.is_foreign:
            return CancelOrderData(order_id=self.order_id)
        return CancelOrderData(client_order_id=self.client_id)

    def changed(
        self, change: ModifyOrderData, before: Sequence[ModifyOrderData] = ()
    ) -> Iterator[OrderData]:
        """Return the orders that a modification may make of it, to be checked.

        More than one where others are under way, or go out *before* it, which may be
        refused or not: with the most that may be asked for, at each price.
        """
        asked = [*(r.change for r in self.requests if r.change is not None), *before]
        quantities = _candidates(
            change.quantity, self.quantity, [c.quantity for c in asked]
        )
        quantity = max(q for q in quantities if q is not None)
        prices = _candidates(change.price, self.price, [c.price for c in asked])
        stop_prices = _candidates(
            change.stop_price, self.stop_price, [c.stop_price for c in asked]
        )
        side, kind = cast(Side, self.side), cast(OrderType, self.type)
        for price, stop_price in product(prices, stop_prices):
            yield OrderData(self.symbol, side, kind, quantity, price, stop_price)

    def __repr__(self) -> str:
        return (
            f"<Order {self.client_id} {self.order_id} {self.side} {self.quantity:g} "
            f"{self.symbol} {self.status.value} filled={self.filled:g}>"
        )

    # ── what is told ──────────────────────────────────────────────────────────────────

    def merge(self, data: OrderUpdateData | OrderResponseData, time_ms: int) -> None:
        """Take what the venue said at *time_ms*, if it has not said newer things.

        Nothing is newer than its end, and of what it said within one millisecond, the
        one with more fills; of two alike, the one that came last.
        """
        self.updated_ms = max(self.updated_ms, time_ms)
        self.triggered = _later(self.triggered, data.triggered)
        filled = _number(data.filled_quantity)
        if filled is not None:
            self._told = max(self._told, _decimal(filled))
        is_end = data.status in ENDS
        version = (is_end, time_ms, -1.0 if filled is None else filled)
        if version < self._version:
            return
        self._version = version
        self._quantity = _decimal(data.quantity)
        self.price = data.price
        self.time_in_force = data.time_in_force
        if (stop_price := _number(data.stop_price)) is not None:
            self.stop_price = stop_price

    def fill(self, data: UserTradeData) -> bool:
        """Count a fill; return whether it was not counted before."""
        if data.trade_id in self._trade_ids:
            return False
        self._trade_ids.add(data.trade_id)
        quantity = _decimal(data.quantity)
        cost = EXACT.multiply(quantity, _decimal(data.price))
        self._traded = EXACT.add(self._traded, quantity)
        self._cost = EXACT.add(self._cost, cost)
        return True

    def end(self, status: Status, reason: str | None = None) -> None:
        """End it for good; a second end changes nothing."""
        if self._end is None:
            self._end, self._reason = status, reason


def _candidates(
    wanted: float | None, now: float | None, asked: list[float | None]
) -> list[float | None]:
    """Return what a field may be: what is wanted of it, or else all that it may be."""
    if wanted is not None:
        return [wanted]
    return list(dict.fromkeys([now, *(one for one in asked if one is not None)]))


def _decimal(number: float) -> Decimal:
    """Return the decimal that a number was written as: these add up exactly."""
    return Decimal(str(number))


def _number(told: object) -> float | None:
    """Return a number that may be UNSET or None."""
    return told if isinstance(told, (int, float)) else None


def _later(known: bool | None, told: object) -> bool | None:
    """Return what is so after both: a stop that has triggered remains triggered."""
    return told if isinstance(told, bool) and not known else known

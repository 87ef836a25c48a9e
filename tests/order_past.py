"""What a desk told of an account, heard or not, and what a client knows otherwise.

Shares no code with the product's orders.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import UNSET

from feedhandler.order import Order, Status
from feedhandler.protocol.messages import OrderUpdateData, UserTradeData
from feedhandler.trading import OrderFlow
from feedhandler.venue.exchange import Exchange

__all__ = ["ENDED", "Difference", "Fill", "Past"]

OPEN = ("accepted", "partially_filled")
ENDED = (Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
WORDS = {
    Status.LIVE: "accepted",
    Status.PARTIALLY_FILLED: "partially_filled",
    **{status: status.value for status in ENDED},
}

Difference = tuple[str, str]
"""What does not hold, and why."""
Fill = tuple[str, str, int]
"""Order, trade and time: a venue that begins anew gives the same ids again."""


class Past:
    """All that the desk of one life of the venue told of an account."""

    def __init__(self, exchange: Exchange, account: str) -> None:
        self.account = account
        self.orders: dict[str, OrderUpdateData] = {}
        self.trades: dict[str, list[UserTradeData]] = {}
        self._exchange = exchange
        desk = exchange.desk
        orders, trades = desk.on_order, desk.on_trade

        def on_order(account: str, data: OrderUpdateData) -> None:
            if orders is not None:
                orders(account, data)
            if account == self.account:
                self.orders[data.order_id] = data

        def on_trade(account: str, data: UserTradeData) -> None:
            if trades is not None:
                trades(account, data)
            if account == self.account:
                self.trades.setdefault(data.order_id, []).append(data)

        desk.on_order, desk.on_trade = on_order, on_trade

    def by_client_id(self) -> dict[str, list[OrderUpdateData]]:
        """Return the orders by the name that the client gave them."""
        found: dict[str, list[OrderUpdateData]] = {}
        for order in self.orders.values():
            found.setdefault(order.client_id or "", []).append(order)
        return found

    def differences(
        self, flow: OrderFlow, fills: Mapping[Fill, float], submitted: Iterable[str]
    ) -> Iterator[Difference]:
        """Find what a client that is at rest knows otherwise.

        *fills* are those that it was told, *submitted* the names of the orders that it
        sent in this life of the venue.
        """
        for client_id, orders in self.by_client_id().items():
            if len(orders) > 1 and client_id:
                yield "I-08", f"the venue has {client_id} {len(orders)} times"
        yield from self._of_open(flow)
        yield from self._of_orders(flow, submitted)
        yield from self._of_fills(flow, fills)
        yield from self._of_account(flow)
        for wrong in self._exchange.ledger.conserved():
            yield "I-10", wrong

    def _of_open(self, flow: OrderFlow) -> Iterator[Difference]:
        ours = sorted(order.order_id or "?" for order in flow.orders.open)
        theirs = sorted(o.order_id for o in self.orders.values() if o.status in OPEN)
        if ours != theirs:
            yield "I-08", f"open are {ours}, not {theirs}"
        for order in flow.orders.open:
            if order.is_unknown or order.pending:
                yield "unknown", f"{order}: {order.reason} {order.pending}"

    def _of_orders(
        self, flow: OrderFlow, submitted: Iterable[str]
    ) -> Iterator[Difference]:
        """Compare each order that was ever sent, whether it arrived or not."""
        by_client_id = self.by_client_id()
        for client_id in submitted:
            order = flow.orders.by_client_id(client_id)
            if order is None:
                yield "I-08", f"{client_id} is forgotten"
            elif client_id in by_client_id:
                yield from unlike(order, by_client_id[client_id][0])
            elif order.status is not Status.REJECTED:
                yield "I-08", f"{order} is none of the venue's"
        for order_id, data in self.orders.items():
            order = flow.orders.by_order_id(order_id)
            if order is None:
                yield "I-08", f"{data} is not known"
            else:
                yield from unlike(order, data)

    def _of_fills(
        self, flow: OrderFlow, fills: Mapping[Fill, float]
    ) -> Iterator[Difference]:
        """Compare the fills, as they were told and as they add up (I-09)."""
        theirs = {
            (order_id, trade.trade_id, trade.trade_time): trade.quantity
            for order_id, trades in self.trades.items()
            for trade in trades
        }
        if fills != theirs:
            yield "fills", f"differ in {sorted(fills.items() ^ theirs.items())[:5]}"
        for order_id, trades in self.trades.items():
            order = flow.orders.by_order_id(order_id)
            paid = sum(trade.price * trade.quantity for trade in trades)
            size = sum(trade.quantity for trade in trades)
            average = None if order is None else order.average_price
            if average is None or abs(average - paid / size) > 1e-6:
                yield "fills", f"{order} cost {average}, not {paid / size}"

    def _of_account(self, flow: OrderFlow) -> Iterator[Difference]:
        """Compare the account to the last digit, but for what is marked."""
        marks = {
            name: engine.last_ticks or 1
            for name, engine in self._exchange.engines.items()
        }
        view = self._exchange.ledger.view(self.account, marks)
        theirs: dict[str, Any] = {row.currency: row for row in view.balances}
        if flow.account.balances != theirs:
            yield "account", f"{flow.account.balances} is not {theirs}"
        theirs = {row.symbol: held(row) for row in view.positions}
        ours = {name: held(row) for name, row in flow.account.positions.items()}
        # What is not held any more may be listed or not.
        for name in ours.keys() | theirs.keys():
            if ours.get(name, held(None)) != theirs.get(name, held(None)):
                yield "account", f"{name}: {ours.get(name)} is not {theirs.get(name)}"


def held(position: Any) -> tuple[float, float, float]:
    """Return what a position is, but for the profit that depends on a last price."""
    if position is None:
        return 0.0, 0.0, 0.0
    return position.quantity, position.average_price, position.realized_pnl


def unlike(order: Order, data: OrderUpdateData) -> Iterator[Difference]:
    """Tell what is otherwise of an order than the venue's last word says."""
    status = WORDS.get(order.status, order.status.value)
    ours = (
        order.order_id, status, order.filled, order.quantity, order.price,
        order.stop_price, order.triggered,
    )  # fmt: skip
    stop = None if data.stop_price is UNSET else data.stop_price
    triggered = None if data.triggered is UNSET else data.triggered
    theirs = (
        data.order_id, data.status, data.filled_quantity, data.quantity,
        data.price, stop, triggered,
    )  # fmt: skip
    if ours != theirs:
        what = "fills" if ours[2] != theirs[2] else "I-11"
        yield what, f"{order}: {ours} is not {theirs}"

"""An order flow in virtual time, hosted as a feed hosts it, with a scripted venue."""

import json
from typing import Any, NamedTuple

from feedhandler.authentication import ApiKey
from feedhandler.backoff import Backoff
from feedhandler.errors import FeedError
from feedhandler.order import Cause, Operation, Order
from feedhandler.protocol.messages import (
    Balance,
    CancelOrderData,
    OrderData,
    Position,
    UserTradeData,
)
from feedhandler.reconnect import Reconnect
from feedhandler.secret import Secret
from feedhandler.trading import CHANNELS, OrderFlow, Sent
from tests.feeds import TIME_MS, Feed

ORDERS, TRADES, ACCOUNT = CHANNELS


class Told(NamedTuple):
    """What a hearer was told of an order, and what it was then."""

    client_id: str | None
    status: str
    cause: Cause
    operation: Operation | None
    code: str | None
    is_replay: bool


class Heard:
    """A hearer that keeps what it hears."""

    def __init__(self) -> None:
        self.orders: list[Told] = []
        self.fills: list[tuple[str, str | None, bool]] = []
        self.rows: list[Balance | Position] = []

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> None:
        status = order.status.value
        self.orders.append(
            Told(order.client_id, status, cause, operation, code, is_replay)
        )

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> None:
        client_id = order.client_id if order is not None else None
        self.fills.append((data.trade_id, client_id, is_replay))

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> None:
        self.rows += rows


class Desk:
    """A session of the trading endpoint and its order flow, subscribed and ready."""

    def __init__(self, ready: bool = True, **options: Any) -> None:
        self.heard = Heard()
        self.feed = Feed(
            *CHANNELS,
            key=ApiKey("key-0001", Secret("s3cret")),
            reconnect=Reconnect(Backoff(jitter=0), retry_forever=True),
            opened=False,
        )
        self.flow = OrderFlow(self.feed.session, hearers=[self.heard], **options)
        self.outcomes: list[tuple[str, Any]] = []
        self.connect()
        if ready:
            self.tick(0.2)
            assert self.flow.is_ready

    @property
    def now_ns(self) -> int:
        return self.feed.now_ns

    # ── what the venue does ───────────────────────────────────────────────────────────

    def connect(self) -> None:
        """Be authenticated and subscribed; what there is, is still to be told."""
        self.feed.open()
        self.feed.authenticated()
        self.feed.collect()
        self.feed.answer()
        self.pump()

    def cut(self) -> None:
        self.feed.close()
        self.pump()

    def receive(self, message: dict[str, Any]) -> None:
        self.feed.receive(message)
        self.pump()

    def subscribed(self) -> None:
        """Confirm the last subscribe."""
        request = next(m for m in self.feed.wire[::-1] if m["action"] == "subscribe")
        self.feed.answer(request)
        self.pump()

    def update(self, client_id: str | None, status: str, **fields: Any) -> None:
        """Tell of an order of ours, ten by default of which none is filled."""
        data = {
            "order_id": f"o-{client_id}", "client_id": client_id, "symbol": "AAPL",
            "side": "buy", "type": "limit", "quantity": 10, "filled_quantity": 0,
            "remaining_quantity": 10, "price": 150.0, "status": status,
            "time_in_force": "gtc", "created_at": TIME_MS, "updated_at": TIME_MS,
        } | fields  # fmt: skip
        self._tell("order_update", ORDERS, data)

    def fill(self, trade_id: str, client_id: str, quantity: float = 10) -> None:
        data = {
            "trade_id": trade_id, "order_id": f"o-{client_id}", "symbol": "AAPL",
            "side": "buy", "price": 150.0, "quantity": quantity, "fee": 0.0,
            "fee_currency": "USD", "trade_time": TIME_MS,
        }  # fmt: skip
        self._tell("user_trade", TRADES, data)

    def account(self, **totals: float) -> None:
        """Tell of balances by currency, of which nothing is reserved."""
        balances = [
            {"currency": name, "available": total, "reserved": 0.0, "total": total}
            for name, total in totals.items()
        ]
        data = {"account_id": "a", "balances": balances, "positions": []}
        self._tell("account_update", ACCOUNT, data)

    def _tell(self, kind: str, channel: str, data: dict[str, Any]) -> None:
        stamps = {"channel": channel, "timestamp": TIME_MS}
        self.receive({"type": kind, "data": data} | stamps)

    def ack(self, request_id: str, client_id: str, status: str = "accepted") -> None:
        """Answer a submit, cancel or modify: granted."""
        data = {
            "status": status, "order_id": f"o-{client_id}", "client_id": client_id,
            "symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 10,
            "price": 150.0, "time_in_force": "gtc",
        }  # fmt: skip
        stamps = {"timestamp": TIME_MS, "id": request_id}
        self.receive({"type": "order_response", "data": data} | stamps)

    def refuse(self, request_id: str, code: str) -> None:
        data = {
            "code": code, "message": "because", "request_id": request_id,
            "request_action": "submit_order",
        }  # fmt: skip
        stamps = {"timestamp": TIME_MS, "id": request_id}
        self.receive({"type": "error", "data": data} | stamps)

    # ── what we do ────────────────────────────────────────────────────────────────────

    def submit(self, client_id: str | None = None, **fields: Any) -> Sent:
        data = {"symbol": "AAPL", "side": "buy", "type": "limit", "quantity": 10}
        data |= {"price": 150.0, "client_order_id": client_id} | fields
        return self.flow.submit(OrderData(**data), self.now_ns)

    def live(self, client_id: str) -> Sent:
        """Have an order that the venue accepted."""
        sent = self.submit(client_id)
        self.ack(sent.request_id, client_id)
        self.update(client_id, "accepted")
        return sent

    def cancel(self, client_id: str) -> Sent:
        return self.flow.cancel(CancelOrderData(client_order_id=client_id), self.now_ns)

    def refused(self, client_id: str = "x-1", **fields: Any) -> str | None:
        """Return what a submit raises, by name; None if it goes out."""
        try:
            self.submit(client_id, **fields)
        except FeedError as error:
            return type(error).__name__
        return None

    def tick(self, seconds: float = 0.1, beats: bool = True) -> None:
        """Let time pass, in beats of a tenth of a second, as the host does."""
        for _ in range(round(seconds * 10)):
            self.feed.tick(0.1)
            if beats and self.now_ns // 100_000_000 % 200 == 0:
                self.feed.heartbeat()
            self.pump()
            self.flow.tick(self.now_ns)
            self.feed.collect()

    def pump(self) -> None:
        for message in self.feed.session.take_messages():
            self.flow.hear(message, self.now_ns)
        for answer in self.feed.session.take_answers():
            self.flow.answered(answer)
            self.outcomes.append((answer.id, answer.message))

    def wire(self, *actions: str) -> list[dict[str, Any]]:
        """What was sent since the last call, as far as it is of *actions*."""
        return [m for m in self.feed.sent() if not actions or m["action"] in actions]

    def order(self, client_id: str) -> Order:
        return self.flow.find(None, client_id)

    def status(self, client_id: str) -> str:
        return self.order(client_id).status.value

    def told(self) -> list[Told]:
        """What the hearer was told of orders since the last call."""
        self.flow.announce()
        taken, self.heard.orders = self.heard.orders, []
        return taken


def names(messages: list[dict[str, Any]]) -> list[str]:
    """The client order ids in requests."""
    return [json.loads(json.dumps(m))["data"]["client_order_id"] for m in messages]

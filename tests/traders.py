"""Somebody who trades over sockets: a feed handler with the orders of one account."""

import asyncio
import time
from itertools import count
from typing import Any

from feedhandler import FeedHandler
from feedhandler.config import FeedConfig, build
from feedhandler.order import Cause, Operation, Order
from feedhandler.protocol.channels import TRADING
from feedhandler.protocol.messages import (
    Balance,
    CancelOrderData,
    ModifyOrderData,
    OrderData,
    Position,
    UserTradeData,
)
from feedhandler.secret import Secret
from feedhandler.trading import CHANNELS, OrderFlow, Sent
from feedhandler.venue.config import AccountConfig
from feedhandler.venue.exchange import Exchange
from tests.end_to_end.processes import unique
from tests.loops import eventually
from tests.order_past import Difference, Fill, Past

__all__ = ["SECRET", "Trader", "account"]

SECRET = "a-traders-secret"
COUNT = count(1)


def account(name: str, **fields: Any) -> AccountConfig:
    """Describe an account that has some of everything."""
    means = {"balances": {"USD": 100_000, "BTC": 2}, "positions": {"AAPL": 1000}}
    return AccountConfig(
        id=name, api_key=f"key-{name}", secret=SECRET, **means | fields
    )


def config_of(name: str, url: str, **limits: Any) -> FeedConfig:
    """Return a feed's configuration that is connected again at once."""
    quick = {"reconnect_base_s": 0.0, "reconnect_jitter": 0.0, "retry_forever": True}
    return build(
        {
            "url": url,
            "shm": {"name": unique(f"{name}-{next(COUNT)}"), "capacity": 1024},
            "credentials": {"api_key": f"key-{name}"},
            "account": {"channels": [*CHANNELS, "system_notifications"]},
            "limits": quick | {"subscribe_per_minute": 1000} | limits,
        }
    )


class Trader:
    """One account: its feed, what it was told, and the venue's own word of it."""

    def __init__(self, name: str, url: str, **limits: Any) -> None:
        self.name = name
        self.causes: list[tuple[str | None, str, Cause]] = []
        self.fills: dict[Fill, float] = {}
        self.again: list[Fill] = []
        self.submitted: list[str] = []
        self.past: Past | None = None
        self.closed: list[int] = []
        """The codes of connections that ended."""
        self.feed = FeedHandler(
            config_of(name, url, **limits),
            on_event=self._on_event,
            secret=Secret(SECRET),
        )

    def watch(self, exchange: Exchange) -> None:
        """Begin to note what the venue's desk says of the account."""
        self.past = Past(exchange, self.name)

    async def ready(self) -> None:
        """Listen to the flow, and wait until it lets orders out."""
        self.flow.hearers.append(self)
        await eventually(lambda: self.flow.is_ready, f"{self.name} to be ready")

    @property
    def flow(self) -> OrderFlow:
        return self.feed.flow

    # ── what it is told ───────────────────────────────────────────────────────────

    def on_order(
        self,
        order: Order,
        cause: Cause,
        operation: Operation | None,
        code: str | None,
        time_ms: int,
        is_replay: bool,
    ) -> None:
        self.causes.append((order.client_id, order.status.value, cause))

    def on_fill(
        self, data: UserTradeData, order: Order | None, is_replay: bool
    ) -> None:
        key = (data.order_id, data.trade_id, data.trade_time)
        if key in self.fills:
            self.again.append(key)
        self.fills[key] = data.quantity

    def on_account(self, rows: list[Balance | Position], time_ms: int) -> None:
        pass

    def _on_event(self, event: Any) -> None:
        if event.kind == "closed":
            self.closed.append(event.detail["code"])

    # ── what it asks ──────────────────────────────────────────────────────────────

    async def submit(
        self, side: str, quantity: float, price: float | None = None, **fields: Any
    ) -> Any:
        """Place an order, of a type that follows from its prices; return the answer."""
        return await self.answer(self.place(side, quantity, price, **fields))

    def place(
        self, side: str, quantity: float, price: float | None = None, **fields: Any
    ) -> Sent:
        """Have the flow ask for an order, and do not send it yet."""
        sent = self.flow.submit(terms(side, quantity, price, **fields), now_ns())
        self.note(sent)
        return sent

    def note(self, sent: Sent) -> None:
        """Remember the names of what was asked for."""
        for order in sent.orders:
            if order.client_id is not None and order.client_id not in self.submitted:
                self.submitted.append(order.client_id)

    async def modify(self, client_id: str, **change: Any) -> Any:
        data = ModifyOrderData(client_order_id=client_id, **change)
        return await self.answer(self.flow.modify(data, now_ns()))

    async def cancel(self, client_id: str) -> Any:
        data = CancelOrderData(client_order_id=client_id)
        return await self.answer(self.flow.cancel(data, now_ns()))

    async def batch(self, *operations: Any) -> Any:
        sent = self.flow.batch(operations, now_ns())
        self.note(sent)
        return await self.answer(sent)

    async def answer(self, sent: Sent) -> Any:
        """Send what was asked for, and wait for the answer; None for none."""
        return await self.feed.answer(sent)

    async def ask(self, message: Any, endpoint: str = TRADING) -> Any:
        """Send a request past the flow, which would not let it out."""
        session = self.feed._private[endpoint].session
        request_id = session.ask(message, now_ns())
        future = self.feed.answer(Sent(request_id, ()))
        self.feed._private[endpoint].flush()
        return await future

    def status(self, client_id: str) -> str:
        return self.flow.find(None, client_id).status.value

    # ── what is true ──────────────────────────────────────────────────────────────

    def differences(self) -> list[Difference]:
        """Return what it knows otherwise than the venue."""
        assert self.past is not None
        found = list(self.past.differences(self.flow, self.fills, self.submitted))
        return found + [("I-09", f"{fill} was told again") for fill in self.again]

    async def agrees(self) -> None:
        """Wait until it knows what the venue knows, and nothing is told twice."""
        until_ns = now_ns() + 10_000_000_000
        while now_ns() < until_ns and self.differences():
            await asyncio.sleep(0.002)
        assert self.differences() == []


def terms(
    side: str, quantity: float, price: float | None, *, stop: float | None = None,
    symbol: str = "AAPL", tif: str | None = None, id: str | None = None,
) -> OrderData:  # fmt: skip
    """Describe an order."""
    kind = (
        ("stop" if price is None else "stop_limit")
        if stop is not None
        else ("market" if price is None else "limit")
    )
    return OrderData(
        symbol, side, kind, quantity, price, stop, tif, id  # type: ignore[arg-type]
    )  # fmt: skip


def now_ns() -> int:
    return time.monotonic_ns()

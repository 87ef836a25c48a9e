"""TradingClient: the API as a program sees it, in the terms of the reference.

It rides on a FeedHandler, which keeps the connections, one for each endpoint, opened
when something on it is first wanted: a key never has more of them than it needs.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from feedhandler.config import Account, Credentials, FeedConfig, Shm, Trading
from feedhandler.errors import (
    InvalidParameter,
    NotConnected,
    OutcomeUnknown,
    RequestFailed,
)
from feedhandler.handler import FeedHandler
from feedhandler.order import Order
from feedhandler.protocol.limits import ANSWER_TIMEOUT_S
from feedhandler.protocol.messages import (
    BatchCancel,
    BatchModify,
    BatchResponse,
    BatchResponseData,
    BatchSubmit,
    CancelOrderData,
    Error,
    ModifyOrderData,
    OrderData,
    OrderResponse,
    OrderResponseData,
)
from feedhandler.secret import Secret
from feedhandler.sink import (
    CandleEvent,
    PythonSink,
    QuoteEvent,
    TickerEvent,
    TradeEvent,
)
from feedhandler.trading import CHANNELS, OrderFlow, Sent

__all__ = ["TradingClient"]

POLL_S = 0.002
MARKET_TYPES = ("orderbook", "trade", "ticker", "candle")
PRIVATE_TYPES = (
    "order_update", "user_trade", "account_update", "system_notification",
    "user_notification", "custom_alert",
)  # fmt: skip


class TradingClient:
    """Orders, and every channel of the API, with the answers to await.

    Give it a *feed*, whose connections it borrows, or which it *owns*: then it starts
    and stops it. open() makes one of its own. An error answer is raised, as its code's
    RequestFailed; without an answer OutcomeUnknown is: the order may be in the market,
    and what the venue tells later is in ``orders``. Nothing is ever sent twice. The
    loop's thread only.

    Async context manager: connect() and close(), which closes a feed of its own only.
    """

    def __init__(self, feed: FeedHandler, owns: bool = False) -> None:
        self.feed = feed
        self._is_own = owns
        self._handlers: dict[str, list[Callable[[Any], object]]] = {}
        feed.listen(self._deliver)

    @classmethod
    def open(
        cls,
        url: str,
        api_key: str = "",
        secret: Secret | str | None = None,
        *,
        trading: Trading | None = None,
        **options: Any,
    ) -> Self:
        """Return a client with connections of its own and nothing in shared memory.

        *trading* has the guards; *options* are those of FeedConfig, such as ca_file.
        Raises ConfigError as they do.
        """
        config = FeedConfig(
            url=url,
            credentials=Credentials(api_key=api_key),
            trading=trading or Trading(),
            shm=Shm(name=""),
            account=Account(channels=()),
            **options,
        )
        if isinstance(secret, str):
            secret = Secret(secret)
        relay = _Relay()
        client = cls(FeedHandler(config, relay, secret=secret), owns=True)
        relay.hand = client._hand
        return client

    # ── life ──────────────────────────────────────────────────────────────────────────

    async def connect(self) -> None:
        """Start a feed of our own; connections are made when they are wanted."""
        self.feed.unlisten(self._deliver)
        self.feed.listen(self._deliver)
        if self._is_own and not self.feed.is_running:
            await self.feed.start()

    async def close(self) -> None:
        """Close a feed of our own; of another one, stop listening to it."""
        self.feed.unlisten(self._deliver)
        if self._is_own:
            await self.feed.stop()

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    # ── channels ──────────────────────────────────────────────────────────────────────

    async def subscribe(
        self, channels: str | Iterable[str], timeout: float = ANSWER_TIMEOUT_S
    ) -> None:
        """Subscribe to a channel or several, and wait until the venue confirms them.

        They stay subscribed over reconnects until unsubscribe(). Raises ValueError for
        what is no channel, InvalidParameter for what the venue does not have, and
        TimeoutError after *timeout* seconds for each.
        """
        wanted = _listed(channels)
        for channel in wanted:
            self.feed.hold(channel)
        for channel in wanted:
            confirmed = functools.partial(self._is_confirmed, channel)
            await self._until(confirmed, timeout, channel)

    def _is_confirmed(self, channel: str) -> bool:
        confirmed = self.feed.confirmation(channel)
        if confirmed is None:
            raise InvalidParameter("invalid_parameter", f"{channel} was refused")
        return confirmed

    async def _until(
        self, probe: Callable[[], bool], timeout: float, what: str
    ) -> None:
        """Wait for something; TimeoutError says how the connections are."""
        try:
            async with asyncio.timeout(timeout):
                while not probe():
                    self.feed.check_connections()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            states = ", ".join(
                f"{health.name} is {health.state.name.lower()}"
                for health in self.feed.health()
            )
            raise TimeoutError(f"waited {timeout:g} s for {what}: {states}") from None

    async def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """Give a channel or several up; those that are not held do not matter."""
        for channel in _listed(channels):
            self.feed.release(channel)

    def on_message(self, kind: str, handler: Callable[[Any], object]) -> None:
        """Have *handler* called with every message of that ``type``.

        Of private channels, such as ``order_update``, it gets what came
        (protocol.messages). Of market data a client with connections of its own has
        ``orderbook`` (sink.QuoteEvent, from snapshots and updates alike), ``trade``,
        ``ticker`` and ``candle``; ``feed.symbol_of(event.instrument)`` says of what,
        ``feed.book()`` has the book. With another's feed these go to the feed's sink.
        Raises ValueError for what it will never get.
        """
        if kind not in PRIVATE_TYPES + (MARKET_TYPES if self._is_own else ()):
            raise ValueError(f"no message of type {kind!r} comes here")
        self._handlers.setdefault(kind, []).append(handler)

    def _deliver(self, message: Any) -> None:
        self._hand(message.__struct_config__.tag, message)

    def _hand(self, kind: str, message: Any) -> None:
        """Call all handlers; what the first one raises that does is raised then."""
        failed: Exception | None = None
        for handler in self._handlers.get(kind, ()):
            try:
                handler(message)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    # ── orders ────────────────────────────────────────────────────────────────────────

    @property
    def orders(self) -> OrderFlow:
        """All orders and the account, as far as they are known; see OrderFlow."""
        return self.feed.flow

    async def ready(self, timeout: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until orders may go out: see OrderFlow. Subscribes to what it needs.

        Raises TimeoutError, and ConnectionFailed when there is no more hope.
        """
        await self.subscribe(CHANNELS, timeout)
        await self._until(lambda: self.feed.flow.is_ready, timeout, "the order flow")

    async def submit_order(
        self, order: OrderData | None = None, **fields: Any
    ) -> OrderResponseData:
        """Send an order, given whole or by its fields, and await the venue's answer.

        Raises what OrderFlow.submit() does, when nothing was sent; RequestFailed when
        the venue refused; OutcomeUnknown when it did not answer.
        """
        data = OrderData(**fields) if order is None else order
        return await self._order(self._flow().submit(data, _now_ns()), "submit_order")

    async def modify_order(
        self,
        order_id: str | None = None,
        *,
        client_order_id: str | None = None,
        quantity: float | None = None,
        price: float | None = None,
        stop_price: float | None = None,
    ) -> OrderResponseData:
        """Change an order's total quantity, price or stop price; see submit_order()."""
        change = ModifyOrderData(order_id, client_order_id, quantity, price, stop_price)
        return await self._order(self._flow().modify(change, _now_ns()), "modify_order")

    async def cancel_order(
        self, order_id: str | None = None, *, client_order_id: str | None = None
    ) -> OrderResponseData:
        """Take an order out of the market; see submit_order()."""
        which = CancelOrderData(order_id, client_order_id)
        return await self._order(self._flow().cancel(which, _now_ns()), "cancel_order")

    async def batch_orders(
        self, operations: Sequence[BatchSubmit | BatchCancel | BatchModify]
    ) -> BatchResponseData:
        """Send several operations in one request; the outcome of each is in the answer.

        An operation that failed is not raised: the others may have been done.
        """
        sent = self._flow().batch(operations, _now_ns())
        answer = await self._answer(sent, "batch_orders")
        if not isinstance(answer, BatchResponse):
            raise OutcomeUnknown("batch_orders", sent.request_id)
        return answer.data

    def cancel_all(self) -> None:
        """Have every open order canceled, as fast as the venue's limit lets it."""
        self._flow().cancel_all(_now_ns())
        self.feed.flush()

    def kill(self) -> None:
        """Let no order out any more, and cancel all that are open or turn up."""
        self._flow().kill(_now_ns())
        self.feed.flush()

    @property
    def open_orders(self) -> list[Order]:
        """The orders that have not ended, as far as we know."""
        return self.feed.flow.orders.open

    def _flow(self) -> OrderFlow:
        if not self.feed.is_running:
            raise NotConnected("trading", "closed")
        return self.feed.flow

    async def _order(self, sent: Sent, action: str) -> OrderResponseData:
        answer = await self._answer(sent, action)
        if not isinstance(answer, OrderResponse):
            raise OutcomeUnknown(action, sent.request_id)
        return answer.data

    async def _answer(self, sent: Sent, action: str) -> Any:
        """Await the answer to what was sent; raise what it means.

        Who stops waiting (a timeout of his own, a canceled task) does not take anything
        back: the order is out.
        """
        answer = await self.feed.answer(sent)
        if answer is None:
            raise OutcomeUnknown(action, sent.request_id)
        if isinstance(answer, Error):
            data = answer.data
            retry_after = data.retry_after
            raise RequestFailed.of(
                data.code,
                data.message,
                data.request_id or sent.request_id,
                retry_after if isinstance(retry_after, (int, float)) else None,
            )
        return answer


class _Relay(PythonSink):
    """Hands market data to the client's handlers."""

    def __init__(self) -> None:
        self.hand: Callable[[str, Any], object] = lambda kind, event: None

    def quote(self, event: QuoteEvent) -> None:
        """Hand on a state of a book."""
        self.hand("orderbook", event)

    def trade(self, event: TradeEvent) -> None:
        """Hand on a trade."""
        self.hand("trade", event)

    def ticker(self, event: TickerEvent) -> None:
        """Hand on a ticker."""
        self.hand("ticker", event)

    def candle(self, event: CandleEvent) -> None:
        """Hand on a candle."""
        self.hand("candle", event)


def _listed(channels: str | Iterable[str]) -> list[str]:
    return [channels] if isinstance(channels, str) else list(channels)


def _now_ns() -> int:
    return time.monotonic_ns()

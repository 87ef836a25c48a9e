"""Every message of the API reference, both directions, as msgspec Structs.

Server messages are told apart by ``type``, client messages by ``action``. Numbers that
may come as ``150`` or ``150.0`` are floats; every time is an integer of milliseconds
since the epoch (UTC), ``retry_after`` alone is in seconds. Fields that the reference
does not have are ignored, except inside order data, where a misspelt ``stop_price``
must not become a plain order.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from feedhandler.secret import MASK, shorten

__all__ = [
    "AccountUpdate",
    "AccountUpdateData",
    "Alert",
    "AuthResponse",
    "AuthResponseData",
    "Authenticate",
    "AuthenticateData",
    "Balance",
    "BatchCancel",
    "BatchModify",
    "BatchOrders",
    "BatchOrdersData",
    "BatchResponse",
    "BatchResponseData",
    "BatchResult",
    "BatchSubmit",
    "CancelOrder",
    "CancelOrderData",
    "Candle",
    "CandleData",
    "Channels",
    "ClientMessage",
    "CustomAlert",
    "Error",
    "ErrorData",
    "Heartbeat",
    "HeartbeatData",
    "Level",
    "MarketMessage",
    "ModifyOrder",
    "ModifyOrderData",
    "Notice",
    "OrderData",
    "OrderResponse",
    "OrderResponseData",
    "OrderUpdate",
    "OrderUpdateData",
    "Orderbook",
    "OrderbookData",
    "OrderbookUpdate",
    "Pong",
    "PongData",
    "Position",
    "ServerMessage",
    "SubmitOrder",
    "Subscribe",
    "SubscriptionResponse",
    "SubscriptionResponseData",
    "SystemNotification",
    "Ticker",
    "TickerData",
    "Trade",
    "TradeData",
    "Unsubscribe",
    "UserNotification",
    "UserTrade",
    "UserTradeData",
]

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["gtc", "ioc", "fok", "day"]

Level = tuple[float, float]
"""One price level: price, quantity; quantity 0 removes it."""


# ── market data ───────────────────────────────────────────────────────────────────────
# gc=False: no cycles can pass through these, and the collector need not walk them.


class OrderbookData(Struct, gc=False):
    """The sides of a book, or what changed in them."""

    symbol: str
    bids: list[Level]
    asks: list[Level]
    sequence: int


class Orderbook(Struct, tag_field="type", tag="orderbook", gc=False):
    """A snapshot: it replaces the book."""

    data: OrderbookData
    channel: str
    timestamp: int = 0


class OrderbookUpdate(Struct, tag_field="type", tag="orderbook_update", gc=False):
    """Changes only, each an absolute quantity; sequence is the previous plus one."""

    data: OrderbookData
    channel: str
    timestamp: int = 0


class TradeData(Struct, gc=False):
    """One match; *side* is the aggressor's."""

    symbol: str
    price: float
    size: float
    side: Side
    trade_id: str
    trade_time: int


class Trade(Struct, tag_field="type", tag="trade", gc=False):
    """A trade on a trades channel."""

    data: TradeData
    channel: str
    timestamp: int = 0


class TickerData(Struct, gc=False):
    """A day's summary; null where the venue does not know."""

    symbol: str
    last_price: float | None
    last_size: float | None
    bid: float | None
    ask: float | None
    volume: float | None
    daily_change: float | None
    daily_change_percent: float | None
    high: float | None
    low: float | None
    open: float | None


class Ticker(Struct, tag_field="type", tag="ticker", gc=False):
    """A ticker on a ticker channel."""

    data: TickerData
    channel: str
    timestamp: int = 0


class CandleData(Struct, gc=False):
    """One bucket; *end_time* is exclusive."""

    symbol: str
    interval: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    start_time: int
    end_time: int


class Candle(Struct, tag_field="type", tag="candle", gc=False):
    """A candle on a candles channel; partial while timestamp < end_time."""

    data: CandleData
    channel: str
    timestamp: int = 0


# ── responses and control ─────────────────────────────────────────────────────────────


class HeartbeatData(Struct, omit_defaults=True):
    """The interval in milliseconds, where the venue says it."""

    interval: int | None = None


class Heartbeat(Struct, tag_field="type", tag="heartbeat", omit_defaults=True):
    """Sent every 30 s; only the type is required."""

    data: HeartbeatData | None = None
    timestamp: int | None = None


class SubscriptionResponseData(Struct):
    """The channels of the request, and whether it was taken."""

    status: str
    channels: list[str] = []


class SubscriptionResponse(
    Struct, tag_field="type", tag="subscription_response", omit_defaults=True
):
    """The answer to subscribe and unsubscribe."""

    data: SubscriptionResponseData
    timestamp: int = 0
    id: str | None = None


class AuthResponseData(Struct, omit_defaults=True):
    """The status again, and on failure its code and message."""

    status: str | None = None
    message: str | None = None
    code: str | None = None


class AuthResponse(Struct, tag_field="type", tag="auth_response", omit_defaults=True):
    """The answer to authenticate; the reference shows the status in two places."""

    data: AuthResponseData | None = None
    status: str | None = None
    message: str | None = None
    timestamp: int = 0
    id: str | None = None


class ErrorData(Struct):
    """What was wrong with which request; *retry_after* in seconds.

    *channels*, the ones that a subscribe was refused for, is the venue's extension.
    """

    code: str
    message: str = ""
    request_id: str | None = None
    request_action: str | None = None
    retry_after: float | UnsetType = UNSET
    channels: list[str] | UnsetType = UNSET


class Error(Struct, tag_field="type", tag="error", omit_defaults=True):
    """A request failed."""

    data: ErrorData
    timestamp: int = 0
    id: str | None = None


# ── orders, account, notifications ────────────────────────────────────────────────────


class OrderResponseData(Struct, omit_defaults=True):
    """An order as accepted, canceled or modified."""

    status: str
    order_id: str
    client_id: str | None
    symbol: str
    side: str
    type: str
    quantity: float
    price: float | None
    time_in_force: str
    client_order_id: str | UnsetType = UNSET
    stop_price: float | UnsetType = UNSET
    triggered: bool | UnsetType = UNSET
    filled_quantity: float | UnsetType = UNSET
    remaining_quantity: float | UnsetType = UNSET


class OrderResponse(Struct, tag_field="type", tag="order_response", omit_defaults=True):
    """The answer to submit, cancel and modify."""

    data: OrderResponseData
    timestamp: int = 0
    id: str | None = None


class BatchResult(Struct, omit_defaults=True):
    """The outcome of one operation of a batch."""

    operation: str
    status: str
    order_id: str | None = None
    client_id: str | None = None
    code: str | None = None
    message: str | None = None


class BatchResponseData(Struct):
    """Outcomes in the order of the request; status success, partial or error."""

    status: str
    results: list[BatchResult]


class BatchResponse(Struct, tag_field="type", tag="batch_response", omit_defaults=True):
    """The answer to batch_orders."""

    data: BatchResponseData
    timestamp: int = 0
    id: str | None = None


class OrderUpdateData(Struct, omit_defaults=True):
    """An order's state; filled + remaining = quantity."""

    order_id: str
    client_id: str | None
    symbol: str
    side: str
    type: str
    quantity: float
    filled_quantity: float
    remaining_quantity: float
    price: float | None
    status: str
    time_in_force: str
    created_at: int
    updated_at: int
    client_order_id: str | UnsetType = UNSET
    stop_price: float | UnsetType = UNSET
    triggered: bool | UnsetType = UNSET


class OrderUpdate(Struct, tag_field="type", tag="order_update"):
    """An order changed."""

    data: OrderUpdateData
    channel: str
    timestamp: int = 0


class UserTradeData(Struct):
    """One of our own executions."""

    trade_id: str
    order_id: str
    symbol: str
    side: str
    price: float
    quantity: float
    fee: float
    fee_currency: str
    trade_time: int


class UserTrade(Struct, tag_field="type", tag="user_trade"):
    """An order of ours traded."""

    data: UserTradeData
    channel: str
    timestamp: int = 0


class Balance(Struct):
    """available + reserved = total."""

    currency: str
    available: float
    reserved: float
    total: float


class Position(Struct):
    """A holding; unrealised profit is marked at the last trade."""

    symbol: str
    quantity: float
    average_price: float
    unrealized_pnl: float
    realized_pnl: float


class AccountUpdateData(Struct):
    """Balances and positions that changed."""

    account_id: str
    balances: list[Balance]
    positions: list[Position]


class AccountUpdate(Struct, tag_field="type", tag="account_update"):
    """The account changed."""

    data: AccountUpdateData
    channel: str
    timestamp: int = 0


class Notice(Struct, omit_defaults=True):
    """A notification; what follows *link* is the venue's extension."""

    id: str
    level: str
    title: str
    message: str
    link: str | None = None
    event: str | UnsetType = UNSET
    symbols: list[str] | UnsetType = UNSET
    venue_epoch: str | UnsetType = UNSET


class SystemNotification(Struct, tag_field="type", tag="system_notification"):
    """To everybody."""

    data: Notice
    channel: str
    timestamp: int = 0


class UserNotification(Struct, tag_field="type", tag="user_notification"):
    """To one user."""

    data: Notice
    channel: str
    timestamp: int = 0


class Alert(Struct):
    """A condition that the user configured came true."""

    alert_id: str
    name: str
    condition: str
    symbol: str
    threshold: float
    current_value: float
    triggered_at: int


class CustomAlert(Struct, tag_field="type", tag="custom_alert"):
    """An alert fired."""

    data: Alert
    channel: str
    timestamp: int = 0


MarketMessage = (
    OrderbookUpdate
    | Trade
    | Orderbook
    | Ticker
    | Candle
    | Heartbeat
    | SubscriptionResponse
    | Error
    | AuthResponse
)
"""What may arrive on /ws/market-data."""

ServerMessage = (
    OrderbookUpdate
    | Trade
    | Orderbook
    | Ticker
    | Candle
    | Heartbeat
    | SubscriptionResponse
    | Error
    | AuthResponse
    | OrderResponse
    | BatchResponse
    | OrderUpdate
    | UserTrade
    | AccountUpdate
    | SystemNotification
    | UserNotification
    | CustomAlert
)
"""What may arrive on any endpoint."""


# ── client to server ──────────────────────────────────────────────────────────────────


class AuthenticateData(Struct):
    """Key, HMAC of key + timestamp, and the timestamp in milliseconds."""

    api_key: str
    signature: str
    timestamp: int

    def __repr__(self) -> str:
        """Show neither the key nor the signature."""
        return (
            f"AuthenticateData(api_key={shorten(self.api_key)!r}, "
            f"signature={MASK!r}, timestamp={self.timestamp})"
        )

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to a pretty printer."""
        return [
            ("api_key", shorten(self.api_key)),
            ("signature", MASK),
            ("timestamp", self.timestamp),
        ]


class Authenticate(
    Struct, tag_field="action", tag="authenticate", omit_defaults=True, kw_only=True
):
    """Prove that we hold the secret."""

    data: AuthenticateData
    id: str | None = None


class Channels(Struct):
    """The channels of a request."""

    channels: list[str]


class Subscribe(Struct, tag_field="action", tag="subscribe", omit_defaults=True):
    """Ask for channels; again for a held one asks for a fresh snapshot."""

    data: Channels
    id: str | None = None


class Unsubscribe(Struct, tag_field="action", tag="unsubscribe", omit_defaults=True):
    """Give channels up."""

    data: Channels
    id: str | None = None


class PongData(Struct, frozen=True, omit_defaults=True):
    """Our clock in milliseconds."""

    timestamp: int | None = None


class Pong(Struct, tag_field="action", tag="pong", omit_defaults=True):
    """The answer to a heartbeat; draws none itself."""

    data: PongData = PongData()
    id: str | None = None


class OrderData(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A new order."""

    symbol: str
    side: Side
    type: OrderType
    quantity: float
    price: float | None = None
    stop_price: float | None = None
    time_in_force: TimeInForce | None = None
    client_order_id: str | None = None


class SubmitOrder(Struct, tag_field="action", tag="submit_order", omit_defaults=True):
    """Place an order."""

    data: OrderData
    id: str | None = None


class CancelOrderData(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Which order, by either id."""

    order_id: str | None = None
    client_order_id: str | None = None


class CancelOrder(Struct, tag_field="action", tag="cancel_order", omit_defaults=True):
    """Take an order out."""

    data: CancelOrderData
    id: str | None = None


class ModifyOrderData(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Which order, and its new total quantity, price or stop price."""

    order_id: str | None = None
    client_order_id: str | None = None
    quantity: float | None = None
    price: float | None = None
    stop_price: float | None = None


class ModifyOrder(Struct, tag_field="action", tag="modify_order", omit_defaults=True):
    """Change an order."""

    data: ModifyOrderData
    id: str | None = None


class BatchSubmit(OrderData, tag_field="operation", tag="submit"):
    """A new order inside a batch."""


class BatchCancel(CancelOrderData, tag_field="operation", tag="cancel"):
    """A cancel inside a batch."""


class BatchModify(ModifyOrderData, tag_field="operation", tag="modify"):
    """A change inside a batch."""


class BatchOrdersData(Struct):
    """At most 50 operations, run in order, not atomic."""

    operations: list[BatchSubmit | BatchCancel | BatchModify]


class BatchOrders(Struct, tag_field="action", tag="batch_orders", omit_defaults=True):
    """Several order operations in one request."""

    data: BatchOrdersData
    id: str | None = None


ClientMessage = (
    Subscribe
    | Unsubscribe
    | Pong
    | Authenticate
    | SubmitOrder
    | CancelOrder
    | ModifyOrder
    | BatchOrders
)
"""What a client may send."""


class Envelope(Struct):
    """What every client message has, for telling what is wrong with one."""

    action: Any = None
    data: Any = UNSET
    id: Any = None


__all__ += ["Envelope", "OrderType", "Side", "TimeInForce"]

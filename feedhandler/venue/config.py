"""The venue's configuration: TOML in, frozen Structs out, all defaults in one place."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from feedhandler.protocol.channels import is_symbol
from feedhandler.protocol.limits import (
    BATCH_OPERATIONS,
    CONNECTIONS_PER_KEY,
    HEARTBEAT_S,
    HEARTBEAT_TIMEOUT_S,
    PER_MINUTE,
    SUBSCRIPTIONS_PER_CONNECTION,
    RateClass,
)
from feedhandler.secret import MASK, shorten
from feedhandler.settings import convert, read_toml

__all__ = [
    "AccountConfig",
    "AlertConfig",
    "CalendarConfig",
    "FaultConfig",
    "LimitsConfig",
    "PositionConfig",
    "ReplayConfig",
    "SymbolConfig",
    "TradersConfig",
    "VenueConfig",
    "as_values",
    "build",
    "load",
    "with_demo_account",
]

Positive = Annotated[float, Meta(gt=0, le=1e15)]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
Factor = Annotated[float, Meta(ge=0.001, le=1e6)]
Count = Annotated[int, Meta(ge=1)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Decimals are written as text, or as integers: a binary fraction is not what is meant.
Amount = str | int
MOST = 10**18
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "USDT", "USDC")
DEMO_KEY = "demo-key"
DEMO_CASH, DEMO_COINS, DEMO_SHARES = 1_000_000, 10, 10_000


def is_step(text: str) -> bool:
    """Tell whether *text* is a decimal that prices can be multiples of."""
    try:
        step = Decimal(text)
    except InvalidOperation:
        return False
    return step.is_finite() and Decimal("1e-12") <= step <= Decimal("1e6")


def is_amount(amount: Amount) -> bool:
    """Tell whether *amount* is a decimal that can be counted, and told as a number."""
    try:
        number = Decimal(amount)
    except InvalidOperation:
        return False
    # Exact arithmetic would write an exponent out in digits.
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and abs(exponent) <= 30 and 0 <= number <= MOST


def refuse_amounts(key: str, amounts: dict[str, Amount]) -> None:
    """Raise ValueError for an amount that is not a decimal of 0 or more."""
    for name, amount in amounts.items():
        if not is_amount(amount):
            raise ValueError(
                f"{key} of {name} is {amount!r}, not a decimal of 0 to {MOST}"
            )


class SymbolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One listed symbol; *tick*, *lot* and fees are decimals, written as text.

    A pair, such as BTC-USD, is paid in *quote* and held as a balance of *base*; a share
    is held as a position and has no base. Fees are parts of what is paid.
    """

    name: str
    tick: str = "0.01"
    lot: str = "1"
    previous_close: Positive
    quote: str = ""
    base: str = ""
    maker_fee: str = "0.00002"
    taker_fee: str = "0.00002"

    def __post_init__(self) -> None:
        """Refuse what no price could be counted in."""
        if not is_symbol(self.name):
            raise ValueError(f"name is {self.name!r}, not a symbol such as BTC-USD")
        for key, value in (("tick", self.tick), ("lot", self.lot)):
            if not is_step(value):
                raise ValueError(f"{key} is {value!r}, not a decimal above 0")
        refuse_amounts("fee", {"maker": self.maker_fee, "taker": self.taker_fee})

    @property
    def currency(self) -> str:
        """What it is paid in: *quote*, else the name's last part, else USD."""
        last = self.name.rpartition("-")[2]
        return self.quote or (last if last in CURRENCIES else "USD")

    @property
    def base_currency(self) -> str | None:
        """What a pair buys: *base*, else the name's first part; None of a share."""
        first, _, last = self.name.rpartition("-")
        return self.base or (first if first and last in CURRENCIES else None)


class TradersConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seeded traders; *rate* is in orders and cancels a second for each symbol."""

    enabled: bool = True
    seed: int = 1
    rate: Factor = 200.0


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of the reference, and those that it leaves to the venue."""

    subscriptions: Count = SUBSCRIPTIONS_PER_CONNECTION
    authentication_per_minute: Count = PER_MINUTE[RateClass.AUTHENTICATION]
    subscribe_per_minute: Count = PER_MINUTE[RateClass.SUBSCRIBE]
    orders_per_minute: Count = PER_MINUTE[RateClass.ORDER]
    other_per_minute: Count = PER_MINUTE[RateClass.OTHER]
    message_bytes: Count = 64 * 1024
    outbound_bytes: Count = 1024 * 1024
    connections_per_key: Count = CONNECTIONS_PER_KEY
    connections_per_address: Count = 100
    handshakes_per_minute: Count = 1000
    batch_operations: Count = BATCH_OPERATIONS
    depths_per_symbol: Count = 64

    def per_minute(self, rate_class: RateClass) -> int:
        """Return the limit of a class."""
        return {
            RateClass.AUTHENTICATION: self.authentication_per_minute,
            RateClass.SUBSCRIBE: self.subscribe_per_minute,
            RateClass.ORDER: self.orders_per_minute,
            RateClass.OTHER: self.other_per_minute,
        }[rate_class]


class FaultConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault to come; see FaultPlan for what each kind does.

    *channel* and *count* are for market data, *action*, *count*, *processed* and
    *delay_s* for answers, *code* and *reason* for closes.
    """

    kind: Literal[
        "skip", "repeat", "withhold", "release", "freeze", "mute", "thaw",
        "stale_snapshot", "crossed_snapshot", "drop_answer", "delay_answer",
        "error_answer", "cut_answer", "stop_heartbeats", "start_heartbeats", "close",
        "abort", "restart",
    ]  # fmt: skip
    after_s: Annotated[float, Meta(ge=0)] = 0.0
    channel: str = ""
    count: Count = 1
    action: Literal[
        "", "submit_order", "cancel_order", "modify_order", "batch_orders"
    ] = ""
    processed: bool = True
    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    code: Annotated[int, Meta(ge=1000, le=4999)] = 1011
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse a fault that could not happen to anything."""
        about = self.kind.partition("_")[2]
        if about == "answer" and not self.action:
            raise ValueError(f"{self.kind} has no action")
        of_channels = (
            "skip",
            "repeat",
            "withhold",
            "release",
            "freeze",
            "mute",
            "thaw",
        )
        if (self.kind in of_channels or about == "snapshot") and not self.channel:
            raise ValueError(f"{self.kind} has no channel")
        if about == "snapshot" and not self.channel.startswith("orderbook:"):
            raise ValueError(f"{self.kind} has channel {self.channel!r}, not a book")


class ReplayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded market to send instead of the engine's; see replay.py."""

    path: str
    speed: Factor | Literal["max"] = 1.0
    loop: bool = False


class PositionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A position to begin with; without a price, at the previous close."""

    quantity: Amount
    average_price: Amount | None = None


class AlertConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alert that its account has configured."""

    id: str
    name: str
    condition: Literal["price_above", "price_below"]
    symbol: str
    threshold: Amount

    def __post_init__(self) -> None:
        """Refuse a threshold that no price could be compared with."""
        refuse_amounts("threshold", {self.id: self.threshold})


class AccountConfig(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    repr_omit_defaults=True,
):
    """An account and the key that opens it.

    The secret is in *secret_file*, which only its owner may read, or in the environment
    variable *secret_env*; *secret* itself is for programs that embed a venue.
    *large_fill* is the value of a fill, and *low_cash* the available cash, from which a
    notification is sent; 0 for none.
    """

    id: str
    api_key: str
    secret: str = ""
    secret_file: str = ""
    secret_env: str = ""
    balances: dict[str, Amount] = {}
    positions: dict[str, PositionConfig | Amount] = {}
    alerts: list[AlertConfig] = []
    large_fill: Amount = 0
    low_cash: Amount = 0

    def __post_init__(self) -> None:
        """Refuse an account that nobody could open, or that no ledger could hold."""
        if not self.id or not self.api_key:
            raise ValueError("id and api_key are text, and not empty")
        if sum(map(bool, (self.secret, self.secret_file, self.secret_env))) != 1:
            raise ValueError(
                f"account {self.id!r} has not one of secret_file, secret_env, secret"
            )
        refuse_amounts("balance", self.balances)
        refuse_amounts(
            "position", {name: self.quantity(name) for name in self.positions}
        )
        prices = {name: self.average_price(name) for name in self.positions}
        refuse_amounts(
            "average_price", {name: p for name, p in prices.items() if p is not None}
        )
        refuse_amounts(
            "notification", {"large_fill": self.large_fill, "low_cash": self.low_cash}
        )

    def quantity(self, symbol: str) -> Amount:
        """Return how much of *symbol* the account begins with."""
        position = self.positions[symbol]
        return position.quantity if isinstance(position, PositionConfig) else position

    def average_price(self, symbol: str) -> Amount | None:
        """Return what it was bought for, None for the previous close."""
        position = self.positions[symbol]
        return position.average_price if isinstance(position, PositionConfig) else None

    def __repr__(self) -> str:
        """Show everything but the secret."""
        secret = f"secret={MASK!r}, " if self.secret else ""
        key = shorten(self.api_key)
        return f"AccountConfig(id={self.id!r}, api_key={key!r}, {secret}…)"

    __str__ = __repr__

    def __rich_repr__(self) -> Any:
        """Show the same to a pretty printer."""
        yield "id", self.id


class CalendarConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the market is open, by the clock of *timezone*; without times, always."""

    timezone: str = "UTC"
    opens: str | None = None
    closes: str | None = None
    weekdays: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon", "tue", "wed", "thu", "fri",
    )  # fmt: skip
    holidays: list[str] = []
    early_closes: dict[str, str] = {}


DEFAULT_SYMBOLS = [
    SymbolConfig(name="AAPL", previous_close=150.0),
    SymbolConfig(name="MSFT", previous_close=410.0),
    SymbolConfig(name="BTC-USD", lot="0.0001", previous_close=61_800.0),
    SymbolConfig(name="ETH-USD", lot="0.001", previous_close=2_680.0),
]


class VenueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole venue, as written in venue.toml."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8765
    allow_plaintext: bool = False
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    heartbeat_s: Seconds = HEARTBEAT_S
    heartbeat_timeout_s: Seconds = HEARTBEAT_TIMEOUT_S
    authentication_timeout_s: Seconds = 10
    authentication_window_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5000
    tls_cert: str = ""
    tls_key: str = ""
    allow_short: bool = False
    self_trade: Literal["allow", "cancel_newest"] = "allow"
    accounts: list[AccountConfig] = []
    calendar: CalendarConfig = CalendarConfig()
    symbols: list[SymbolConfig] = msgspec.field(
        default_factory=lambda: list(DEFAULT_SYMBOLS)
    )
    traders: TradersConfig = TradersConfig()
    limits: LimitsConfig = LimitsConfig()
    replay: ReplayConfig | None = None
    testing: bool = False
    faults: list[FaultConfig] = []

    def __post_init__(self) -> None:
        """Refuse what could only fail later, or in the open."""
        if self.faults and not self.testing:
            raise ValueError("faults are for tests: they need testing = true")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if self.host not in LOOPBACK and not (self.allow_plaintext or self.tls_cert):
            raise ValueError(
                f"host is {self.host!r}, which is not loopback: the venue speaks "
                "plaintext there only with allow_plaintext = true"
            )
        if self.heartbeat_timeout_s < self.heartbeat_s:
            raise ValueError("heartbeat_timeout_s is shorter than heartbeat_s")
        names = [symbol.name for symbol in self.symbols]
        if not names:
            raise ValueError("symbols is empty, not at least one")
        refuse_twice("symbols", names)
        refuse_twice("accounts", [account.id for account in self.accounts])
        refuse_twice("api_key", [account.api_key for account in self.accounts])
        for account in self.accounts:
            alerts = [alert.symbol for alert in account.alerts]
            for symbol in (*account.positions, *alerts):
                if symbol not in names:
                    raise ValueError(
                        f"account {account.id!r} has {symbol!r}, which is not listed"
                    )


def refuse_twice(key: str, names: list[str]) -> None:
    """Raise ValueError for a name that is there twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{key} has {name[:64]!r} twice")


def with_demo_account(config: VenueConfig, secret: str = "") -> VenueConfig:
    """Add an account to a venue without one: cash, and some of every symbol.

    Its secret is *secret*, or a random one.
    """
    pairs = [s.base_currency for s in config.symbols if s.base_currency is not None]
    shares = {
        symbol.name: whole_lots(DEMO_SHARES, Decimal(symbol.lot))
        for symbol in config.symbols
        if symbol.base_currency is None
    }
    cash = dict.fromkeys((s.currency for s in config.symbols), DEMO_CASH)
    account = AccountConfig(
        id="acc-demo",
        api_key=DEMO_KEY,
        secret=secret or token_urlsafe(24),
        balances={**cash, **dict.fromkeys(pairs, DEMO_COINS)},
        positions={**shares},
    )
    return msgspec.structs.replace(config, accounts=[account])


def whole_lots(quantity: int, lot: Decimal) -> str:
    """Return about *quantity* in whole lots, and at least one."""
    return str(max(1, int(quantity / lot)) * lot)


def load(path: str | Path) -> VenueConfig:
    """Read a TOML file; ConfigError names the key that is wrong and what was wanted."""
    return read_toml(str(path), VenueConfig)


def as_values(config: VenueConfig) -> dict[str, Any]:
    """Turn a VenueConfig into plain values, for build()."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def build(**fields: Any) -> VenueConfig:
    """Make a VenueConfig from plain values, with the checks of a file."""
    return convert(fields, VenueConfig, "configuration")

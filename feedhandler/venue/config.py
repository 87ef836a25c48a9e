"""The venue's configuration: TOML in, frozen Structs out, all defaults in one place."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from feedhandler.protocol.channels import is_symbol
from feedhandler.protocol.limits import (
    HEARTBEAT_S,
    HEARTBEAT_TIMEOUT_S,
    PER_MINUTE,
    SUBSCRIPTIONS_PER_CONNECTION,
    RateClass,
)
from feedhandler.settings import convert, read_toml

__all__ = [
    "LimitsConfig",
    "ReplayConfig",
    "SymbolConfig",
    "TradersConfig",
    "VenueConfig",
    "as_values",
    "build",
    "load",
]

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_step(text: str) -> bool:
    """Tell whether *text* is a decimal that prices can be multiples of."""
    try:
        step = Decimal(text)
    except InvalidOperation:
        return False
    return step.is_finite() and Decimal("1e-12") <= step <= Decimal("1e6")


class SymbolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One listed symbol; *tick* and *lot* are decimals, written as text."""

    name: str
    tick: str = "0.01"
    lot: str = "1"
    previous_close: Positive

    def __post_init__(self) -> None:
        """Refuse what no price could be counted in."""
        if not is_symbol(self.name):
            raise ValueError(f"name is {self.name!r}, not a symbol such as BTC-USD")
        for key, value in (("tick", self.tick), ("lot", self.lot)):
            if not is_step(value):
                raise ValueError(f"{key} is {value!r}, not a decimal above 0")


class TradersConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seeded traders; *rate* is in orders and cancels a second for each symbol."""

    enabled: bool = True
    seed: int = 1
    rate: Positive = 200.0


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of the reference, and those that it leaves to the venue."""

    subscriptions: Count = SUBSCRIPTIONS_PER_CONNECTION
    authentication_per_minute: Count = PER_MINUTE[RateClass.AUTHENTICATION]
    subscribe_per_minute: Count = PER_MINUTE[RateClass.SUBSCRIBE]
    orders_per_minute: Count = PER_MINUTE[RateClass.ORDER]
    other_per_minute: Count = PER_MINUTE[RateClass.OTHER]
    message_bytes: Count = 64 * 1024
    outbound_bytes: Count = 1024 * 1024
    connections_per_address: Count = 100

    def per_minute(self, rate_class: RateClass) -> int:
        """Return the limit of a class."""
        return {
            RateClass.AUTHENTICATION: self.authentication_per_minute,
            RateClass.SUBSCRIBE: self.subscribe_per_minute,
            RateClass.ORDER: self.orders_per_minute,
            RateClass.OTHER: self.other_per_minute,
        }[rate_class]


class ReplayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded market to send instead of the engine's; see replay.py."""

    path: str
    speed: Positive | Literal["max"] = 1.0
    loop: bool = False


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
    heartbeat_s: Positive = HEARTBEAT_S
    heartbeat_timeout_s: Positive = HEARTBEAT_TIMEOUT_S
    symbols: list[SymbolConfig] = msgspec.field(
        default_factory=lambda: list(DEFAULT_SYMBOLS)
    )
    traders: TradersConfig = TradersConfig()
    limits: LimitsConfig = LimitsConfig()
    replay: ReplayConfig | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail later, or in the open."""
        if self.host not in LOOPBACK and not self.allow_plaintext:
            raise ValueError(
                f"host is {self.host!r}, which is not loopback: the venue speaks "
                "plaintext there only with allow_plaintext = true"
            )
        names = [symbol.name for symbol in self.symbols]
        if not names:
            raise ValueError("symbols is empty, not at least one")
        if len(set(names)) < len(names):
            raise ValueError("symbols has a name twice")


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

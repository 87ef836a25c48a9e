"""Channel names: parse, format, and which endpoint serves which."""

import re
from typing import NamedTuple

__all__ = [
    "CHANNELS_BY_ENDPOINT",
    "CUSTOM",
    "ENDPOINTS",
    "INTERVAL_MS",
    "MARKET_DATA",
    "MAX_DEPTH",
    "NOTIFICATIONS",
    "TRADING",
    "Channel",
    "format_channel",
    "is_symbol",
    "parse_channel",
    "served_at",
]

MARKET_DATA = "/ws/market-data"
TRADING = "/ws/trading"
NOTIFICATIONS = "/ws/notifications"
CUSTOM = "/ws/custom"
ENDPOINTS = (MARKET_DATA, TRADING, NOTIFICATIONS, CUSTOM)

MAX_DEPTH = 5000

INTERVAL_MS = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
    "1w": 604_800_000,
}

PUBLIC_KINDS = ("trades", "orderbook", "ticker", "candles")
TRADING_KINDS = ("user_orders", "user_trades", "account_updates")
NOTIFICATION_KINDS = ("system_notifications", "user_notifications")
ALERT_KINDS = ("custom_alerts",)
PRIVATE_KINDS = TRADING_KINDS + NOTIFICATION_KINDS + ALERT_KINDS

CHANNELS_BY_ENDPOINT = {
    MARKET_DATA: PUBLIC_KINDS,
    TRADING: TRADING_KINDS,
    NOTIFICATIONS: NOTIFICATION_KINDS,
    CUSTOM: PUBLIC_KINDS + PRIVATE_KINDS,
}

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,31}", re.ASCII)
_DEPTH = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


class Channel(NamedTuple):
    """A channel name taken apart; *depth* is 0 and *interval* empty where none."""

    kind: str
    symbol: str = ""
    depth: int = 0
    interval: str = ""


def is_symbol(text: str) -> bool:
    """Tell whether *text* is a grammatical symbol, safe in a file or log."""
    return _SYMBOL.fullmatch(text) is not None


def parse_channel(name: str) -> Channel:
    """Take a channel name apart.

    Raises ValueError, saying what is wrong, for anything outside the grammar.
    """
    kind, *rest = name.split(":") if len(name) <= 64 else ("",)
    if kind in PRIVATE_KINDS and not rest:
        return Channel(kind)
    if kind not in PUBLIC_KINDS:
        raise ValueError(f"unknown channel {name[:64]!r}")
    if len(rest) != (2 if kind in ("orderbook", "candles") else 1):
        raise ValueError(f"malformed channel {name!r}")
    symbol = rest[0]
    if not is_symbol(symbol):
        raise ValueError(f"malformed symbol in channel {name!r}")
    if kind == "orderbook":
        if not _DEPTH.fullmatch(rest[1]) or int(rest[1]) > MAX_DEPTH:
            raise ValueError(f"depth in channel {name!r} is not 1 to {MAX_DEPTH}")
        return Channel(kind, symbol, depth=int(rest[1]))
    if kind == "candles":
        if rest[1] not in INTERVAL_MS:
            raise ValueError(
                f"interval in channel {name!r} is not one of {', '.join(INTERVAL_MS)}"
            )
        return Channel(kind, symbol, interval=rest[1])
    return Channel(kind, symbol)


def format_channel(channel: Channel) -> str:
    """Put a channel name together; the inverse of parse_channel()."""
    parts = [channel.kind]
    if channel.symbol:
        parts.append(channel.symbol)
    if channel.depth:
        parts.append(str(channel.depth))
    if channel.interval:
        parts.append(channel.interval)
    return ":".join(parts)


def served_at(kind: str) -> str:
    """Name the endpoint of its own that serves channels of *kind* (not /ws/custom)."""
    for endpoint in (MARKET_DATA, TRADING, NOTIFICATIONS, CUSTOM):
        if kind in CHANNELS_BY_ENDPOINT[endpoint]:
            return endpoint
    raise ValueError(f"unknown channel kind {kind!r}")

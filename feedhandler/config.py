"""The client's configuration: TOML into frozen Structs; its only defaults."""

import ipaddress
import json
import re
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from feedhandler.guards import Guards
from feedhandler.protocol.channels import (
    INTERVAL_MS,
    MAX_DEPTH,
    Channel,
    format_channel,
    is_symbol,
)
from feedhandler.secret import MASK, shorten
from feedhandler.settings import convert, decode_toml, read_toml

__all__ = [
    "Account",
    "Credentials",
    "FeedConfig",
    "Instrument",
    "Limits",
    "Loop",
    "Shm",
    "Trading",
    "as_toml",
    "as_values",
    "build",
    "load",
    "parse",
]

PositiveInt = Annotated[int, Meta(ge=1)]
Limit = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0, le=86_400 * 365)]
ChannelKind = Literal["orderbook", "trades", "ticker", "candles"]
PrivateKind = Literal[
    "user_orders",
    "user_trades",
    "account_updates",
    "system_notifications",
    "user_notifications",
    "custom_alerts",
]
ALL_PRIVATE: tuple[PrivateKind, ...] = get_args(PrivateKind)


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file."""


class Credentials(_Section, frozen=True):
    """Which key to use, and where its secret is; the secret itself is never in here."""

    api_key: str = ""
    secret_file: str = ""
    """Its first line is the secret; only its owner may read it."""

    def __repr__(self) -> str:
        """Show the beginning of the key."""
        return (
            f"Credentials(api_key={shorten(self.api_key)!r}, "
            f"secret_file={self.secret_file!r})"
        )

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to a pretty printer."""
        return [("api_key", shorten(self.api_key)), ("secret_file", self.secret_file)]


class Account(_Section, frozen=True):
    """What to hear of the account and from the venue; only with credentials."""

    channels: tuple[PrivateKind, ...] = ALL_PRIVATE


class Trading(_Section, frozen=True):
    """What we refuse to send, whoever asks; only with credentials."""

    max_quantity: Limit = 0.0
    """Of one order; 0: any."""
    max_notional: Limit = 0.0
    """Quantity times price of one order; 0: any."""
    collar: Limit = 0.0
    """How far a price may be from the middle of the book, as a fraction; 0: any."""
    refuse_stale: bool = False
    """Whether an order wants a book of its symbol that is LIVE."""
    max_unknown: Annotated[int, Meta(ge=-1)] = -1
    """How many orders may be unknown before no more go out; -1: any number."""
    cancel_on_exit: bool = False
    """Whether the end of the feed cancels all orders first."""
    commands: bool = False
    """Whether other processes of this user may trade through the feed."""

    def guards(self) -> Guards:
        """Return these limits as what is asked before an order goes out."""
        return Guards(
            self.max_quantity or None,
            self.max_notional or None,
            self.collar or None,
            self.refuse_stale,
            self.max_unknown if self.max_unknown >= 0 else None,
        )


class Shm(_Section, frozen=True):
    """The shared-memory segments of the feed."""

    name: str = "md"
    """Under which consumers find them; "": in no other process."""
    capacity: PositiveInt = 131_072
    """Records in each ring, a power of two: peak rate x longest stall x 4."""
    private_capacity: PositiveInt = 4096
    """Records in each of the rings of the account; only with credentials."""
    board_levels: Annotated[int, Meta(ge=1, le=100)] = 10
    instruments: Annotated[int, Meta(ge=1, le=65_535)] = 1024
    """How many instruments the directory has room for, as long as the feed runs."""
    mode: Literal[0o600, 0o640] = 0o600
    """Who may read: 0o600 we alone, 0o640 the group as well, but never the account."""
    directory: str = "/dev/shm"
    wake: bool = False
    """Whether readers may block: costs a system call per read of the socket."""

    def options(self) -> dict[str, Any]:
        """Return the values by name."""
        return msgspec.structs.asdict(self)


class Loop(_Section, frozen=True):
    """How the event loop of ``feedhandler run`` waits, and where."""

    mode: Literal["block", "spin"] = "block"
    """Sleep in the kernel until something comes, or never sleep: a core of its own."""
    cpu: Annotated[int, Meta(ge=-1)] = -1
    """The core that it is pinned to; -1: any."""
    gc: Literal["automatic", "beat"] = "automatic"
    """When Python collects garbage: as it likes, or at our beat, ten times a second."""


class Limits(_Section, frozen=True):
    """What we allow the venue, ourselves and the clock."""

    connections: Annotated[int, Meta(ge=1, le=100)] = 5
    subscriptions_per_connection: Annotated[int, Meta(ge=1)] = 50
    subscribe_per_minute: Annotated[int, Meta(ge=2)] = 45
    """At least 2: a resync may need an unsubscribe and a subscribe at once."""
    other_per_minute: PositiveInt = 180
    orders_per_minute: Annotated[int, Meta(ge=20)] = 90
    """Of a key, on all its connections together; 10 of them are kept for cancels."""
    max_message_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 4 << 20
    connect_timeout_s: Seconds = 5.0
    close_timeout_s: Seconds = 2.0
    reconnect_base_s: Seconds = 1.0
    reconnect_attempts: Annotated[int, Meta(ge=0)] = 10
    reconnect_jitter: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    retry_forever: bool = False


class Instrument(_Section, frozen=True):
    """One instrument, and what to subscribe to."""

    symbol: str
    depth: Annotated[int, Meta(ge=1, le=MAX_DEPTH)] = 10
    channels: tuple[ChannelKind, ...] = ("orderbook", "trades")
    intervals: tuple[str, ...] = ("1m",)
    """Candle intervals; only with "candles" among the channels."""

    def __post_init__(self) -> None:
        """Refuse what is outside the grammar of channel names."""
        if not is_symbol(self.symbol):
            raise ValueError(f"symbol {self.symbol!r} is not 1 to 32 of A-Z 0-9 . _ -")
        if not self.channels:
            raise ValueError(f"instrument {self.symbol} has no channels")
        for interval in self.intervals:
            if interval not in INTERVAL_MS:
                raise ValueError(
                    f"interval {interval!r} of {self.symbol} is not one of "
                    f"{', '.join(INTERVAL_MS)}"
                )

    def channel_names(self) -> list[str]:
        """Return the names of the channels to subscribe to."""
        names = []
        for kind in dict.fromkeys(self.channels):
            if kind == "orderbook":
                names.append(Channel(kind, self.symbol, depth=self.depth))
            elif kind == "candles":
                names += [
                    Channel(kind, self.symbol, interval=i) for i in self.intervals
                ]
            else:
                names.append(Channel(kind, self.symbol))
        return [format_channel(name) for name in names]


class FeedConfig(_Section, frozen=True):
    """One feed, as written in the TOML file."""

    url: str = "wss://api.tradingplatform.example.com"
    """The venue's base URL; the endpoints' paths are added to it."""
    ca_file: str = ""
    """Certificates, in PEM, that are trusted instead of the system's; for wss://."""
    credentials: Credentials = Credentials()
    account: Account = Account()
    trading: Trading = Trading()
    shm: Shm = Shm()
    loop: Loop = Loop()
    limits: Limits = Limits()
    codec: Literal["msgspec", "scan"] = "msgspec"
    """How payloads are read: "scan" reads hot messages from their bytes."""
    publish: Literal["every", "changes", "last_in_read"] = "every"
    """A quote for every message of a book, or for those that change its top, or one for
    all that a read of the socket brought."""
    quiet_after: Seconds = 30.0
    """Seconds without a message of a book until it is STALE and asked for; 0: never.

    Doubled, up to an hour, each time that the market was merely quiet."""
    stall_after: Seconds = 1.0
    """Seconds that our own loop may not turn until every book is STALE; 0: for ever."""
    resync_interval: Seconds = 0.0
    """Seconds between two audits of a book against a fresh snapshot; 0: none."""
    audit_log: str = ""
    """A file for a line of every quote and trade, see ext/audit.pyx; "": none."""
    allow_plaintext: bool = False
    instruments: tuple[Instrument, ...] = ()

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        _check_url(self.url, self.allow_plaintext)
        for name in ("capacity", "private_capacity"):
            capacity = getattr(self.shm, name)
            if capacity & (capacity - 1) or not 64 <= capacity <= 1 << 28:
                raise ValueError(
                    f"shm.{name} {capacity} is not a power of two from 64 to 2**28"
                )
        seen = set()
        for instrument in self.instruments:
            if instrument.symbol in seen:
                raise ValueError(f"instrument {instrument.symbol} is configured twice")
            seen.add(instrument.symbol)
        room = self.limits.connections * self.limits.subscriptions_per_connection
        wanted = sum(len(i.channel_names()) for i in self.instruments)
        if wanted > room:
            raise ValueError(
                f"{wanted} channels do not fit {self.limits.connections} connections "
                f"of {self.limits.subscriptions_per_connection} subscriptions"
            )

    def url_of(self, endpoint: str) -> str:
        """Return the URL of one of the API's endpoints."""
        return self.url.rstrip("/") + endpoint


def _check_url(url: str, allow_plaintext: bool) -> None:
    scheme, name = _scheme_and_host(url)
    # What stands before an @ may be a password.
    shown = re.sub("//[^/]*@", f"//{MASK}@", url)
    if scheme not in ("ws", "wss") or not name:
        raise ValueError(f"url {shown!r} is not ws://… or wss://…")
    if shown != url:
        raise ValueError(f"url {shown!r} has a user, which the venue has no use for")
    loopback = name == "localhost" or _is_loopback_address(name)
    if scheme == "ws" and not loopback and not allow_plaintext:
        raise ValueError(
            f"url {url!r} is plaintext to another machine; use wss:// or set "
            "allow_plaintext = true"
        )


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Take a URL apart as whoever connects will; empty for what is no base URL."""
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and not set("?#\\ ") & set(url)
    except ValueError:
        return "", ""
    return (parts.scheme, parts.hostname or "") if usable else ("", "")


def _is_loopback_address(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def load(path: str) -> FeedConfig:
    """Read a feed's TOML file; ConfigError names the key and what was expected."""
    return read_toml(path, FeedConfig)


def parse(text: str) -> FeedConfig:
    """Read a feed's configuration from TOML text; see load()."""
    return decode_toml(text.encode(), FeedConfig, "configuration")


def as_values(config: FeedConfig) -> dict[str, Any]:
    """Turn a FeedConfig into plain values, for build()."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values


def build(values: dict[str, Any]) -> FeedConfig:
    """Make a FeedConfig from plain values, checked as a file would be."""
    return convert(values, FeedConfig, "configuration")


def as_toml(config: FeedConfig) -> str:
    """Write a FeedConfig as the file that says the same, with every default."""
    values = as_values(config)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    instruments = values.pop("instruments")
    plain = {key: value for key, value in values.items() if key not in tables}
    if not instruments:
        plain["instruments"] = []
    blocks = [("", plain), *((f"[{key}]", value) for key, value in tables.items())]
    blocks += [("[[instruments]]", instrument) for instrument in instruments]
    return "\n".join(_toml_block(heading, block) for heading, block in blocks)


def _toml_block(heading: str, values: dict[str, Any]) -> str:
    lines = [heading] if heading else []
    lines += [f"{key} = {_toml(key, value)}" for key, value in values.items()]
    return "".join(f"{line}\n" for line in lines)


def _toml(key: str, value: Any) -> str:
    """Write a value; JSON's text, lists, numbers and booleans are TOML's too."""
    if key == "mode" and isinstance(value, int):
        return f"{value:#o}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

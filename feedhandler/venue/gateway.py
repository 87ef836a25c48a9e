"""One client connection of the venue: requests and time in, effects out.

Knows nothing of sockets, frames or clocks. It decides what a client may have; the data
itself flows past it, from the market to the subscribers.
"""

import re
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from feedhandler.protocol.channels import (
    CHANNELS_BY_ENDPOINT,
    PUBLIC_KINDS,
    Channel,
    parse_channel,
    served_at,
)
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.limits import RateClass
from feedhandler.protocol.messages import (
    AuthResponse,
    AuthResponseData,
    Error,
    ErrorData,
    Heartbeat,
    HeartbeatData,
    SubscriptionResponse,
    SubscriptionResponseData,
)
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.limits import NS_PER_S, RateLimiter, SlidingLog, Verdict
from feedhandler.venue.market import Market

__all__ = ["Close", "Drop", "Effect", "Gateway", "Open", "Pong", "Send"]

NS_PER_MS = 1_000_000
MALFORMED_PER_MINUTE = 3
BAD_SUBSCRIBES = 3
# How much of what a client sent is told back to it in an error.
ECHO_CHARS = 64
ECHO_CHANNELS = 50

ORDER_ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
RATE_CLASSES = {
    "authenticate": RateClass.AUTHENTICATION,
    "subscribe": RateClass.SUBSCRIBE,
    "unsubscribe": RateClass.SUBSCRIBE,
}
# The eleventh authentication of a minute is answered, and is the last.
PATIENCE = {RateClass.AUTHENTICATION: 1}

_ID = re.compile(r"[\x20-\x7e]{1,128}", re.ASCII)

NO_RAW = msgspec.Raw()


class Request(msgspec.Struct):
    """A client message, its parts still as they came."""

    action: msgspec.Raw = NO_RAW
    data: msgspec.Raw = NO_RAW
    id: msgspec.Raw = NO_RAW


class Channels(msgspec.Struct):
    """The data of subscribe and unsubscribe."""

    channels: list[str] | UnsetType = UNSET


class Send(NamedTuple):
    """Send a message to the client."""

    payload: bytes


class Pong(NamedTuple):
    """Answer a ping control frame."""

    payload: bytes


class Open(NamedTuple):
    """Send what the channel begins with, then all that follows on it."""

    channel: str


class Drop(NamedTuple):
    """Send nothing more on the channel."""

    channel: str


class Close(NamedTuple):
    """Close the connection, after what was sent before."""

    code: int
    reason: str


Effect = Send | Pong | Open | Drop | Close

decode_request = msgspec.json.Decoder(Request).decode
decode_channels = msgspec.json.Decoder(Channels).decode
decode_text = msgspec.json.Decoder(str).decode
encode = msgspec.json.Encoder().encode


class Refusal(Exception):
    """A request is answered with an error; *channels* are those at fault."""

    def __init__(
        self, code: ErrorCode, message: str, channels: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.channels = channels


class Gateway:
    """The protocol state of one client.

    After a Close among the effects the gateway must not be called again.
    """

    def __init__(
        self,
        config: VenueConfig,
        market: Market,
        endpoint: str,
        now_ns: int,
        faults: FaultPlan | None = None,
    ) -> None:
        self._market = market
        self._endpoint = endpoint
        self._faults = faults
        self._limit = config.limits.subscriptions
        self._held: dict[str, None] = {}
        self._bad_subscribes = 0
        self._malformed = SlidingLog(MALFORMED_PER_MINUTE)
        self._limiters = {
            rate_class: RateLimiter(
                config.limits.per_minute(rate_class), PATIENCE.get(rate_class)
            )
            for rate_class in RateClass
        }
        self._heartbeat_ns = round(config.heartbeat_s * NS_PER_S)
        self._timeout_ns = round(config.heartbeat_timeout_s * NS_PER_S)
        self._next_heartbeat_ns = now_ns + self._heartbeat_ns
        self._heard_ns = now_ns

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The channels that the client holds, in the order of subscribing."""
        return tuple(self._held)

    # ── time ──────────────────────────────────────────────────────────────────────

    def due_ns(self) -> int:
        """Return when tick() next has something to do."""
        return min(self._next_heartbeat_ns, self._heard_ns + self._timeout_ns)

    def tick(self, now_ns: int) -> list[Effect]:
        """Send the heartbeat that is due; give up a client that was silent too long."""
        if now_ns >= self._heard_ns + self._timeout_ns:
            return [Close(1001, "heartbeat timeout")]
        if now_ns < self._next_heartbeat_ns:
            return []
        missed = (now_ns - self._next_heartbeat_ns) // self._heartbeat_ns
        self._next_heartbeat_ns += (missed + 1) * self._heartbeat_ns
        if self._faults is not None and self._faults.heartbeats_stopped:
            return []
        data = HeartbeatData(self._heartbeat_ns // NS_PER_MS)
        return [Send(encode(Heartbeat(data, now_ns // NS_PER_MS)))]

    # ── frames ────────────────────────────────────────────────────────────────────

    def ping(self, payload: bytes, now_ns: int) -> list[Effect]:
        """Take a ping control frame; it counts as a message."""
        self._heard_ns = now_ns
        return self._over_limit(RateClass.OTHER, None, None, now_ns) or [Pong(payload)]

    def pong(self, now_ns: int) -> list[Effect]:
        """Take a pong control frame; it counts as a message."""
        self._heard_ns = now_ns
        return self._over_limit(RateClass.OTHER, None, None, now_ns)

    def receive(self, payload: bytes, now_ns: int) -> list[Effect]:
        """Take one message, whole."""
        self._heard_ns = now_ns
        try:
            request = decode_request(payload)
            action = decode_text(request.action)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._over_limit(
                RateClass.OTHER, None, None, now_ns
            ) or self._malformed_request(now_ns)
        try:
            request_id = read_id(request.id)
        except Refusal as refusal:
            return self._over_limit(rate_class(action), None, action, now_ns) or [
                self._error(refusal, None, action, now_ns)
            ]
        over_limit = self._over_limit(rate_class(action), request_id, action, now_ns)
        if over_limit:
            return over_limit
        try:
            return self._act(action, request.data, request_id, now_ns)
        except Refusal as refusal:
            error = self._error(refusal, request_id, action, now_ns)
            if action == "subscribe":
                return [error, *self._bad_subscribe()]
            return [error]

    # ── actions ───────────────────────────────────────────────────────────────────

    def _act(
        self, action: str, data: msgspec.Raw, request_id: str | None, now_ns: int
    ) -> list[Effect]:
        if action == "pong":
            return []
        if action == "subscribe":
            return self._subscribe(read_channels(data), request_id, now_ns)
        if action == "unsubscribe":
            return self._unsubscribe(read_channels(data), request_id, now_ns)
        if action == "authenticate":
            return self._authenticate(request_id, now_ns)
        if action in ORDER_ACTIONS:
            raise Refusal(
                ErrorCode.INVALID_ACTION,
                f"Invalid action: {action} is not served at {self._endpoint}",
            )
        raise Refusal(
            ErrorCode.INVALID_ACTION, f"Invalid action: {action[:ECHO_CHARS]!r}"
        )

    def _subscribe(
        self, names: list[str], request_id: str | None, now_ns: int
    ) -> list[Effect]:
        wanted = dict.fromkeys(names)
        bad = {name: reason for name in wanted if (reason := self._refusal(name))}
        if bad:
            raise bad_channels(bad)
        held = self._held | wanted
        if len(held) > self._limit:
            excess = list(held)[self._limit :]
            raise Refusal(
                ErrorCode.INVALID_PARAMETER,
                f"Invalid parameter: channels would make {len(held)} subscriptions, "
                f"the limit is {self._limit} per connection: {quote(excess)}",
                excess,
            )
        self._held = held
        self._bad_subscribes = 0
        # Also for a channel that is held already: that is how a snapshot is asked for.
        return [
            self._confirm(names, request_id, now_ns),
            *(Open(name) for name in wanted),
        ]

    def _unsubscribe(
        self, names: list[str], request_id: str | None, now_ns: int
    ) -> list[Effect]:
        dropped = [name for name in dict.fromkeys(names) if name in self._held]
        for name in dropped:
            del self._held[name]
        return [
            *(Drop(name) for name in dropped),
            self._confirm(names, request_id, now_ns),
        ]

    def _authenticate(self, request_id: str | None, now_ns: int) -> list[Effect]:
        """Refuse: there are no accounts. The connection stays, it needs none."""
        message = "Invalid API key or signature"
        data = AuthResponseData("error", message, ErrorCode.INVALID_CREDENTIALS)
        response = AuthResponse(data, "error", message, now_ns // NS_PER_MS, request_id)
        return [Send(encode(response))]

    def _refusal(self, name: str) -> str | None:
        """Say why a channel cannot be had here; None if it can."""
        try:
            channel: Channel = parse_channel(name)
        except ValueError as error:
            return str(error)
        if channel.kind not in CHANNELS_BY_ENDPOINT[self._endpoint]:
            return f"channel {name!r} is served at {served_at(channel.kind)}"
        if channel.kind in PUBLIC_KINDS and (why := self._market.refusal(channel)):
            return f"channel {name!r}: {why}"
        return None

    # ── answers ───────────────────────────────────────────────────────────────────

    def _confirm(self, names: list[str], request_id: str | None, now_ns: int) -> Send:
        data = SubscriptionResponseData("success", names)
        return Send(encode(SubscriptionResponse(data, now_ns // NS_PER_MS, request_id)))

    def _error(
        self,
        refusal: Refusal,
        request_id: str | None,
        action: str | None,
        now_ns: int,
        retry_after_s: int | UnsetType = UNSET,
    ) -> Send:
        channels: list[str] | UnsetType = UNSET
        if refusal.channels:
            channels = [name[:ECHO_CHARS] for name in refusal.channels[:ECHO_CHANNELS]]
        data = ErrorData(
            refusal.code,
            refusal.message,
            request_id,
            None if action is None else action[:ECHO_CHARS],
            retry_after_s,
            channels,
        )
        return Send(encode(Error(data, now_ns // NS_PER_MS, request_id)))

    def _malformed_request(self, now_ns: int) -> list[Effect]:
        refusal = Refusal(
            ErrorCode.INVALID_PARAMETER,
            "Invalid parameter: message must be a JSON object with a string action",
        )
        error = self._error(refusal, None, None, now_ns)
        self._malformed.add(now_ns)
        if self._malformed.count(now_ns) < MALFORMED_PER_MINUTE:
            return [error]
        return [error, Close(1008, "malformed messages")]

    def _bad_subscribe(self) -> list[Effect]:
        self._bad_subscribes += 1
        if self._bad_subscribes < BAD_SUBSCRIBES:
            return []
        return [Close(4002, "invalid subscription")]

    def _over_limit(
        self,
        rate_class: RateClass,
        request_id: str | None,
        action: str | None,
        now_ns: int,
    ) -> list[Effect]:
        """Count a message; return what to answer if it is one too many."""
        limiter = self._limiters[rate_class]
        ruling = limiter.admit(now_ns)
        if ruling.verdict is Verdict.ACCEPT:
            return []
        refusal = Refusal(
            ErrorCode.RATE_LIMIT_EXCEEDED,
            f"Rate limit exceeded for {rate_class}. Limit: {limiter.limit} per minute",
        )
        error = self._error(refusal, request_id, action, now_ns, ruling.retry_after_s)
        if ruling.verdict is Verdict.CLOSE:
            return [error, Close(4001, "rate limited")]
        return [error]


def rate_class(action: str) -> RateClass:
    """Return the class of an action; orders, not being served, have none yet."""
    return RATE_CLASSES.get(action, RateClass.OTHER)


def read_id(raw: msgspec.Raw) -> str | None:
    """Return the request's id, byte for byte; None if it has none."""
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        text = decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = ""
    if not _ID.fullmatch(text):
        raise Refusal(
            ErrorCode.INVALID_PARAMETER,
            "Invalid parameter: id must be a string of 1 to 128 printable ASCII "
            "characters",
        )
    return text


def read_channels(raw: msgspec.Raw) -> list[str]:
    """Return the channels of a request's data; a missing data is an empty one."""
    try:
        data = decode_channels(bytes(raw) or b"{}")
    except msgspec.ValidationError as error:
        where = "channels" if "$.channels" in str(error) else "data"
        wanted = "a list of strings" if where == "channels" else "an object"
        raise Refusal(
            ErrorCode.INVALID_PARAMETER, f"Invalid parameter: {where} must be {wanted}"
        ) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal(
            ErrorCode.INVALID_PARAMETER, "Invalid parameter: data must be an object"
        ) from None
    if isinstance(data.channels, UnsetType):
        raise Refusal(
            ErrorCode.INVALID_PARAMETER, "Invalid parameter: channels is required"
        )
    return data.channels


def bad_channels(reasons: dict[str, str]) -> Refusal:
    """Refuse a subscribe for the channels that are bad, with the reason of each."""
    told = "; ".join(list(reasons.values())[:ECHO_CHANNELS])
    return Refusal(
        ErrorCode.INVALID_PARAMETER, f"Invalid parameter: {told}", list(reasons)
    )


def quote(names: list[str]) -> str:
    """List channel names in a message, cut to a sane length."""
    return ", ".join(repr(name[:ECHO_CHARS]) for name in names[:ECHO_CHANNELS])

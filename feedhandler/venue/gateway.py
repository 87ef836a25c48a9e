"""One client connection of the venue: requests and time in, effects out.

Knows nothing of sockets, frames or clocks. It decides who a client is and what it may
have; market data flows past it, from the market to the subscribers.
"""

import re
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from feedhandler.protocol.channels import (
    CHANNELS_BY_ENDPOINT,
    MARKET_DATA,
    PUBLIC_KINDS,
    TRADING,
    Channel,
    parse_channel,
    served_at,
)
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.limits import RateClass
from feedhandler.protocol.messages import (
    AuthenticateData,
    AuthResponse,
    AuthResponseData,
    BatchResponse,
    CancelOrderData,
    Channels,
    Error,
    ErrorData,
    Heartbeat,
    HeartbeatData,
    ModifyOrderData,
    OrderData,
    OrderResponse,
    SubscriptionResponse,
    SubscriptionResponseData,
)
from feedhandler.venue.access import Access, Denied, Key, Member
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.desk import Desk
from feedhandler.venue.faults import AnswerFault, FaultPlan
from feedhandler.venue.limits import NS_PER_S, RateLimiter, SlidingLog, Verdict, admit
from feedhandler.venue.market import Market, private
from feedhandler.venue.requests import (
    ECHO_CHARS,
    Refusal,
    invalid,
    read,
    read_batch,
)

__all__ = [
    "Close",
    "Cut",
    "Drop",
    "Effect",
    "Evict",
    "Gateway",
    "Later",
    "Open",
    "Pong",
    "Send",
    "Services",
]

NS_PER_MS = 1_000_000
MALFORMED_PER_MINUTE = 3
BAD_SUBSCRIBES = 3
# A heartbeat that was not answered for so long makes room for another connection.
OVERDUE_NS = 10 * NS_PER_S
ECHO_CHANNELS = 50
SHARED_KINDS = ("system_notifications",)

ORDER_ACTIONS = ("submit_order", "cancel_order", "modify_order", "batch_orders")
RATE_CLASSES = {
    "subscribe": RateClass.SUBSCRIBE,
    "unsubscribe": RateClass.SUBSCRIBE,
}

_ID = re.compile(r"[\x20-\x7e]{1,128}", re.ASCII)

NO_RAW = msgspec.Raw()


class Request(msgspec.Struct):
    """A client message, its parts still as they came."""

    action: msgspec.Raw = NO_RAW
    data: msgspec.Raw = NO_RAW
    id: msgspec.Raw = NO_RAW


class Claim(msgspec.Struct):
    """Whom an authentication is for, as far as that can be read."""

    api_key: str = ""


class Services(NamedTuple):
    """What the gateways of a venue share."""

    config: VenueConfig
    market: Market
    access: Access
    faults: FaultPlan


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


class Evict(NamedTuple):
    """Close other connections, which were silent for too long, with 1001."""

    members: list[Member]


class Later(NamedTuple):
    """Send a message after a while: a fault that a test asked for."""

    delay_ns: int
    payload: bytes


class Cut(NamedTuple):
    """Drop the connection with no close frame: a fault that a test asked for."""


Effect = Send | Pong | Open | Drop | Close | Evict | Later | Cut

decode_request = msgspec.json.Decoder(Request).decode
decode_claim = msgspec.json.Decoder(Claim).decode
decode_text = msgspec.json.Decoder(str).decode
read_channels = msgspec.json.Decoder(Channels)
read_credentials = msgspec.json.Decoder(AuthenticateData)
read_order = msgspec.json.Decoder(OrderData)
read_cancel = msgspec.json.Decoder(CancelOrderData)
read_change = msgspec.json.Decoder(ModifyOrderData)
encode = msgspec.json.Encoder().encode


class Gateway:
    """The protocol state of one client.

    After a Close or Cut among the effects the gateway must not be called again, but for
    left().
    """

    def __init__(
        self, services: Services, endpoint: str, address: str, now_ns: int
    ) -> None:
        config = services.config
        self._market = services.market
        self._access = services.access
        self._faults = services.faults
        self._endpoint = endpoint
        self._address = address
        self._key: Key | None = None
        self._limit = config.limits.subscriptions
        self._batch_operations = config.limits.batch_operations
        self._held: dict[str, str] = {}
        self._bad_subscribes = 0
        self._malformed = SlidingLog(MALFORMED_PER_MINUTE)
        self._limiters = {
            rate_class: RateLimiter(config.limits.per_minute(rate_class))
            for rate_class in (RateClass.SUBSCRIBE, RateClass.OTHER)
        }
        self._heartbeat_ns = round(config.heartbeat_s * NS_PER_S)
        self._timeout_ns = round(config.heartbeat_timeout_s * NS_PER_S)
        self._next_heartbeat_ns = now_ns + self._heartbeat_ns
        # The oldest heartbeat that may be unanswered still.
        self._sent_heartbeat_ns: int | None = None
        self._heard_ns = now_ns
        self._login_ns: int | None = None
        if endpoint != MARKET_DATA:
            self._login_ns = now_ns + round(config.authentication_timeout_s * NS_PER_S)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What feeds the client, in the order of subscribing; see market.private()."""
        return tuple(self._held.values())

    @property
    def account(self) -> str:
        """The account of the key that was proven, "" before."""
        return "" if self._key is None else self._key.account_id

    def is_overdue(self, now_ns: int) -> bool:
        """Say whether the client has left a heartbeat unanswered for too long."""
        sent_ns = self._sent_heartbeat_ns
        return (
            sent_ns is not None
            and self._heard_ns < sent_ns
            and now_ns - sent_ns >= OVERDUE_NS
        )

    def left(self) -> None:
        """Hear that the client is gone: its key has a connection less."""
        if self._key is not None:
            self._access.leave(self._key, self)

    # ── time ──────────────────────────────────────────────────────────────────────

    def due_ns(self) -> int:
        """Return when tick() next has something to do."""
        due_ns = min(self._next_heartbeat_ns, self._heard_ns + self._timeout_ns)
        return due_ns if self._login_ns is None else min(due_ns, self._login_ns)

    def tick(self, now_ns: int) -> list[Effect]:
        """Send the heartbeat that is due; give up a client that was silent too long."""
        if now_ns >= self._heard_ns + self._timeout_ns:
            return [Close(1001, "heartbeat timeout")]
        if self._login_ns is not None and now_ns >= self._login_ns:
            return [Close(1001, "authentication timeout")]
        if now_ns < self._next_heartbeat_ns:
            return []
        missed = (now_ns - self._next_heartbeat_ns) // self._heartbeat_ns
        self._next_heartbeat_ns += (missed + 1) * self._heartbeat_ns
        if self._faults.heartbeats_stopped:
            return []
        if self._sent_heartbeat_ns is None or self._heard_ns >= self._sent_heartbeat_ns:
            self._sent_heartbeat_ns = now_ns
        data = HeartbeatData(self._heartbeat_ns // NS_PER_MS)
        return [Send(encode(Heartbeat(data, now_ns // NS_PER_MS)))]

    # ── frames ────────────────────────────────────────────────────────────────────

    def ping(self, payload: bytes, now_ns: int) -> list[Effect]:
        """Take a ping control frame; it counts as a message."""
        self._heard_ns = now_ns
        # A ping is always answered (RFC 6455, 5.5.2), for as long as the connection is.
        return [Pong(payload), *self._charge_other(None, None, now_ns)]

    def pong(self, now_ns: int) -> list[Effect]:
        """Take a pong control frame; it counts as a message."""
        self._heard_ns = now_ns
        return self._charge_other(None, None, now_ns)

    def receive(self, payload: bytes, now_ns: int) -> list[Effect]:
        """Take one message, whole."""
        self._heard_ns = now_ns
        try:
            request = decode_request(payload)
            action = decode_text(request.action)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            over_limit = self._charge_other(None, None, now_ns)
            return over_limit or self._malformed_request(now_ns)
        try:
            request_id = read_id(request.id)
        except Refusal as refusal:
            over_limit = self._charge(action, request.data, None, now_ns)
            return over_limit or [self._error(refusal, None, action, now_ns)]
        try:
            over_limit = self._charge(action, request.data, request_id, now_ns)
            if over_limit:
                return over_limit
            if action in ORDER_ACTIONS:
                self._desk(action)
                fault = self._faults.answer(action)
                if fault is not None:
                    return self._act_wrongly(fault, action, request, request_id, now_ns)
            return self._act(action, request.data, request_id, now_ns)
        except Refusal as refusal:
            error = self._error(refusal, request_id, action, now_ns)
            authenticated = refusal.code is not ErrorCode.AUTHENTICATION_REQUIRED
            if action == "subscribe" and authenticated:
                return [error, *self._bad_subscribe()]
            return [error]

    # ── actions ───────────────────────────────────────────────────────────────────

    def _act(
        self, action: str, data: msgspec.Raw, request_id: str | None, now_ns: int
    ) -> list[Effect]:
        if action == "pong":
            return []
        if action == "authenticate":
            return self._authenticate(data, request_id, now_ns)
        if action in ORDER_ACTIONS:
            return [self._trade(action, data, request_id, now_ns)]
        if action == "subscribe":
            self._require_key()
            return self._subscribe(names_in(data), request_id, now_ns)
        if action == "unsubscribe":
            self._require_key()
            return self._unsubscribe(names_in(data), request_id, now_ns)
        raise Refusal(
            ErrorCode.INVALID_ACTION, f"Invalid action: {action[:ECHO_CHARS]!r}"
        )

    def _require_key(self) -> None:
        if self._key is None and self._endpoint != MARKET_DATA:
            raise Refusal(
                ErrorCode.AUTHENTICATION_REQUIRED,
                "Authentication is required for this action",
            )

    # ── authentication ────────────────────────────────────────────────────────────

    def _authenticate(
        self, data: msgspec.Raw, request_id: str | None, now_ns: int
    ) -> list[Effect]:
        """Answer with an auth_response whatever comes: a client waits for one."""
        try:
            claim = read(read_credentials, data)
            key = self._access.authenticate(
                claim.api_key,
                claim.signature,
                claim.timestamp,
                self._endpoint,
                now_ns // NS_PER_MS,
            )
        except Refusal as refusal:
            return [self._deny(refusal.code, refusal.message, request_id, now_ns)]
        except Denied as denied:
            answer = self._deny(denied.code, denied.message, request_id, now_ns)
            return [answer, Close(4000, denied.code)] if denied.final else [answer]
        if self._key is not None and self._key != key:
            message = "Invalid action: another key is authenticated"
            return [self._deny(ErrorCode.INVALID_ACTION, message, request_id, now_ns)]
        evicted = self._access.join(key, self, now_ns)
        if evicted is None:
            message = "Too many connections for this API key"
            answer = self._deny(
                ErrorCode.RATE_LIMIT_EXCEEDED, message, request_id, now_ns
            )
            return [answer, Close(4003, "duplicate connection")]
        self._key, self._login_ns = key, None
        data_out = AuthResponseData("success")
        response = AuthResponse(
            data_out, "success", None, now_ns // NS_PER_MS, request_id
        )
        answer = Send(encode(response))
        return [Evict(evicted), answer] if evicted else [answer]

    def _deny(
        self, code: ErrorCode, message: str, request_id: str | None, now_ns: int
    ) -> Send:
        data = AuthResponseData("error", message, code)
        response = AuthResponse(data, "error", message, now_ns // NS_PER_MS, request_id)
        return Send(encode(response))

    # ── subscriptions ─────────────────────────────────────────────────────────────

    def _subscribe(
        self, names: list[str], request_id: str | None, now_ns: int
    ) -> list[Effect]:
        wanted = dict.fromkeys(names)
        # Their number first: to look at ten thousand names takes a while.
        self._refuse_excess(wanted)
        others: list[Channel] = []
        bad = {
            name: reason for name in wanted if (reason := self._refusal(name, others))
        }
        if bad:
            raise bad_channels(bad)
        held = self._held | {name: self._source(name) for name in wanted}
        self._held = held
        self._bad_subscribes = 0
        # Also for a channel that is held already: that is how a snapshot is asked for.
        return [
            self._confirm(names, request_id, now_ns),
            *(Open(held[name]) for name in wanted),
        ]

    def _refuse_excess(self, wanted: dict[str, None]) -> None:
        """Raise Refusal for more subscriptions than a connection may have."""
        held = dict.fromkeys(self._held) | wanted
        if len(held) > self._limit:
            excess = list(held)[self._limit :]
            raise invalid(
                f"channels would make {len(held)} subscriptions, "
                f"the limit is {self._limit} per connection: {quote(excess)}",
                excess,
            )

    def _unsubscribe(
        self, names: list[str], request_id: str | None, now_ns: int
    ) -> list[Effect]:
        dropped = [
            self._held.pop(name) for name in dict.fromkeys(names) if name in self._held
        ]
        return [
            *(Drop(source) for source in dropped),
            self._confirm(names, request_id, now_ns),
        ]

    def _source(self, name: str) -> str:
        """Name what feeds a channel of this client: its own, if it is private."""
        kind = name.partition(":")[0]
        if kind in PUBLIC_KINDS or kind in SHARED_KINDS:
            return name
        return private(kind, self.account)

    def _refusal(self, name: str, others: list[Channel]) -> str | None:
        """Say why a channel cannot be had here; else add it to *others*."""
        try:
            channel: Channel = parse_channel(name)
        except ValueError as error:
            return str(error)
        if channel.kind not in CHANNELS_BY_ENDPOINT[self._endpoint]:
            return f"channel {name!r} is served at {served_at(channel.kind)}"
        if channel.kind not in PUBLIC_KINDS:
            return None
        why = self._market.refusal(channel, others)
        if why:
            return f"channel {name!r}: {why}"
        others.append(channel)
        return None

    # ── orders ────────────────────────────────────────────────────────────────────

    def _trade(
        self, action: str, data: msgspec.Raw, request_id: str | None, now_ns: int
    ) -> Send:
        """Answer an order action; what follows from it comes on the channels."""
        desk = self._desk(action)
        account, now_ms = self.account, now_ns // NS_PER_MS
        if action == "batch_orders":
            operations = read_batch(data, self._batch_operations)
            results = desk.batch(account, operations, now_ns)
            return Send(encode(BatchResponse(results, now_ms, request_id)))
        if action == "submit_order":
            answer = desk.submit(account, read(read_order, data), request_id, now_ns)
        elif action == "cancel_order":
            answer = desk.cancel(account, read(read_cancel, data), now_ns)
        else:
            answer = desk.modify(account, read(read_change, data), now_ns)
        return Send(encode(OrderResponse(answer, now_ms, request_id)))

    def _desk(self, action: str) -> Desk:
        if self._endpoint != TRADING:
            raise Refusal(
                ErrorCode.INVALID_ACTION,
                f"Invalid action: {action} is not served at {self._endpoint}",
            )
        self._require_key()
        desk = self._market.desk
        if desk is None:
            raise Refusal(
                ErrorCode.MARKET_CLOSED,
                "This market is a recording: it takes no orders",
            )
        return desk

    def _act_wrongly(
        self,
        fault: AnswerFault,
        action: str,
        request: Request,
        request_id: str | None,
        now_ns: int,
    ) -> list[Effect]:
        """Do what a test asked for instead of a plain answer."""
        effects: list[Effect] = []
        if fault.processed:
            try:
                effects = self._act(action, request.data, request_id, now_ns)
            except Refusal as refusal:
                effects = [self._error(refusal, request_id, action, now_ns)]
        match fault.kind:
            case "drop":
                return []
            case "cut":
                return [Cut()]
            case "delay":
                sent = [effect for effect in effects if isinstance(effect, Send)]
                return [Later(fault.delay_ns, effect.payload) for effect in sent]
        internal = Refusal(
            ErrorCode.INTERNAL_ERROR, "An internal server error occurred"
        )
        return [self._error(internal, request_id, action, now_ns)]

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
        refusal = invalid("message must be a JSON object with a string action")
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

    # ── limits ────────────────────────────────────────────────────────────────────

    def _charge(
        self, action: str, data: msgspec.Raw, request_id: str | None, now_ns: int
    ) -> list[Effect]:
        """Count a message in its class; return what to answer if it is one too many."""
        if action == "authenticate":
            limiters = self._access.authentication_limiters(
                claimed(data), self._address
            )
            return self._over_limit(
                limiters, RateClass.AUTHENTICATION, request_id, action, now_ns
            )
        if action in ORDER_ACTIONS and self._endpoint == TRADING and self._key:
            cost = 1
            if action == "batch_orders":
                cost = self._batch_cost(data)
            limiter = self._access.order_limiter(self._key)
            return self._over_limit(
                [limiter], RateClass.ORDER, request_id, action, now_ns, cost
            )
        rate_class = RATE_CLASSES.get(action, RateClass.OTHER)
        limiter = self._limiters[rate_class]
        return self._over_limit([limiter], rate_class, request_id, action, now_ns)

    def _batch_cost(self, data: msgspec.Raw) -> int:
        """Return how many order operations a batch is; a malformed one is one."""
        try:
            return len(read_batch(data, self._batch_operations))
        except Refusal:
            return 1

    def _charge_other(
        self, request_id: str | None, action: str | None, now_ns: int
    ) -> list[Effect]:
        limiter = self._limiters[RateClass.OTHER]
        return self._over_limit([limiter], RateClass.OTHER, request_id, action, now_ns)

    def _over_limit(
        self,
        limiters: list[RateLimiter],
        rate_class: RateClass,
        request_id: str | None,
        action: str | None,
        now_ns: int,
        cost: int = 1,
    ) -> list[Effect]:
        ruling = admit(limiters, now_ns, cost)
        if ruling.verdict is Verdict.ACCEPT:
            return []
        refusal = Refusal(
            ErrorCode.RATE_LIMIT_EXCEEDED,
            f"Rate limit exceeded for {rate_class}. "
            f"Limit: {limiters[0].limit} per minute",
        )
        error = self._error(refusal, request_id, action, now_ns, ruling.retry_after_s)
        if ruling.verdict is Verdict.CLOSE:
            return [error, Close(4001, "rate limited")]
        return [error]


def claimed(raw: msgspec.Raw) -> str:
    """Return the key that an authentication is for, "" if that cannot be read."""
    try:
        return decode_claim(bytes(raw) or b"{}").api_key
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""


def names_in(data: msgspec.Raw) -> list[str]:
    """Return the channels of a request."""
    return read(read_channels, data).channels


def read_id(raw: msgspec.Raw) -> str | None:
    """Return the request's id, byte for byte; None if it has none."""
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        text = decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = ""
    if not _ID.fullmatch(text):
        raise invalid("id must be a string of 1 to 128 printable ASCII characters")
    return text


def bad_channels(reasons: dict[str, str]) -> Refusal:
    """Refuse a subscribe for the channels that are bad, with the reason of each."""
    told = "; ".join(list(reasons.values())[:ECHO_CHANNELS])
    return invalid(told, list(reasons))


def quote(names: list[str]) -> str:
    """List channel names in a message, cut to a sane length."""
    return ", ".join(repr(name[:ECHO_CHARS]) for name in names[:ECHO_CHANNELS])

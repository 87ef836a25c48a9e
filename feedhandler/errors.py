"""Every exception that feedhandler raises, in one tree.

::

    FeedError
    ├── ChannelFull             the handler has not taken the commands before this one
    ├── ConfigError             a configuration file or option is wrong
    ├── ConnectionFailed        a connection gave up for good
    ├── GuardRefused            our own limits do not let a request pass
    ├── DeadlinePassed          a request could not be sent in time, and never will be
    ├── HandlerGone             nobody takes commands any more, or not yet
    ├── NotConnected            a request on an endpoint that has no connection
    ├── OutcomeUnknown          a request was sent, and nobody knows what became of it
    ├── ProtocolError           the venue broke its protocol
    │   ├── MalformedMessage    a payload is not a message of the reference
    │   └── SequenceGap         updates never arrived
    ├── RequestFailed           the venue answered a request with an error
    │   ├── AuthenticationRequired, InvalidCredentials, InvalidParameter, InvalidAction,
    │   │   RateLimitExceeded, InsufficientFunds, OrderNotFound,
    │   │   DuplicateClientOrderId, MarketClosed
    │   └── InternalError       (also OutcomeUnknown)
    ├── Throttled               a request would be one too many for the venue's limits
    ├── RingError               a shared-memory segment cannot be used
    │   ├── RingAbsent          nothing of that name is there
    │   ├── RingBusy            another writer holds it
    │   └── RingInvalid         its header is not one that we can trust
    ├── UnknownOrder            (also KeyError) an order that we do not know of
    └── UnknownSymbol           (also KeyError) a symbol nobody subscribed to

Errors carry their numbers as attributes. A caller's mistake is a ``ValueError`` or
``TypeError``, never one of these.
"""

from feedhandler.printable import printable

__all__ = [
    "AuthenticationRequired",
    "ChannelFull",
    "ConfigError",
    "ConnectionFailed",
    "DeadlinePassed",
    "DuplicateClientOrderId",
    "FeedError",
    "GuardRefused",
    "HandlerGone",
    "InsufficientFunds",
    "InternalError",
    "InvalidAction",
    "InvalidCredentials",
    "InvalidParameter",
    "MalformedMessage",
    "MarketClosed",
    "NotConnected",
    "OrderNotFound",
    "OutcomeUnknown",
    "ProtocolError",
    "RateLimitExceeded",
    "RequestFailed",
    "RingAbsent",
    "RingBusy",
    "RingError",
    "RingInvalid",
    "SequenceGap",
    "Throttled",
    "UnknownOrder",
    "UnknownSymbol",
]


class FeedError(Exception):
    """Whatever feedhandler raises of its own."""


class ChannelFull(FeedError):
    """A command found all of *capacity* slots in use: it is not in the channel."""

    def __init__(self, capacity: int) -> None:
        super().__init__(f"{capacity} commands wait for the handler, no room for more")
        self.capacity = capacity


class ConfigError(FeedError):
    """A configuration file or option is wrong; *key* names where, if known."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class ConnectionFailed(FeedError):
    """A connection gave up for good; *reason* says why, *attempts* how often."""

    def __init__(self, url: str, reason: str, attempts: int = 0) -> None:
        tries = f" after {attempts} attempts" if attempts else ""
        super().__init__(f"connection to {url} failed{tries}: {printable(reason)}")
        self.url = url
        self.reason = reason
        self.attempts = attempts


class DeadlinePassed(FeedError):
    """A request could not be sent in time: it was not, and will not be."""

    def __init__(self, action: str, late_ns: int) -> None:
        super().__init__(f"{action} is {late_ns / 1e9:.3f} s past its deadline")
        self.action = action
        self.late_ns = late_ns


class GuardRefused(FeedError):
    """A *rule* of our own does not let a request pass: *value* against its *limit*."""

    def __init__(
        self,
        rule: str,
        message: str,
        value: float | None = None,
        limit: float | None = None,
    ) -> None:
        numbers = "" if limit is None or value is None else f": {value:g} > {limit:g}"
        super().__init__(f"{rule}: {printable(message)}{numbers}")
        self.rule = rule
        self.value = value
        self.limit = limit


class HandlerGone(FeedError):
    """No handler takes commands of the feed *name*; *reason* says how that is known."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"no handler takes commands of {name}: {reason}")
        self.name = name
        self.reason = reason


class NotConnected(FeedError):
    """A request was made on an *endpoint* that has no connection, or not yet."""

    def __init__(self, endpoint: str, state: str = "closed") -> None:
        super().__init__(f"{endpoint} is not connected: {state}")
        self.endpoint = endpoint
        self.state = state


class OutcomeUnknown(FeedError):
    """A request was sent, and it is not known what became of it.

    No answer came in time, or the connection ended before. It is never sent again; what
    the venue tells afterwards settles the order (trading.OrderFlow).
    """

    def __init__(self, action: str, request_id: str | None = None) -> None:
        super().__init__(f"what became of {action} {request_id} is not known")
        self.action = action
        self.request_id = request_id


class ProtocolError(FeedError):
    """The venue broke its protocol."""


class MalformedMessage(ProtocolError):
    """A payload is not a message of the reference."""


class SequenceGap(ProtocolError):
    """Updates *expected* to *received* - 1 never arrived."""

    def __init__(self, expected: int, received: int) -> None:
        super().__init__(f"expected sequence {expected}, received {received}")
        self.expected = expected
        self.received = received


class RequestFailed(FeedError):
    """The venue answered a request with an error frame."""

    def __init__(
        self,
        code: str,
        message: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(printable(f"{code}: {message}"))
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> "RequestFailed":
        """Return the exception of an error *code*; a plain one for a new code."""
        kind = _BY_CODE.get(code, RequestFailed)
        return kind(code, message, request_id, retry_after)


class AuthenticationRequired(RequestFailed):
    """The connection is not authenticated, as far as the venue knows."""


class InvalidCredentials(RequestFailed):
    """The API key or the signature is not right."""


class InvalidParameter(RequestFailed):
    """A field of the request is missing or wrong."""


class InvalidAction(RequestFailed):
    """The endpoint has no such action."""


class RateLimitExceeded(RequestFailed):
    """Too many requests: *retry_after* says for how many seconds to wait."""


class InsufficientFunds(RequestFailed):
    """The account does not have what the order would take."""


class OrderNotFound(RequestFailed):
    """There is no such open order."""


class DuplicateClientOrderId(RequestFailed):
    """An order of that client_order_id exists, or did."""


class MarketClosed(RequestFailed):
    """The market of the symbol is closed."""


class InternalError(RequestFailed, OutcomeUnknown):
    """The venue failed, and does not say whether it did what was asked before."""

    def __init__(
        self,
        code: str,
        message: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        RequestFailed.__init__(self, code, message, request_id, retry_after)
        self.action = ""


class Throttled(FeedError):
    """A request would be one too many for the venue; it may go in *wait_ns*."""

    def __init__(self, action: str, wait_ns: int) -> None:
        super().__init__(f"{action} must wait for {wait_ns / 1e9:.3f} s")
        self.action = action
        self.wait_ns = wait_ns


class RingError(FeedError):
    """A shared-memory segment cannot be used."""


class RingAbsent(RingError):
    """No segment of that name is there."""


class RingBusy(RingError):
    """Another writer holds the segment."""


class RingInvalid(RingError):
    """The segment's header is not one that can be trusted."""


class UnknownOrder(FeedError, KeyError):
    """An order that we do not know of, by the name it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        """Say it as a sentence; KeyError alone would quote its argument."""
        return printable(f"unknown order {self.name!r}")


class UnknownSymbol(FeedError, KeyError):
    """A symbol that nobody subscribed to."""

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.symbol = symbol

    def __str__(self) -> str:
        """Say it as a sentence; KeyError alone would quote its argument."""
        return f"unknown symbol {self.symbol!r}"


_BY_CODE: dict[str, type[RequestFailed]] = {
    "authentication_required": AuthenticationRequired,
    "invalid_credentials": InvalidCredentials,
    "invalid_parameter": InvalidParameter,
    "invalid_action": InvalidAction,
    "rate_limit_exceeded": RateLimitExceeded,
    "insufficient_funds": InsufficientFunds,
    "order_not_found": OrderNotFound,
    "duplicate_client_order_id": DuplicateClientOrderId,
    "market_closed": MarketClosed,
    "internal_error": InternalError,
}

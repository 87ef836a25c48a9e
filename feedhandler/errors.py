"""Every exception that feedhandler raises, in one tree.

::

    FeedError
    ├── ConfigError             a configuration file or option is wrong
    ├── ConnectionFailed        a connection gave up for good
    ├── GuardRefused            our own limits do not let a request pass
    ├── NotConnected            a request on an endpoint that has no connection
    ├── ProtocolError           the venue broke its protocol
    │   ├── MalformedMessage    a payload is not a message of the reference
    │   └── SequenceGap         updates never arrived
    ├── RequestFailed           the venue answered a request with an error
    ├── Throttled               a request would be one too many for the venue's limits
    ├── RingError               a shared-memory segment cannot be used
    │   ├── RingAbsent          nothing of that name is there
    │   ├── RingBusy            another writer holds it
    │   └── RingInvalid         its header is not one that we can trust
    └── UnknownSymbol           (also KeyError) a symbol nobody subscribed to

Errors carry their numbers as attributes. A caller's mistake is a ``ValueError`` or
``TypeError``, never one of these.
"""

from feedhandler.printable import printable

__all__ = [
    "ConfigError",
    "ConnectionFailed",
    "FeedError",
    "GuardRefused",
    "MalformedMessage",
    "NotConnected",
    "ProtocolError",
    "RequestFailed",
    "RingAbsent",
    "RingBusy",
    "RingError",
    "RingInvalid",
    "SequenceGap",
    "Throttled",
    "UnknownSymbol",
]


class FeedError(Exception):
    """Whatever feedhandler raises of its own."""


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


class NotConnected(FeedError):
    """A request was made on an *endpoint* that has no connection, or not yet."""

    def __init__(self, endpoint: str, state: str = "closed") -> None:
        super().__init__(f"{endpoint} is not connected: {state}")
        self.endpoint = endpoint
        self.state = state


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
        retry_after: int | None = None,
    ) -> None:
        super().__init__(printable(f"{code}: {message}"))
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


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


class UnknownSymbol(FeedError, KeyError):
    """A symbol that nobody subscribed to."""

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.symbol = symbol

    def __str__(self) -> str:
        """Say it as a sentence; KeyError alone would quote its argument."""
        return f"unknown symbol {self.symbol!r}"

"""Prove who we are: one ApiKey for all connections that use it, one Login for each.

Sans-I/O: the venue's answers and time in, requests and outcomes out. Times are
monotonic nanoseconds but for *wall_ms*, our clock in milliseconds since the epoch.
"""

import weakref
from enum import Enum

from msgspec import UNSET

from feedhandler.errors import ConfigError
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.limits import (
    ANSWER_TIMEOUT_S,
    CONNECTIONS_PER_KEY,
    retry_after_ns,
)
from feedhandler.protocol.messages import (
    Authenticate,
    AuthenticateData,
    AuthResponse,
    Error,
)
from feedhandler.protocol.signature import sign
from feedhandler.secret import Secret, shorten
from feedhandler.throttle import Throttle

__all__ = ["ApiKey", "Login", "Outcome", "shared_key"]

WINDOW_NS = 61_000_000_000
ANSWER_TIMEOUT_NS = ANSWER_TIMEOUT_S * 1_000_000_000
TRIES = 2


class ApiKey:
    """An API key as this process uses it, with all its connections together.

    *authentications* and *orders* are what it may send in WINDOW_NS; *urgent* of the
    orders are kept for cancels. The loop's thread only.
    """

    def __init__(
        self,
        name: str,
        secret: Secret,
        authentications: int = 9,
        orders: int = 90,
        urgent: int = 10,
        connections: int = CONNECTIONS_PER_KEY,
    ) -> None:
        self.name = name
        self.secret = secret
        self.authentications = Throttle(authentications, WINDOW_NS)
        self.orders = Throttle(orders, WINDOW_NS, reserved=urgent)
        self.offset_ms = 0
        """What to add to our clock to have the venue's, as far as it told."""
        self._connections = connections
        self._reserved = 0
        self._expected = 0
        self._last_ms = 0
        self._accepted_ms = 0

    # ── connections ───────────────────────────────────────────────────────────────────

    def reserve(self) -> None:
        """Take one of the connections that the venue allows a key; ConfigError."""
        if self._reserved >= self._connections:
            raise ConfigError(
                f"API key {self!r} has {self._connections} connections in this "
                "process already, as many as the venue allows"
            )
        self._reserved += 1

    def release(self) -> None:
        """Give a connection back."""
        self._reserved -= 1

    def wait_ns(self, now_ns: int) -> int:
        """Return how long a connection that will authenticate is to be put off."""
        units = min(self._expected + 1, self.authentications.limit)
        return self.authentications.wait_ns(now_ns, units)

    def expect(self, count: int) -> None:
        """Note that so many more, or less, connections are about to authenticate."""
        self._expected += count

    # ── signing ───────────────────────────────────────────────────────────────────────

    def sign(self, wall_ms: int) -> AuthenticateData:
        """Sign the time by the venue's clock, which never comes twice."""
        self._last_ms = max(wall_ms + self.offset_ms, self._last_ms + 1)
        signature = sign(self.name, self.secret.reveal(), self._last_ms)
        return AuthenticateData(self.name, signature, self._last_ms)

    def accepted(self, timestamp_ms: int) -> None:
        """Note that the venue took a timestamp, and will not take it again."""
        self._accepted_ms = max(self._accepted_ms, timestamp_ms)

    def learn(self, wall_ms: int, venue_ms: int) -> None:
        """Set our clock by the venue's, which refused a timestamp of ours.

        A refused timestamp was not used: one that was too late must not keep the next
        one from being right.
        """
        self._last_ms = self._accepted_ms
        if venue_ms > 0:
            self.offset_ms = venue_ms - wall_ms

    def __repr__(self) -> str:
        """Name the key, but not so that it could be used."""
        return shorten(self.name)


_shared: weakref.WeakValueDictionary[tuple[str, str], ApiKey] = (
    weakref.WeakValueDictionary()
)


def shared_key(url: str, name: str, secret: Secret, orders: int = 90) -> ApiKey:
    """Return this process's ApiKey of that *name* at the venue at *url*.

    Everything that uses a key shares its limits, of *orders* those of who came first.
    Raises ConfigError for another secret
    than the one in use.
    """
    key = _shared.get((url, name))
    if key is None:
        key = _shared[url, name] = ApiKey(name, secret, orders=orders)
    elif key.secret.reveal() != secret.reveal():
        raise ConfigError(f"API key {key!r} is in use with another secret")
    return key


class Outcome(Enum):
    """What became of an authentication."""

    ACCEPTED = "the venue knows us"
    AGAIN = "the timestamp was refused: send another"
    LATER = "not now: another connection may succeed"
    REFUSED = "the credentials are wrong: only a person can mend this"


class Login:
    """The authentication of one connection, which may be made many times."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.is_accepted = False
        self.reason = ""
        """What the venue said, if it refused."""
        self._expecting = False
        self._wanted = False
        self._tries = 0
        self._id: str | None = None
        self._timestamp_ms = 0
        self._sent_ns = 0

    def expect(self) -> None:
        """Note that a connection is being made, which will authenticate."""
        if not self._expecting:
            self._expecting = True
            self.key.expect(1)

    def begin(self) -> None:
        """Note that the connection is open."""
        self.end()
        self._wanted = True
        self._tries = TRIES

    def end(self) -> None:
        """Note that the connection is gone."""
        if self._expecting:
            self._expecting = False
            self.key.expect(-1)
        self.is_accepted = False
        self._wanted = False
        self._id = None

    def request(self, now_ns: int, wall_ms: int) -> Authenticate | None:
        """Return what is to be sent now; None for nothing, or nothing yet."""
        if not self._wanted or not self.key.authentications.take(now_ns):
            return None
        self._wanted = False
        self._tries -= 1
        self._sent_ns = now_ns
        data = self.key.sign(wall_ms)
        self._timestamp_ms = data.timestamp
        self._id = f"auth-{data.timestamp}"
        return Authenticate(data=data, id=self._id)

    def is_overdue(self, now_ns: int) -> bool:
        """Tell whether the venue has had its time to answer."""
        return self._id is not None and now_ns - self._sent_ns >= ANSWER_TIMEOUT_NS

    def is_about(self, message: AuthResponse | Error) -> bool:
        """Tell whether a message is the answer to our request.

        The reference's own client takes an auth_response without an id for one.
        """
        if self._id is None:
            return False
        if isinstance(message, Error):
            return self._id in (message.data.request_id, message.id)
        return message.id in (self._id, None)

    def judge(
        self, message: AuthResponse | Error, now_ns: int, wall_ms: int
    ) -> Outcome:
        """Take the answer: see is_about()."""
        self._id = None
        if isinstance(message, Error):
            code, self.reason = message.data.code, message.data.message
        else:
            data = message.data
            both = (message.status, data.status if data else None)
            said = {status for status in both if status is not None}
            if said == {"success"}:
                self.is_accepted = True
                self.key.accepted(self._timestamp_ms)
                return Outcome.ACCEPTED
            code = (data.code if data else None) or ""
            self.reason = message.message or (data.message if data else None) or ""
            if ("success" in said or not said) and not code:
                # Yes and no, or neither: whatever it is, we are not authenticated.
                self.reason = self.reason or f"status {sorted(said)}"
                return Outcome.LATER
        if code == ErrorCode.INVALID_CREDENTIALS:
            return Outcome.REFUSED
        if code == ErrorCode.RATE_LIMIT_EXCEEDED:
            # Without a time to wait it may be one connection too many: the close tells.
            retry_after = getattr(message.data, "retry_after", UNSET)
            if retry_after is not UNSET:
                wait_ns = retry_after_ns(retry_after)
                self.key.authentications.hold(now_ns + wait_ns)
            return Outcome.LATER
        if code not in (ErrorCode.INVALID_PARAMETER, ""):
            return Outcome.LATER
        # A timestamp that is refused says nothing against the key. Neither does a venue
        # that gives no reason, once.
        self.key.learn(wall_ms, message.timestamp)
        if not self._tries:
            return Outcome.LATER if code else Outcome.REFUSED
        self._wanted = True
        return Outcome.AGAIN

"""Who may come in: keys and their secrets, replayed signatures, and what a key may use.

Knows nothing of sockets or messages: what a client claims and the time in, a key or a
denial out. Every refusal takes the same steps, whether the key exists or not.
"""

import hmac
import re
from collections import deque
from typing import NamedTuple, Protocol

from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.limits import RateClass
from feedhandler.protocol.signature import sign
from feedhandler.secret import Secret, shorten
from feedhandler.venue.config import LimitsConfig
from feedhandler.venue.limits import NS_PER_S, WINDOW_S, RateLimiter, SlidingLog

__all__ = ["Access", "Denied", "Key", "Member"]

FUTURE_MS = 1000
NAME_CHARS = 64
# The eleventh authentication of a minute is answered, and is the last.
AUTHENTICATION_PATIENCE = 1

_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Key(NamedTuple):
    """An API key, its secret, and the account that it opens."""

    api_key: str
    secret: Secret
    account_id: str

    def __repr__(self) -> str:
        """Show the beginning of it."""
        return f"Key({shorten(self.api_key)!r}, account_id={self.account_id!r})"


class Denied(Exception):
    """An authentication failed; *final* where another try could not succeed."""

    def __init__(self, code: ErrorCode, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.final = final


class Member(Protocol):
    """A connection that may be authenticated."""

    def is_overdue(self, now_ns: int) -> bool:
        """Say whether it has left a heartbeat unanswered for too long."""


class Access:
    """The keys of a venue, and everything that is limited by key or by address."""

    def __init__(
        self, keys: list[Key], limits: LimitsConfig, window_ms: int = 5000
    ) -> None:
        self._keys = {key.api_key: key for key in keys}
        self._limits = limits
        self._window_ms = window_ms
        # What is compared with when a key does not exist.
        self._nobody = Key("", Secret(b"nobody"), "")
        self._used: set[tuple[str, int, str]] = set()
        self._expiring: deque[tuple[int, tuple[str, int, str]]] = deque()
        self._members: dict[str, dict[Member, None]] = {}
        self._orders: dict[str, RateLimiter] = {}
        self._authentications: dict[str, RateLimiter] = {}
        self._addresses: dict[str, RateLimiter] = {}
        self._handshakes: dict[str, SlidingLog] = {}
        self._next_sweep_ns = 0

    # ── authentication ────────────────────────────────────────────────────────────

    def authenticate(
        self,
        api_key: str,
        signature: str,
        timestamp_ms: int,
        endpoint: str,
        now_ms: int,
    ) -> Key:
        """Return the key that proved to be its holder's, or raise Denied.

        A signature counts once for each endpoint: it covers key and timestamp alone, so
        two endpoints opened in the same millisecond have the same.
        """
        key = self._keys.get(api_key, self._nobody)
        expected = sign(key.api_key, key.secret.reveal(), timestamp_ms).encode()
        # Bytes: compare_digest refuses text that is not ASCII.
        same = hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
        if not same or key is self._nobody or not _SIGNATURE.fullmatch(signature):
            raise Denied(
                ErrorCode.INVALID_CREDENTIALS,
                "Invalid API key or signature",
                final=True,
            )
        if (
            timestamp_ms >= now_ms + FUTURE_MS
            or now_ms - timestamp_ms > self._window_ms
        ):
            raise Denied(
                ErrorCode.INVALID_PARAMETER,
                "Invalid parameter: timestamp is not within "
                f"{self._window_ms} ms before and {FUTURE_MS} ms after our time",
                final=False,
            )
        self._use((api_key, timestamp_ms, endpoint), now_ms)
        return key

    def _use(self, use: tuple[str, int, str], now_ms: int) -> None:
        """Note a timestamp; only those that could be used again are kept."""
        while self._expiring and self._expiring[0][0] < now_ms:
            self._used.discard(self._expiring.popleft()[1])
        if use in self._used:
            raise Denied(
                ErrorCode.INVALID_PARAMETER,
                "Invalid parameter: timestamp was used before",
                final=False,
            )
        self._used.add(use)
        # Never older than it may be: a timestamp ahead of us stays valid longer.
        self._expiring.append((now_ms + self._window_ms + FUTURE_MS, use))

    @property
    def remembered(self) -> int:
        """How many timestamps are kept against their second use."""
        return len(self._used)

    # ── connections of a key ──────────────────────────────────────────────────────

    def join(self, key: Key, member: Member, now_ns: int) -> list[Member] | None:
        """Count a connection of *key*; None if it has too many.

        Otherwise return those that must go for it: they left a heartbeat unanswered.
        """
        members = self._members.setdefault(key.api_key, {})
        if member in members:
            return []
        gone: list[Member] = []
        if len(members) >= self._limits.connections_per_key:
            gone = [other for other in members if other.is_overdue(now_ns)]
            for other in gone:
                del members[other]
        if len(members) >= self._limits.connections_per_key:
            return None
        members[member] = None
        return gone

    def leave(self, key: Key, member: Member) -> None:
        """Forget a connection of *key*."""
        members = self._members.get(key.api_key, {})
        members.pop(member, None)

    def connections(self, api_key: str) -> int:
        """Return how many authenticated connections a key has."""
        return len(self._members.get(api_key, ()))

    # ── limits ────────────────────────────────────────────────────────────────────

    def authentication_limiters(self, api_key: str, address: str) -> list[RateLimiter]:
        """Return the limiters of an attempt: that of its address, and of its key."""
        limit = self._limits.per_minute(RateClass.AUTHENTICATION)
        found = [limiter_of(self._addresses, address, limit, AUTHENTICATION_PATIENCE)]
        # Also for names that are no key's: who guesses learns nothing from the limit.
        name = api_key if api_key in self._keys else f"?{api_key[:NAME_CHARS]}"
        found.append(
            limiter_of(self._authentications, name, limit, AUTHENTICATION_PATIENCE)
        )
        return found

    def order_limiter(self, key: Key) -> RateLimiter:
        """Return the limiter that all connections of *key* share."""
        limit = self._limits.per_minute(RateClass.ORDER)
        return limiter_of(self._orders, key.api_key, limit, None)

    def admit_handshake(self, address: str, now_ns: int) -> bool:
        """Count an upgrade; False if the address has had too many in this minute."""
        if now_ns >= self._next_sweep_ns:
            self._next_sweep_ns = now_ns + WINDOW_S * NS_PER_S
            self._forget_quiet(now_ns)
        log = self._handshakes.get(address)
        if log is None:
            log = self._handshakes[address] = SlidingLog(
                self._limits.handshakes_per_minute
            )
        return log.add(now_ns) == 0

    @property
    def remembered_names(self) -> int:
        """How many names of keys are remembered, whether there is such a key or not."""
        return len(self._authentications)

    @property
    def addresses(self) -> int:
        """How many addresses are remembered: those of two minutes at most."""
        return len(self._handshakes.keys() | self._addresses.keys())

    def _forget_quiet(self, now_ns: int) -> None:
        """Drop what addresses and names that nobody used for a minute have left."""
        for logs in (self._handshakes, self._addresses, self._authentications):
            for address in [a for a, log in logs.items() if log.count(now_ns) == 0]:
                del logs[address]


def limiter_of(
    limiters: dict[str, RateLimiter], name: str, limit: int, patience: int | None
) -> RateLimiter:
    """Return the limiter of *name*, made when it is first asked for."""
    if name not in limiters:
        limiters[name] = RateLimiter(limit, patience)
    return limiters[name]

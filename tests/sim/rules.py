"""What the specification allows one connection to do after a close, and to send.

Written from the specification alone: it shares nothing with the product's own rules.
"""

from collections import deque
from typing import NamedTuple

from tests.sim.world import MS, SECOND

__all__ = ["CLOSE_CODES", "STATES", "Attempts", "Window", "Wish"]

MINUTE_NS = 60 * SECOND
KEPT_NS = MINUTE_NS + 5 * SECOND
JITTER = 0.2
MOST_ATTEMPTS = 10
USEFUL_NS = 30 * SECOND

AT_ONCE = (1001,)
ONE_RETRY = (1002, 1003, 1007, 1010)
CLOSE_CODES = (
    1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3500,
    4000, 4001, 4002, 4003, 4004, 4999,
)  # fmt: skip
"""Those of CC-01 to CC-10 and of A-36, and one each of the ranges without a meaning."""

# From where to where: the states of the reference, and what follows a close.
STATES = {
    ("connecting", "open"), ("connecting", "closed"),
    ("open", "authenticated"), ("open", "subscribed"), ("open", "closing"),
    ("open", "closed"),
    ("authenticated", "subscribed"), ("authenticated", "closing"),
    ("authenticated", "closed"),
    ("subscribed", "open"), ("subscribed", "authenticated"),
    ("subscribed", "closing"), ("subscribed", "closed"),
    ("closing", "closed"),
    ("closed", "connecting"), ("closed", "failed"),
}  # fmt: skip


class Wish(NamedTuple):
    """When the next attempt may begin: not before, and not after."""

    least_ns: int
    most_ns: int


class Attempts:
    """The attempts of one connection; *private*: it has to authenticate first."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.count = 0
        self._rows: dict[str, int] = {}
        self._opened_ns: int | None = None
        self.logged_in = False
        self.subscribed = False
        self.named = False
        self._beat = False

    def opened(self, now_ns: int) -> None:
        """Hear of a connection."""
        self._opened_ns = now_ns
        self.logged_in = self.subscribed = self.named = self._beat = False

    def heartbeat(self) -> None:
        """Hear of a heartbeat."""
        self._beat = True

    def closed(self, now_ns: int, code: int, holds: bool, stopped: bool) -> Wish | None:
        """Return when to try again, None for never.

        *holds*: there are channels to be subscribed to. *stopped*: the venue has said
        that the credentials are wrong.
        """
        if self._is_useful(now_ns, holds):
            self.count = 0
            self._rows.clear()
        logged_in = self.logged_in or not self.private
        was_open, self._opened_ns = self._opened_ns is not None, None
        named, self.named = self.named, False
        self.logged_in = False
        if stopped or code == 4000 or (code == 1008 and logged_in):
            return None
        if code == 1008 and was_open:
            return self._back_off(now_ns) if self._row("login") <= 2 else None
        if code in ONE_RETRY:
            return self._back_off(now_ns) if self._row("retry") <= 1 else None
        if code == 4002:
            once = self._row("subscription") <= 1
            return self._back_off(now_ns) if once and named else None
        if code == 4003:
            if self._row("duplicate") > 1:
                return None
            return self._back_off(now_ns, least_ns=90 * SECOND)
        if code in AT_ONCE and self._row("at once") == 1:
            return Wish(now_ns, now_ns + 250 * MS)
        if code == 4001:
            return self._back_off(now_ns, least_ns=60 * SECOND)
        return self._back_off(now_ns, factor=2 if code == 1013 else 1)

    def _is_useful(self, now_ns: int, holds: bool) -> bool:
        if self._opened_ns is None or (self.private and not self.logged_in):
            return False
        if holds and not self.subscribed:
            return False
        return self._beat or now_ns - self._opened_ns >= USEFUL_NS

    def _row(self, name: str) -> int:
        """Count how often something has happened since the last useful connection."""
        self._rows[name] = self._rows.get(name, 0) + 1
        return self._rows[name]

    def _back_off(self, now_ns: int, factor: int = 1, least_ns: int = 0) -> Wish | None:
        self.count += 1
        if self.count > MOST_ATTEMPTS:
            return None
        delay_ns = factor * SECOND << (self.count - 1)
        least = max(int(delay_ns * (1 - JITTER)) - 1, least_ns)
        # More than a window for one that waits until the limits have forgotten us.
        slack_ns = 2 * SECOND if least_ns else 1
        most = max(int(delay_ns * (1 + JITTER)) + 1, least_ns + slack_ns)
        return Wish(now_ns + least, now_ns + most)


class Window:
    """How many units there were in the last 60 s: the times of all of them."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque()

    def add(self, now_ns: int, units: int = 1) -> int:
        """Count *units*, and return what the window that ends now holds."""
        times_ns = self._times_ns
        while times_ns and times_ns[0] <= now_ns - KEPT_NS:
            times_ns.popleft()
        times_ns.extend([now_ns] * units)
        return self.within(now_ns, MINUTE_NS)

    def within(self, now_ns: int, window_ns: int) -> int:
        """Return how many units came in a window that ends now."""
        count = 0
        for time_ns in reversed(self._times_ns):
            if time_ns <= now_ns - window_ns:
                break
            count += 1
        return count

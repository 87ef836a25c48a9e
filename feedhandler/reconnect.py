"""What to do after a connection has ended: when to try again, or that it is hopeless.

A table of rules, one for each CloseAction of protocol.codes. Knows no clock.
"""

from typing import NamedTuple

from feedhandler.backoff import Backoff
from feedhandler.protocol.codes import CloseAction

__all__ = ["RULES", "Reconnect", "Rule"]

AT_ONCE_NS = 250_000_000
# One more than the venue's window, in which its limiters remember us.
LIMIT_WINDOW_NS = 61_000_000_000
# In so long the venue has found out which of our connections are dead.
ZOMBIE_WINDOW_NS = 90_000_000_000


class Rule(NamedTuple):
    """How to go on after a close.

    At most *retries* times in a row (None: as often as the backoff has attempts), after
    the backoff's delay *factor* times over and *least_ns* at the least. *at_once*: the
    first in a row does not wait for the backoff.
    """

    retries: int | None = None
    factor: int = 1
    least_ns: int = 0
    at_once: bool = False


RULES = {
    CloseAction.RECONNECT: Rule(at_once=True),
    CloseAction.BACKOFF: Rule(),
    CloseAction.BACKOFF_TWICE: Rule(factor=2),
    CloseAction.COOL_DOWN: Rule(least_ns=LIMIT_WINDOW_NS),
    CloseAction.RETRY_ONCE: Rule(retries=1),
    CloseAction.RETRY_TWICE: Rule(retries=2),
    CloseAction.RESUBSCRIBE_ONCE: Rule(retries=1),
    CloseAction.WAIT: Rule(retries=1, least_ns=ZOMBIE_WINDOW_NS),
    CloseAction.STOP: Rule(retries=0),
}


class Reconnect:
    """The attempts of one connection. *retry_forever*: the backoff never ends."""

    def __init__(
        self, backoff: Backoff | None = None, retry_forever: bool = False
    ) -> None:
        self._backoff = backoff or Backoff()
        self._retry_forever = retry_forever
        self._in_a_row: dict[CloseAction, int] = {}

    @property
    def attempt(self) -> int:
        """How many attempts the backoff has counted since a connection was useful."""
        return self._backoff.attempt

    def next_ns(self, action: CloseAction) -> int | None:
        """Return how long to wait before the next attempt; None to give up."""
        rule = RULES[action]
        before = self._in_a_row.get(action, 0)
        if rule.retries is not None and before >= rule.retries:
            return None
        self._in_a_row[action] = before + 1
        if rule.at_once and not before:
            return self._backoff.soon_ns(AT_ONCE_NS)
        delay_ns = self._backoff.next_ns(rule.factor)
        if delay_ns is None and self._retry_forever:
            self._backoff.reset()
            delay_ns = self._backoff.next_ns(rule.factor)
        return None if delay_ns is None else max(delay_ns, rule.least_ns)

    def reset(self) -> None:
        """Start over: the connection was useful."""
        self._backoff.reset()
        self._in_a_row.clear()

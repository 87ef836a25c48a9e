"""The venue's own rate limiter: a sliding log, so never more than N in any window.

Shares nothing with the client's.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

__all__ = [
    "NS_PER_S",
    "WINDOW_S",
    "RateLimiter",
    "Ruling",
    "SlidingLog",
    "Verdict",
    "admit",
]

WINDOW_S = 60
NS_PER_S = 1_000_000_000
WINDOW_NS = WINDOW_S * NS_PER_S


class SlidingLog:
    """The times of what happened in the last window, at most *limit* of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._times_ns: deque[int] = deque()

    def add(self, now_ns: int, cost: int = 1) -> int:
        """Take *cost* units if they fit and return 0, else the ns until they will.

        More than the whole limit never fits; then it is the length of the window.
        """
        wait_ns = self.wait_ns(now_ns, cost)
        if wait_ns == 0:
            self._times_ns.extend([now_ns] * cost)
        return wait_ns

    def wait_ns(self, now_ns: int, cost: int = 1) -> int:
        """Return what add() would, and take nothing."""
        self._expire(now_ns)
        excess = len(self._times_ns) + cost - self.limit
        if excess <= 0:
            return 0
        if cost > self.limit:
            return WINDOW_NS
        return self._times_ns[excess - 1] + WINDOW_NS - now_ns

    def count(self, now_ns: int) -> int:
        """Return how many units the window holds."""
        self._expire(now_ns)
        return len(self._times_ns)

    def _expire(self, now_ns: int) -> None:
        times_ns = self._times_ns
        while times_ns and times_ns[0] <= now_ns - WINDOW_NS:
            times_ns.popleft()


class Verdict(Enum):
    """What becomes of a message."""

    ACCEPT = "accept"
    REJECT = "reject"
    CLOSE = "reject, then close: the client does not slow down"


class Ruling(NamedTuple):
    """A verdict, and for a rejection the seconds after which a retry succeeds."""

    verdict: Verdict
    retry_after_s: int = 0


class RateLimiter:
    """One class of messages: a quota, and patience for as many rejections again.

    A rejected message uses up none of the quota.
    """

    def __init__(self, limit: int, patience: int | None = None) -> None:
        self.limit = limit
        self._accepted = SlidingLog(limit)
        self._rejected = SlidingLog(limit if patience is None else patience)

    def admit(self, now_ns: int, cost: int = 1) -> Ruling:
        """Judge a message of *cost* units: all of them or none."""
        return admit([self], now_ns, cost)

    def wait_ns(self, now_ns: int, cost: int) -> int:
        """Return the ns until *cost* units fit, 0 if they do."""
        return self._accepted.wait_ns(now_ns, cost)

    def accept(self, now_ns: int, cost: int) -> None:
        """Take *cost* units, which fit."""
        self._accepted.add(now_ns, cost)

    def reject(self, now_ns: int) -> Verdict:
        """Count a rejection; as many as there is patience for are the end."""
        self._rejected.add(now_ns)
        if self._rejected.count(now_ns) >= self._rejected.limit:
            return Verdict.CLOSE
        return Verdict.REJECT

    def count(self, now_ns: int) -> int:
        """Return how much the window holds, accepted and rejected."""
        return self._accepted.count(now_ns) + self._rejected.count(now_ns)


def admit(limiters: Sequence[RateLimiter], now_ns: int, cost: int = 1) -> Ruling:
    """Judge a message that several limiters count: each of them takes it, or none."""
    waits_ns = [limiter.wait_ns(now_ns, cost) for limiter in limiters]
    longest_ns = max(waits_ns)
    if longest_ns == 0:
        for limiter in limiters:
            limiter.accept(now_ns, cost)
        return Ruling(Verdict.ACCEPT)
    full = [limiter for limiter, wait in zip(limiters, waits_ns, strict=True) if wait]
    verdicts = [limiter.reject(now_ns) for limiter in full]
    verdict = Verdict.CLOSE if Verdict.CLOSE in verdicts else Verdict.REJECT
    return Ruling(verdict, -(-longest_ns // NS_PER_S))

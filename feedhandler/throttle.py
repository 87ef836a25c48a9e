"""The client's limiter: a sliding log of what was sent, per class of action.

A log never lets more than its limit through in any window, which satisfies a venue that
counts in fixed windows too; a token bucket does not. Time is an argument.
"""

from collections import deque

__all__ = ["Throttle"]


class Throttle:
    """At most *limit* units in any *window_ns*, *reserved* of them for urgent ones."""

    def __init__(self, limit: int, window_ns: int, reserved: int = 0) -> None:
        if limit < 1 or window_ns < 1:
            raise ValueError(f"limit {limit} per {window_ns} ns is not positive")
        if not 0 <= reserved < limit:
            raise ValueError(f"{reserved} reserved of {limit} leaves nothing")
        self.limit = limit
        self.window_ns = window_ns
        self.reserved = reserved
        self._sent: deque[int] = deque()
        self._held_until_ns = 0

    def wait_ns(self, now_ns: int, units: int = 1, urgent: bool = False) -> int:
        """Return how long *units* must wait from *now_ns*; 0 means that they may go.

        Raises ValueError for more units than the limit, which could never go.
        """
        limit = self.limit if urgent else self.limit - self.reserved
        if units > limit:
            raise ValueError(f"{units} units are more than the limit of {limit}")
        while self._sent and self._sent[0] <= now_ns - self.window_ns:
            self._sent.popleft()
        wait_ns = max(0, self._held_until_ns - now_ns)
        surplus = len(self._sent) + units - limit
        if surplus > 0:
            wait_ns = max(wait_ns, self._sent[surplus - 1] + self.window_ns - now_ns)
        return wait_ns

    def take(self, now_ns: int, units: int = 1, urgent: bool = False) -> bool:
        """Count *units* as sent if they may go now; return whether they may."""
        if self.wait_ns(now_ns, units, urgent) > 0:
            return False
        self._sent.extend([now_ns] * units)
        return True

    def hold(self, until_ns: int) -> None:
        """Let nothing through before *until_ns*: the venue said so."""
        self._held_until_ns = max(self._held_until_ns, until_ns)

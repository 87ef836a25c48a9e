"""What a test may ask the venue to do wrong. No message on the wire can reach it."""

from collections import Counter
from collections.abc import Callable

from feedhandler.venue.market import Push

__all__ = ["FaultPlan"]

UPDATE = b'{"type":"orderbook_update"'


class FaultPlan:
    """Faults to come; each is spent once, but for those that are switched on and off.

    The venue asks filter() for every batch of messages, after their sequences are
    given, and a gateway asks heartbeats_stopped.
    """

    def __init__(self) -> None:
        self.heartbeats_stopped = False
        self._skips: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._frozen: set[str] = set()
        self._cut: Callable[[int | None, str], None] | None = None

    def skip(self, channel: str, updates: int = 1) -> None:
        """Lose the next book updates of a channel; their sequences are used up."""
        self._skips[channel] += updates

    def repeat(self, channel: str, updates: int = 1) -> None:
        """Send each of the next book updates of a channel twice."""
        self._repeats[channel] += updates

    def freeze(self, channel: str) -> None:
        """Send nothing on a channel until thaw(); snapshots are still answered."""
        self._frozen.add(channel)

    def thaw(self, channel: str) -> None:
        """Send again on a frozen channel; what came meanwhile is lost."""
        self._frozen.discard(channel)

    def close_all(self, code: int, reason: str = "") -> None:
        """Close every connection with a code."""
        if self._cut is not None:
            self._cut(code, reason)

    def abort_all(self) -> None:
        """Drop every connection with no close frame."""
        if self._cut is not None:
            self._cut(None, "")

    def attach(self, cut: Callable[[int | None, str], None]) -> None:
        """Tell the plan how to cut connections; the venue does, when it starts."""
        self._cut = cut

    @property
    def active(self) -> bool:
        """Whether filter() would change anything."""
        return bool(self._skips or self._repeats or self._frozen)

    def filter(self, pushes: list[Push]) -> list[Push]:
        """Return the messages to send instead of *pushes*."""
        sent: list[Push] = []
        for push in pushes:
            sent += [push] * self._copies(push)
        return sent

    def _copies(self, push: Push) -> int:
        if push.channel in self._frozen:
            return 0
        if not push.payload.startswith(UPDATE):
            return 1
        if spend(self._skips, push.channel):
            return 0
        return 2 if spend(self._repeats, push.channel) else 1


def spend(faults: Counter[str], channel: str) -> bool:
    """Use one up, if there is one."""
    if channel not in faults:
        return False
    faults[channel] -= 1
    if faults[channel] <= 0:
        del faults[channel]
    return True

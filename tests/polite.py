"""Count what a venue was sent, and say where a limit of the reference was passed.

Written from the reference alone; shares nothing with the limiters of either side.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable

WINDOW_NS = 60 * 10**9
LIMITS = {"authentication": 10, "subscribe": 50, "order": 100, "other": 200}
ORDERS = ("submit_order", "cancel_order", "modify_order")


def class_of(message: dict) -> tuple[str, int]:
    """The class of a client's message and how many units of it."""
    action = message.get("action")
    if action == "authenticate":
        return "authentication", 1
    if action in ("subscribe", "unsubscribe"):
        return "subscribe", 1
    if action in ORDERS:
        return "order", 1
    if action == "batch_orders":
        return "order", len(message["data"]["operations"])
    return "other", 1


class Counter:
    """The times at which messages arrived, by class and by whom the limit is for."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], list[int]] = defaultdict(list)

    def count(self, at_ns: int, message: dict, key: str, connection: str) -> None:
        """Count a message of a *connection* of a *key*."""
        name, units = class_of(message)
        scope = key if name in ("authentication", "order") else connection
        for _ in range(units):
            insort(self._times[name, scope], at_ns)

    def ping(self, at_ns: int, connection: str) -> None:
        """Count a control frame, which is a message too."""
        insort(self._times["other", connection], at_ns)

    def most(self) -> dict[str, int]:
        """The largest number in any window of 60 s, for each class."""
        return {
            name: max((busiest(self._times[k]) for k in self._times if k[0] == name),
                      default=0)
            for name in LIMITS
        }  # fmt: skip

    def violations(self) -> dict[str, int]:
        """The classes of which more than the limit came within 60 s, and how many."""
        return {name: n for name, n in self.most().items() if n > LIMITS[name]}


def busiest(times: Iterable[int]) -> int:
    """How many of the sorted *times* lie in the fullest half-open window."""
    times = list(times)
    return max(
        (
            bisect_right(times, start + WINDOW_NS - 1) - i
            for i, start in enumerate(times)
        ),
        default=0,
    )

"""Virtual time: one queue of what is to happen, and a log of what did.

Nothing in a life reads another clock or draws from another generator than those here.
"""

from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush
from random import Random
from typing import Any

import msgspec

__all__ = ["MS", "SECOND", "START_NS", "World"]

MS = 1_000_000
SECOND = 1_000_000_000

START_NS = 1_000 * SECOND
"""What the monotonic clock says when a life begins."""

Entry = tuple[int, str, str, Any]


class World:
    """The clock, the queue, the generators and the log of one life."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ns = START_NS
        self.log: list[Entry] = []
        self._queue: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0

    def random(self, name: str) -> Random:
        """Make a generator of its own: who draws more often disturbs nobody else."""
        return Random(f"{self.seed}/{name}")

    def at(self, time_ns: int, act: Callable[..., Any], *args: Any) -> None:
        """Call *act* at a time; at the same time, in the order of asking."""
        self._count += 1
        heappush(self._queue, (time_ns, self._count, act, args))

    def after(self, delay_ns: int, act: Callable[..., Any], *args: Any) -> None:
        """Call *act* when so much time has passed."""
        self.at(self.now_ns + delay_ns, act, *args)

    def run(self, until_ns: int) -> None:
        """Let everything happen that is due by *until_ns*."""
        queue = self._queue
        while queue and queue[0][0] <= until_ns:
            self.now_ns, _, act, args = heappop(queue)
            act(*args)
        self.now_ns = until_ns

    def note(self, who: str, what: str, detail: Any = None) -> None:
        """Add a line to the log; its time is now."""
        self.log.append((self.now_ns, who, what, detail))

    def forget(self) -> None:
        """Let go of everything: a life is a large circle of objects."""
        self.log.clear()
        self._queue.clear()

    def log_hash(self) -> str:
        """Return what is the same for two lives exactly if everything in them was."""
        return sha256(msgspec.msgpack.encode(self.log)).hexdigest()

"""A venue's book that is a dict, and what its best levels were at each number."""

import json
import random
from typing import Any

from tests.feeds import AAPL, book

Side = dict[float, float]


Levels = list[tuple[float, float]]


class Market:
    """The venue's book, all its levels; *history* has its best ones by number.

    *journal* has, in a venue's lines, what it sent, whether it arrives or not.
    """

    def __init__(self, seed: int, channel: str = AAPL) -> None:
        self.random = random.Random(seed)
        self.channel = channel
        self.depth = int(channel.split(":")[2])
        self.lives = 0
        self.journal: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.lives += 1
        self._note("open")
        self.sequence = 0
        self.bids: Side = {100.0 - n: 10.0 + n for n in range(12)}
        self.asks: Side = {101.0 + n: 10.0 + n for n in range(12)}
        self.history = {0: self.top()}

    def top(self) -> tuple[Levels, Levels]:
        bids = sorted(self.bids.items(), reverse=True)[: self.depth]
        return bids, sorted(self.asks.items())[: self.depth]

    def change(self) -> dict[str, Any]:
        """Let something happen; return the update of the best ten (A-37)."""
        was = self.top()
        side, low = self.random.choice([(self.bids, 80), (self.asks, 101)])
        price = low + self.random.randrange(40) / 2
        size = self.random.choice([0.0, 1.0, 2.5, 40.0])
        if size:
            side[price] = size
        else:
            side.pop(self.random.choice([price, *side]), None)
        self.sequence += 1
        now = self.history[self.sequence] = self.top()
        changes = [changed(dict(a), dict(b)) for a, b in zip(was, now, strict=True)]
        return self._send("orderbook_update", *changes)

    def snapshot(self) -> dict[str, Any]:
        return self._send("orderbook", *self.top())

    def _send(self, kind: str, bids: Levels, asks: Levels) -> dict[str, Any]:
        message = book(kind, self.sequence, bids, asks, self.channel)
        self._note("out", m=message)
        return message

    def _note(self, kind: str, **more: Any) -> None:
        line = {"t": 1, "k": kind, "c": self.lives, **more}
        self.journal.append(json.dumps(line) + "\n")


def changed(was: Side, now: Side) -> Levels:
    gone = [(price, 0.0) for price in was if price not in now]
    return gone + [(p, s) for p, s in now.items() if was.get(p) != s]

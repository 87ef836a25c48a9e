"""One-level updates of order books, seeded, and the books that they lead to.

The oracle of bench_book.py: it knows nothing of feedhandler.book.
"""

import bisect
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# As struct Update in loops.pyx; its first two fields are a Level.
UPDATE = np.dtype(
    [
        ("price", "<f8"),
        ("size", "<f8"),
        ("sequence", "<i8"),
        ("book", "<i4"),
        ("is_bid", "<i4"),
    ]
)
SEED = 7
MIDDLE = 6_000_000
ROOM = 200_000
THIN = 2

Levels = list[tuple[float, float]]
Message = tuple[Levels, Levels]
Ranks = Callable[[random.Random, int], int]

# Which level of a side with so many is touched; 0 is the best.
RANKS: dict[str, Ranks] = {
    "top": lambda _rng, _count: 0,
    "second": lambda _rng, _count: 1,
    "any": lambda rng, count: rng.randrange(count),
    "mixed": lambda rng, count: rng.choices((0, 1, rng.randrange(count)), (5, 2, 3))[0],
}


class Side:
    """One side of a book as rungs of a ladder of prices, the best first.

    Rung 0 is the middle of the market, which no level reaches, so no book crosses.
    """

    def __init__(self, depth: int, is_bid: bool) -> None:
        self.depth = depth
        self.is_bid = is_bid
        self.rungs = [ROOM + 2 * rank for rank in range(depth)]
        self.lots = {rung: 1 + rung % 97 for rung in self.rungs}

    def price(self, rung: int) -> float:
        return (MIDDLE - rung if self.is_bid else MIDDLE + rung) / 100

    def levels(self) -> Levels:
        """Return the levels as (price, size), best first."""
        return [(self.price(rung), self.lots[rung] / 1000) for rung in self.rungs]

    def change(self, rng: random.Random, ranks: Ranks) -> tuple[float, float]:
        """Set, remove or insert one level: six, two and two in ten.

        A side loses at most THIN levels and never has more than *depth*.
        """
        count = len(self.rungs)
        rank = min(ranks(rng, count), count - 1)
        if rng.random() < 0.6 or self.depth <= THIN:
            lots = rng.randrange(1, 10_000)
            rung = self.rungs[rank]
            return self.put(rung, lots + (lots == self.lots[rung]))
        if count == self.depth or (count > self.depth - THIN and rng.random() < 0.5):
            rung = self.rungs.pop(rank)
            del self.lots[rung]
            return self.price(rung), 0.0
        rung = self.rungs[rank] - 1
        while rung in self.lots or rung <= 0:
            rung += 1
        bisect.insort(self.rungs, rung)
        return self.put(rung, rng.randrange(1, 10_000))

    def push(self, rng: random.Random, _ranks: Ranks) -> tuple[float, float]:
        """Insert a new best level in a full side, whose worst level falls off."""
        del self.lots[self.rungs.pop()]
        self.rungs.insert(0, self.rungs[0] - 1)
        return self.put(self.rungs[0], rng.randrange(1, 10_000))

    def put(self, rung: int, lots: int) -> tuple[float, float]:
        self.lots[rung] = lots
        return self.price(rung), lots / 1000


class Stream(NamedTuple):
    """Books, what happens to them, and what they are then: (bids, asks) of each."""

    depths: Sequence[int]
    first: list[Message]
    updates: np.ndarray
    last: list[Message]


def pack(levels: Levels) -> bytes:
    return b"".join(struct.pack("<dd", price, size) for price, size in levels)


def frame(kind: str, channel: str, levels: Message, sequence: int) -> bytes:
    """Return an order-book message as a venue writes it."""
    bids, asks = levels
    message = {
        "type": kind,
        "data": {
            "symbol": channel.split(":")[1],
            "bids": bids,
            "asks": asks,
            "sequence": sequence,
        },
        "channel": channel,
        "timestamp": 1_625_097_596_000 + sequence,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def frames(stream: Stream, channels: Sequence[str]) -> list[bytes]:
    """Return the messages of all updates, of *channels* one for each book."""
    made = []
    for price, size, sequence, book, is_bid in stream.updates.tolist():
        levels = ([(price, size)], []) if is_bid else ([], [(price, size)])
        made.append(frame("orderbook_update", channels[book], levels, sequence))
    return made


def first_frames(stream: Stream, channels: Sequence[str]) -> list[bytes]:
    """Return the snapshots that all books begin with."""
    return [
        frame("orderbook", channel, levels, 0)
        for channel, levels in zip(channels, stream.first, strict=True)
    ]


def stream(depths: Sequence[int], where: str, count: int) -> Stream:
    """Return *count* updates of books of *depths*, each of a book drawn by lot.

    *where* is one of RANKS, or "push".
    """
    rng = random.Random(SEED)
    books = [(Side(depth, True), Side(depth, False)) for depth in depths]
    ranks = RANKS.get(where, RANKS["top"])
    change = Side.push if where == "push" else Side.change
    first = [(bids.levels(), asks.levels()) for bids, asks in books]
    sequences = [0] * len(books)
    updates = []
    for _ in range(count):
        number = rng.randrange(len(books))
        is_bid = rng.random() < 0.5
        sequences[number] += 1
        price, size = change(books[number][not is_bid], rng, ranks)
        updates.append((price, size, sequences[number], number, is_bid))
    last = [(bids.levels(), asks.levels()) for bids, asks in books]
    return Stream(depths, first, np.array(updates, UPDATE), last)

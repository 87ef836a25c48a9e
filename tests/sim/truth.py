"""What the venue's books really were, at every sequence of every channel.

Read from the engines, where the books are made: not from what anybody was sent.
"""

from collections.abc import Mapping

from feedhandler.venue.listing import Listing
from feedhandler.venue.matching import Engine, Side

__all__ = ["Truth"]

Level = tuple[float, float]
Levels = list[Level]
Top = list[tuple[int, int]]


class Numbers(dict[tuple[int, int], Level]):
    """Levels in ticks and lots as the numbers that they are on the wire."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __missing__(self, level: tuple[int, int]) -> Level:
        ticks, lots = level
        listing = self._listing
        number = self[level] = listing.tick.number(ticks), listing.lot.number(lots)
        return number

    def of(self, top: Top) -> Levels:
        """Read the levels of a side."""
        return [self[level] for level in top]


class Truth:
    """The books of one life of the venue."""

    def __init__(
        self, listings: Mapping[str, Listing], engines: Mapping[str, Engine]
    ) -> None:
        self._listings = listings
        self._engines = engines
        # More than one where a channel was released, and opened again later: what
        # happened while nobody held it has no number.
        self._books: dict[str, dict[int, list[tuple[Top, Top]]]] = {}
        self._numbers = {name: Numbers(listing) for name, listing in listings.items()}

    def note(self, channel: str, sequence: int) -> None:
        """Keep what a book is now."""
        states = self._books.setdefault(channel, {}).setdefault(sequence, [])
        now = self._now(channel)
        if not states or states[-1] != now:
            states.append(now)

    def latest(self, channel: str) -> int:
        """Return the last sequence of a channel, 0 for one that never had any."""
        return next(reversed(self._books.get(channel, {0: []})))

    def was(self, channel: str, sequence: int, bids: Levels, asks: Levels) -> bool:
        """Say whether a book was so at a sequence."""
        numbers = self._numbers[channel.split(":")[1]]
        return any(
            numbers.of(top_bids) == bids and numbers.of(top_asks) == asks
            for top_bids, top_asks in self._books.get(channel, {}).get(sequence, ())
        )

    def now(self, channel: str) -> tuple[Levels, Levels]:
        """Return what a book is now."""
        bids, asks = self._now(channel)
        numbers = self._numbers[channel.split(":")[1]]
        return numbers.of(bids), numbers.of(asks)

    def _now(self, channel: str) -> tuple[Top, Top]:
        _, symbol, depth = channel.split(":")
        engine = self._engines[symbol]
        return engine.top(Side.BUY, int(depth)), engine.top(Side.SELL, int(depth))

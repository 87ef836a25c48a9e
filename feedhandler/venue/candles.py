"""Candles of all intervals from trades: one per closed bucket, flat where none traded.

Buckets start at multiples of their interval in UTC; a week starts on Monday.
"""

from typing import NamedTuple

from feedhandler.protocol.channels import INTERVAL_MS

__all__ = ["CandleTicks", "Candles", "bucket_start_ms"]

# The epoch was a Thursday: the first Monday is four days later.
WEEK_OFFSET_MS = 4 * INTERVAL_MS["1d"]


class CandleTicks(NamedTuple):
    """A closed bucket in ticks and lots; *end_ms* is exclusive."""

    interval: str
    start_ms: int
    end_ms: int
    open: int
    high: int
    low: int
    close: int
    lots: int


def bucket_start_ms(interval: str, time_ms: int) -> int:
    """Return the start of the bucket that *time_ms* falls in."""
    length = INTERVAL_MS[interval]
    offset = WEEK_OFFSET_MS if interval == "1w" else 0
    return time_ms - (time_ms - offset) % length


class Bucket:
    """The open candle of one interval."""

    __slots__ = ("close", "high", "interval", "length", "lots", "low", "open", "start")

    def __init__(self, interval: str, time_ms: int, ticks: int) -> None:
        self.interval = interval
        self.length = INTERVAL_MS[interval]
        self.start = bucket_start_ms(interval, time_ms)
        self.open = self.high = self.low = self.close = ticks
        self.lots = 0

    def add(self, ticks: int, lots: int) -> None:
        """Count a trade; the first of a bucket opens it."""
        if self.lots == 0:
            self.open = self.high = self.low = ticks
        self.high = max(self.high, ticks)
        self.low = min(self.low, ticks)
        self.close = ticks
        self.lots += lots

    def roll(self) -> CandleTicks:
        """Close the bucket and open the next one, flat at the close."""
        end = self.start + self.length
        closed = CandleTicks(
            self.interval, self.start, end,
            self.open, self.high, self.low, self.close, self.lots,
        )  # fmt: skip
        self.start = end
        self.open = self.high = self.low = self.close
        self.lots = 0
        return closed


class Candles:
    """The candles of one symbol; there are none before its first trade."""

    def __init__(self) -> None:
        self._buckets: list[Bucket] = []
        self.due_ms: int | None = None

    def add(self, now_ms: int, ticks: int, lots: int) -> None:
        """Count a trade; first close what ended before it, with close()."""
        if not self._buckets:
            self._buckets = [Bucket(name, now_ms, ticks) for name in INTERVAL_MS]
            self._plan()
        for bucket in self._buckets:
            bucket.add(ticks, lots)

    def close(self, now_ms: int) -> list[CandleTicks]:
        """Return the buckets that have ended, oldest end first."""
        if self.due_ms is None or now_ms < self.due_ms:
            return []
        closed = []
        for bucket in self._buckets:
            while now_ms >= bucket.start + bucket.length:
                closed.append(bucket.roll())
        closed.sort(key=lambda candle: candle.end_ms)
        self._plan()
        return closed

    def _plan(self) -> None:
        self.due_ms = min(bucket.start + bucket.length for bucket in self._buckets)

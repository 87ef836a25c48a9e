"""What a consumer process imports: the market, as a feed handler's segments have it.

Imports neither asyncio nor picows. Nothing here can slow, block or damage the writer.
"""

import contextlib
import time
from os import PathLike
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from feedhandler import shm
from feedhandler.board import BoardReader, Depth, LastCandle, LastTicker, Top
from feedhandler.counters import CountersReader, Histogram
from feedhandler.errors import RingAbsent
from feedhandler.records import PRIVATE_STREAMS, QUOTE, TRADE
from feedhandler.ring import Reader
from feedhandler.shm import AttachedSegment, Status
from feedhandler.trader import CAPACITY, TIMEOUT_S, Trader

__all__ = ["FeedStatus", "MarketData", "Stream", "attach"]

Start = Literal["new", "oldest"] | int
OnLap = Literal["half", "latest"]

_GONE = (Status.CLOSED, Status.DEAD, Status.SUPERSEDED)
_WATCH_NS = shm.HEARTBEAT_NS


class FeedStatus(NamedTuple):
    """What is known about the writer of a feed."""

    state: Status
    heartbeat_age_ns: int
    pid: int
    epoch: int
    instruments: int
    counters: dict[str, int]


def attach(
    name: str,
    *,
    directory: str | PathLike[str] = shm.DIRECTORY,
    owner: int | None = None,
) -> "MarketData":
    """Attach to the feed *name*; RingAbsent if no handler has ever run.

    *owner* is the uid whose segments are trusted besides our own.
    """
    return MarketData(Source(name, directory, owner))


class Source(NamedTuple):
    """Where the segments of one feed are, and whose we trust."""

    name: str
    directory: str | PathLike[str]
    owner: int | None

    def open(self, stream: str) -> AttachedSegment:
        """Map the segment of *stream* that has the name now."""
        return shm.attach(self.name, stream, directory=self.directory, owner=self.owner)


class Stream(Reader):
    """One stream of records, followed from one life of its writer to the next.

    When the writer was restarted, the old segment is read to its end, then the new one
    from its first record; ``resets`` counts that. How many records were lost in between
    nobody knows: state made from them must be built anew, and instrument numbers looked
    up again. ``lost`` and ``position`` are those of the present segment.
    """

    def __init__(
        self,
        source: Source,
        stream: str,
        dtype: np.dtype[Any] | None,
        start: Start,
        on_lap: OnLap,
    ) -> None:
        self._source = source
        self._stream = stream
        self._segment = source.open(stream)
        try:
            super().__init__(self._segment.buffer, dtype, start=start, on_lap=on_lap)
        except BaseException:
            self._segment.close()
            raise
        self.watched = True

    @property
    def status(self) -> Status:
        """What is known about the writer of the present segment."""
        return self._segment.status()

    def look_around(self) -> bool:
        """Look, while there is nothing new, whether the writer is gone."""
        status = self._segment.status()
        if status not in _GONE:
            return False
        if status is Status.SUPERSEDED and not self.has_next():
            self._follow()
        return self.has_next()

    def close(self) -> None:
        """Let go of the segment."""
        self.release()
        self._segment.close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _follow(self) -> None:
        """Go on in the segment that has the name now, if there is one."""
        try:
            segment = self._source.open(self._stream)
        except RingAbsent:
            return
        try:
            self.rebind(segment.buffer, 0)
        except BaseException:
            segment.close()
            raise
        self._segment.close()
        self._segment = segment


class MarketData:
    """A feed as seen from another process. Not for two threads.

    It follows a restarted writer by itself, within 100 ms.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._streams: list[Stream] = []
        self._counters: tuple[AttachedSegment, CountersReader] | None = None
        self._segment = source.open("board")
        try:
            self._board = BoardReader(self._segment.buffer)
        except BaseException:
            self._segment.close()
            raise
        self._look_ns = 0

    def quotes(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of every best bid and ask; see Stream and ring.Reader."""
        return self._open("quotes", QUOTE, start, on_lap)

    def trades(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of trades."""
        return self._open("trades", TRADE, start, on_lap)

    def orders(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of our orders; RingAbsent where the feed has none."""
        return self._open_private("orders", start, on_lap)

    def fills(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of our executions; RingAbsent where the feed has none."""
        return self._open_private("fills", start, on_lap)

    def account(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of balances and positions; RingAbsent where there is none."""
        return self._open_private("account", start, on_lap)

    def notices(self, start: Start = "new", on_lap: OnLap = "half") -> Stream:
        """Open the stream of notifications and alerts; RingAbsent if there is none."""
        return self._open_private("notices", start, on_lap)

    def trader(
        self, *, capacity: int = CAPACITY, timeout_s: float = TIMEOUT_S
    ) -> Trader:
        """Open a channel of *capacity* commands to the handler: one per process.

        HandlerGone if no handler takes it within *timeout_s*. The caller closes it.
        """
        return Trader(
            self._source.name,
            directory=self._source.directory,
            capacity=capacity,
            timeout_s=timeout_s,
            open_orders=self.orders,
        )

    def symbols(self) -> list[str]:
        """Every symbol; the index is `instrument` in records."""
        self._follow()
        return self._board.symbols()

    def top(self, symbol: str) -> Top:
        """Return the best bid and ask of *symbol*."""
        return self._current().top(symbol)

    def depth(self, symbol: str) -> Depth:
        """Return the levels of *symbol*, best first."""
        return self._current().depth(symbol)

    def ticker(self, symbol: str) -> LastTicker | None:
        """Return the last ticker of *symbol*, None before the first."""
        return self._current().ticker(symbol)

    def candle(self, symbol: str, interval: str) -> LastCandle | None:
        """Return the last candle of *symbol* and, say, "1m"; None before the first."""
        return self._current().candle(symbol, interval)

    def is_live(self, symbol: str) -> bool:
        """Say whether *symbol* has the prices of the venue, and the writer lives."""
        live = self._follow() is Status.LIVE
        return live and self._board.top(symbol).is_live

    def status(self) -> FeedStatus:
        """Ask about the writer; its counters are empty where it keeps none."""
        state = self._follow()
        try:
            counters = self.counters()
        except RingAbsent:
            counters = {}
        origin = self._segment.meta.origin
        return FeedStatus(
            state=state,
            heartbeat_age_ns=self._segment.heartbeat_age_ns(),
            pid=origin.pid,
            epoch=origin.epoch,
            instruments=len(self._board.symbols()),
            counters=counters,
        )

    def counters(self) -> dict[str, int]:
        """Return the writer's counters; RingAbsent if it keeps none."""
        return self._counted().values()

    def histogram(self, name: str) -> Histogram:
        """Return a copy of the writer's histogram *name*; KeyError if there is none."""
        return self._counted().histogram(name)

    @property
    def utc_offset_ns(self) -> int:
        """What to subtract from a record's time to get CLOCK_MONOTONIC."""
        origin = self._segment.meta.origin
        return origin.created_realtime_ns - origin.created_monotonic_ns

    def close(self) -> None:
        """Let go of all segments, those of the streams too."""
        for stream in self._streams:
            stream.close()
        if self._counters is not None:
            segment, reader = self._counters
            reader.release()
            segment.close()
            self._counters = None
        self._board.release()
        self._segment.close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _open(
        self, name: str, dtype: np.dtype[Any], start: Start, on_lap: OnLap
    ) -> Stream:
        stream = Stream(self._source, name, dtype, start, on_lap)
        self._streams.append(stream)
        return stream

    def _open_private(self, name: str, start: Start, on_lap: OnLap) -> Stream:
        try:
            return self._open(name, PRIVATE_STREAMS[name], start, on_lap)
        except RingAbsent:
            raise RingAbsent(
                f"feed {self._source.name} has no stream {name}, which wants an API key"
            ) from None

    def _current(self) -> BoardReader:
        """Return the board, looking now and then whether it still is the one."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + _WATCH_NS
            self._follow()
        return self._board

    def _follow(self) -> Status:
        """Go on with the board that has the name now; return its writer's status."""
        status = self._segment.status()
        if status is not Status.SUPERSEDED:
            return status
        with contextlib.suppress(RingAbsent):
            segment = self._source.open("board")
            try:
                self._board.rebind(segment.buffer)
            except BaseException:
                segment.close()
                raise
            self._segment.close()
            self._segment = segment
            return segment.status()
        return status

    def _counted(self) -> CountersReader:
        """Return the counters, those of the present writer."""
        if self._counters is not None:
            segment, reader = self._counters
            if segment.status() is not Status.SUPERSEDED:
                return reader
            reader.release()
            segment.close()
            self._counters = None
        segment = self._source.open("counters")
        try:
            self._counters = (segment, CountersReader(segment.buffer))
        except BaseException:
            segment.close()
            raise
        return self._counters[1]

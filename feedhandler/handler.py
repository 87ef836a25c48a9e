"""FeedHandler, the control loop: builds the feed from its configuration, keeps it."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from feedhandler import shm
from feedhandler.backoff import Backoff
from feedhandler.board import Board
from feedhandler.codec import MsgspecCodec
from feedhandler.config import FeedConfig, Instrument
from feedhandler.connection import Connection
from feedhandler.counters import Counters, CountersReader
from feedhandler.errors import ConfigError, ConnectionFailed, UnknownSymbol
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE
from feedhandler.ring import Ring
from feedhandler.segment import Mapping
from feedhandler.session import (
    COUNTERS,
    HISTOGRAMS,
    Event,
    Session,
    State,
    TrackedBook,
)
from feedhandler.sink import Sink, Tee
from feedhandler.throttle import Throttle

__all__ = ["FeedHandler"]

log = logging.getLogger("feedhandler")

BEAT_S = 0.1
LIVE_POLL_S = 0.002
WINDOW_NS = 61_000_000_000
LOG_LEVELS = {
    "state": logging.DEBUG,
    "live": logging.INFO,
    "stale": logging.WARNING,
    "gap": logging.WARNING,
    "malformed": logging.WARNING,
    "rejected": logging.ERROR,
    "audit": logging.ERROR,
    "error": logging.ERROR,
    "fault": logging.ERROR,
}


class FeedHandler:
    """A feed: connections to the venue in, shared memory and *sink* out.

    Use as an async context manager, or call start() and stop(). *sink* (sink.Sink, from
    Python sink.PythonSink) gets every event on the loop's thread before it is
    published; *on_event* gets state changes and errors (session.Event). What either
    raises is counted and logged, and stops nothing.

    Raises RingBusy from start() when another feed of the same name runs.
    """

    def __init__(
        self,
        config: FeedConfig,
        sink: Sink | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self.config = config
        self._sink = sink
        self._on_event = on_event
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._instruments: dict[str, Instrument] = {}
        self._owners: dict[str, Connection] = {}
        self._books: dict[str, TrackedBook] = {}
        self._beat: asyncio.TimerHandle | None = None
        self._segments: _Segments | None = None

    # ── life ──────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Create the segments and begin to connect; returns before anything is live."""
        if self._segments is not None:
            raise RuntimeError("the feed was started already")
        self._segments = _Segments(self.config)
        try:
            for instrument in self.config.instruments:
                self._add(instrument)
            self._segments.publish()
        except BaseException:
            self._segments.close()
            self._segments = None
            raise
        for connection in self._connections:
            self._run(connection)
        self._on_beat()

    async def stop(self) -> None:
        """Close all connections with 1000, flag all quotes STALE, end the segments."""
        if self._segments is None:
            return
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        await asyncio.gather(*(connection.close() for connection in self._connections))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.session.closed(time.monotonic_ns())
        self._take_events()
        self._segments.close()
        self._segments = None

    async def __aenter__(self) -> Self:
        """Start the feed."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the feed."""
        await self.stop()

    async def live(self, timeout: float | None = None) -> None:
        """Wait until every book is LIVE and every other channel confirmed.

        Raises TimeoutError after *timeout* seconds, and ConnectionFailed when a
        connection has given up.
        """
        async with asyncio.timeout(timeout):
            while not self.is_live:
                self._raise_failed()
                await asyncio.sleep(LIVE_POLL_S)

    async def wait(self) -> None:
        """Wait until every connection has given up, and raise ConnectionFailed then."""
        while True:
            self._raise_failed(all_of_them=True)
            await asyncio.sleep(BEAT_S)

    def _raise_failed(self, all_of_them: bool = False) -> None:
        failed = [c for c in self._connections if c.failed is not None]
        if failed and (not all_of_them or len(failed) == len(self._connections)):
            raise ConnectionFailed(
                failed[0].url, failed[0].failed or "unknown", failed[0].attempts
            )

    # ── what an embedder asks ─────────────────────────────────────────────────────────

    @property
    def is_live(self) -> bool:
        """Whether every book is LIVE and every other channel confirmed.

        Channels that the venue refused do not count; with no other left, it is false.
        """
        routes = [
            route
            for connection in self._connections
            for route in connection.session.routes.values()
        ]
        return bool(routes) and all(
            route.book.is_live if route.book is not None else route.confirmed
            for route in routes
        )

    def book(self, symbol: str) -> TrackedBook:
        """Return the live book of *symbol*; it changes as the loop runs.

        Raises UnknownSymbol where no order book is subscribed to.
        """
        try:
            return self._books[symbol]
        except KeyError:
            raise UnknownSymbol(symbol) from None

    @property
    def symbols(self) -> list[str]:
        """The instruments subscribed to."""
        return list(self._instruments)

    @property
    def states(self) -> list[State]:
        """The state of each connection."""
        return [connection.state for connection in self._connections]

    def counters(self) -> dict[str, int]:
        """Return the feed's counters by name."""
        return self._require().counter_values()

    def subscribe(self, instrument: Instrument | str) -> None:
        """Add an instrument while the feed runs; a plain symbol gets the defaults.

        Raises ValueError for what is no symbol, ConfigError for one that is held
        already and when the configured connections have no room.
        """
        if isinstance(instrument, str):
            instrument = Instrument(symbol=instrument)
        self._require()
        connection = self._add(instrument)
        if len(self._tasks) < len(self._connections):
            self._run(connection)
        connection.flush()

    def unsubscribe(self, symbol: str) -> None:
        """Give an instrument up: its book turns STALE and is flagged as removed.

        Raises UnknownSymbol where it is not held.
        """
        segments = self._require()
        try:
            instrument = self._instruments.pop(symbol)
        except KeyError:
            raise UnknownSymbol(symbol) from None
        connection = self._owners.pop(symbol)
        self._books.pop(symbol, None)
        for name in instrument.channel_names():
            connection.session.remove(name)
        segments.board.remove(symbol)
        connection.flush()
        self._take_events()

    def _require(self) -> "_Segments":
        if self._segments is None:
            raise RuntimeError("the feed is not running")
        return self._segments

    # ── building ──────────────────────────────────────────────────────────────────────

    def _add(self, instrument: Instrument) -> Connection:
        """Give an instrument an id and a connection, which may be a new one."""
        segments = self._require()
        if instrument.symbol in self._instruments:
            raise ConfigError(
                f"instrument {instrument.symbol} is subscribed to already"
            )
        names = instrument.channel_names()
        connection = self._with_room(len(names))
        number = segments.board.add(instrument.symbol)
        for name in names:
            connection.session.add(name, number)
            book = connection.session.routes[name].book
            if book is not None:
                self._books[instrument.symbol] = book
        self._instruments[instrument.symbol] = instrument
        self._owners[instrument.symbol] = connection
        return connection

    def _with_room(self, channels: int) -> Connection:
        limits = self.config.limits
        for connection in self._connections:
            held = len(connection.session.routes)
            if held + channels <= limits.subscriptions_per_connection:
                return connection
        if len(self._connections) >= limits.connections or (
            channels > limits.subscriptions_per_connection
        ):
            raise ConfigError(
                f"{channels} more channels do not fit {limits.connections} connections "
                f"of {limits.subscriptions_per_connection} subscriptions"
            )
        self._connections.append(self._connection())
        return self._connections[-1]

    def _connection(self) -> Connection:
        config, limits, segments = self.config, self.config.limits, self._require()
        sink: Sink = segments.publisher
        if self._sink is not None:
            sink = Tee(self._sink, segments.publisher, self._on_sink_error)
        session = Session(
            MsgspecCodec(),
            sink,
            segments.counters,
            Throttle(limits.subscribe_per_minute, WINDOW_NS),
            Throttle(limits.other_per_minute, WINDOW_NS),
            utc_offset_ns=segments.utc_offset_ns,
            changes_only=config.publish == "changes",
            resync_interval_ns=int(config.resync_interval * 1e9),
        )
        secure = config.url.startswith("wss:")
        return Connection(
            config.market_data_url,
            session,
            self._take_events,
            backoff=Backoff(
                int(limits.reconnect_base_s * 1e9),
                limits.reconnect_attempts,
                limits.reconnect_jitter,
            ),
            ssl_context=ssl.create_default_context() if secure else None,
            max_message_bytes=limits.max_message_bytes,
            connect_timeout_s=limits.connect_timeout_s,
            close_timeout_s=limits.close_timeout_s,
            retry_forever=limits.retry_forever,
        )

    def _run(self, connection: Connection) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(connection.run()))

    # ── the beat ──────────────────────────────────────────────────────────────────────

    def _on_beat(self) -> None:
        """Show that the loop turns, and let time pass for every session."""
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)
        self._require().beat(time.monotonic_ns())
        for connection in self._connections:
            connection.tick()
        self._take_events()

    def _take_events(self) -> None:
        for connection in self._connections:
            if connection.session.events:
                for event in connection.session.take_events():
                    self._tell(event)

    def _tell(self, event: Event) -> None:
        level = LOG_LEVELS.get(event.kind, logging.INFO)
        if log.isEnabledFor(level):
            words = " ".join(f"{key}={value!r}" for key, value in event.detail.items())
            symbol = f" symbol={event.symbol}" if event.symbol else ""
            log.log(level, "%s%s %s", event.kind, symbol, words)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            log.exception("on_event raised")

    def _on_sink_error(self, error: Exception) -> None:
        self._connections[0].session.sink_error(error)


class _Segments:
    """The shared memory of one feed: two rings, the board and the counters.

    All four are formatted, and the directory of instruments is filled, before the first
    is published: whoever finds one finds everything.
    """

    def __init__(self, config: FeedConfig) -> None:
        self._config = config.shm
        self._origin = shm.origin()
        self._owned: list[shm.OwnedSegment] = []
        capacity, instruments = config.shm.capacity, config.shm.instruments
        levels = config.shm.board_levels
        try:
            self.quotes = Ring(
                self._create("quotes", Ring.size_for(QUOTE, capacity)),
                QUOTE,
                capacity,
                self._owned[-1].origin,
                wake=config.shm.wake,
            )
            self.trades = Ring(
                self._create("trades", Ring.size_for(TRADE, capacity)),
                TRADE,
                capacity,
                self._owned[-1].origin,
                wake=config.shm.wake,
            )
            self.board = Board(
                self._create("board", Board.size_for(instruments, levels)),
                instruments,
                levels,
                self._owned[-1].origin,
            )
            self.counters = Counters(
                self._create(
                    "counters", Counters.size_for(len(COUNTERS), len(HISTOGRAMS))
                ),
                COUNTERS,
                HISTOGRAMS,
                self._owned[-1].origin,
            )
        except BaseException:
            self.close()
            raise
        self.publisher = Publisher(self.quotes, self.trades, self.board)

    def publish(self) -> None:
        """Let readers find all of it; the board last, for which a consumer looks."""
        for segment in sorted(self._owned, key=lambda s: s.path.suffix == ".board"):
            segment.publish()

    def _create(self, stream: str, size: int) -> Mapping:
        segment = shm.create(
            self._config.name,
            stream,
            size,
            mode=self._config.mode,
            directory=self._config.directory,
            origin=self._origin,
        )
        self._owned.append(segment)
        return segment.buffer

    @property
    def utc_offset_ns(self) -> int:
        """What to add to monotonic time for the times in records."""
        return self._origin.created_realtime_ns - self._origin.created_monotonic_ns

    def counter_values(self) -> dict[str, int]:
        """Read the counters as any other process would."""
        reader = CountersReader(self._owned[-1].buffer)
        try:
            return reader.values()
        finally:
            reader.release()

    def beat(self, now_ns: int) -> None:
        """Show readers that the writer's loop turns."""
        for writer in (self.quotes, self.trades, self.board, self.counters):
            writer.heartbeat(now_ns)

    def close(self) -> None:
        """Say goodbye to readers, and remove every trace."""
        for name in ("quotes", "trades", "board", "counters"):
            writer = getattr(self, name, None)
            if writer is not None:
                writer.release()
        for segment in self._owned:
            segment.close()

"""FeedHandler, the control loop: builds the feed from its configuration, keeps it."""

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from feedhandler.audit import AuditLog
from feedhandler.authentication import ApiKey, shared_key
from feedhandler.backoff import Backoff
from feedhandler.codec import MsgspecCodec, ScanCodec
from feedhandler.collector import Collector
from feedhandler.config import FeedConfig, Instrument
from feedhandler.connection import Connection
from feedhandler.desk import Desk
from feedhandler.errors import ConfigError, ConnectionFailed, UnknownSymbol
from feedhandler.guards import Top
from feedhandler.protocol.channels import (
    MARKET_DATA,
    parse_channel,
    served_at,
)
from feedhandler.protocol.messages import SystemNotification
from feedhandler.reconnect import Reconnect
from feedhandler.records import NO_INSTRUMENT
from feedhandler.secret import Secret
from feedhandler.segments import Segments
from feedhandler.session import (
    CONNECTED,
    Disconnected,
    Session,
    State,
    Subscribed,
)
from feedhandler.sink import Sink, Tee
from feedhandler.throttle import Throttle
from feedhandler.tls import client_context
from feedhandler.tracker import Event, TrackedBook
from feedhandler.trading import OrderFlow, Sent

__all__ = ["FeedHandler"]

log = logging.getLogger("feedhandler")

BEAT_S = 0.1
LIVE_POLL_S = 0.002
# For the venue to answer our close frames; the whole end takes less than 2 s.
STOP_S = 1.0
WINDOW_NS = 61_000_000_000
CODECS = {"msgspec": MsgspecCodec, "scan": ScanCodec}
# Connection logs its attempts and its end by itself, with the URL.
LOG_LEVELS = {
    "state": logging.DEBUG,
    "closed": logging.DEBUG,
    "reconnect": logging.DEBUG,
    "failed": logging.DEBUG,
    "stall": logging.WARNING,
    "live": logging.INFO,
    "stale": logging.WARNING,
    "gap": logging.WARNING,
    "loss": logging.WARNING,
    "crossed": logging.WARNING,
    "quiet": logging.INFO,
    "mute": logging.ERROR,
    "malformed": logging.WARNING,
    "rejected": logging.ERROR,
    "audit": logging.ERROR,
    "error": logging.ERROR,
    "fault": logging.ERROR,
}


class Health(NamedTuple):
    """How one connection is: *name* such as ``trading`` or ``market-data-1``.

    *heartbeat_age_s* is None while it is not open, *round_trip_ms* before the first
    pong; *failed* is why it has given up for good.
    """

    name: str
    state: State
    heartbeat_age_s: float | None
    round_trip_ms: float | None
    attempts: int
    failed: str | None


class FeedHandler:
    """A feed: connections to the venue in, shared memory and *sink* out.

    Use as an async context manager, or call start() and stop(). *sink* (sink.Sink, from
    Python sink.PythonSink) gets every event on the loop's thread before it is
    published; *on_event* gets state changes and errors (tracker.Event), *on_message*
    every message of a private channel (protocol.messages), both on the loop's thread:
    what takes long there holds everything up. What any of them raises is counted or
    logged, and stops nothing.

    The private channels are subscribed to when the configuration has an API key; then
    *secret* is wanted. Raises RingBusy from start() when another feed of the same name
    runs, ConfigError for a key that has all its connections already.
    """

    def __init__(
        self,
        config: FeedConfig,
        sink: Sink | None = None,
        on_event: Callable[[Event], object] | None = None,
        on_message: Callable[[object], object] | None = None,
        secret: Secret | None = None,
    ) -> None:
        self.config = config
        self._sink = sink
        self._on_event = on_event
        self._listeners = [] if on_message is None else [on_message]
        self._secret = secret
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._segments: Segments | None = None
        self._audit: AuditLog | None = None
        self._collector: Collector | None = None
        self._told = 0
        self._forget()

    def _forget(self) -> None:
        """Know of no connection: before the start, and before another one."""
        self._key: ApiKey | None = None
        self._market_data: list[Connection] = []
        self._private: dict[str, Connection] = {}
        self._desk: Desk | None = None
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._instruments: dict[str, Instrument] = {}
        self._numbers: dict[str, int] = {}
        self._owners: dict[str, Connection] = {}
        self._books: dict[str, TrackedBook] = {}
        self._closed_markets: set[str] = set()
        # Of channels that were given up: a number that comes again is no new beginning.
        self._epochs: dict[str, int] = {}

    # ── life ──────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Create the segments and begin to connect; returns before anything is live."""
        if self._segments is not None:
            raise RuntimeError("the feed was started already")
        self._loop = asyncio.get_running_loop()
        self._forget()
        shm = self.config.shm
        self._segments = Segments(
            **shm.options(), private=bool(self.config.credentials.api_key and shm.name)
        )
        self._desk = Desk(
            self.config,
            self._segments,
            top=self._top,
            instrument_of=lambda symbol: self._numbers.get(symbol, NO_INSTRUMENT),
        )
        try:
            self._open_audit()
            for instrument in self.config.instruments:
                self._add(instrument)
            self._add_private()
            self._segments.publish()
            self._desk.open()
        except BaseException:
            self._leave()
            raise
        for connection in self._connections:
            self._run(connection)
        if self.config.loop.gc == "beat":
            self._collector = Collector()
        self._on_beat()

    async def stop(self) -> None:
        """Close all connections with 1000, flag all quotes STALE, end the segments."""
        if self._segments is None:
            return
        if self._desk is not None:
            await self._desk.finish()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        await asyncio.gather(*(c.close(STOP_S) for c in self._connections))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._segments is None:
            return  # who stopped it as well was faster
        for connection in self._connections:
            connection.session.closed(time.monotonic_ns())
        self._take()
        self._leave()

    def _leave(self) -> None:
        """Give back what others may want: the segments, the key's connections."""
        if self._desk is not None:
            self._desk.close()
        if self._collector is not None:
            self._collector.close()
            self._collector = None
        if self._audit is not None:
            self._audit.close()
            self._look_at_audit(self._audit)
            self._audit = None
        self._require().close()
        self._segments = None
        if self._key is not None:
            for _ in self._private:
                self._key.release()

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
                self.check_connections()
                await asyncio.sleep(LIVE_POLL_S)

    async def wait(self) -> None:
        """Wait until every connection has given up, and raise ConnectionFailed then."""
        while True:
            self.check_connections(all_of_them=True)
            await asyncio.sleep(BEAT_S)

    @property
    def happened(self) -> int:
        """How many events there were: what sinks and callables were given."""
        return self._told + sum(c.session.records for c in self._connections)

    def check_connections(self, all_of_them: bool = False) -> None:
        """Raise ConnectionFailed if one has given up for good, or only if all have."""
        failed = [c for c in self._connections if c.failed is not None]
        if failed and (not all_of_them or len(failed) == len(self._connections)):
            raise ConnectionFailed(
                failed[0].url, failed[0].failed or "unknown", failed[0].attempts
            )

    def listen(self, on_message: Callable[[Any], object]) -> None:
        """Have another callable get every message of a private channel."""
        self._listeners.append(on_message)

    def unlisten(self, on_message: Callable[[Any], object]) -> None:
        """Undo listen()."""
        self._listeners = [one for one in self._listeners if one != on_message]

    # ── what an embedder asks ─────────────────────────────────────────────────────────

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._segments is not None

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

    def symbol_of(self, instrument: int) -> str:
        """Return the symbol that events and records have as a number.

        Raises UnknownSymbol for one that is not held.
        """
        for symbol, number in self._numbers.items():
            if number == instrument:
                return symbol
        raise UnknownSymbol(str(instrument))

    @property
    def _connections(self) -> list[Connection]:
        return [*self._market_data, *self._private.values()]

    def health(self) -> list[Health]:
        """Return how each connection is."""
        now_ns = time.monotonic_ns()
        return [_health(connection, now_ns) for connection in self._connections]

    @property
    def symbols(self) -> list[str]:
        """The instruments subscribed to."""
        return list(self._instruments)

    @property
    def states(self) -> list[State]:
        """The state of each connection."""
        return [connection.state for connection in self._connections]

    @property
    def flow(self) -> OrderFlow:
        """The orders of the account. ConfigError without a key and its three channels.

        What is asked of it goes out when answer() is called for it, or with the next
        beat.
        """
        return self._account().trading()

    def answer(self, sent: Sent) -> "asyncio.Future[Any]":
        """Send what was asked of the flow now; return a future of its answer.

        It is done with the venue's message, or with None when none came in 10 s or the
        connection ended before.
        """
        awaited = (c.session.awaits(sent.request_id) for c in self._connections)
        return self._account().answer(sent, any(awaited))

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
        if connection not in self._tasks:
            self._run(connection)
        connection.flush()

    def unsubscribe(self, symbol: str) -> None:
        """Give an instrument up: its book turns STALE and is flagged as removed.

        Raises UnknownSymbol where it is not held.
        """
        self._require()
        try:
            instrument = self._instruments.pop(symbol)
        except KeyError:
            raise UnknownSymbol(symbol) from None
        for name in instrument.channel_names():
            if name in self._owners:
                self._drop(name)
        self._take()

    def hold(self, channel: str) -> None:
        """Subscribe to one channel by its name, private ones too.

        Raises ValueError for what is none, ConfigError without room or without a key.
        Held channels are asked for again on every connection; see confirmation().
        """
        self._require()
        if parse_channel(channel).symbol:
            if channel in self._owners:
                return
            connection = self._with_room(1)
            self._hold(channel, connection)
        else:
            connection = self._hold_private(channel)
        if connection not in self._tasks:
            self._run(connection)
        connection.flush()

    def release(self, channel: str) -> None:
        """Give up one channel that hold() was called for."""
        if channel in self._owners:
            self._drop(channel)
        elif connection := self._private.get(served_at(parse_channel(channel).kind)):
            connection.session.remove(channel)
            connection.flush()
        self._take()

    def confirmation(self, channel: str) -> bool | None:
        """Return whether the venue serves a channel; None for one that it refused.

        That, or nobody holds it.
        """
        for connection in self._connections:
            route = connection.session.routes.get(channel)
            if route is not None:
                return route.confirmed
        return None

    def _account(self) -> Desk:
        if self._desk is None:
            raise RuntimeError("the feed is not running")
        return self._desk

    def _require(self) -> "Segments":
        if self._segments is None:
            raise RuntimeError("the feed is not running")
        return self._segments

    # ── building ──────────────────────────────────────────────────────────────────────

    def _add(self, instrument: Instrument) -> Connection:
        """Give an instrument an id and a connection, which may be a new one."""
        if instrument.symbol in self._instruments:
            raise ConfigError(
                f"instrument {instrument.symbol} is subscribed to already"
            )
        names = instrument.channel_names()
        connection = self._with_room(len(names))
        for name in names:
            self._hold(name, connection)
        self._instruments[instrument.symbol] = instrument
        return connection

    def _hold(self, name: str, connection: Connection) -> None:
        """Have a connection subscribe to a channel of market data."""
        symbol = parse_channel(name).symbol
        number = self._numbers.get(symbol)
        if number is None:
            number = self._numbers[symbol] = self._require().board.add(symbol)
        if self._audit is not None:
            self._audit.name(number, name)
        connection.session.add(name, number, self._epochs.get(name, 0))
        self._owners[name] = connection
        book = connection.session.routes[name].book
        if book is not None:
            self._books[symbol] = book
        if symbol in self._closed_markets:
            self._mark(connection)

    def _drop(self, name: str) -> None:
        """Give a channel of market data up; its book turns STALE for good."""
        connection = self._owners.pop(name)
        route = connection.session.routes.get(name)
        symbol = parse_channel(name).symbol
        if route is not None:
            book = route.book
            self._epochs[name] = max(route.epoch, 0 if book is None else book.epoch)
            if book is not None and self._books.get(symbol) is book:
                del self._books[symbol]
        connection.session.remove(name)
        if not any(parse_channel(other).symbol == symbol for other in self._owners):
            self._require().board.remove(symbol)
            del self._numbers[symbol]
        connection.flush()

    def _add_private(self) -> None:
        """Hold the channels of the account, where there is a key."""
        if self.config.credentials.api_key:
            for channel in self.config.account.channels:
                self._hold_private(channel)

    def _hold_private(self, channel: str) -> Connection:
        """Have the connection of its endpoint, made if need be, subscribe to it."""
        endpoint = served_at(channel)
        connection = self._private.get(endpoint)
        if connection is None:
            key = self._shared_key()
            connection = self._connection(endpoint, endpoint.removeprefix("/ws/"), key)
            key.reserve()
            self._private[endpoint] = connection
        connection.session.add(channel, 0)
        self._account().serve(connection)
        return connection

    def _shared_key(self) -> ApiKey:
        if self._key is None:
            config = self.config
            if not config.credentials.api_key:
                raise ConfigError("no API key is configured")
            if self._secret is None:
                raise ConfigError("an API key is configured, and no secret is given")
            self._key = shared_key(
                config.url,
                config.credentials.api_key,
                self._secret,
                config.limits.orders_per_minute,
            )
        return self._key

    def _top(self, symbol: str) -> Top | None:
        """Return the best prices of a symbol, for guards; None for no book."""
        book = self._books.get(symbol)
        if book is None:
            return None
        bid, _, ask, _ = book.levels.top
        return Top(bid, ask, book.is_live)

    def _with_room(self, channels: int) -> Connection:
        limits = self.config.limits
        for connection in self._market_data:
            held = len(connection.session.routes)
            if held + channels <= limits.subscriptions_per_connection:
                return connection
        if len(self._market_data) >= limits.connections or (
            channels > limits.subscriptions_per_connection
        ):
            raise ConfigError(
                f"{channels} more channels do not fit {limits.connections} connections "
                f"of {limits.subscriptions_per_connection} subscriptions"
            )
        name = f"market-data-{len(self._market_data) + 1}"
        self._market_data.append(self._connection(MARKET_DATA, name))
        return self._market_data[-1]

    def _connection(
        self, endpoint: str, name: str, key: ApiKey | None = None
    ) -> Connection:
        config, limits, segments = self.config, self.config.limits, self._require()
        sink: Sink = segments.publisher
        if self._audit is not None:
            # Noted first: what readers are woken for is in the log.
            sink = Tee(self._audit, sink, self._on_sink_error)
        if self._sink is not None:
            sink = Tee(self._sink, sink, self._on_sink_error)
        session = Session(
            CODECS[config.codec](),
            sink,
            segments.counters,
            Throttle(limits.subscribe_per_minute, WINDOW_NS),
            Throttle(limits.other_per_minute, WINDOW_NS),
            utc_offset_ns=segments.utc_offset_ns,
            changes_only=config.publish == "changes",
            last_in_read=config.publish == "last_in_read",
            quiet_after_ns=int(config.quiet_after * 1e9),
            stall_after_ns=int(config.stall_after * 1e9),
            resync_interval_ns=int(config.resync_interval * 1e9),
            key=key,
            reconnect=Reconnect(
                Backoff(
                    int(limits.reconnect_base_s * 1e9),
                    limits.reconnect_attempts,
                    limits.reconnect_jitter,
                ),
                limits.retry_forever,
            ),
            name=name,
        )
        secure = config.url.startswith("wss:")
        return Connection(
            config.url_of(endpoint),
            session,
            self._take,
            ssl_context=client_context(config.ca_file) if secure else None,
            max_message_bytes=limits.max_message_bytes,
            connect_timeout_s=limits.connect_timeout_s,
            close_timeout_s=limits.close_timeout_s,
        )

    def _open_audit(self) -> None:
        path = self.config.audit_log
        if path:
            try:
                self._audit = AuditLog(path)
            except OSError as error:
                raise ConfigError(f"audit_log {path}: {error.strerror}") from None

    def _run(self, connection: Connection) -> None:
        # Which need not be running just now: see Feed.
        assert self._loop is not None
        self._tasks[connection] = self._loop.create_task(connection.run())

    # ── the beat ──────────────────────────────────────────────────────────────────────

    def _on_beat(self) -> None:
        """Show that the loop turns, and let time pass for every session."""
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)
        now_ns = time.monotonic_ns()
        self._require().beat(now_ns)
        for connection in self._connections:
            connection.tick()
        self._take()
        self._account().beat(now_ns)
        if self._audit is not None:
            self._look_at_audit(self._audit)
        self._gauge()
        if self._collector is not None:
            self._collector.beat()

    def _look_at_audit(self, audit: AuditLog) -> None:
        """Count the lines of the audit log; tell, once, if it has ended by itself."""
        counters = self._require().counters
        counters.assign("audit_log_lines", audit.lines)
        reason = audit.take_error()
        if reason is not None:
            counters.increment("audit_log_errors")
            self._tell(Event("error", "", {"audit_log": reason}))

    def _gauge(self) -> None:
        """Show the state of the worst connection in the counters."""
        health = self.health()
        counters = self._require().counters
        ages = [h.heartbeat_age_s for h in health if h.heartbeat_age_s is not None]
        trips = [h.round_trip_ms for h in health if h.round_trip_ms is not None]
        counters.assign("heartbeat_age_ms", int(max(ages, default=0) * 1000))
        counters.assign("round_trip_us", int(max(trips, default=0) * 1000))
        codecs = [connection.session.codec for connection in self._connections]
        scanned = sum(c.scanned for c in codecs if isinstance(c, ScanCodec))
        counters.assign("scanned", scanned)
        counters.assign("open_connections", sum(h.state in CONNECTED for h in health))
        counters.assign("failed_connections", sum(h.failed is not None for h in health))
        for name, value in self._account().counters().items():
            counters.assign(name, value)

    def _take(self) -> None:
        """Hand on what the sessions have to tell."""
        for connection in self._connections:
            if connection.session.events:
                for event in connection.session.take_events():
                    self._tell(event)
            if connection.session.messages:
                for message in connection.session.take_messages():
                    self._deliver(message, connection)
            if connection.session.answers:
                for answer in connection.session.take_answers():
                    self._account().answered(answer)
        if self._desk is not None:
            self._desk.wake()

    def flush(self) -> None:
        """Send what was asked of the order flow, and wake who reads of it."""
        self._account().flush()

    def _deliver(self, message: object, connection: Connection) -> None:
        self._told += 1
        if isinstance(message, SystemNotification):
            self._mark_markets(message)
        self._account().hear(message, connection)
        if isinstance(message, (Subscribed, Disconnected)):
            return
        for listener in self._listeners:
            try:
                listener(message)
            except Exception:
                log.exception("on_message raised")

    def _mark_markets(self, message: SystemNotification) -> None:
        """Flag the books whose market is closed; only the venue's extension tells."""
        event, symbols = message.data.event, message.data.symbols
        if event not in ("start", "open", "close", "halt"):
            return
        concerned = set(symbols if isinstance(symbols, list) else self._instruments)
        if event in ("close", "halt"):
            self._closed_markets |= concerned
        else:
            self._closed_markets -= concerned
        for connection in self._market_data:
            self._mark(connection)

    def _mark(self, connection: Connection) -> None:
        connection.session.mark_markets(self._closed_markets, time.monotonic_ns())
        connection.flush()

    def _tell(self, event: Event) -> None:
        self._told += 1
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


def _health(connection: Connection, now_ns: int) -> Health:
    session = connection.session
    is_open = session.state in CONNECTED
    return Health(
        session.name,
        connection.state,
        (now_ns - session.heartbeat_ns) / 1e9 if is_open else None,
        session.round_trip_ns / 1e6 if session.round_trip_ns else None,
        connection.attempts,
        connection.failed,
    )

"""The protocol state of one connection to the venue.

Bytes, events and time in; actions out. Knows no socket, no configuration file, and no
clock but the one that its host lends it, for statistics alone. Market data goes straight
to the Sink; everything else waits in *outbox* and *events* for whoever hosts the session.
"""

import re
from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.math cimport NAN
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from feedhandler.records cimport Candle, Flags, Ticker, Trade, TradeFlags, EPOCH_SHIFT
from feedhandler.codec cimport Decoded
from feedhandler.sync cimport Verdict

from feedhandler.protocol import messages
from feedhandler.protocol.channels import format_channel, parse_channel
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.limits import ANSWER_TIMEOUT_S, HEARTBEAT_TIMEOUT_S
from feedhandler.records import INTERVAL_NAMES


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef extern from *:
    """
    /* The bytes of an ASCII str, NULL for any other object. */
    static inline const char *fh_ascii(PyObject *object, Py_ssize_t *length)
    {
        if (!PyUnicode_CheckExact(object) || !PyUnicode_IS_COMPACT_ASCII(object))
            return NULL;
        *length = PyUnicode_GET_LENGTH(object);
        return (const char *)PyUnicode_1BYTE_DATA(object);
    }
    """
    const char *fh_ascii(PyObject *text, Py_ssize_t *length) noexcept


COUNTERS = (
    "messages",
    "bytes",
    "quotes",
    "trades",
    "tickers",
    "candles",
    "snapshots",
    "updates",
    "gaps",
    "resyncs",
    "duplicates",
    "malformed",
    "unknown_types",
    "unrouted",
    "bad_values",
    "mismatches",
    "heartbeats",
    "connects",
    "disconnects",
    "errors",
    "sink_errors",
    "faults",
    "audits",
    "differences",
)
HISTOGRAMS = ("frame_to_ring_ns", "decode_ns", "apply_ns")

cdef enum:
    HELD_UPDATES = 1024
    MOST_EVENTS = 4096
    HELD_BYTES = 16 << 20
    MALFORMED_RUN = 100         # so many frames in a row that are none: reconnect
    SLACK = 1024                # levels in one update beyond what its depth can need

cdef extern from *:
    """
    #define FH_MIX 0x9E3779B97F4A7C15ULL    /* 2**64 / the golden ratio */

    /* instrument, flags and sequence in one store: they are read again as one word, and
       a load that needs several stores waits for all of them to reach the cache. */
    #define fh_set_head(quote, n, bits, venue_sequence) do { \\
        uint64_t word = (uint64_t)(uint16_t)(n) | (uint64_t)(uint16_t)(bits) << 16 \\
            | (uint64_t)(uint32_t)(venue_sequence) << 32; \\
        memcpy(&(quote)->instrument, &word, sizeof word); \\
    } while (0)
    """
    const uint64_t MIX "FH_MIX"
    void fh_set_head(Quote *quote, int instrument, int flags, uint64_t sequence) noexcept nogil

cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t MOST_RETRY_AFTER_S = 86_400
cdef int64_t PATIENCE_NS = 2 * SECOND_NS
cdef int64_t MOST_PATIENCE_NS = 64 * SECOND_NS
cdef int64_t HEARTBEAT_TIMEOUT_NS = HEARTBEAT_TIMEOUT_S * SECOND_NS
cdef int64_t ANSWER_TIMEOUT_NS = ANSWER_TIMEOUT_S * SECOND_NS

# The states that a session may go to from each of its states.
TRANSITIONS = {
    State.CONNECTING: {State.OPEN, State.CLOSED},
    State.OPEN: {State.AUTHENTICATED, State.SUBSCRIBED, State.CLOSING, State.CLOSED},
    State.AUTHENTICATED: {State.SUBSCRIBED, State.CLOSING, State.CLOSED},
    State.SUBSCRIBED: {State.OPEN, State.AUTHENTICATED, State.CLOSING, State.CLOSED},
    State.CLOSING: {State.CLOSED},
    State.CLOSED: {State.CONNECTING},
}


KINDS = {
    "orderbook": Kind.ORDERBOOK,
    "trades": Kind.TRADE,
    "ticker": Kind.TICKER,
    "candles": Kind.CANDLE,
}


# Channel names in the text of an error, whole: one may be the beginning of another.
NAMES = re.compile(r"[a-z_]+(?::[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9_-])?)?(?::[0-9a-z]+)?")


class Event(NamedTuple):
    """Something that a person or a control loop may want to know.

    *kind* is one of ``state``, ``stale``, ``live``, ``gap``, ``audit``, ``malformed``,
    ``rejected``, ``error``, ``fault``; *detail* holds the numbers.
    """

    kind: str
    symbol: str
    detail: dict


class Request(NamedTuple):
    """A request that waits for its answer."""

    action: str
    channels: list
    sent_ns: int


cdef class TrackedBook:
    """One instrument's book as the session keeps it, and how far it can be trusted."""

    def __cinit__(self, str symbol not None, str channel not None, int instrument, int depth):
        self.symbol = symbol
        self.channel = channel
        self.instrument = instrument
        self.levels = OrderBook(depth)
        self.sync = Sync()
        self.held = []
        self.patience_ns = PATIENCE_NS
        memset(&self.quote, 0, sizeof(self.quote))
        self.quote.flags = Flags.STALE | Flags.NO_BID | Flags.NO_ASK
        self.quote.bid_price = NAN
        self.quote.ask_price = NAN

    @property
    def flags(self):
        """The Flags of the last quote, without the session epoch."""
        return self.quote.flags & 0xFF

    @property
    def is_live(self):
        """Whether the book is in sequence with the venue, and sound."""
        return bool(self.quote.flags & Flags.LIVE)

    @property
    def bid_price(self):
        """The best bid's price, NaN where there is none."""
        return self.quote.bid_price

    @property
    def ask_price(self):
        """The best ask's price, NaN where there is none."""
        return self.quote.ask_price

    def bids(self, limit=None):
        """Return up to *limit* bids as (price, size), best first."""
        return self.levels.bid_levels(limit)

    def asks(self, limit=None):
        """Return up to *limit* asks as (price, size), best first."""
        return self.levels.ask_levels(limit)

    def __repr__(self):
        return f"<TrackedBook {self.channel} live={self.is_live} sequence={self.sequence}>"


cdef class Route:
    """Where the messages of one channel go."""

    def __cinit__(self, channel, int instrument):
        self.channel = format_channel(channel)
        self.kind = KINDS.get(channel.kind, Kind.PRIVATE)
        self.symbol = channel.symbol
        self.instrument = instrument
        self.interval = INTERVAL_NAMES.index(channel.interval) if channel.interval else -1
        if channel.kind == "orderbook":
            self.book = TrackedBook(self.symbol, self.channel, instrument, channel.depth)


cdef inline bint same_text(object a, object b) noexcept:
    """Compare two str of which *b* is ASCII."""
    cdef Py_ssize_t a_length = 0
    cdef Py_ssize_t b_length = 0
    cdef const char *a_text = fh_ascii(<PyObject *> a, &a_length)
    cdef const char *b_text = fh_ascii(<PyObject *> b, &b_length)
    return a_text != NULL and a_length == b_length and memcmp(a_text, b_text, a_length) == 0


cdef inline uint64_t hash_text(const char *text, Py_ssize_t length) noexcept nogil:
    """Mix the first and the last eight bytes, where channel names differ: kind and symbol.

    The names in the table are ours, so nobody can fill it with names that collide.
    """
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    cdef uint64_t mixed
    if length < 8:
        memcpy(&first, text, length)
    else:
        memcpy(&first, text, 8)
        memcpy(&last, text + length - 8, 8)
    mixed = (first ^ last * MIX ^ <uint64_t> length) * MIX
    return mixed ^ mixed >> 29


cdef inline void end_stage(Session session, int histogram) noexcept:
    """Record, of a message that is sampled, how long the stage took that ends here."""
    cdef int64_t now_ns
    if session.clock != NULL:
        now_ns = session.clock()
        session.counters.record(histogram, now_ns - session.stage_ns)
        session.stage_ns = now_ns


cdef class RouteTable:
    """Find a Route by the text of its channel, without a Python hash of a new str.

    Open addressing, at most a quarter full; made anew when the routes change.
    """

    def __cinit__(self, list routes not None):
        cdef Py_ssize_t size = 16
        cdef Slot *slot
        cdef Slot made
        cdef Route route
        while size < 4 * len(routes):
            size *= 2
        self.slots = <Slot *> calloc(size, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.mask = size - 1
        self.routes = routes
        for route in routes:
            made.text = fh_ascii(<PyObject *> route.channel, &made.length)
            made.hash = hash_text(made.text, made.length)
            made.route = <PyObject *> route
            slot = &self.slots[made.hash & self.mask]
            while slot.route != NULL:
                slot = &self.slots[(slot - self.slots + 1) & self.mask]
            slot[0] = made

    def __dealloc__(self):
        free(self.slots)

    cdef Route find(self, object channel):
        cdef Py_ssize_t length = 0
        cdef const char *text = fh_ascii(<PyObject *> channel, &length)
        cdef const Slot *slot
        cdef uint64_t hashed
        if text == NULL:
            return None
        hashed = hash_text(text, length)
        slot = &self.slots[hashed & self.mask]
        while slot.route != NULL:
            if (
                slot.hash == hashed
                and slot.length == length
                and memcmp(slot.text, text, length) == 0
            ):
                return <Route> slot.route
            slot = &self.slots[(slot - self.slots + 1) & self.mask]
        return None


cdef class Session(Inbox):
    """The protocol state of one connection, which may be opened many times.

    *sink* gets the events; *counters* has at least COUNTERS and HISTOGRAMS; times given
    to the session are monotonic nanoseconds, times in records have *utc_offset_ns* added.
    Throttles (throttle.Throttle) limit what collect() and heartbeats put in the outbox.
    One thread, that of the loop which owns the connection.
    """

    def __cinit__(
        self,
        Codec codec not None,
        Sink sink not None,
        Counters counters not None,
        subscribe_throttle not None,
        other_throttle not None,
        int64_t utc_offset_ns=0,
        bint changes_only=False,
        int64_t resync_interval_ns=0,
    ):
        self.codec = codec
        self.sink = sink
        self.counters = counters
        self.subscribe_throttle = subscribe_throttle
        self.other_throttle = other_throttle
        self.utc_offset_ns = utc_offset_ns
        self.changes_only = changes_only
        self.resync_interval_ns = resync_interval_ns
        self.state = State.CONNECTING
        self.routes = {}
        self.table = RouteTable([])
        self.outbox = []
        self.events = []
        self.requests = {}
        self.to_subscribe = []
        self.to_unsubscribe = []

    # ── the hot path ──────────────────────────────────────────────────────────────────

    cdef int feed(self, const char *payload, Py_ssize_t size, int64_t now_ns) except -1:
        """Take one message and return the Actions it calls for; raises nothing.

        *payload* is borrowed: it is gone when feed() returns.
        """
        cdef Decoded decoded
        self.now_ns = now_ns
        self.actions = Action.NOTHING
        self.counters.add(Count.MESSAGES, 1)
        self.counters.add(Count.BYTES, size)
        try:
            if self.tap is not None:
                self.tap.on_frame(payload, size, now_ns)
            if self.clock != NULL:
                self.stage_ns = self.clock()
            decoded = self.codec.decode(payload, size, self)
            if decoded == Decoded.DECODED:
                self.malformed_run = 0
                return self.actions
            if decoded == Decoded.UNKNOWN:
                self.counters.add(Count.UNKNOWN_TYPES, 1)
            elif decoded == Decoded.NOT_UTF8:
                self.malformed("a message is not UTF-8")
                return Action.REFUSE
            else:
                self.malformed("a frame could not be decoded")
                self.malformed_run += 1
                if self.malformed_run >= MALFORMED_RUN:
                    self.give_up(f"{MALFORMED_RUN} malformed frames in a row")
        except Exception as error:
            self.fault(error)
        return self.actions

    cdef int on_book(self, object channel, object symbol, bint snapshot, int64_t sequence,
                     int64_t timestamp_ms, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) except -1:
        cdef Route route
        cdef TrackedBook book
        cdef Verdict verdict
        end_stage(self, DECODE)
        route = self.table.find(channel)
        if route is None:
            self.counters.add(Count.UNROUTED, 1)
            return 0
        book = route.book
        if book is None or not same_text(symbol, book.symbol):
            self.counters.add(Count.MISMATCHES, 1)
            return self.on_bad_book(channel)
        if snapshot:
            return self.apply_snapshot(
                book, sequence, timestamp_ms, bids, bid_count, asks, ask_count
            )
        self.counters.add(Count.UPDATES, 1)
        verdict = book.sync.delta(sequence)
        if verdict == Verdict.APPLY:
            if bid_count + ask_count > 2 * book.levels.depth + SLACK or book.levels.update(
                bids, bid_count, asks, ask_count
            ) < 0:
                return self.on_bad_book(channel)
            book.sequence = sequence
            book.venue_ns = timestamp_ms * 1_000_000
            if book.held:
                return self.heal(book)
            end_stage(self, APPLY)
            return self.publish(book, self.now_ns, 0)
        if verdict == Verdict.SKIP:
            self.counters.add(Count.DUPLICATES, 1)
            return 0
        hold(book, sequence, timestamp_ms, self.now_ns, bids, bid_count, asks, ask_count)
        if verdict == Verdict.RESYNC:
            self.counters.add(Count.GAPS, 1)
            self.note("gap", book.symbol, {
                "channel": book.channel, "expected": book.sync.applied + 1, "received": sequence,
            })
            self.degrade(book, True)
            self.want_snapshot(book)
        return 0

    cdef int apply_snapshot(self, TrackedBook book, int64_t sequence, int64_t timestamp_ms,
                            const Level *bids, int bid_count,
                            const Level *asks, int ask_count) except -1:
        cdef bint was_live = book.is_live
        cdef bint audit = book.sync.in_sync() and sequence == book.sync.applied
        if book.levels.replace(bids, bid_count, asks, ask_count) < 0:
            raise MemoryError
        self.counters.add(Count.SNAPSHOTS, 1)
        book.checked_ns = self.now_ns
        if audit:
            self.counters.add(Count.AUDITS, 1)
            if book.levels.replaced_by_same():
                book.due_ns = 0
                book.wanted = False
                return 0
            self.counters.add(Count.DIFFERENCES, 1)
            self.note("audit", book.symbol, {"channel": book.channel, "sequence": sequence})
        book.sync.snapshot(sequence)
        book.sequence = sequence
        book.venue_ns = timestamp_ms * 1_000_000
        book.epoch += 1
        book.gap = False
        book.wanted = False
        book.due_ns = 0
        book.rung = 0
        book.patience_ns = PATIENCE_NS
        if book.held:
            forget(book, sequence)
            for update in book.held:
                book.sync.seen(update[0])
            book.gap = not book.sync.in_sync()
        end_stage(self, APPLY)
        self.publish(book, self.now_ns, Flags.SNAPSHOT)
        if book.held and self.drain(book, False, self.now_ns):
            self.publish(book, self.now_ns, 0)
        if not book.sync.in_sync():
            self.want_snapshot(book)
        elif not was_live:
            self.note_live(book)
        return 0

    cdef int note_live(self, TrackedBook book) except -1:
        if book.is_live:
            self.note("live", book.symbol, {
                "channel": book.channel, "sequence": book.sequence, "epoch": book.epoch,
            })
        return 0

    cdef int heal(self, TrackedBook book) except -1:
        """Go on from an update that was missing: publish it, and what was held for it."""
        self.drain(book, True, self.now_ns)
        self.publish(book, self.now_ns, 0)
        if book.sync.in_sync():
            book.rung = 0
            self.note_live(book)
        return 0

    cdef int drain(self, TrackedBook book, bint unpublished, int64_t recv_ns) except -1:
        """Apply what was held and now fits, publishing each state before the next one.

        *unpublished* says whether the book, read at *recv_ns*, is itself news; the last
        state is left for the caller, who is told whether there is one.
        """
        cdef int64_t sequence, timestamp_ms, read_ns
        cdef bytes bids, asks
        book.held.sort()
        while book.held:
            sequence, timestamp_ms, read_ns, bids, asks = book.held[0]
            if sequence > book.sync.applied + 1 or book.sync.broken:
                break
            book.held.pop(0)
            book.held_bytes -= len(bids) + len(asks)
            if sequence <= book.sync.applied:
                continue
            if unpublished:
                self.publish(book, recv_ns, 0)
            book.sync.delta(sequence)
            if book.levels.update(
                <const Level *> PyBytes_AS_STRING(bids),
                <int> (PyBytes_GET_SIZE(bids) // <Py_ssize_t> sizeof(Level)),
                <const Level *> PyBytes_AS_STRING(asks),
                <int> (PyBytes_GET_SIZE(asks) // <Py_ssize_t> sizeof(Level)),
            ) < 0:
                raise MemoryError
            book.sequence = sequence
            book.venue_ns = timestamp_ms * 1_000_000
            recv_ns = read_ns
            unpublished = True
        return unpublished

    cdef int publish(self, TrackedBook book, int64_t recv_ns, uint16_t extra) except -1:
        """Give the sink a quote of the book as it is, with the trust it deserves."""
        cdef Quote *quote = &book.quote
        cdef OrderBook levels = book.levels
        cdef uint16_t flags = extra
        cdef double bid_price = NAN
        cdef double bid_size = 0.0
        cdef double ask_price = NAN
        cdef double ask_size = 0.0
        cdef bint same
        if levels.bids.count > 0:
            bid_price = levels.bids.prices[levels.bids.count - 1]
            bid_size = levels.bids.sizes[levels.bids.count - 1]
        else:
            flags |= Flags.NO_BID
        if levels.asks.count > 0:
            ask_price = levels.asks.prices[levels.asks.count - 1]
            ask_size = levels.asks.sizes[levels.asks.count - 1]
        else:
            flags |= Flags.NO_ASK
        if bid_price >= ask_price:                  # false where a side is missing
            flags |= Flags.CROSSED
        if not book.sync.in_sync():
            flags |= Flags.STALE
            if book.gap:
                flags |= Flags.GAP
        elif not flags & Flags.CROSSED:
            book.gap = False
            flags |= Flags.LIVE
        if book.market_closed:
            flags |= Flags.MARKET_CLOSED
        flags |= (book.epoch & 0xFF) << EPOCH_SHIFT
        same = (
            self.changes_only
            and not extra
            and (quote.flags & ~<int> Flags.SNAPSHOT) == flags
            and (flags & Flags.NO_BID or quote.bid_price == bid_price)
            and (flags & Flags.NO_ASK or quote.ask_price == ask_price)
            and quote.bid_size == bid_size and quote.ask_size == ask_size
        )
        quote.seq = 0
        quote.venue_ns = book.venue_ns
        quote.recv_ns = recv_ns + self.utc_offset_ns
        fh_set_head(quote, book.instrument, flags, book.sequence)
        quote.bid_price = bid_price
        quote.bid_size = bid_size
        quote.ask_price = ask_price
        quote.ask_size = ask_size
        levels.view(&self.view)
        if same:
            return self.sink.on_depth(quote, book.sequence, book.epoch, &self.view)
        book.quoted = True
        self.records += 1
        self.counters.add(Count.QUOTES, 1)
        return self.sink.on_quote(quote, book.sequence, book.epoch, &self.view)

    cdef int on_trade(self, object channel, object symbol, double price, double size, bint buy,
                      object trade_id, int64_t trade_ms) except -1:
        cdef Trade trade
        cdef Route route
        cdef Py_ssize_t length
        cdef const char *text
        end_stage(self, DECODE)
        route = self.find(channel, symbol, Kind.TRADE)
        if route is None:
            return 0
        text = PyUnicode_AsUTF8AndSize(trade_id, &length)
        memset(&trade, 0, sizeof(trade))
        trade.venue_ns = trade_ms * 1_000_000
        trade.recv_ns = self.now_ns + self.utc_offset_ns
        trade.instrument = <uint16_t> route.instrument
        trade.flags = TradeFlags.BUY if buy else TradeFlags.SELL
        trade.flags |= (route.epoch & 0xFF) << EPOCH_SHIFT
        if length > 16:
            trade.flags |= TradeFlags.ID_CUT
            length = 16
        memcpy(trade.trade_id, text, length)
        trade.price = price
        trade.size = size
        self.records += 1
        self.counters.add(Count.TRADES, 1)
        return self.sink.on_trade(&trade)

    cdef int on_ticker(self, object channel, object symbol, Ticker *ticker) except -1:
        cdef Route route
        end_stage(self, DECODE)
        route = self.find(channel, symbol, Kind.TICKER)
        if route is None:
            return 0
        ticker.recv_ns = self.now_ns + self.utc_offset_ns
        ticker.instrument = <uint16_t> route.instrument
        self.counters.add(Count.TICKERS, 1)
        return self.sink.on_ticker(ticker)

    cdef int on_candle(self, object channel, object symbol, object interval,
                       Candle *candle, int64_t timestamp_ms) except -1:
        cdef Route route
        end_stage(self, DECODE)
        route = self.find(channel, symbol, Kind.CANDLE)
        if route is None:
            return 0
        if interval != INTERVAL_NAMES[route.interval]:
            self.counters.add(Count.MISMATCHES, 1)
            return 0
        candle.recv_ns = self.now_ns + self.utc_offset_ns
        self.counters.add(Count.CANDLES, 1)
        return self.sink.on_candle(route.instrument, route.interval, candle)

    cdef Route find(self, object channel, object symbol, Kind kind):
        """Return the Route of a channel message, or None, counted, where it has none."""
        cdef Route route = self.table.find(channel)
        if route is None:
            self.counters.add(Count.UNROUTED, 1)
            return None
        if route.kind != kind or not same_text(symbol, route.symbol):
            self.counters.add(Count.MISMATCHES, 1)
            return None
        return route

    # ── trust ─────────────────────────────────────────────────────────────────────────

    cdef int degrade(self, TrackedBook book, bint gap) except -1:
        """Flag the book STALE and say so, if it was not said yet."""
        cdef bint news = not book.quote.flags & Flags.STALE
        book.gap = book.gap or gap
        if not book.quoted or not news:
            return 0
        self.note("stale", book.symbol, {
            "channel": book.channel, "sequence": book.sequence, "gap": bool(book.gap),
        })
        try:
            self.publish(book, self.now_ns, 0)
        except Exception as error:
            # The next book must be flagged all the same.
            self.sink_error(error)
        return 0

    cdef int on_bad_book(self, object channel) except -1:
        """Treat a book message that cannot be used as a lost update of its channel."""
        cdef Route route = self.table.find(channel)
        self.counters.add(Count.BAD_VALUES, 1)
        if route is not None and route.book is not None:
            self.lose(route.book)
        return 0

    cdef int on_bad_value(self, object channel) except -1:
        self.counters.add(Count.BAD_VALUES, 1)
        return 0

    def lose(self, TrackedBook book not None):
        """Note that something of a book's stream was lost: STALE until a snapshot."""
        book.sync.lost()
        self.degrade(book, True)
        if self.state in (State.OPEN, State.AUTHENTICATED, State.SUBSCRIBED):
            self.want_snapshot(book)

    def malformed(self, str why):
        """Count a frame that is no message: any book of the connection may have lost one."""
        self.counters.add(Count.MALFORMED, 1)
        self.note("malformed", "", {"reason": why})
        for book in self.books():
            self.lose(book)

    def fault(self, error):
        """Fail closed on an error of our own: nothing is known about any book."""
        self.counters.add(Count.FAULTS, 1)
        self.note("fault", "", {"error": error})
        for book in self.books():
            self.lose(book)

    def sink_error(self, error):
        """Count and report what an embedder's sink raised."""
        self.counters.add(Count.SINK_ERRORS, 1)
        self.note("error", "", {"sink": error})

    def want_snapshot(self, TrackedBook book not None):
        """Have a snapshot asked for, unless one is on its way."""
        if book.wanted or book.due_ns:
            return
        book.wanted = True
        self.actions |= Action.RESYNC

    def books(self):
        """Return the TrackedBooks of this session."""
        return [route.book for route in self.routes.values() if route.book is not None]

    # ── control ───────────────────────────────────────────────────────────────────────

    cdef int on_heartbeat(self) except -1:
        self.counters.add(Count.HEARTBEATS, 1)
        self.heartbeat_ns = self.now_ns
        if self.other_throttle.take(self.now_ns):
            wall_ms = (self.now_ns + self.utc_offset_ns) // 1_000_000
            self.send(messages.Pong(messages.PongData(wall_ms)))
        return 0

    cdef int on_message(self, object message) except -1:
        kind = type(message)
        if kind is messages.SubscriptionResponse:
            self.answered(message)
        elif kind is messages.Error:
            self.refused(message)
        else:
            self.counters.add(Count.UNROUTED, 1)
        return 0

    def answered(self, message):
        """Take the answer to a subscribe or unsubscribe."""
        request = self.requests.pop(message.id, None)
        if request is None:
            self.counters.add(Count.UNROUTED, 1)
            return
        if message.data.status != "success":
            self.note("rejected", "", {
                "channels": request.channels, "status": message.data.status,
            })
            return
        if request.action == "subscribe":
            for channel in request.channels:
                if channel in self.routes:
                    (<Route> self.routes[channel]).confirmed = True
        self.settle_state()

    def settle_state(self):
        """Be SUBSCRIBED exactly while some channel is confirmed."""
        subscribed = any(route.confirmed for route in self.routes.values())
        if subscribed and self.state in (State.OPEN, State.AUTHENTICATED):
            self.move(State.SUBSCRIBED)
        elif not subscribed and self.state == State.SUBSCRIBED:
            self.move(State.OPEN)

    def refused(self, message):
        """Take an error frame: wait, drop the channels it names, or give the connection up."""
        data = message.data
        self.counters.add(Count.ERRORS, 1)
        self.note("error", "", {
            "code": data.code, "message": data.message, "request_id": data.request_id,
        })
        request = self.requests.pop(data.request_id or message.id, None)
        if request is None:
            return
        if data.code == ErrorCode.RATE_LIMIT_EXCEEDED:
            wait_s = data.retry_after if isinstance(data.retry_after, (int, float)) else 60
            wait_s = min(max(wait_s, 1), MOST_RETRY_AFTER_S)
            self.subscribe_throttle.hold(self.now_ns + <int64_t> (wait_s * SECOND_NS))
            if request.action == "subscribe":
                self.again(request.channels)
            else:
                self.unsubscribe_again(request.channels)
            return
        if request.action != "subscribe":
            return
        at_fault = set(NAMES.findall(data.message))
        if isinstance(data.channels, list):
            at_fault.update(data.channels)
        named = [channel for channel in request.channels if channel in at_fault]
        if data.code != ErrorCode.INVALID_PARAMETER or not named:
            self.close_reason = f"subscription refused: {data.code}: {data.message}"
            self.actions |= Action.CLOSE
            return
        for channel in named:
            route = self.routes.get(channel)
            if route is None:
                continue
            self.drop(route)
            self.note("rejected", route.symbol, {
                "channels": [channel], "message": data.message,
            })
        self.settle_state()
        self.again(request.channels)

    def drop(self, Route route not None):
        """Forget a channel; its book is flagged STALE for good."""
        if route.book is not None:
            route.book.sync.lost()
            self.degrade(route.book, False)
        del self.routes[route.channel]
        self.table = RouteTable(list(self.routes.values()))
        if route.channel in self.to_subscribe:
            self.to_subscribe.remove(route.channel)

    def again(self, channels):
        """Have those of *channels* that are still ours subscribed in the next collect()."""
        cdef Route route
        for channel in channels:
            route = self.routes.get(channel)
            if route is None:
                continue
            if route.book is not None:
                route.book.due_ns = 0
                route.book.wanted = False
            if channel not in self.to_subscribe:
                self.to_subscribe.append(channel)
        self.actions |= Action.RESYNC

    def unsubscribe_again(self, channels):
        """Have those of *channels* that were given up unsubscribed in the next collect()."""
        self.to_unsubscribe += [
            channel for channel in channels
            if channel not in self.routes and channel not in self.to_unsubscribe
        ]
        self.actions |= Action.RESYNC

    def send(self, message):
        """Put a message in the outbox."""
        self.outbox.append(self.codec.encode(message))
        self.actions |= Action.SEND

    def note(self, str kind, str symbol, dict detail):
        """Add to the events; the oldest half goes when nobody takes them."""
        if len(self.events) >= MOST_EVENTS:
            del self.events[: MOST_EVENTS // 2]
        self.events.append(Event(kind, symbol, detail))

    def move(self, state):
        """Go to another state; raises ValueError where there is no way from this one."""
        old = State(self.state)
        if state not in TRANSITIONS[old]:
            raise ValueError(f"a session does not go from {old.name} to {State(state).name}")
        self.state = state
        self.note("state", "", {
            "from": old.name.lower(), "to": State(state).name.lower(),
        })

    # ── what the host calls ───────────────────────────────────────────────────────────

    def add(self, str channel not None, int instrument):
        """Hold a channel: its messages are routed, and it is subscribed to when open.

        Raises ValueError for a name outside the grammar. Adding a held one does nothing.
        """
        if channel in self.routes:
            return
        self.routes[channel] = Route(parse_channel(channel), instrument)
        self.table = RouteTable(list(self.routes.values()))
        if self.state in (State.OPEN, State.AUTHENTICATED, State.SUBSCRIBED):
            self.to_subscribe.append(channel)

    def remove(self, str channel not None):
        """Give a channel up; its book is flagged STALE for good."""
        cdef Route route = self.routes.get(channel)
        cdef bint asked_for
        if route is None:
            return
        # A channel that waits to be asked for again is one that the venue may have.
        asked_for = route.confirmed or channel not in self.to_subscribe
        self.drop(route)
        if asked_for and self.state in (State.OPEN, State.AUTHENTICATED, State.SUBSCRIBED):
            self.to_unsubscribe.append(channel)
        self.settle_state()

    def connecting(self, int64_t now_ns):
        """Note that a connection is being made."""
        self.now_ns = now_ns
        if self.state == State.CLOSED:
            self.move(State.CONNECTING)

    def opened(self, int64_t now_ns) -> int:
        """Note that the connection is open; subscribes to everything held."""
        cdef Route route
        if self.state != State.CONNECTING:
            raise ValueError(f"a session does not go from {State(self.state).name} to a new OPEN")
        self.now_ns = now_ns
        self.actions = Action.NOTHING
        self.move(State.OPEN)
        self.counters.add(Count.CONNECTS, 1)
        self.heartbeat_ns = now_ns
        self.malformed_run = 0
        self.close_reason = None
        self.outbox.clear()
        self.requests.clear()
        self.to_unsubscribe.clear()
        self.to_subscribe[:] = self.routes
        for route in self.routes.values():
            route.confirmed = False
            route.epoch += 1
            if route.book is not None:
                route.book.sync.reset()
                route.book.epoch += 1
                route.book.wanted = False
                route.book.due_ns = 0
                route.book.rung = 0
        return self.collect(now_ns)

    def closing(self, int64_t now_ns):
        """Note that we began to close."""
        self.now_ns = now_ns
        if State.CLOSING in TRANSITIONS[State(self.state)]:
            self.move(State.CLOSING)

    def closed(self, int64_t now_ns):
        """Note that the connection is gone: every book turns STALE, now."""
        cdef Route route
        self.now_ns = now_ns
        if self.state == State.CLOSED:
            return
        if self.state != State.CONNECTING:
            self.counters.add(Count.DISCONNECTS, 1)
        self.move(State.CLOSED)
        for route in self.routes.values():
            route.confirmed = False
            if route.book is not None:
                route.book.sync.lost()
                route.book.held.clear()
                route.book.held_bytes = 0
                route.book.wanted = False
                route.book.due_ns = 0
                self.degrade(route.book, False)
        self.outbox.clear()
        self.requests.clear()

    def collect(self, int64_t now_ns) -> int:
        """Put what is to be asked for into the outbox, grouped; return the Actions.

        What the limiter holds back stays wanted: tick() tries again.
        """
        cdef TrackedBook book
        self.now_ns = now_ns
        self.actions &= ~Action.RESYNC
        if self.to_unsubscribe and self.subscribe_throttle.take(now_ns):
            self.request("unsubscribe", self.to_unsubscribe)
            self.to_unsubscribe = []
        wanted = [book for book in self.books() if book.wanted]
        channels = self.to_subscribe + [
            book.channel for book in wanted if book.channel not in self.to_subscribe
        ]
        again = [book.channel for book in wanted if book.rung == 1]
        if not channels or not self.subscribe_throttle.take(now_ns, 2 if again else 1):
            return self.actions
        if again:
            self.request("unsubscribe", again)
        self.request("subscribe", channels)
        self.counters.add(Count.RESYNCS, len(wanted))
        for channel in channels:
            book = (<Route> self.routes[channel]).book
            if book is not None:
                book.wanted = False
                book.due_ns = now_ns + book.patience_ns
        self.to_subscribe = []
        return self.actions

    def request(self, str action, channels):
        """Send a subscribe or unsubscribe and remember it."""
        self.next_id += 1
        request_id = f"{action.removesuffix('scribe')}-{self.next_id}"
        body = messages.Channels(list(channels))
        kind = messages.Subscribe if action == "subscribe" else messages.Unsubscribe
        self.requests[request_id] = Request(action, list(channels), self.now_ns)
        self.send(kind(body, request_id))

    def tick(self, int64_t now_ns) -> int:
        """Let time pass; call about ten times a second while open. Returns the Actions."""
        cdef TrackedBook book
        self.now_ns = now_ns
        self.actions = Action.NOTHING
        if self.state not in (State.OPEN, State.AUTHENTICATED, State.SUBSCRIBED):
            return self.actions
        if now_ns - self.heartbeat_ns >= HEARTBEAT_TIMEOUT_NS:
            return self.give_up(f"no heartbeat for {HEARTBEAT_TIMEOUT_S} s")
        for request in self.requests.values():
            if now_ns - request.sent_ns >= ANSWER_TIMEOUT_NS:
                return self.give_up(f"no answer to {request.action} in {ANSWER_TIMEOUT_S} s")
        for book in self.books():
            if book.due_ns and now_ns >= book.due_ns and book.sync.in_sync():
                # An audit that was not answered says nothing against the book.
                book.due_ns = 0
                book.checked_ns = now_ns
            elif book.due_ns and now_ns >= book.due_ns:
                if book.rung >= 1:
                    book.patience_ns = min(2 * book.patience_ns, MOST_PATIENCE_NS)
                    return self.give_up(f"no snapshot of {book.channel}")
                book.due_ns = 0
                book.rung = 1
                book.wanted = True
            elif (
                self.resync_interval_ns
                and book.sync.in_sync()
                and not book.due_ns
                and now_ns - book.checked_ns >= self.resync_interval_ns
            ):
                book.wanted = True
        return self.collect(now_ns)

    def give_up(self, str reason) -> int:
        """Ask the host to end this connection."""
        cdef TrackedBook book
        self.close_reason = reason
        self.actions |= Action.CLOSE
        for book in self.books():
            book.sync.lost()
            self.degrade(book, False)
        return self.actions

    def take_outbox(self) -> list:
        """Return the messages to send, in order, and forget them."""
        taken = self.outbox
        self.outbox = []
        return taken

    def take_events(self) -> list:
        """Return what happened since the last call, in order."""
        taken = self.events
        self.events = []
        return taken

    def receive(self, bytes payload not None, int64_t now_ns) -> int:
        """Take one message, as feed() does; for hosts and tests in Python."""
        return self.feed(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), now_ns)


cdef int hold(TrackedBook book, int64_t sequence, int64_t timestamp_ms, int64_t recv_ns,
              const Level *bids, int bid_count, const Level *asks, int ask_count) except -1:
    """Keep an update until what is missing comes; bounded, and forgotten when full."""
    cdef Py_ssize_t size = (bid_count + ask_count) * <Py_ssize_t> sizeof(Level)
    if len(book.held) >= HELD_UPDATES or book.held_bytes + size > HELD_BYTES:
        book.held.clear()
        book.held_bytes = 0
    book.held.append((
        sequence,
        timestamp_ms,
        recv_ns,
        PyBytes_FromStringAndSize(<const char *> bids, bid_count * sizeof(Level)),
        PyBytes_FromStringAndSize(<const char *> asks, ask_count * sizeof(Level)),
    ))
    book.held_bytes += size
    return 0


cdef int forget(TrackedBook book, int64_t sequence) except -1:
    """Drop held updates that a snapshot at *sequence* contains."""
    book.held = [update for update in book.held if update[0] > sequence]
    book.held_bytes = sum(len(update[3]) + len(update[4]) for update in book.held)
    return 0

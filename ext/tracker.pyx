"""What one connection knows of the market: its books, and how far each can be trusted.

Payloads and time in; quotes, trades, tickers and candles out to the Sink, and Actions for
whoever hosts it. Knows no socket, and no clock but the one that its host lends it, for
statistics alone.
"""

from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.math cimport NAN
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from feedhandler.records cimport Candle, Flags, Ticker, Trade, TradeFlags, EPOCH_SHIFT
from feedhandler.codec cimport Decoded
from feedhandler.sync cimport Verdict

from feedhandler.protocol.channels import format_channel, parse_channel
from feedhandler.records import INTERVAL_NAMES


cdef extern from *:
    """
    /* The bytes of an ASCII str, which they live as long as. */
    #define fh_lend(object, data, size) \
        (*(data) = PyUnicode_DATA(object), *(size) = PyUnicode_GET_LENGTH(object))
    """
    void fh_lend(PyObject *text, const char **data, Py_ssize_t *size) noexcept


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
    "quiets",
    "mutes",
    "crossings",
    "unknown_losses",
    "malformed",
    "unknown_types",
    "unrouted",
    "bad_values",
    "mismatches",
    "heartbeats",
    "missed_heartbeats",
    "pings",
    "stalls",
    "connects",
    "disconnects",
    "errors",
    "sink_errors",
    "faults",
    "audits",
    "differences",
    "conflated",
    # As they are, not as often as they were; the control loop sets them.
    "heartbeat_age_ms",
    "round_trip_us",
    "scanned",
    "open_connections",
    "failed_connections",
)
HISTOGRAMS = ("frame_to_ring_ns", "decode_ns", "apply_ns", "round_trip_ns")

cdef enum:
    HELD_UPDATES = 1024
    MOST_EVENTS = 4096
    HELD_BYTES = 16 << 20
    MALFORMED_RUN = 100         # so many frames in a row that are none: reconnect
    SLACK = 1024                # levels in one update beyond what its depth can need
    SEEN = 256                  # trades whose ids are remembered, of each channel
    MOST_DIFFERENCES = 20       # levels in the event of an audit
    UNREACHED = 2               # snapshots in a row that do not reach what is held

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

cdef int64_t PATIENCE_NS = 2_000_000_000           # with a snapshot that was asked for
cdef int64_t MOST_PATIENCE_NS = 32 * PATIENCE_NS
cdef int64_t MOST_QUIET_NS = 3_600_000_000_000
cdef int64_t VERIFIED_NS = 1_000_000_000            # a snapshot this young needs no audit

KINDS = {
    "orderbook": Kind.ORDERBOOK,
    "trades": Kind.TRADE,
    "ticker": Kind.TICKER,
    "candles": Kind.CANDLE,
}


class Event(NamedTuple):
    """Something that a person or a control loop may want to know.

    *kind* is one of ``state``, ``closed``, ``reconnect``, ``failed``, ``stale``, ``live``,
    ``gap``, ``loss``, ``audit``, ``crossed``, ``quiet``, ``mute``, ``stall``,
    ``malformed``, ``rejected``, ``error``, ``fault``; *detail* holds the numbers.
    """

    kind: str
    symbol: str
    detail: dict


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

    def __cinit__(self, channel, int instrument, uint32_t epoch=0):
        self.epoch = epoch
        self.channel = format_channel(channel)
        self.kind = KINDS.get(channel.kind, Kind.PRIVATE)
        self.symbol = channel.symbol
        fh_lend(<PyObject *> self.symbol, &self.symbol_text.data, &self.symbol_text.size)
        self.instrument = instrument
        self.interval = INTERVAL_NAMES.index(channel.interval) if channel.interval else -1
        if channel.kind == "orderbook":
            self.book = TrackedBook(self.symbol, self.channel, instrument, channel.depth)
            self.book.epoch = epoch
        if self.kind == Kind.TRADE:
            self.seen = <uint64_t *> calloc(SEEN, sizeof(uint64_t))
            if self.seen == NULL:
                raise MemoryError

    def __dealloc__(self):
        free(self.seen)

    cdef bint is_repeated(self, const char *trade_id, Py_ssize_t length) noexcept nogil:
        """Tell whether a trade of that id was one of the last; if not, remember it."""
        cdef uint64_t hashed = length + 1
        cdef uint64_t word
        cdef Py_ssize_t i
        for i in range(0, length, 8):
            word = 0
            memcpy(&word, trade_id + i, min(8, length - i))
            hashed = (hashed ^ word) * MIX
            hashed ^= hashed >> 32
        if hashed == 0:
            hashed = 1
        if self.seen[hashed % SEEN] == hashed:
            return True
        self.seen[hashed % SEEN] = hashed
        return False

    cdef void forget_trades(self) noexcept nogil:
        if self.seen != NULL:
            memset(self.seen, 0, SEEN * sizeof(uint64_t))


cdef inline bint same_text(const Text *a, const Text *b) noexcept nogil:
    return a.size == b.size and memcmp(a.data, b.data, a.size) == 0


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


cdef inline void take_up(TrackedBook book) noexcept nogil:
    """Have the next quote of a book that was put off show all that changed since the last."""
    book.is_put_off = False
    book.levels.bid_changed = min(book.levels.bid_changed, book.bid_changed)
    book.levels.ask_changed = min(book.levels.ask_changed, book.ask_changed)


cdef inline void end_stage(Tracker tracker, int histogram) noexcept:
    """Record, of a message that is sampled, how long the stage took that ends here."""
    cdef int64_t now_ns
    if tracker.clock != NULL:
        now_ns = tracker.clock()
        tracker.counters.record(histogram, now_ns - tracker.stage_ns)
        tracker.stage_ns = now_ns


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
            fh_lend(<PyObject *> route.channel, &made.text.data, &made.text.size)
            made.hash = hash_text(made.text.data, made.text.size)
            made.route = <PyObject *> route
            slot = &self.slots[made.hash & self.mask]
            while slot.route != NULL:
                slot = &self.slots[(slot - self.slots + 1) & self.mask]
            slot[0] = made

    def __dealloc__(self):
        free(self.slots)

    cdef Route find(self, const Text *channel):
        cdef uint64_t hashed = hash_text(channel.data, channel.size)
        cdef const Slot *slot = &self.slots[hashed & self.mask]
        while slot.route != NULL:
            if slot.hash == hashed and same_text(&slot.text, channel):
                return <Route> slot.route
            slot = &self.slots[(slot - self.slots + 1) & self.mask]
        return None


cdef class Tracker(Inbox):
    """The market data of one connection, which may be made many times.

    *sink* gets the events; *counters* has at least COUNTERS and HISTOGRAMS; times given
    are monotonic nanoseconds, times in records have *utc_offset_ns* added. One thread,
    that of the loop which owns the connection.
    """

    def __cinit__(
        self,
        Codec codec not None,
        Sink sink not None,
        Counters counters not None,
        *_,
        int64_t utc_offset_ns=0,
        bint changes_only=False,
        bint last_in_read=False,
        int64_t quiet_after_ns=0,
        **__,
    ):
        self.codec = codec
        self.sink = sink
        self.counters = counters
        self.utc_offset_ns = utc_offset_ns
        self.changes_only = changes_only
        self.last_in_read = last_in_read
        self.quiet_after_ns = quiet_after_ns
        self.routes = {}
        self.table = RouteTable([])
        self.events = []
        self.in_time_until_ns = INT64_MAX

    # ── the hot path ──────────────────────────────────────────────────────────────────

    cdef int feed(self, const char *payload, Py_ssize_t size, int64_t now_ns) except -1:
        """Take one message and return the Actions it calls for; raises nothing.

        *payload* is borrowed: it is gone when feed() returns.
        """
        cdef Decoded decoded
        self.now_ns = now_ns
        self.heard_ns = now_ns
        self.actions = Action.NOTHING
        if now_ns > self.in_time_until_ns:
            self.fall_behind()
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

    cdef int on_book(self, const Text *channel, const Text *symbol, bint snapshot,
                     int64_t sequence, int64_t timestamp_ms, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) except -1:
        cdef Route route
        cdef TrackedBook book
        cdef Verdict verdict
        cdef int64_t highest
        end_stage(self, DECODE)
        route = self.table.find(channel)
        if route is None:
            self.counters.add(Count.UNROUTED, 1)
            return 0
        book = route.book
        if book is None or not same_text(symbol, &route.symbol_text):
            self.counters.add(Count.MISMATCHES, 1)
            return self.on_bad_book(channel)
        if snapshot:
            return self.apply_snapshot(
                book, sequence, timestamp_ms, bids, bid_count, asks, ask_count
            )
        self.counters.add(Count.UPDATES, 1)
        book.last_ns = self.now_ns
        book.is_silent = False
        highest = book.sync.highest
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
            if self.last_in_read and book.quote.flags & Flags.LIVE:
                return self.put_off(book)
            return self.publish(book, self.now_ns, 0)
        if verdict == Verdict.SKIP:
            self.counters.add(Count.DUPLICATES, 1)
            return 0
        hold(book, sequence, timestamp_ms, self.now_ns, bids, bid_count, asks, ask_count)
        if verdict == Verdict.RESYNC or 0 <= highest < sequence - 1:
            # It may be another one, while a snapshot is on its way.
            self.counters.add(Count.GAPS, 1)
        if verdict == Verdict.RESYNC:
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
        cdef bint was_doubted = book.to_verify
        cdef bint is_audit = book.sync.in_sync() and sequence == book.sync.applied
        if book.levels.replace(bids, bid_count, asks, ask_count) < 0:
            raise MemoryError
        self.counters.add(Count.SNAPSHOTS, 1)
        book.checked_ns = self.now_ns
        book.last_ns = self.now_ns
        if is_audit and self.audit(book, sequence):
            return 0
        if book.is_silent:
            # It went on, and nobody told us: a number that is missing shows no loss then.
            book.is_silent = False
            self.counters.add(Count.MUTES, 1)
            self.note("mute", book.symbol, {
                "channel": book.channel, "applied": book.sync.applied, "sequence": sequence,
            })
        book.quiet_ns = self.quiet_after_ns
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
        if was_doubted and book.quote.flags & Flags.CROSSED:
            self.note_crossed(book)
        if book.held and self.drain(book, False, self.now_ns):
            self.publish(book, self.now_ns, 0)
        if not book.sync.in_sync():
            return self.fall_short(book)
        book.unreached = 0
        if not was_live:
            self.note_live(book)
        return 0

    cdef int fall_short(self, TrackedBook book) except -1:
        """Ask for a newer snapshot than one that does not reach what is held.

        One that was asked for after they came, and does not reach them either, says that
        the held ones are of no stream of this venue.
        """
        book.unreached += 1
        if book.unreached < UNREACHED:
            self.want_snapshot(book)
            return 0
        book.unreached = 0
        self.counters.add(Count.BAD_VALUES, len(book.held))
        self.note("rejected", book.symbol, {
            "channel": book.channel, "snapshot": book.sync.applied,
            "held": [update[0] for update in book.held[:MOST_DIFFERENCES]],
        })
        book.held.clear()
        book.held_bytes = 0
        book.gap = False
        book.sync.snapshot(book.sync.applied)
        self.publish(book, self.now_ns, 0)
        return self.note_live(book)

    cdef int audit(self, TrackedBook book, int64_t sequence) except -1:
        """Compare a book with the snapshot that replaced it; return whether it was right."""
        self.counters.add(Count.AUDITS, 1)
        if not book.levels.replaced_by_same():
            self.counters.add(Count.DIFFERENCES, 1)
            self.note("audit", book.symbol, {
                "channel": book.channel, "sequence": sequence, "levels": differences(book),
            })
            return False
        book.due_ns = 0
        book.wanted = False
        book.rung = 0
        if book.to_verify:
            self.note_crossed(book)
        if book.is_silent:
            # The market is quiet, not the line.
            book.is_silent = False
            book.quiet_ns = min(2 * book.quiet_ns, MOST_QUIET_NS)
            self.publish(book, self.now_ns, 0)
            self.note_live(book)
        return True

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
        if (flags ^ quote.flags) & Flags.CROSSED:
            self.crossing(book, flags)
        if self.is_late or book.is_silent or not book.sync.in_sync():
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
        if book.is_put_off:
            # Something else is told of it, before the read ends.
            self.counters.add(Count.CONFLATED, 1)
            take_up(book)
        levels.view(&self.view)
        if same:
            return self.sink.on_depth(quote, book.sequence, book.epoch, &self.view)
        book.quoted = True
        self.records += 1
        self.counters.add(Count.QUOTES, 1)
        return self.sink.on_quote(quote, book.sequence, book.epoch, &self.view)

    cdef int put_off(self, TrackedBook book) except -1:
        """Leave a book that is LIVE to be published when all of the read is applied."""
        if book.is_put_off:
            self.counters.add(Count.CONFLATED, 1)
            book.bid_changed = min(book.bid_changed, book.levels.bid_changed)
            book.ask_changed = min(book.ask_changed, book.levels.ask_changed)
            return 0
        book.is_put_off = True
        book.bid_changed = book.levels.bid_changed
        book.ask_changed = book.levels.ask_changed
        if book.next_put_off is not None or book is self.last_put_off:
            return 0                # in line since before it was published for another reason
        if self.last_put_off is None:
            self.first_put_off = book
        else:
            self.last_put_off.next_put_off = book
        self.last_put_off = book
        return 0

    cdef int end_read(self) except -1:
        """Publish what was put off, and let the sink's readers know of all of the read.

        Returns the Actions it calls for; what a sink raises is counted, and stops nothing.
        """
        cdef TrackedBook book
        cdef int before = self.actions
        cdef int asked
        cdef bint is_done = False
        self.actions = Action.NOTHING
        while not is_done:
            try:
                while self.first_put_off is not None:
                    book = self.first_put_off
                    self.first_put_off = book.next_put_off
                    book.next_put_off = None
                    if self.first_put_off is None:
                        self.last_put_off = None
                    if book.is_put_off:
                        take_up(book)
                        # The host's clock may have gone on since its message came.
                        self.publish(book, book.last_ns, 0)
                is_done = True
                self.sink.flush()
            except Exception as error:
                self.sink_error(error)
        asked = self.actions
        self.actions |= before
        return asked

    cdef int crossing(self, TrackedBook book, uint16_t flags) except -1:
        """Have a snapshot asked for when a book crosses: is it us, or the venue?"""
        book.to_verify = False
        if not flags & Flags.CROSSED or not book.sync.in_sync():
            return 0
        self.counters.add(Count.CROSSINGS, 1)
        book.to_verify = True
        if self.now_ns - book.checked_ns >= VERIFIED_NS and self.is_connected:
            self.want_snapshot(book)
        return 0

    def note_crossed(self, TrackedBook book not None):
        """Note that the venue's own book is crossed, such as before an auction."""
        book.to_verify = False
        self.note("crossed", book.symbol, {
            "channel": book.channel, "sequence": book.sequence,
            "bid": book.bids(1), "ask": book.asks(1),
        })
        return 0

    cdef int on_trade(self, const Text *channel, const Text *symbol, double price, double size,
                      bint buy, const Text *trade_id, int64_t trade_ms) except -1:
        cdef Trade trade
        cdef Route route
        cdef Py_ssize_t length = trade_id.size
        end_stage(self, DECODE)
        route = self.find(channel, symbol, Kind.TRADE)
        if route is None:
            return 0
        if length and route.is_repeated(trade_id.data, length):
            self.counters.add(Count.DUPLICATES, 1)
            return 0
        memset(&trade, 0, sizeof(trade))
        trade.venue_ns = trade_ms * 1_000_000
        trade.recv_ns = self.now_ns + self.utc_offset_ns
        trade.instrument = <uint16_t> route.instrument
        trade.flags = TradeFlags.BUY if buy else TradeFlags.SELL
        trade.flags |= (route.epoch & 0xFF) << EPOCH_SHIFT
        if length > 16:
            trade.flags |= TradeFlags.ID_CUT
            length = 16
        memcpy(trade.trade_id, trade_id.data, length)
        trade.price = price
        trade.size = size
        self.records += 1
        self.counters.add(Count.TRADES, 1)
        return self.sink.on_trade(&trade)

    cdef int on_ticker(self, const Text *channel, const Text *symbol, Ticker *ticker) except -1:
        cdef Route route
        end_stage(self, DECODE)
        route = self.find(channel, symbol, Kind.TICKER)
        if route is None:
            return 0
        ticker.recv_ns = self.now_ns + self.utc_offset_ns
        ticker.instrument = <uint16_t> route.instrument
        self.records += 1
        self.counters.add(Count.TICKERS, 1)
        return self.sink.on_ticker(ticker)

    cdef int on_candle(self, const Text *channel, const Text *symbol, object interval,
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
        self.records += 1
        self.counters.add(Count.CANDLES, 1)
        return self.sink.on_candle(route.instrument, route.interval, candle)

    cdef Route find(self, const Text *channel, const Text *symbol, Kind kind):
        """Return the Route of a channel message, or None, counted, where it has none."""
        cdef Route route = self.table.find(channel)
        if route is None:
            self.counters.add(Count.UNROUTED, 1)
            return None
        if route.kind != kind or not same_text(symbol, &route.symbol_text):
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

    def fall_behind(self):
        """Note that we did not read for long: what comes now may be of then.

        Every book is STALE until catch_up(): the answer to a ping that was sent after
        this comes behind all that waited in the socket.
        """
        late_ms = (self.now_ns - self.in_time_until_ns) // 1_000_000
        self.in_time_until_ns = INT64_MAX
        self.stalled += 1
        if self.is_late:
            return
        self.is_late = True
        self.counters.add(Count.STALLS, 1)
        self.note("stall", "", {"late_ms": late_ms})
        for book in self.books():
            self.degrade(book, False)

    def catch_up(self):
        """Note that what we read is of now again."""
        cdef TrackedBook book
        self.is_late = False
        for book in self.books():
            if book.quoted:
                self.publish(book, self.now_ns, 0)
                self.note_live(book)

    def mark_markets(self, closed, int64_t now_ns):
        """Note which symbols' markets are closed, as the venue says; all others are open."""
        cdef TrackedBook book
        cdef bint is_closed
        self.now_ns = now_ns
        for book in self.books():
            is_closed = book.symbol in closed
            if book.market_closed == is_closed:
                continue
            book.market_closed = is_closed
            if book.quoted:
                self.publish(book, now_ns, 0)

    cdef int on_bad_book(self, const Text *channel) except -1:
        """Treat a book message that cannot be used as a lost update of its channel."""
        cdef Route route = self.table.find(channel)
        self.counters.add(Count.BAD_VALUES, 1)
        if route is not None and route.book is not None:
            self.lose(route.book)
        return 0

    cdef int on_bad_value(self, const Text *channel) except -1:
        self.counters.add(Count.BAD_VALUES, 1)
        return 0

    def lose(self, TrackedBook book not None):
        """Note that something of a book's stream was lost: STALE until a snapshot."""
        book.sync.lost()
        self.degrade(book, True)
        if self.is_connected:
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

    def again(self, channels):
        """Have the books of *channels* that are still ours wait for nobody's snapshot."""
        cdef Route route
        for channel in channels:
            route = self.routes.get(channel)
            if route is not None and route.book is not None:
                route.book.due_ns = 0
                route.book.wanted = False

    def asked_for(self, channels, int64_t now_ns):
        """Note that the snapshots of *channels* were asked for."""
        cdef TrackedBook book
        for channel in channels:
            book = (<Route> self.routes[channel]).book
            if book is not None:
                book.wanted = False
                book.due_ns = now_ns + book.patience_ns

    def look_after(self, int64_t now_ns, int64_t resync_interval_ns):
        """Climb the ladder of the books whose snapshots are overdue, and begin audits."""
        cdef TrackedBook book
        for book in self.books():
            if book.due_ns and now_ns >= book.due_ns and (
                book.sync.in_sync() and not book.is_silent
            ):
                # An audit that was not answered says nothing against the book.
                book.due_ns = 0
                book.checked_ns = now_ns
            elif book.due_ns and now_ns >= book.due_ns:
                if book.rung >= 1:
                    book.patience_ns = min(2 * book.patience_ns, MOST_PATIENCE_NS)
                    self.give_up(f"no snapshot of {book.channel}")
                    return
                book.due_ns = 0
                book.rung = 1
                book.wanted = True
            elif book.due_ns or book.wanted or not book.sync.in_sync():
                continue
            elif book.quiet_ns and now_ns - book.last_ns >= book.quiet_ns:
                self.fall_silent(book)
            elif book.to_verify and now_ns - book.checked_ns >= VERIFIED_NS:
                book.wanted = True
            elif resync_interval_ns and now_ns - book.checked_ns >= resync_interval_ns:
                book.wanted = True

    def fall_silent(self, TrackedBook book not None):
        """Trust a book no more from which nothing came for long, until it is asked for.

        Quiet or mute: the snapshot says which. No reason to reconnect if it comes.
        """
        book.is_silent = True
        self.counters.add(Count.QUIETS, 1)
        self.note("quiet", book.symbol, {
            "channel": book.channel,
            "silent_ms": (self.now_ns - book.last_ns) // 1_000_000,
        })
        self.degrade(book, False)
        book.wanted = True

    def books(self):
        """Return the TrackedBooks."""
        return [route.book for route in self.routes.values() if route.book is not None]

    def note(self, str kind, str symbol, dict detail):
        """Add to the events; the oldest half goes when nobody takes them."""
        if len(self.events) >= MOST_EVENTS:
            del self.events[: MOST_EVENTS // 2]
        self.events.append(Event(kind, symbol, detail))

    # ── what the host calls ───────────────────────────────────────────────────────────

    def add(self, str channel not None, int instrument, uint32_t epoch=0):
        """Route a channel's messages; ValueError for a name outside the grammar.

        Adding a held one does nothing. Its epochs follow *epoch*: the last one of the same
        channel, if it was held before.
        """
        if channel not in self.routes:
            self.routes[channel] = Route(parse_channel(channel), instrument, epoch)
            self.table = RouteTable(list(self.routes.values()))

    def drop(self, Route route not None):
        """Forget a channel; its book is flagged STALE for good."""
        if route.book is not None:
            route.book.sync.lost()
            self.degrade(route.book, False)
        if self.routes.get(route.channel) is route:     # whom it is told may have been first
            del self.routes[route.channel]
        self.table = RouteTable(list(self.routes.values()))

    def connected(self, int64_t now_ns):
        """Note that there is a connection: every book waits for a snapshot."""
        cdef Route route
        self.now_ns = now_ns
        self.actions = Action.NOTHING
        self.heard_ns = now_ns
        self.is_connected = True
        self.is_late = False
        self.in_time_until_ns = INT64_MAX
        self.malformed_run = 0
        self.close_reason = None
        for route in self.routes.values():
            route.confirmed = False
            route.epoch += 1
            route.forget_trades()
            if route.book is not None:
                route.book.sync.reset()
                route.book.epoch += 1
                route.book.is_silent = False
                route.book.to_verify = False
                route.book.wanted = False
                route.book.due_ns = 0
                route.book.rung = 0

    def disconnected(self, int64_t now_ns):
        """Note that the connection is gone: every book turns STALE, now."""
        cdef Route route
        self.now_ns = now_ns
        self.is_connected = False
        self.is_late = False
        self.in_time_until_ns = INT64_MAX
        for route in self.routes.values():
            route.confirmed = False
            if route.book is not None:
                route.book.sync.lost()
                route.book.held.clear()
                route.book.held_bytes = 0
                route.book.wanted = False
                route.book.due_ns = 0
                self.degrade(route.book, False)

    def give_up(self, str reason) -> int:
        """Ask the host to end this connection."""
        self.close_reason = reason
        self.actions |= Action.CLOSE
        self.distrust()
        return self.actions

    def distrust(self):
        """Flag every book STALE: whatever comes is not used any more."""
        cdef TrackedBook book
        for book in self.books():
            book.sync.lost()
            self.degrade(book, False)

    def take_events(self) -> list:
        """Return what happened since the last call, in order."""
        taken = self.events
        self.events = []
        return taken

    def read_ended(self) -> int:
        """Publish what was put off to the end of the read; returns the Actions."""
        return self.end_read()

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


cdef list differences(TrackedBook book):
    """List levels that a replaced book had otherwise: side, price, its size, the right one."""
    found = []
    was = book.levels.replaced()
    for side, old, new in (
        ("bid", was[0], book.levels.bid_levels()), ("ask", was[1], book.levels.ask_levels())
    ):
        held, right = dict(old), dict(new)
        found += [
            (side, price, held.get(price), right.get(price))
            for price in {**held, **right}
            if held.get(price) != right.get(price)
        ]
    return found[:MOST_DIFFERENCES]


cdef int forget(TrackedBook book, int64_t sequence) except -1:
    """Drop held updates that a snapshot at *sequence* contains."""
    book.held = [update for update in book.held if update[0] > sequence]
    book.held_bytes = sum(len(update[3]) + len(update[4]) for update in book.held)
    return 0

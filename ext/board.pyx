"""The latest quote, levels, ticker and candles of every instrument, over any buffer."""

import json
import re
from typing import NamedTuple

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from libc.math cimport NAN
from libc.stdint cimport INT32_MAX, int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from feedhandler.atomic cimport (
    cpu_pause,
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    load_words,
    store_release,
    store_words,
)
from feedhandler.records cimport Candle, Flags, LevelsView, Quote, Ticker
from feedhandler.segment cimport BUSY, DATA_OFFSET, GENERIC, LINE

from feedhandler.errors import RingError, RingInvalid, UnknownSymbol
from feedhandler.records import CANDLE, INTERVAL_NAMES, QUOTE, TICKER
from feedhandler.segment import Origin, align, capacity_for


cdef extern from *:
    """
    #include <time.h>

    static void fh_board_nap(long ns)
    {
        struct timespec nap = {0, ns};
        nanosleep(&nap, NULL);
    }
    """
    void nap "fh_board_nap"(long ns) noexcept nogil


cdef enum:
    SPINS = 2000                # about 50 us, a thousand times what a write takes
    NAPS = 400                  # and 40 ms more: a writer can lose its core in the middle
    NAP_NS = 50_000
    WORD = 8

_NO_ORIGIN = Origin(epoch=1)
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,31}", re.ASCII)


class Top(NamedTuple):
    """The best bid and ask of one instrument, at one moment.

    A missing side has price NaN and size 0. *is_live* is the venue's side of the truth
    only: whether the writer still lives is not in it.
    """

    symbol: str
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float
    venue_ns: int
    recv_ns: int
    sequence: int
    session_epoch: int
    flags: int
    is_live: bool


class Depth(NamedTuple):
    """Both sides of one book, best first, each an array of rows (price, size)."""

    bids: np.ndarray
    asks: np.ndarray
    top: Top


class LastTicker(NamedTuple):
    """The venue's last ticker of one instrument; NaN where it does not know."""

    symbol: str
    venue_ns: int
    recv_ns: int
    last_price: float
    last_size: float
    bid: float
    ask: float
    volume: float
    daily_change: float
    daily_change_percent: float
    high: float
    low: float
    open: float


class LastCandle(NamedTuple):
    """The candle of one instrument and interval that was told last; it may be open yet."""

    symbol: str
    interval: str
    start_ns: int
    end_ns: int
    recv_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


cdef int entry_bytes(int levels) noexcept nogil:
    return (sizeof(Entry) + 2 * levels * sizeof(Level) + LINE - 1) // LINE * LINE


cdef uint64_t entries_offset(uint64_t capacity) noexcept nogil:
    return DATA_OFFSET + capacity * SYMBOL_BYTES     # capacity is 128 or more, or rounded up


def schema_of(capacity: int, levels: int) -> str:
    """Return the text that describes a board in its meta page."""
    return json.dumps(
        {
            "board": 1,
            "levels": levels,
            "entry_size": entry_bytes(levels),
            "directory": {"offset": DATA_OFFSET, "size": SYMBOL_BYTES, "count": 0x1000},
            "entry": entry_layout(levels),
            "quote": fields_of(QUOTE),
            "ticker": fields_of(TICKER),
            "candle": fields_of(CANDLE),
            "intervals": INTERVAL_NAMES,
        },
        separators=(",", ":"),
    )


cdef list fields_of(object dtype):
    return [[name, dtype[name].str, dtype.fields[name][1]] for name in dtype.names]


cdef dict entry_layout(int levels):
    """Say where the parts of an entry are, as the C compiler laid them out."""
    cdef Entry entry
    cdef const char *base = <const char *> &entry
    return {
        "seq": <const char *> &entry.seq - base,
        "status": <const char *> &entry.status - base,
        "sequence": <const char *> &entry.sequence - base,
        "session_epoch": <const char *> &entry.session_epoch - base,
        "bid_count": <const char *> &entry.bid_count - base,
        "ask_count": <const char *> &entry.ask_count - base,
        "quote": <const char *> &entry.quote - base,
        "ticker": <const char *> &entry.ticker - base,
        "candles": <const char *> &entry.candles - base,
        "bids": sizeof(Entry),
        "asks": sizeof(Entry) + levels * sizeof(Level),
    }


cdef void begin(Entry *entry) noexcept nogil:
    store_release(&entry.seq, BUSY | (entry.seq + 1))
    fence_release()


cdef void commit(Entry *entry) noexcept nogil:
    store_release(&entry.seq, entry.seq & ~BUSY)


cdef int32_t store_side(
    Level *side, const double *prices, const double *sizes, int32_t count,
    int32_t changed, int32_t kept, int32_t window,
) noexcept nogil:
    """Copy the levels from rank *changed* on; return how many are in the window now."""
    cdef Level level
    cdef int32_t rank
    cdef int32_t now = min(count, window)
    if changed >= window:
        return kept
    for rank in range(max(0, min(changed, kept)), now):
        level.price = prices[count - 1 - rank]
        level.size = sizes[count - 1 - rank]
        store_words(&side[rank], &level, sizeof(Level) / WORD)
    clear_levels(side, now, kept)
    return now


cdef void clear_levels(Level *side, int32_t first, int32_t end) noexcept nogil:
    cdef Level none
    cdef int32_t rank
    none.price = NAN
    none.size = 0.0
    for rank in range(first, end):
        store_words(&side[rank], &none, sizeof(Level) / WORD)


cdef Entry *entry_of(Board board, uint32_t instrument) noexcept nogil:
    """Return the entry of *instrument*, or NULL if there is none (or no segment)."""
    if board.entries == NULL or instrument >= board.count:
        return NULL
    return <Entry *> (board.entries + <size_t> instrument * board.entry_size)


cdef void blank(Board board, Entry *entry) noexcept nogil:
    """Make *entry* say that nothing is known yet."""
    cdef Level *levels = <Level *> (<char *> entry + sizeof(Entry))
    cdef Entry fresh
    memset(&fresh, 0, sizeof(Entry))
    fresh.status = LISTED
    fresh.quote.bid_price = fresh.quote.ask_price = NAN
    fresh.quote.flags = Flags.STALE | Flags.NO_BID | Flags.NO_ASK
    fresh.ticker.last_price = fresh.ticker.last_size = NAN
    fresh.ticker.bid = fresh.ticker.ask = fresh.ticker.volume = NAN
    fresh.ticker.daily_change = fresh.ticker.daily_change_percent = NAN
    fresh.ticker.high = fresh.ticker.low = fresh.ticker.open = NAN
    begin(entry)
    store_words(<uint64_t *> entry + 1, <uint64_t *> &fresh + 1, sizeof(Entry) / WORD - 1)
    clear_levels(levels, 0, 2 * board.levels)
    commit(entry)


cdef class Board(SegmentWriter):
    """The one writer of a board over *buffer*, which it formats.

    It has room for *max_instruments*, and keeps *levels* price levels per side.
    """

    def __init__(self, buffer, int max_instruments, int levels=10, origin=_NO_ORIGIN):
        capacity = checked_capacity(max_instruments, levels)
        offset = align(entries_offset(capacity), 4096)
        self.format(
            buffer, GENERIC, capacity, entry_bytes(levels), entry_bytes(levels),
            offset, schema_of(capacity, levels), origin,
        )
        self.levels = levels
        self.capacity = capacity
        self.entry_size = entry_bytes(levels)
        self.ids = {}
        self.names = []
        self.entries = self.base + <uint64_t> offset
        self.seal()

    @staticmethod
    def size_for(int max_instruments, int levels=10) -> int:
        """Return the bytes that such a board takes."""
        capacity = checked_capacity(max_instruments, levels)
        return align(entries_offset(capacity), 4096) + align(
            capacity * entry_bytes(levels), 4096)

    cdef void forget(self) noexcept:
        self.entries = NULL

    def add(self, str symbol) -> int:
        """Return the instrument number of *symbol*, from now on if it is new.

        A symbol that was removed comes back under its own number, with a blank entry.
        """
        cdef Entry *entry
        cdef bytes text
        cdef char *place
        if self.base == NULL:
            raise ValueError("segment is released")
        if symbol in self.ids:
            entry = entry_of(self, self.ids[symbol])
            if entry.status != LISTED:
                blank(self, entry)
            return self.ids[symbol]
        if not _SYMBOL.fullmatch(symbol):
            raise ValueError(f"symbol is {symbol[:40]!r}, not 1 to 32 of A-Z 0-9 . _ -")
        if self.count == <uint32_t> self.capacity:
            raise RingError(f"board is full with {self.capacity} instruments")
        text = symbol.encode()
        place = self.base + DATA_OFFSET + self.count * SYMBOL_BYTES
        memcpy(place, <const char *> text, len(text))
        self.ids[symbol] = self.count
        self.names.append(symbol)
        self.count += 1
        blank(self, entry_of(self, self.count - 1))
        store_release(&self.live.head, self.count)
        return self.count - 1

    def remove(self, str symbol) -> None:
        """Mark *symbol* as removed; its number is never given to another."""
        cdef Entry *entry
        cdef uint64_t status = REMOVED
        if symbol not in self.ids:
            raise UnknownSymbol(symbol)
        entry = entry_of(self, self.ids[symbol])
        if entry == NULL:
            raise ValueError("segment is released")
        begin(entry)
        store_words(&entry.status, &status, 1)
        commit(entry)

    def symbols(self) -> list[str]:
        """Every symbol ever added; the index is the instrument number."""
        return list(self.names)

    cdef void store_quote(
        self, const Quote *quote, uint64_t sequence, uint32_t epoch, const LevelsView *levels
    ) noexcept nogil:
        cdef Entry *entry = entry_of(self, quote.instrument)
        cdef Level *bids
        cdef Level *asks
        cdef int32_t bid_count, ask_count
        # As words: halves that were stored one by one must reach the cache before a load.
        cdef uint64_t head[3]
        if entry == NULL:
            return
        bid_count = entry.bid_count
        ask_count = entry.ask_count
        begin(entry)
        store_words(<uint64_t *> &entry.quote + 1, <uint64_t *> quote + 1,
                    sizeof(Quote) / WORD - 1)
        if levels != NULL:
            bids = <Level *> (<char *> entry + sizeof(Entry))
            asks = bids + self.levels
            bid_count = store_side(
                bids, levels.bid_prices, levels.bid_sizes, levels.bid_count,
                levels.bid_changed, entry.bid_count, self.levels)
            ask_count = store_side(
                asks, levels.ask_prices, levels.ask_sizes, levels.ask_count,
                levels.ask_changed, entry.ask_count, self.levels)
        head[0] = sequence
        head[1] = epoch | <uint64_t> <uint32_t> bid_count << 32
        head[2] = <uint32_t> ask_count
        store_words(&entry.sequence, head, 3)
        commit(entry)

    cdef void store_ticker(self, const Ticker *ticker) noexcept nogil:
        cdef Entry *entry = entry_of(self, ticker.instrument)
        if entry == NULL:
            return
        begin(entry)
        store_words(<uint64_t *> &entry.ticker + 1, <uint64_t *> ticker + 1,
                    sizeof(Ticker) / WORD - 1)
        commit(entry)

    cdef void store_candle(self, int instrument, int interval, const Candle *candle) noexcept nogil:
        cdef Entry *entry = entry_of(self, <uint32_t> instrument)
        if entry == NULL or not 0 <= interval < INTERVALS_KEPT:
            return
        begin(entry)
        store_words(&entry.candles[interval], candle, sizeof(Candle) / WORD)
        commit(entry)

    def write_quote(
        self, record, uint64_t sequence=0, uint32_t epoch=0, *, bids=None, asks=None,
        int bid_changed=0, int ask_changed=0,
    ) -> None:
        """Store a QUOTE record and, if given, its levels: (price, size) rows, best first."""
        cdef Quote quote
        cdef LevelsView view
        cdef bytearray bid_columns, ask_columns
        copy_record(record, &quote, sizeof(Quote))
        if bids is None and asks is None:
            self.store_quote(&quote, sequence, epoch, NULL)
            return
        bid_columns = columns_of(bids)
        ask_columns = columns_of(asks)
        view.bid_count = <int32_t> (len(bid_columns) // sizeof(Level))
        view.ask_count = <int32_t> (len(ask_columns) // sizeof(Level))
        view.bid_prices = <double *> PyByteArray_AS_STRING(bid_columns)
        view.bid_sizes = view.bid_prices + view.bid_count
        view.ask_prices = <double *> PyByteArray_AS_STRING(ask_columns)
        view.ask_sizes = view.ask_prices + view.ask_count
        view.bid_changed = INT32_MAX if bids is None else bid_changed
        view.ask_changed = INT32_MAX if asks is None else ask_changed
        self.store_quote(&quote, sequence, epoch, &view)

    def write_ticker(self, record) -> None:
        """Store a TICKER record."""
        cdef Ticker ticker
        copy_record(record, &ticker, sizeof(Ticker))
        self.store_ticker(&ticker)

    def write_candle(self, int instrument, str interval, record) -> None:
        """Store a CANDLE record."""
        cdef Candle candle
        copy_record(record, &candle, sizeof(Candle))
        self.store_candle(instrument, interval_number(interval), &candle)


cdef object checked_capacity(int max_instruments, int levels):
    if not 0 < max_instruments <= INSTRUMENTS_MAX:
        raise ValueError(f"instruments are {max_instruments}, not 1 to {INSTRUMENTS_MAX}")
    if not 0 < levels <= LEVELS_MAX:
        raise ValueError(f"levels are {levels}, not 1 to {LEVELS_MAX}")
    return capacity_for(max_instruments)


cdef int copy_record(object record, void *out, Py_ssize_t size) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
    try:
        if view.len != size:
            raise ValueError(f"record is {view.len} bytes, not {size}")
        memcpy(out, view.buf, size)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef bytearray columns_of(object rows):
    """Return prices, then sizes, worst first, as a book has them."""
    if rows is None or len(rows) == 0:
        return bytearray()
    table = np.asarray(rows, np.float64)
    return bytearray(np.ascontiguousarray(table[::-1].T).tobytes())


cdef int interval_number(str interval) except -1:
    if interval not in INTERVAL_NAMES:
        raise ValueError(f"interval is {interval!r}, not one of {', '.join(INTERVAL_NAMES)}")
    return INTERVAL_NAMES.index(interval)


cdef class BoardReader(SegmentReader):
    """Consistent copies of a board's entries. Not for two threads."""

    def __init__(self, buffer):
        self.rebind(buffer)

    def rebind(self, buffer) -> None:
        """Go on with another board."""
        self.bind(buffer)
        self.names = []
        self.ids = {}
        self.capacity = self.meta.capacity
        self.entry_size = self.meta.slot_size
        self.levels = json.loads(self.meta.schema)["levels"]
        self.entries = self.base + <uint64_t> self.meta.slots_offset

    cdef int accept(self, object meta) except -1:
        try:
            levels = json.loads(meta.schema)["levels"]
            if type(levels) is not int:
                raise ValueError(f"levels are {levels!r}")
            capacity = checked_capacity(meta.capacity, levels)
            offset = align(entries_offset(capacity), 4096)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise RingInvalid(f"schema is not that of a board: {error}") from None
        if meta.schema != schema_of(capacity, levels):
            raise RingInvalid("schema is not that of this version's board")
        if meta.slots_offset != offset or meta.slot_size != entry_bytes(levels):
            raise RingInvalid(
                f"entries are {meta.slot_size} bytes at {meta.slots_offset:#x}, "
                f"not {entry_bytes(levels)} at {offset:#x}"
            )
        return 0

    cdef void forget(self) noexcept:
        self.entries = NULL

    cdef uint64_t read(self, uint32_t instrument, void *out, size_t words) noexcept nogil:
        cdef const uint64_t *entry
        cdef uint64_t seq
        cdef int attempt
        if self.entries == NULL or instrument >= self.capacity:
            return 0
        entry = <const uint64_t *> (self.entries + <size_t> instrument * self.entry_size)
        words = min(words, self.entry_size / WORD)
        for attempt in range(SPINS + NAPS):
            seq = load_acquire(entry)
            if seq & BUSY == 0:
                load_words(out, entry, words)
                fence_acquire()
                if load_relaxed(entry) == seq:
                    return seq
            if attempt < SPINS:
                cpu_pause()
            else:
                nap(NAP_NS)
        return 0

    def symbols(self) -> list[str]:
        """Every symbol ever added; the index is `instrument` in records."""
        return list(known(self))

    def find(self, str symbol) -> int:
        """Return the instrument number of *symbol*; UnknownSymbol if there is none."""
        number = self.ids.get(symbol)
        if number is None:
            known(self)
            number = self.ids.get(symbol)
        if number is None:
            raise UnknownSymbol(symbol)
        return number

    def is_listed(self, str symbol) -> bool:
        """Say whether *symbol* is still followed."""
        cdef Entry entry
        read_entry(self, symbol, &entry, sizeof(Entry) / WORD)
        return entry.status == LISTED

    def top(self, str symbol) -> Top:
        """Return the best bid and ask of *symbol*."""
        cdef Entry entry
        read_entry(self, symbol, &entry, TOP_BYTES / WORD)
        return top_of(symbol, &entry)

    def depth(self, str symbol) -> Depth:
        """Return the kept levels of both sides of *symbol*, best first."""
        cdef bytearray raw = PyByteArray_FromStringAndSize(NULL, self.entry_size)
        cdef char *base = PyByteArray_AS_STRING(raw)
        cdef Entry entry
        read_entry(self, symbol, base, self.entry_size / WORD)
        memcpy(&entry, base, sizeof(Entry))
        table = np.frombuffer(raw, np.float64, 4 * self.levels, sizeof(Entry))
        table = table.reshape(2, self.levels, 2)
        return Depth(
            table[0, :clamp(entry.bid_count, self.levels)],
            table[1, :clamp(entry.ask_count, self.levels)],
            top_of(symbol, &entry),
        )

    def ticker(self, str symbol) -> LastTicker | None:
        """Return the last ticker of *symbol*, None before the first."""
        cdef Entry entry
        read_entry(self, symbol, &entry, sizeof(Entry) / WORD)
        if entry.ticker.recv_ns == 0:
            return None
        return LastTicker(
            symbol, entry.ticker.venue_ns, entry.ticker.recv_ns,
            entry.ticker.last_price, entry.ticker.last_size,
            entry.ticker.bid, entry.ticker.ask, entry.ticker.volume,
            entry.ticker.daily_change, entry.ticker.daily_change_percent,
            entry.ticker.high, entry.ticker.low, entry.ticker.open,
        )

    def candle(self, str symbol, str interval) -> LastCandle | None:
        """Return the last candle of *symbol*, None before the first."""
        cdef Entry entry
        cdef Candle candle
        cdef int number = interval_number(interval)
        read_entry(self, symbol, &entry, sizeof(Entry) / WORD)
        candle = entry.candles[number]
        if candle.recv_ns == 0:
            return None
        return LastCandle(
            symbol, interval, candle.start_ns, candle.end_ns, candle.recv_ns,
            candle.open, candle.high, candle.low, candle.close, candle.volume,
        )


cdef enum:
    TOP_BYTES = 128             # of an entry: its head and the quote


cdef int clamp(int count, int most) noexcept:
    return max(0, min(count, most))


cdef list known(BoardReader board):
    """Return the names, with those that were added since the last time."""
    cdef uint64_t count, number
    cdef const char *place
    if board.entries == NULL:
        raise ValueError("reader is released")
    count = min(load_acquire(&board.live.head), <uint64_t> board.capacity)
    for number in range(len(board.names), count):
        place = board.base + DATA_OFFSET + number * SYMBOL_BYTES
        symbol = place[:SYMBOL_BYTES].rstrip(b"\0").decode("ascii", "backslashreplace")
        board.names.append(symbol)
        board.ids.setdefault(symbol, number)
    return board.names


cdef int read_entry(BoardReader board, str symbol, void *out, size_t words) except -1:
    """Copy the entry of *symbol* as it was at one moment."""
    cdef uint32_t instrument = board.find(symbol)
    cdef uint64_t seq
    if board.entries == NULL:
        raise ValueError("reader is released")
    board.pinned += 1
    with nogil:
        seq = board.read(instrument, out, words)
    board.pinned -= 1
    if seq == 0:
        raise RingError(f"entry of {symbol} stays half-written: its writer died or hangs")
    return 0


cdef object top_of(str symbol, const Entry *entry):
    return Top(
        symbol,
        entry.quote.bid_price,
        entry.quote.bid_size,
        entry.quote.ask_price,
        entry.quote.ask_size,
        entry.quote.venue_ns,
        entry.quote.recv_ns,
        entry.sequence,
        entry.session_epoch,
        entry.quote.flags & 0xFF,
        entry.quote.flags & Flags.LIVE != 0 and entry.status == LISTED,
    )

# cython: language_level=3, binding=True, boundscheck=False, wraparound=False
"""Timing loops without an interpreter in them; built on first use by harness.py."""

import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from feedhandler.board cimport Board
from feedhandler.book cimport Level, OrderBook, Side
from feedhandler.clock cimport monotonic_ns
from feedhandler.codec cimport Codec, Decoded, Inbox
from feedhandler.publisher cimport Publisher
from feedhandler.records cimport LevelsView, Quote
from feedhandler.ring cimport EMPTY, Reader, Ring
from feedhandler.scan cimport Text
from feedhandler.session cimport Session
from feedhandler.sync cimport Sync, Verdict
from feedhandler.tracker cimport Route, Slot, TrackedBook

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    const clockid_t CLOCK_THREAD_CPUTIME_ID

cdef extern from * nogil:
    int64_t clock_ns "fh_clock_ns"(clockid_t clock)     # of feedhandler.clock


cdef extern from *:
    """
    #if __has_include(<valgrind/callgrind.h>)
    #include <valgrind/callgrind.h>
    enum { FH_CAN_START = 1 };
    static void fh_start_counting(void) { CALLGRIND_START_INSTRUMENTATION; }
    #else
    enum { FH_CAN_START = 0 };
    static void fh_start_counting(void) {}
    #endif
    """
    const bint FH_CAN_START
    void fh_start_counting() noexcept


CAN_START_COUNTING = FH_CAN_START       # whether valgrind's header was there


cdef struct Update:             # as UPDATE in updates.py
    Level level
    int64_t sequence
    int32_t book
    int32_t is_bid


cdef struct Stamp:              # as STAMP in wire.py
    int64_t published_ns
    int64_t instrument
    int64_t sequence


cdef inline int64_t processor_ns() noexcept nogil:
    """Return the time this thread had: while others had the processor, it stands still."""
    return clock_ns(CLOCK_THREAD_CPUTIME_ID)


def time_decode(decoder, list frames) -> int:
    """Return the ns that *decoder* needs for all *frames*."""
    decode = decoder.decode
    cdef int64_t start = processor_ns()
    for frame in frames:
        decode(frame)
    return processor_ns() - start


def time_codec(Codec codec not None, list frames) -> int:
    """Return the ns that *codec* needs for *frames*, calls on an inbox that ignores them too."""
    cdef bytes frame
    cdef Inbox inbox = Inbox()
    cdef int64_t start = processor_ns()
    for frame in frames:
        codec.decode(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), inbox)
    return processor_ns() - start


def time_each(handle, list messages) -> int:
    """Return the ns that a Python function needs for all *messages*, called from here."""
    cdef int64_t start = processor_ns()
    for message in messages:
        handle(message)
    return processor_ns() - start


def time_feed(Session session not None, list frames) -> int:
    """Return the ns from the first frame in to the last record out."""
    cdef bytes frame
    cdef int64_t now_ns = monotonic_ns()
    cdef int64_t start = processor_ns()
    for frame in frames:
        session.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), now_ns)
    return processor_ns() - start


def start_counting() -> None:
    """Let callgrind begin, where the process runs under it and was told to wait."""
    fh_start_counting()


def time_feeds(list sessions not None, list frames not None) -> int:
    """Return the ns of the same, where sessions[n] gets frames[n]."""
    cdef Session session
    cdef bytes frame
    cdef Py_ssize_t number
    cdef int64_t now_ns = monotonic_ns()
    cdef int64_t start
    if len(sessions) != len(frames):
        raise ValueError(f"{len(frames)} frames are for {len(sessions)} sessions")
    start = processor_ns()
    for number in range(len(frames)):
        session = sessions[number]
        frame = frames[number]
        session.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), now_ns)
    return processor_ns() - start


def time_reads(Session session not None, list frames, Py_ssize_t size) -> int:
    """Return the ns for the same, with the end of a read after every *size* frames."""
    cdef bytes frame
    cdef Py_ssize_t left = size
    cdef int64_t start = monotonic_ns()
    for frame in frames:
        session.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), start)
        left -= 1
        if left == 0:
            session.sink.flush()
            left = size
    return monotonic_ns() - start


def time_book(OrderBook book not None, list updates) -> int:
    """Return the ns to apply *updates*: (bids, asks) of packed doubles price, size."""
    cdef bytes bids, asks
    cdef int64_t start = processor_ns()
    for bids, asks in updates:
        book.update(
            <const Level *> PyBytes_AS_STRING(bids), PyBytes_GET_SIZE(bids) // sizeof(Level),
            <const Level *> PyBytes_AS_STRING(asks), PyBytes_GET_SIZE(asks) // sizeof(Level),
        )
    return processor_ns() - start


def time_publish(Ring ring not None, Py_ssize_t count) -> int:
    """Return the ns to publish *count* records of one slot's size."""
    cdef uint64_t record[16]
    cdef Py_ssize_t number
    cdef int64_t start
    if ring.slot_size > sizeof(record):
        raise ValueError(f"slots are {ring.slot_size} bytes, not {sizeof(record)} or less")
    memset(record, 0, sizeof(record))
    start = processor_ns()
    with nogil:
        for number in range(count):
            record[1] = <uint64_t> number
            ring.publish(record)
    return processor_ns() - start


def time_copy(Ring ring not None, Py_ssize_t count) -> int:
    """Return the ns to copy *count* records of 64 bytes to where publish() puts them.

    What the memory alone takes: no order among the stores, and nobody could read this.
    """
    cdef uint64_t record[8]
    cdef Py_ssize_t number
    cdef int64_t start
    if ring.slot_size != sizeof(record):
        raise ValueError(f"slots are {ring.slot_size} bytes, not {sizeof(record)}")
    memset(record, 0, sizeof(record))
    start = processor_ns()
    with nogil:
        for number in range(count):
            record[1] = <uint64_t> number
            memcpy(ring.slots + (<uint64_t> number & ring.mask) * sizeof(record),
                   record, sizeof(record))
    return processor_ns() - start


def time_next(Reader reader not None, Py_ssize_t count) -> int:
    """Return the ns to take up to *count* records that are there already."""
    cdef uint64_t record[16]
    cdef Py_ssize_t number
    cdef int64_t start = monotonic_ns()
    if reader.slot_size > sizeof(record):
        raise ValueError(f"slots are {reader.slot_size} bytes, not {sizeof(record)} or less")
    with nogil:
        for number in range(count):
            if reader.next(record) == EMPTY:
                break
    return monotonic_ns() - start


def follow(Reader reader not None, int64_t silence_ns) -> None:
    """Take records as fast as can be, spinning, until none came for *silence_ns*."""
    cdef uint64_t record[16]
    cdef int64_t last_ns = monotonic_ns()
    cdef uint32_t misses = 0
    if reader.slot_size > sizeof(record):
        raise ValueError(f"slots are {reader.slot_size} bytes, not {sizeof(record)} or less")
    with nogil:
        while True:
            if reader.next(record) != EMPTY:
                misses = 0
                continue
            misses += 1
            if misses == 1:
                last_ns = monotonic_ns()
            elif misses % 1024 == 0 and monotonic_ns() - last_ns > silence_ns:
                break


def time_call(call, Py_ssize_t count) -> int:
    """Return the ns of *count* calls from here: no interpreter's loop."""
    cdef Py_ssize_t number
    cdef int64_t start = monotonic_ns()
    for number in range(count):
        call()
    return monotonic_ns() - start


def send_paced(Ring ring not None, Py_ssize_t count, int64_t gap_ns) -> None:
    """Publish *count* quotes about *gap_ns* apart; recv_ns is when each was sent."""
    cdef Quote quote
    cdef Py_ssize_t number
    cdef int64_t due_ns = monotonic_ns()
    memset(&quote, 0, sizeof(quote))
    with nogil:
        for number in range(count):
            quote.recv_ns = monotonic_ns()
            ring.publish(&quote)
            due_ns += gap_ns + number % 7 * (gap_ns // 50)
            while monotonic_ns() < due_ns:
                pass
            due_ns = max(due_ns, monotonic_ns() - gap_ns)


cdef inline Text lent(str text):
    """Return the bytes of a str, which live as long as it does."""
    cdef Text lent
    lent.data = PyUnicode_AsUTF8AndSize(text, &lent.size)
    return lent


cdef inline int put(Inbox inbox, list names, const Update *update) except -1:
    """Tell *inbox* of one update; *names* has channel and symbol of each book in turn."""
    cdef Text channel = lent(names[2 * update.book])
    cdef Text symbol = lent(names[2 * update.book + 1])
    if update.is_bid:
        return inbox.on_book(&channel, &symbol, False, update.sequence, 1, &update.level, 1, NULL, 0)
    return inbox.on_book(&channel, &symbol, False, update.sequence, 1, NULL, 0, &update.level, 1)


cdef class Ready(Codec):
    """A codec whose payload is an Update: nothing is left to decode."""

    cdef list names

    def __init__(self, list names not None):
        self.names = names

    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *:
        put(inbox, self.names, <const Update *> payload)
        return Decoded.DECODED

    cdef bytes encode(self, object message):
        return b""


def snapshot(Session session not None, str channel, str symbol, bytes bids, bytes asks) -> None:
    """Start a book anew at sequence 0, with packed levels."""
    cdef Text channel_text = lent(channel)
    cdef Text symbol_text = lent(symbol)
    session.on_book(
        &channel_text, &symbol_text, True, 0, 1,
        <const Level *> PyBytes_AS_STRING(bids), PyBytes_GET_SIZE(bids) // sizeof(Level),
        <const Level *> PyBytes_AS_STRING(asks), PyBytes_GET_SIZE(asks) // sizeof(Level),
    )


def time_on_book(Session session not None, list names not None, bytes updates not None) -> int:
    """Return the ns from levels in C arrays to ring and board."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef const Update *end = update + PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef int64_t start = processor_ns()
    while update < end:
        put(session, names, update)
        update += 1
    return processor_ns() - start


def time_ready(Session session not None, bytes updates not None) -> int:
    """Return the ns of the same by Session.feed; the session's codec is a Ready."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef const Update *end = update + PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef int64_t now_ns = monotonic_ns()
    cdef int64_t start = processor_ns()
    while update < end:
        session.feed(<const char *> update, sizeof(Update), now_ns)
        update += 1
    return processor_ns() - start


def time_messages(Session session not None, str channel, str symbol, list messages) -> int:
    """Return the ns of on_book for *messages*: (bids, asks) of packed levels, from 1 on."""
    cdef bytes bids, asks
    cdef Text channel_text = lent(channel)
    cdef Text symbol_text = lent(symbol)
    cdef int64_t sequence = 0
    cdef int64_t start = processor_ns()
    for bids, asks in messages:
        sequence += 1
        session.on_book(
            &channel_text, &symbol_text, False, sequence, 1,
            <const Level *> PyBytes_AS_STRING(bids), PyBytes_GET_SIZE(bids) // sizeof(Level),
            <const Level *> PyBytes_AS_STRING(asks), PyBytes_GET_SIZE(asks) // sizeof(Level),
        )
    return processor_ns() - start


def time_update(OrderBook book not None, bytes updates not None) -> int:
    """Return the ns that the book alone needs."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef const Update *end = update + PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef int64_t start = processor_ns()
    while update < end:
        if update.is_bid:
            book.update(&update.level, 1, NULL, 0)
        else:
            book.update(NULL, 0, &update.level, 1)
        update += 1
    return processor_ns() - start


def time_find(Session session not None, list names not None, bytes updates not None) -> int:
    """Return the ns to find the routes alone."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef const Update *end = update + PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef Text channel
    cdef int64_t start = processor_ns()
    while update < end:
        channel = lent(names[2 * update.book])
        if session.table.find(&channel) is None:
            raise ValueError(f"{names[2 * update.book]} has no route")
        update += 1
    return processor_ns() - start


def time_quote(Session session not None, Route route not None, bytes ranks not None) -> int:
    """Return the ns to flag, fill in and publish quotes of a book as it is."""
    cdef const int32_t *rank = <const int32_t *> PyBytes_AS_STRING(ranks)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(ranks) // sizeof(int32_t)
    cdef Py_ssize_t number
    cdef TrackedBook book = route.book
    cdef int64_t start = processor_ns()
    for number in range(0, count, 2):
        book.levels.bid_changed = rank[number]
        book.levels.ask_changed = rank[number + 1]
        session.publish(book, number, 0)
    return processor_ns() - start


def changed_ranks(OrderBook book not None, bytes updates not None) -> bytes:
    """Apply *updates*; return what each told the board: the best ranks changed, int32."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef bytes ranks = PyBytes_FromStringAndSize(NULL, 2 * count * sizeof(int32_t))
    cdef int32_t *rank = <int32_t *> PyBytes_AS_STRING(ranks)
    cdef Py_ssize_t number
    for number in range(count):
        if update[number].is_bid:
            book.update(&update[number].level, 1, NULL, 0)
        else:
            book.update(NULL, 0, &update[number].level, 1)
        rank[2 * number] = book.bid_changed
        rank[2 * number + 1] = book.ask_changed
    return ranks


def time_store(Board board not None, OrderBook book not None, bytes ranks not None) -> int:
    """Return the ns to store a quote with the levels of *book*, those from each rank on."""
    cdef const int32_t *rank = <const int32_t *> PyBytes_AS_STRING(ranks)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(ranks) // sizeof(int32_t)
    cdef Py_ssize_t number
    cdef LevelsView view
    cdef Quote quote
    cdef int64_t start
    memset(&quote, 0, sizeof(quote))
    book.view(&view)
    start = processor_ns()
    for number in range(0, count, 2):
        quote.recv_ns = number
        view.bid_changed = rank[number]
        view.ask_changed = rank[number + 1]
        board.store_quote(&quote, number, 1, &view)
    return processor_ns() - start


def time_sync(Sync sync not None, bytes updates not None) -> int:
    """Return the ns to judge the sequence numbers alone, all of which follow."""
    cdef const Update *update = <const Update *> PyBytes_AS_STRING(updates)
    cdef const Update *end = update + PyBytes_GET_SIZE(updates) // sizeof(Update)
    cdef int64_t start = processor_ns()
    while update < end:
        if sync.delta(update.sequence) != Verdict.APPLY:
            raise ValueError(f"sequence {update.sequence} does not follow")
        update += 1
    return processor_ns() - start


cdef Py_ssize_t side_bytes(const Side *side) noexcept:
    return side.capacity * <Py_ssize_t> sizeof(Level)


def book_bytes(Route route not None, Board board not None) -> dict[str, int]:
    """Return what one book takes, without what the allocator adds."""
    cdef TrackedBook book = route.book
    cdef OrderBook levels = book.levels
    objects = (route, route.channel, route.symbol, book, book.sync, book.held, levels)
    return {
        "objects": sum(map(sys.getsizeof, objects)) + 4 * sizeof(Slot),
        "levels": side_bytes(&levels.bids) + side_bytes(&levels.asks)
        + side_bytes(&levels.next_bids) + side_bytes(&levels.next_asks),
        "board": board.entry_size,
    }


cdef class StampingPublisher(Publisher):
    """A Publisher that notes, of as many quotes as reserved, when each was published.

    It costs a look at the clock more than a Publisher.
    """

    cdef bytes memory
    cdef Stamp *next
    cdef Stamp *end

    def reserve(self, Py_ssize_t count) -> None:
        """Have room for *count* stamps; no page of it is touched for the first time later."""
        self.memory = PyBytes_FromStringAndSize(NULL, count * sizeof(Stamp))
        self.next = <Stamp *> PyBytes_AS_STRING(self.memory)
        self.end = self.next + count
        memset(self.next, 1, count * sizeof(Stamp))

    def stamps(self) -> bytes:
        """Return the stamps so far, as packed int64: ns, instrument, sequence."""
        cdef char *start = PyBytes_AS_STRING(self.memory)
        return start[:<char *> self.next - start]

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        Publisher.on_quote(self, quote, sequence, epoch, levels)
        if self.next < self.end:
            self.next.published_ns = monotonic_ns()
            self.next.instrument = quote.instrument
            self.next.sequence = quote.sequence
            self.next += 1
        return 0

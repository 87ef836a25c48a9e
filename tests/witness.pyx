# cython: boundscheck=False, wraparound=False
"""A scanner and its oracle on the same bytes, and what each of them told, to the bit."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from feedhandler.book cimport Level
from feedhandler.codec cimport Inbox, MsgspecCodec, ScanCodec
from feedhandler.records cimport Candle, Ticker
from feedhandler.scan cimport Hot, NOT_HOT, Scanned, Text, release, scan


cdef extern from *:
    """
    #include <sys/mman.h>
    #include <unistd.h>

    /* Whole pages of memory for *size* bytes, between two that nobody may touch. */
    static char *fh_guarded(size_t size, size_t *room)
    {
        size_t page = sysconf(_SC_PAGESIZE);
        *room = (size + page - 1) / page * page;
        char *all = mmap(NULL, *room + 2 * page, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED || mprotect(all + page, *room, PROT_READ | PROT_WRITE))
            return NULL;
        return all + page;
    }
    static void fh_unguard(char *memory, size_t room)
    {
        size_t page = sysconf(_SC_PAGESIZE);
        munmap(memory - page, room + 2 * page);
    }
    """
    char *fh_guarded(size_t size, size_t *room) noexcept
    void fh_unguard(char *memory, size_t room) noexcept


cdef class Witness(Inbox):
    """Write down every call, each of its values with its size or as its eight bytes."""

    cdef char *told
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    def __dealloc__(self):
        free(self.told)

    cdef int put(self, const void *data, Py_ssize_t size) except -1:
        cdef char *grown
        if self.size + size > self.room:
            grown = <char *> realloc(self.told, 2 * (self.size + size))
            if grown == NULL:
                raise MemoryError
            self.told = grown
            self.room = 2 * (self.size + size)
        if size:
            memcpy(self.told + self.size, data, size)
            self.size += size
        return 0

    cdef int put_int(self, int64_t value) except -1:
        return self.put(&value, sizeof(value))

    cdef int put_text(self, const Text *text) except -1:
        self.put_int(text.size)
        return self.put(text.data, text.size)

    cdef int put_call(self, char kind, const Text *channel) except -1:
        self.put(&kind, 1)
        return self.put_text(channel)

    cdef int put_object(self, char kind, object value) except -1:
        cdef bytes text = repr(value).encode("utf-8", "surrogatepass")
        self.put(&kind, 1)
        return self.put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int put_levels(self, const Level *levels, int count) except -1:
        self.put_int(count)
        return self.put(levels, count * <Py_ssize_t> sizeof(Level))

    cdef int on_book(self, const Text *channel, const Text *symbol, bint snapshot,
                     int64_t sequence, int64_t timestamp_ms, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) except -1:
        self.put_call(c"B", channel)
        self.put_text(symbol)
        self.put_int(snapshot)
        self.put_int(sequence)
        self.put_int(timestamp_ms)
        self.put_levels(bids, bid_count)
        return self.put_levels(asks, ask_count)

    cdef int on_bad_book(self, const Text *channel) except -1:
        return self.put_call(c"b", channel)

    cdef int on_trade(self, const Text *channel, const Text *symbol, double price, double size,
                      bint buy, const Text *trade_id, int64_t trade_ms) except -1:
        self.put_call(c"T", channel)
        self.put_text(symbol)
        self.put(&price, sizeof(price))
        self.put(&size, sizeof(size))
        self.put_int(buy)
        self.put_text(trade_id)
        return self.put_int(trade_ms)

    cdef int on_ticker(self, const Text *channel, const Text *symbol, Ticker *ticker) except -1:
        self.put_call(c"K", channel)
        self.put_text(symbol)
        return self.put(ticker, sizeof(Ticker))

    cdef int on_candle(self, const Text *channel, const Text *symbol, object interval,
                       Candle *candle, int64_t timestamp_ms) except -1:
        self.put_call(c"C", channel)
        self.put_text(symbol)
        self.put_object(c"i", interval)
        self.put_int(timestamp_ms)
        return self.put(candle, sizeof(Candle))

    cdef int on_bad_value(self, const Text *channel) except -1:
        return self.put_call(c"v", channel)

    cdef int on_heartbeat(self) except -1:
        return self.put_int(c"H")

    cdef int on_message(self, object message) except -1:
        return self.put_object(c"M", message)


cdef class Twins:
    """A ScanCodec and a MsgspecCodec that are given the same payloads.

    The scanner's lie in memory that ends where they end, or begins where they begin: to
    read a byte beside them is a crash.
    """

    cdef readonly ScanCodec scan
    cdef MsgspecCodec oracle
    cdef Witness scanned
    cdef Witness expected
    cdef Scanned read
    cdef char *memory
    cdef size_t room

    def __cinit__(self, Py_ssize_t largest = 1 << 16):
        memset(&self.read, 0, sizeof(self.read))
        self.memory = fh_guarded(largest, &self.room)
        if self.memory == NULL:
            raise MemoryError

    def __init__(self, Py_ssize_t largest = 1 << 16):
        self.scan = ScanCodec()
        self.oracle = MsgspecCodec()
        self.scanned = Witness()
        self.expected = Witness()

    def __dealloc__(self):
        release(&self.read.bids)
        release(&self.read.asks)
        if self.memory != NULL:
            fh_unguard(self.memory, self.room)

    def agree(self, bytes payload not None) -> bool:
        """Tell whether both accept and reject alike, and make the same calls."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef const char *at_end = self.at_end(payload)
        cdef uint64_t before = self.scan.scanned
        cdef int verdict, expected
        cdef Hot hot
        self.scanned.size = self.expected.size = 0
        verdict = <int> self.scan.decode(at_end, size, self.scanned)
        memcpy(self.memory, PyBytes_AS_STRING(payload), size)
        hot = scan(self.memory, size, &self.read)
        expected = <int> self.oracle.decode(PyBytes_AS_STRING(payload), size, self.expected)
        return (
            verdict == expected
            and (hot != NOT_HOT) == (self.scan.scanned != before)
            and self.scanned.size == self.expected.size
            and memcmp(self.scanned.told, self.expected.told, self.scanned.size) == 0
        )

    def told(self) -> tuple:
        """Return what the two said of the last payload."""
        return (
            PyBytes_FromStringAndSize(self.scanned.told, self.scanned.size),
            PyBytes_FromStringAndSize(self.expected.told, self.expected.size),
        )

    def numbers(self, bytes payload not None) -> list:
        """Return prices and sizes as the scanner reads them; None for what is not hot."""
        cdef int i
        if scan(self.at_end(payload), PyBytes_GET_SIZE(payload), &self.read) == NOT_HOT:
            return None
        found = []
        for i in range(self.read.bids.count):
            found += [self.read.bids.levels[i].price, self.read.bids.levels[i].size]
        for i in range(self.read.asks.count):
            found += [self.read.asks.levels[i].price, self.read.asks.levels[i].size]
        return found

    def touch(self, Py_ssize_t beyond) -> int:
        """Read the byte *beyond* the end, or before the beginning: a crash."""
        cdef const volatile char *at = self.memory
        return at[(<Py_ssize_t> self.room + beyond) if beyond >= 0 else beyond]

    cdef const char *at_end(self, bytes payload) except NULL:
        """Lay a payload down so that the memory ends with it."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef char *place = self.memory + self.room - size
        if size > <Py_ssize_t> self.room:
            raise ValueError(f"a payload of {size} bytes, and room for {self.room}")
        memcpy(place, PyBytes_AS_STRING(payload), size)
        return place

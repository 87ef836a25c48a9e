"""One payload in, calls on an Inbox out: JSON by a typed msgspec decoder, or a scanner.

Whatever the bytes are, decode() answers; it raises only what the inbox raised.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport INFINITY, NAN
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

import msgspec

from feedhandler.scan cimport HOT_SNAPSHOT, HOT_TRADE, Hot, NOT_HOT, release, reserve, scan

from feedhandler.protocol import messages


cdef extern from *:
    """
    #include <structmember.h>

    /* Where instances keep the attribute behind a __slots__ descriptor; -1 if it is none. */
    static Py_ssize_t fh_member_offset(PyObject *descriptor)
    {
        if (Py_TYPE(descriptor) != &PyMemberDescr_Type)
            return -1;
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    static inline PyObject *fh_member(PyObject *object, Py_ssize_t offset)
    {
        return *(PyObject **)((char *)object + offset);
    }
    #define fh_list_item(list, i) PyList_GET_ITEM(list, i)
    #define fh_tuple_item(tuple, i) PyTuple_GET_ITEM(tuple, i)
    #define fh_float(object) PyFloat_AS_DOUBLE(object)

    /* An int in [0, limit), or -1; never raises. */
    static inline long long fh_bounded(PyObject *number, long long limit)
    {
        int overflow;
        long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
        return overflow || value < 0 || value >= limit ? -1 : value;
    }
    """
    Py_ssize_t fh_member_offset(object descriptor)
    PyObject *fh_member(PyObject *instance, Py_ssize_t offset) noexcept
    PyObject *fh_list_item(PyObject *items, Py_ssize_t i) noexcept
    PyObject *fh_tuple_item(PyObject *items, Py_ssize_t i) noexcept
    double fh_float(PyObject *number) noexcept
    long long fh_bounded(PyObject *number, long long limit) noexcept
    Py_ssize_t fh_list_size "PyList_GET_SIZE"(PyObject *items) noexcept
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    # NULL with an exception set: looked at here, so that a good frame pays nothing for it.
    PyObject *PyObject_CallOneArg(object function, object argument) noexcept
    PyTypeObject_ *fh_type "Py_TYPE"(PyObject *instance) noexcept
    ctypedef struct PyTypeObject_ "PyTypeObject":
        pass
    void fh_decref "Py_DECREF"(PyObject *instance) noexcept


cdef int64_t SEQUENCE_LIMIT = 1 << 53
cdef int64_t TIME_LIMIT_MS = 1 << 43    # the year 2248; in nanoseconds it still fits 64 bits


cdef Py_ssize_t member_offset(object struct_type, str name) except -1:
    """Return where a Struct keeps a field, so that reading it is one load."""
    cdef Py_ssize_t offset = fh_member_offset(getattr(struct_type, name))
    if offset < 0:
        raise ImportError(f"{struct_type.__name__}.{name} is not kept in a slot")
    return offset


# The book messages and trades are the hot ones; their fields are read by offset.
cdef PyTypeObject_ *ORDERBOOK = fh_type_of(messages.Orderbook)
cdef PyTypeObject_ *ORDERBOOK_UPDATE = fh_type_of(messages.OrderbookUpdate)
cdef PyTypeObject_ *TRADE = fh_type_of(messages.Trade)

cdef Py_ssize_t UPDATE_DATA = member_offset(messages.OrderbookUpdate, "data")
cdef Py_ssize_t UPDATE_CHANNEL = member_offset(messages.OrderbookUpdate, "channel")
cdef Py_ssize_t UPDATE_TIMESTAMP = member_offset(messages.OrderbookUpdate, "timestamp")
cdef Py_ssize_t SNAPSHOT_DATA = member_offset(messages.Orderbook, "data")
cdef Py_ssize_t SNAPSHOT_CHANNEL = member_offset(messages.Orderbook, "channel")
cdef Py_ssize_t SNAPSHOT_TIMESTAMP = member_offset(messages.Orderbook, "timestamp")
cdef Py_ssize_t BOOK_SYMBOL = member_offset(messages.OrderbookData, "symbol")
cdef Py_ssize_t BOOK_BIDS = member_offset(messages.OrderbookData, "bids")
cdef Py_ssize_t BOOK_ASKS = member_offset(messages.OrderbookData, "asks")
cdef Py_ssize_t BOOK_SEQUENCE = member_offset(messages.OrderbookData, "sequence")
cdef Py_ssize_t TRADE_DATA = member_offset(messages.Trade, "data")
cdef Py_ssize_t TRADE_CHANNEL = member_offset(messages.Trade, "channel")
cdef Py_ssize_t TRADE_SYMBOL = member_offset(messages.TradeData, "symbol")
cdef Py_ssize_t TRADE_PRICE = member_offset(messages.TradeData, "price")
cdef Py_ssize_t TRADE_SIZE = member_offset(messages.TradeData, "size")
cdef Py_ssize_t TRADE_SIDE = member_offset(messages.TradeData, "side")
cdef Py_ssize_t TRADE_ID = member_offset(messages.TradeData, "trade_id")
cdef Py_ssize_t TRADE_TIME = member_offset(messages.TradeData, "trade_time")

if (UPDATE_DATA, UPDATE_CHANNEL, UPDATE_TIMESTAMP) != (
    SNAPSHOT_DATA, SNAPSHOT_CHANNEL, SNAPSHOT_TIMESTAMP
):
    raise ImportError("Orderbook and OrderbookUpdate are not laid out alike")


cdef PyTypeObject_ *fh_type_of(object struct_type) noexcept:
    return <PyTypeObject_ *> <PyObject *> struct_type


cdef bint is_ascii(const char *data, Py_ssize_t size) noexcept nogil:
    """Tell whether all bytes are below 0x80, eight at a time."""
    cdef uint64_t word
    cdef uint64_t bits = 0
    cdef Py_ssize_t i = 0
    while i + 8 <= size:
        memcpy(&word, data + i, 8)
        bits |= word
        i += 8
    while i < size:
        bits |= <uint64_t> (<unsigned char> data[i])
        i += 1
    return (bits & <uint64_t> 0x8080808080808080) == 0


cdef inline int text_of(PyObject *text, Text *out) except -1:
    """Lend the UTF-8 of a str; no decoder makes one that has none."""
    out.data = PyUnicode_AsUTF8AndSize(<object> text, &out.size)
    return 0


cdef int pending() except -1:
    """Let Cython see an exception that C code left behind."""
    return -1


cdef inline bint is_positive(double value) noexcept nogil:
    return value > 0.0 and value < INFINITY


cdef inline bint is_size(double value) noexcept nogil:
    return value >= 0.0 and value < INFINITY


cdef int take(Levels *out, PyObject *items) noexcept:
    """Copy a list of (price, size) out of Python; -1 for a level no venue may send.

    *items* is what the decoder made for list[tuple[float, float]]: exact types.
    """
    cdef Py_ssize_t count = fh_list_size(items)
    cdef Py_ssize_t i
    cdef PyObject *pair
    cdef double price, size
    if reserve(out, count) < 0:
        return -1
    for i in range(count):
        pair = fh_list_item(items, i)
        price = fh_float(fh_tuple_item(pair, 0))
        size = fh_float(fh_tuple_item(pair, 1))
        if not (is_positive(price) and is_size(size)):
            return -1
        out.levels[i].price = price
        out.levels[i].size = size + 0.0             # -0.0 becomes 0.0
    out.count = <int> count
    return 0


cdef inline double or_nan(object number) except? -1.0:
    return NAN if number is None else <double> number


cdef class Inbox:
    """Take what a Codec decoded; the defaults ignore it."""

    cdef int on_book(self, const Text *channel, const Text *symbol, bint snapshot,
                     int64_t sequence, int64_t timestamp_ms, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) except -1:
        return 0

    cdef int on_bad_book(self, const Text *channel) except -1:
        return 0

    cdef int on_trade(self, const Text *channel, const Text *symbol, double price, double size,
                      bint buy, const Text *trade_id, int64_t trade_ms) except -1:
        return 0

    cdef int on_ticker(self, const Text *channel, const Text *symbol, Ticker *ticker) except -1:
        return 0

    cdef int on_candle(self, const Text *channel, const Text *symbol, object interval,
                       Candle *candle, int64_t timestamp_ms) except -1:
        return 0

    cdef int on_bad_value(self, const Text *channel) except -1:
        return 0

    cdef int on_heartbeat(self) except -1:
        return 0

    cdef int on_message(self, object message) except -1:
        return 0


cdef class Codec:
    """How a payload is read. A session has one of its own: it keeps scratch space."""

    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *:
        """Decode one payload, borrowed for the length of the call, into calls on *inbox*."""
        raise NotImplementedError

    cdef bytes encode(self, object message):
        """Encode a client message of protocol.messages."""
        raise NotImplementedError


cdef class Payload:
    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("a payload is read-only")
        PyBuffer_FillInfo(buffer, self, <void *> self.data, self.size, 1, flags)


class _Head(msgspec.Struct):
    type: str


cdef class MsgspecCodec(Codec):
    """The product's codec. *decoder* is the typed decoder that does the reading."""

    def __cinit__(self):
        self.decoder = msgspec.json.Decoder(messages.ServerMessage)
        self.decode_payload = self.decoder.decode
        self.encoder = msgspec.json.Encoder()
        self.payload = Payload()
        self.known_types = frozenset(
            kind.__struct_config__.tag for kind in messages.ServerMessage.__args__
        )

    def __dealloc__(self):
        release(&self.bids)
        release(&self.asks)

    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *:
        cdef PyObject *message
        cdef PyTypeObject_ *kind
        self.payload.data = payload
        self.payload.size = size
        # msgspec checks the UTF-8 of what it keeps, not of what it skips.
        if not is_ascii(payload, size) and not is_utf8(payload, size):
            return Decoded.NOT_UTF8
        message = PyObject_CallOneArg(self.decode_payload, self.payload)
        if message == NULL:
            return self.judge()
        try:
            kind = fh_type(message)
            if kind == ORDERBOOK_UPDATE or kind == ORDERBOOK:
                self.deliver_book(message, kind == ORDERBOOK, inbox)
            elif kind == TRADE:
                deliver_trade(message, inbox)
            else:
                self.deliver(<object> message, inbox)
        finally:
            fh_decref(message)
        return Decoded.DECODED

    cdef bytes encode(self, object message):
        return self.encoder.encode(message)

    cdef int deliver_book(self, PyObject *message, bint snapshot, Inbox inbox) except -1:
        cdef PyObject *data = fh_member(message, UPDATE_DATA)
        cdef int64_t sequence = fh_bounded(fh_member(data, BOOK_SEQUENCE), SEQUENCE_LIMIT)
        cdef int64_t timestamp_ms = fh_bounded(fh_member(message, UPDATE_TIMESTAMP), TIME_LIMIT_MS)
        cdef Text channel, symbol
        text_of(fh_member(message, UPDATE_CHANNEL), &channel)
        if (
            sequence < 0
            or timestamp_ms < 0
            or take(&self.bids, fh_member(data, BOOK_BIDS)) < 0
            or take(&self.asks, fh_member(data, BOOK_ASKS)) < 0
        ):
            return inbox.on_bad_book(&channel)
        text_of(fh_member(data, BOOK_SYMBOL), &symbol)
        return inbox.on_book(
            &channel, &symbol, snapshot, sequence, timestamp_ms,
            self.bids.levels, self.bids.count, self.asks.levels, self.asks.count,
        )

    cdef int deliver(self, object message, Inbox inbox) except -1:
        """Hand on everything that is not hot."""
        kind = type(message)
        if kind is messages.Ticker:
            deliver_ticker(message, inbox)
        elif kind is messages.Candle:
            deliver_candle(message, inbox)
        elif kind is messages.Heartbeat:
            inbox.on_heartbeat()
        else:
            inbox.on_message(message)
        return 0

    cdef Decoded judge(self) except *:
        """Tell a message that is wrong from one that is merely new."""
        try:
            pending()
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass
        try:
            head = msgspec.json.decode(self.payload, type=_Head)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return Decoded.MALFORMED
        return Decoded.MALFORMED if head.type in self.known_types else Decoded.UNKNOWN


cdef class ScanCodec(MsgspecCodec):
    """Reads the hot messages straight from the bytes, and leaves all others to msgspec.

    What it reads means, to the bit, what msgspec makes of it; see scan.pyx.
    """

    def __dealloc__(self):
        release(&self.message.bids)
        release(&self.message.asks)

    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *:
        cdef Scanned *read = &self.message
        cdef Hot hot = scan(payload, size, read)
        if hot == NOT_HOT:
            return MsgspecCodec.decode(self, payload, size, inbox)
        self.scanned += 1
        if hot == HOT_TRADE:
            inbox.on_trade(
                &read.channel, &read.symbol, read.price, read.size, read.buy,
                &read.trade_id, read.trade_ms,
            )
        else:
            inbox.on_book(
                &read.channel, &read.symbol, hot == HOT_SNAPSHOT, read.sequence,
                read.timestamp_ms, read.bids.levels, read.bids.count,
                read.asks.levels, read.asks.count,
            )
        return Decoded.DECODED


cdef bint is_utf8(const char *payload, Py_ssize_t size) except -1:
    try:
        PyUnicode_DecodeUTF8(<char *> payload, size, NULL)
    except UnicodeDecodeError:
        return False
    return True


cdef int deliver_trade(PyObject *message, Inbox inbox) except -1:
    cdef PyObject *data = fh_member(message, TRADE_DATA)
    cdef double price = fh_float(fh_member(data, TRADE_PRICE))
    cdef double size = fh_float(fh_member(data, TRADE_SIZE))
    cdef int64_t trade_ms = fh_bounded(fh_member(data, TRADE_TIME), TIME_LIMIT_MS)
    cdef Text channel, symbol, trade_id
    text_of(fh_member(message, TRADE_CHANNEL), &channel)
    if not (is_positive(price) and is_positive(size) and trade_ms >= 0):
        return inbox.on_bad_value(&channel)
    text_of(fh_member(data, TRADE_SYMBOL), &symbol)
    text_of(fh_member(data, TRADE_ID), &trade_id)
    return inbox.on_trade(
        &channel,
        &symbol,
        price,
        size,
        <object> fh_member(data, TRADE_SIDE) == "buy",
        &trade_id,
        trade_ms,
    )


cdef int deliver_ticker(object message, Inbox inbox) except -1:
    cdef Ticker ticker
    cdef int64_t timestamp_ms = fh_bounded(<PyObject *> message.timestamp, TIME_LIMIT_MS)
    cdef Text channel, symbol
    data = message.data
    text_of(<PyObject *> message.channel, &channel)
    text_of(<PyObject *> data.symbol, &symbol)
    if timestamp_ms < 0:
        return inbox.on_bad_value(&channel)
    memset(&ticker, 0, sizeof(ticker))
    ticker.venue_ns = timestamp_ms * 1_000_000
    ticker.last_price = or_nan(data.last_price)
    ticker.last_size = or_nan(data.last_size) + 0.0         # -0.0 becomes 0.0
    ticker.bid = or_nan(data.bid)
    ticker.ask = or_nan(data.ask)
    ticker.volume = or_nan(data.volume) + 0.0
    ticker.daily_change = or_nan(data.daily_change)
    ticker.daily_change_percent = or_nan(data.daily_change_percent)
    ticker.high = or_nan(data.high)
    ticker.low = or_nan(data.low)
    ticker.open = or_nan(data.open)
    for value in (ticker.last_price, ticker.bid, ticker.ask, ticker.high, ticker.low, ticker.open):
        if value <= 0.0:                            # false for NaN
            return inbox.on_bad_value(&channel)
    if ticker.last_size < 0.0 or ticker.volume < 0.0:
        return inbox.on_bad_value(&channel)
    return inbox.on_ticker(&channel, &symbol, &ticker)


cdef int deliver_candle(object message, Inbox inbox) except -1:
    cdef Candle candle
    cdef Text channel, symbol
    data = message.data
    text_of(<PyObject *> message.channel, &channel)
    text_of(<PyObject *> data.symbol, &symbol)
    cdef int64_t timestamp_ms = fh_bounded(<PyObject *> message.timestamp, TIME_LIMIT_MS)
    cdef int64_t start_ms = fh_bounded(<PyObject *> data.start_time, TIME_LIMIT_MS)
    cdef int64_t end_ms = fh_bounded(<PyObject *> data.end_time, TIME_LIMIT_MS)
    candle.start_ns = start_ms * 1_000_000
    candle.end_ns = end_ms * 1_000_000
    candle.recv_ns = 0
    candle.open = data.open
    candle.high = data.high
    candle.low = data.low
    candle.close = data.close
    candle.volume = data.volume + 0.0
    if not (
        timestamp_ms >= 0 and 0 <= start_ms < end_ms
        and is_positive(candle.low) and is_positive(candle.high)
        and candle.low <= candle.open <= candle.high
        and candle.low <= candle.close <= candle.high
        and is_size(candle.volume)
    ):
        return inbox.on_bad_value(&channel)
    return inbox.on_candle(&channel, &symbol, data.interval, &candle, timestamp_ms)

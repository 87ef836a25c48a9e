"""The Sink that notes what was published in a file: for checkers that trust nobody.

A line is one event; its fields have one space between them, and its first is its kind:

    H 1                                               a feed begins, in format 1
    I instrument channel                              a channel of an instrument
    Q recv_ns instrument epoch sequence flags crc     a quote
    D recv_ns instrument epoch sequence flags crc     a change below the top: no quote
    T recv_ns instrument flags price size trade_id    a trade
    E lines                                           the end, after so many lines

Integers are decimal. *epoch* and *sequence* are whole, while *flags* are those of the
record, with what of the epoch is in them. A price or size has 17 digits, which say
exactly which double it is. In a *trade_id*, which may be empty, a byte that is a % or
not from ! to ~ is % and two hexadecimal digits.

*crc* is the CRC-32 of zlib, of the best ten levels: one byte with the number of bids, at
most 10, and one with that of asks; then rank by rank, best first, the bid's price and
size and the ask's price and size, each as the eight bytes of a little-endian double. A
level that is missing has no bytes: the two numbers say which those are.

Lines are written when a read of the socket has been worked off. A writer that is killed
leaves out what he had read last; a disk that is full ends the log, perhaps within a line.
Who appends to a log begins with an empty line: an H without one has a torn line before it.
"""

import os

from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.unistd cimport close, write

from feedhandler.records cimport LevelsView, Quote, Trade


# What the control loop counts of a log; both are 0 without one.
COUNTERS = ("audit_log_lines", "audit_log_errors")

cdef enum:
    LEVELS = 10
    BUFFER_BYTES = 1 << 16
    LINE_BYTES = 256            # no line is longer
    NAME_BYTES = 128            # of a channel
    POLYNOMIAL = 0xEDB88320

FLAGS = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    # A pipe that nobody reads is an error and does not hold us up.
    | os.O_NONBLOCK | os.O_NOCTTY
)

# CRC_TABLE[k][b]: what the byte b does to the sum when k more have followed it.
cdef uint32_t[8][256] CRC_TABLE
cdef char[200] PAIRS            # the numbers from 00 to 99
cdef const char *HEX = b"0123456789ABCDEF"


cdef void fill_tables() noexcept nogil:
    cdef uint32_t crc
    cdef int byte, k, _
    for k in range(100):
        PAIRS[2 * k] = <char> (c'0' + k // 10)
        PAIRS[2 * k + 1] = <char> (c'0' + k % 10)
    for byte in range(256):
        crc = <uint32_t> byte
        for _ in range(8):
            crc = crc >> 1 ^ (<uint32_t> POLYNOMIAL if crc & 1 else 0)
        CRC_TABLE[0][byte] = crc
    for byte in range(256):
        for k in range(1, 8):
            crc = CRC_TABLE[k - 1][byte]
            CRC_TABLE[k][byte] = crc >> 8 ^ CRC_TABLE[0][crc & 0xFF]


cdef inline uint32_t add_byte(uint32_t crc, uint8_t byte) noexcept nogil:
    return crc >> 8 ^ CRC_TABLE[0][(crc ^ byte) & 0xFF]


cdef inline uint32_t add_double(uint32_t crc, const double *number) noexcept nogil:
    """Add eight bytes at once, the lowest first: the table has what each does there."""
    cdef uint64_t word
    memcpy(&word, number, sizeof(word))
    word ^= crc
    return (
        CRC_TABLE[7][word & 0xFF]
        ^ CRC_TABLE[6][word >> 8 & 0xFF]
        ^ CRC_TABLE[5][word >> 16 & 0xFF]
        ^ CRC_TABLE[4][word >> 24 & 0xFF]
        ^ CRC_TABLE[3][word >> 32 & 0xFF]
        ^ CRC_TABLE[2][word >> 40 & 0xFF]
        ^ CRC_TABLE[1][word >> 48 & 0xFF]
        ^ CRC_TABLE[0][word >> 56]
    )


cdef uint32_t crc_of(const LevelsView *levels) noexcept nogil:
    """Return the sum of the best levels; the module's docstring says of which bytes."""
    cdef int32_t bids = min(levels.bid_count, <int32_t> LEVELS)
    cdef int32_t asks = min(levels.ask_count, <int32_t> LEVELS)
    cdef int32_t rank, place
    cdef uint32_t crc = add_byte(add_byte(0xFFFFFFFF, <uint8_t> bids), <uint8_t> asks)
    for rank in range(max(bids, asks)):
        if rank < bids:
            place = levels.bid_count - 1 - rank
            crc = add_double(crc, &levels.bid_prices[place])
            crc = add_double(crc, &levels.bid_sizes[place])
        if rank < asks:
            place = levels.ask_count - 1 - rank
            crc = add_double(crc, &levels.ask_prices[place])
            crc = add_double(crc, &levels.ask_sizes[place])
    return crc ^ <uint32_t> 0xFFFFFFFF


cdef inline char *put_field(char *at, uint64_t number) noexcept nogil:
    """Put a space and a number; return where it goes on."""
    cdef char[20] digits
    cdef int first = 20
    while number >= 100:
        first -= 2
        memcpy(digits + first, &PAIRS[2 * (number % 100)], 2)
        number //= 100
    first -= 2
    memcpy(digits + first, &PAIRS[2 * number], 2)
    if number < 10:
        first += 1
    at[0] = c' '
    memcpy(at + 1, digits + first, 20 - first)
    return at + 1 + 20 - first


cdef inline char *put_time(char *at, int64_t ns) noexcept nogil:
    cdef char *sign = at + 1
    if ns >= 0:
        return put_field(at, <uint64_t> ns)
    at[0] = c' '
    at = put_field(sign, -<uint64_t> ns)
    sign[0] = c'-'
    return at


cdef inline char *put_double(char *at, double number) noexcept nogil:
    return at + snprintf(at, 32, " %.17g", number)


cdef char *put_text(char *at, const char *text, int most) noexcept nogil:
    """Put at most *most* bytes, up to a NUL, none of which can end a field or a line."""
    cdef uint8_t byte
    cdef int i
    for i in range(most):
        byte = <uint8_t> text[i]
        if byte == 0:
            break
        if c'!' <= byte <= c'~' and byte != c'%':
            at[0] = <char> byte
            at += 1
        else:
            at[0] = c'%'
            at[1] = HEX[byte >> 4]
            at[2] = HEX[byte & 15]
            at += 3
    return at


cdef class AuditLog(Sink):
    """Note every quote and trade in the file at *path*, at its end.

    OSError if it cannot be opened; a link is not followed. Whatever happens afterwards
    ends the log and nothing else: take_error() tells. One thread.
    """

    def __cinit__(self, path not None):
        self.fd = -1
        self.buffer = <char *> malloc(BUFFER_BYTES)
        if self.buffer == NULL:
            raise MemoryError
        self.end = self.buffer
        self.fd = os.open(path, FLAGS, 0o600)
        if os.fstat(self.fd).st_size:
            self.end[0] = c'\n'
            self.end += 1
        note(self, b"H 1")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        free(self.buffer)

    def name(self, int instrument, str channel not None):
        """Note that *channel* is of *instrument*: before what comes of it."""
        text = channel.encode()
        if len(text) > NAME_BYTES:
            raise ValueError(f"channel is {channel[:40]!r}…, over {NAME_BYTES} bytes")
        note(self, b"I %d %b" % (instrument, text))

    def take_error(self):
        """Return what ended the log; None if nothing did, or if it was told."""
        if self.error == 0:
            return None
        told, self.error = os.strerror(self.error), 0
        return told

    def close(self):
        """Write the last lines; what comes then is not noted."""
        note(self, b"E %d" % self.lines)
        write_out(self)
        if self.fd >= 0:
            end_log(self, 0)

    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        note_book(self, c'Q', quote, sequence, epoch, levels)
        return 0

    cdef int on_depth(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1:
        note_book(self, c'D', quote, sequence, epoch, levels)
        return 0

    cdef int on_trade(self, const Trade *trade) except -1:
        cdef char *at = room(self)
        if at == NULL:
            return 0
        at[0] = c'T'
        at = put_time(at + 1, trade.recv_ns)
        at = put_field(at, trade.instrument)
        at = put_field(at, trade.flags)
        at = put_double(at, trade.price)
        at = put_double(at, trade.size)
        at[0] = c' '
        finish(self, put_text(at + 1, trade.trade_id, sizeof(trade.trade_id)))
        return 0

    cdef int flush(self) except -1:
        write_out(self)
        return 0


cdef int note(AuditLog log, bytes line) except -1:
    cdef char *at = room(log)
    cdef Py_ssize_t size = len(line)
    if at != NULL:
        memcpy(at, <const char *> line, size)
        finish(log, at + size)
    return 0


cdef void note_book(AuditLog log, char kind, const Quote *quote, uint64_t sequence,
                    uint32_t epoch, const LevelsView *levels) noexcept:
    cdef char *at = room(log)
    if at == NULL:
        return
    at[0] = kind
    at = put_time(at + 1, quote.recv_ns)
    at = put_field(at, quote.instrument)
    at = put_field(at, epoch)
    at = put_field(at, sequence)
    at = put_field(at, quote.flags)
    finish(log, put_field(at, crc_of(levels)))


cdef inline char *room(AuditLog log) noexcept:
    """Return where the next line goes; NULL when the log has ended."""
    if log.end - log.buffer > BUFFER_BYTES - LINE_BYTES:
        write_out(log)
    return log.end if log.fd >= 0 else NULL


cdef inline void finish(AuditLog log, char *at) noexcept:
    at[0] = c'\n'
    log.end = at + 1
    log.lines += 1


cdef void write_out(AuditLog log) noexcept:
    cdef const char *at = log.buffer
    cdef Py_ssize_t written
    while log.fd >= 0 and at < log.end:
        written = write(log.fd, at, log.end - at)
        if written > 0:
            at += written
        elif written == 0 or errno != EINTR:
            end_log(log, errno if written < 0 else EIO)
    log.end = log.buffer


cdef void end_log(AuditLog log, int error) noexcept:
    if close(log.fd) < 0 and error == 0:
        error = errno
    log.fd = -1
    log.error = error


fill_tables()

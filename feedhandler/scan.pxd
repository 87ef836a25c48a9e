"""The hot messages read straight from a frame's bytes: no Python objects, no allocation."""

from libc.stdint cimport int64_t

from feedhandler.book cimport Level


cdef struct Text:
    const char *data            # UTF-8, borrowed; nothing ends it
    Py_ssize_t size


cdef struct Levels:
    Level *levels
    int count
    int capacity


cdef enum Hot:
    NOT_HOT = 0                 # for a decoder of JSON: nothing of the Scanned is to be used
    HOT_UPDATE = 1
    HOT_SNAPSHOT = 2
    HOT_TRADE = 3


cdef struct Scanned:
    Text channel
    Text symbol
    int64_t timestamp_ms
    int64_t sequence            # of a book message
    Levels bids                 # memory that is kept from one message to the next
    Levels asks
    double price                # of a trade
    double size
    bint buy
    Text trade_id
    int64_t trade_ms


# Read one payload; *out* is zeroed before the first, and given to release() at the end.
cdef Hot scan(const char *payload, Py_ssize_t size, Scanned *out) noexcept nogil
cdef int reserve(Levels *out, Py_ssize_t count) noexcept nogil
cdef void release(Levels *levels) noexcept nogil

# cython: language_level=3, binding=True, boundscheck=False, wraparound=False
"""Timing loops without an interpreter in them; built on first use by harness.py."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from feedhandler.book cimport Level, OrderBook
from feedhandler.clock cimport monotonic_ns
from feedhandler.records cimport Quote
from feedhandler.ring cimport EMPTY, Reader, Ring
from feedhandler.session cimport Session


def time_decode(decoder, list frames) -> int:
    """Return the ns that *decoder* needs for all *frames*."""
    decode = decoder.decode
    cdef int64_t start = monotonic_ns()
    for frame in frames:
        decode(frame)
    return monotonic_ns() - start


def time_feed(Session session not None, list frames) -> int:
    """Return the ns from the first frame in to the last record out."""
    cdef bytes frame
    cdef int64_t start = monotonic_ns()
    for frame in frames:
        session.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), start)
    return monotonic_ns() - start


def time_book(OrderBook book not None, list updates) -> int:
    """Return the ns to apply *updates*: (bids, asks) of packed doubles price, size."""
    cdef bytes bids, asks
    cdef int64_t start = monotonic_ns()
    for bids, asks in updates:
        book.update(
            <const Level *> PyBytes_AS_STRING(bids), PyBytes_GET_SIZE(bids) // sizeof(Level),
            <const Level *> PyBytes_AS_STRING(asks), PyBytes_GET_SIZE(asks) // sizeof(Level),
        )
    return monotonic_ns() - start


def time_publish(Ring ring not None, Py_ssize_t count) -> int:
    """Return the ns to publish *count* records of one slot's size."""
    cdef uint64_t record[16]
    cdef Py_ssize_t number
    cdef int64_t start
    if ring.slot_size > sizeof(record):
        raise ValueError(f"slots are {ring.slot_size} bytes, not {sizeof(record)} or less")
    memset(record, 0, sizeof(record))
    start = monotonic_ns()
    with nogil:
        for number in range(count):
            record[1] = <uint64_t> number
            ring.publish(record)
    return monotonic_ns() - start


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
    start = monotonic_ns()
    with nogil:
        for number in range(count):
            record[1] = <uint64_t> number
            memcpy(ring.slots + (<uint64_t> number & ring.mask) * sizeof(record),
                   record, sizeof(record))
    return monotonic_ns() - start


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

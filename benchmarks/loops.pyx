# cython: language_level=3, binding=True, boundscheck=False, wraparound=False
"""Timing loops without an interpreter in them; built on first use by harness.py."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from feedhandler.book cimport Level, OrderBook
from feedhandler.clock cimport monotonic_ns
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

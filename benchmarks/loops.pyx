# cython: language_level=3, binding=True, boundscheck=False, wraparound=False
"""Timing loops without an interpreter in them; built on first use by benchmarks/harness.py."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

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
    """Return the ns from the first frame to the last record in the ring."""
    cdef bytes frame
    cdef int64_t start = monotonic_ns()
    cdef int64_t now_ns = start
    for frame in frames:
        session.feed(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), now_ns)
    return monotonic_ns() - start

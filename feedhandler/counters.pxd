"""Named 64-bit counters and latency histograms; plain stores by one writer."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from feedhandler.atomic cimport store_relaxed
from feedhandler.segment cimport SegmentReader, SegmentWriter

#    0x2000            slots_offset         a multiple of 64
#    +------+------+---+----+----+----+---+-----+---------------+-----+---------------+---
#    | name | name | … | u64| u64| u64| … | max | 1152 buckets  | max | 1152 buckets  | …
#    +------+------+---+----+----+----+---+-----+---------------+-----+---------------+---
#      64 bytes each,    counters           one histogram: 64 bytes, then 8 * 1152
#      counters first


cdef enum:
    SUB_BITS = 5                # 32 buckets per power of two: the error is 1/32 at most
    TOP_BITS = 40               # 2^40 ns are 18 minutes; what is longer goes to the last
    BUCKETS = (TOP_BITS - SUB_BITS + 1) * 32


cdef struct HistogramPage:      # 64 + 9216 bytes
    uint64_t max_ns
    uint64_t pad[7]
    uint64_t buckets[1152]


@cython.final
cdef class Counters(SegmentWriter):
    cdef uint64_t *counters     # in the order of the names; NULL without a segment
    cdef HistogramPage *pages
    cdef uint32_t counter_count
    cdef uint32_t histogram_count
    cdef readonly list counter_names
    cdef readonly list histogram_names

    cdef inline void add(self, int index, uint64_t n) noexcept nogil:
        """Add *n*; an index that is not there is ignored."""
        if <uint32_t> index < self.counter_count:
            store_relaxed(&self.counters[index], self.counters[index] + n)

    cdef inline void put(self, int index, uint64_t value) noexcept nogil:
        """Set a counter that is a gauge."""
        if <uint32_t> index < self.counter_count:
            store_relaxed(&self.counters[index], value)

    cdef void record(self, int histogram, int64_t ns) noexcept nogil


cdef class CountersReader(SegmentReader):
    cdef const uint64_t *counters
    cdef const HistogramPage *pages
    cdef readonly list counter_names
    cdef readonly list histogram_names

"""Named 64-bit counters and latency histograms over any buffer.

A histogram has 32 buckets per power of two of nanoseconds, so that a percentile is at
most 1/32 above the truth, whatever its size.
"""

import json
import re
from array import array
from itertools import accumulate

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from feedhandler.atomic cimport fence_acquire, load_relaxed, load_words, store_relaxed, store_release
from feedhandler.segment cimport DATA_OFFSET, GENERIC, LINE, NAME_BYTES

from feedhandler.errors import RingInvalid
from feedhandler.segment import Origin, align, capacity_for


cdef extern from *:
    """
    static inline int fh_bit_length(uint64_t value)
    {
        return value ? 64 - __builtin_clzll(value) : 0;
    }
    """
    int bit_length "fh_bit_length"(uint64_t value) noexcept nogil


cdef enum:
    NAMES_MAX = 4096            # of each kind
    WORD = 8

_NO_ORIGIN = Origin(epoch=1)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


cdef int bucket_of(uint64_t ns) noexcept nogil:
    """Return the bucket of *ns*: exact below 64, then 32 per power of two."""
    cdef int shift = bit_length(ns) - SUB_BITS - 1
    if shift <= 0:
        return <int> ns
    if ns >> TOP_BITS:
        return BUCKETS - 1
    return (shift << SUB_BITS) + <int> (ns >> shift)


cdef uint64_t highest_in(int bucket) noexcept nogil:
    """Return the largest value that goes to *bucket*."""
    cdef int shift = (bucket >> SUB_BITS) - 1
    if shift <= 0:
        return bucket
    return (<uint64_t> (bucket - (shift << SUB_BITS) + 1) << shift) - 1


class Histogram:
    """A private copy of a histogram: counts per bucket, and the largest value in ns."""

    __slots__ = ("_counts", "count", "max")

    def __init__(self, counts, max_ns: int) -> None:
        self._counts = array("Q", counts)
        self.count = sum(self._counts)
        self.max = max_ns

    def percentile(self, percent: float) -> int:
        """Return the ns that *percent* of the values do not exceed; 0 if there are none.

        At most 1/32 above the truth.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile is {percent}, not 0 to 100")
        if self.count == 0:
            return 0
        wanted = max(1, -int(-percent * self.count // 100))
        seen = accumulate(self._counts)
        bucket = next(bucket for bucket, total in enumerate(seen) if total >= wanted)
        return self.max if bucket == BUCKETS - 1 else min(highest_in(bucket), self.max)

    def merge(self, other):
        """Return the histogram of the values of both."""
        counts = [a + b for a, b in zip(self._counts, other._counts)]
        return Histogram(counts, max(self.max, other.max))

    def subtract(self, earlier):
        """Return the histogram of what came after *earlier*, a copy of the same one.

        Its max is that of the highest bucket: the exact one is not known.
        """
        counts = [max(0, a - b) for a, b in zip(self._counts, earlier._counts)]
        used = max((bucket for bucket, count in enumerate(counts) if count), default=-1)
        if used < 0:
            return Histogram(counts, 0)
        if used == BUCKETS - 1:
            return Histogram(counts, self.max)
        return Histogram(counts, min(highest_in(used), self.max))

    def __eq__(self, other) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._counts == other._counts and self.max == other.max

    __hash__ = None

    def __repr__(self) -> str:
        return (
            f"Histogram(count={self.count}, p50={self.percentile(50)}, "
            f"p99={self.percentile(99)}, max={self.max})"
        )


def schema_of(counters: int, histograms: int) -> str:
    """Return the text that describes such a segment in its meta page."""
    return json.dumps(
        {
            "counters": counters,
            "histograms": histograms,
            "names": {"offset": DATA_OFFSET, "size": NAME_BYTES},
            "histogram": {
                "offset": align(counters * WORD, LINE),
                "size": sizeof(HistogramPage),
                "max": 0,
                "buckets": LINE,
                "sub_bits": SUB_BITS,
                "top_bits": TOP_BITS,
            },
        },
        separators=(",", ":"),
    )


cdef object sizes(int counters, int histograms):
    """Return the offset of the counters, and the capacity in slots of 64 bytes."""
    if not 0 <= counters <= NAMES_MAX or not 0 <= histograms <= NAMES_MAX:
        raise ValueError(f"names are {counters} and {histograms}, not {NAMES_MAX} or less")
    total = align(counters * WORD, LINE) + histograms * sizeof(HistogramPage)
    offset = align(DATA_OFFSET + (counters + histograms) * NAME_BYTES, 4096)
    return offset, capacity_for(total // LINE)


@cython.final
cdef class Counters(SegmentWriter):
    """The one writer of counters and histograms over *buffer*, which it formats.

    An index is the place of a name in the list that was given.
    """

    def __init__(self, buffer, counters, histograms=(), origin=_NO_ORIGIN):
        names = [*counters, *histograms]
        if len(set(names)) != len(names):
            raise ValueError("names are not unique")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"name is {name!r}, not 1 to 63 of a-z 0-9 _")
        offset, capacity = sizes(len(counters), len(histograms))
        self.format(
            buffer, GENERIC, capacity, LINE, LINE, offset,
            schema_of(len(counters), len(histograms)), origin,
        )
        put_names(self.base + DATA_OFFSET, names)
        self.counter_names = list(counters)
        self.histogram_names = list(histograms)
        self.counters = <uint64_t *> (self.base + <uint64_t> offset)
        self.pages = <HistogramPage *> (
            self.base + <uint64_t> (offset + align(len(counters) * WORD, LINE)))
        self.counter_count = len(counters)
        self.histogram_count = len(histograms)
        self.seal()

    @staticmethod
    def size_for(int counters, int histograms=0) -> int:
        """Return the bytes that so many counters and histograms take."""
        offset, capacity = sizes(counters, histograms)
        return align(offset + capacity * LINE, 4096)

    cdef void forget(self) noexcept:
        self.counter_count = 0
        self.histogram_count = 0
        self.counters = NULL
        self.pages = NULL

    cdef void record(self, int histogram, int64_t ns) noexcept nogil:
        """Count a value; a negative one (a clock that is ahead) counts as 0."""
        cdef HistogramPage *page
        cdef uint64_t value = 0 if ns < 0 else <uint64_t> ns
        cdef int bucket = bucket_of(value)
        if <uint32_t> histogram >= self.histogram_count:
            return
        page = &self.pages[histogram]
        if value > page.max_ns:
            store_relaxed(&page.max_ns, value)
        store_release(&page.buckets[bucket], page.buckets[bucket] + 1)

    def increment(self, str name, uint64_t n=1) -> None:
        """Add *n* to the counter *name*."""
        self.add(index_of(self.counter_names, name), n)

    def assign(self, str name, uint64_t value) -> None:
        """Set the counter *name*, a gauge."""
        self.put(index_of(self.counter_names, name), value)

    def observe(self, str name, int64_t ns) -> None:
        """Count a value in the histogram *name*."""
        self.record(index_of(self.histogram_names, name), ns)


cdef int put_names(char *place, list names) except -1:
    cdef bytes text
    for name in names:
        text = name.encode()
        memcpy(place, <const char *> text, len(text))
        place += NAME_BYTES
    return 0


cdef int index_of(list names, str name) except -1:
    try:
        return names.index(name)
    except ValueError:
        raise KeyError(name) from None


cdef class CountersReader(SegmentReader):
    """A reader of counters and histograms."""

    def __init__(self, buffer):
        self.rebind(buffer)

    def rebind(self, buffer) -> None:
        """Go on with the counters of another segment."""
        self.bind(buffer)
        described = json.loads(self.meta.schema)
        counters, histograms = described["counters"], described["histograms"]
        names = names_at(self.base + DATA_OFFSET, counters + histograms)
        self.counter_names = names[:counters]
        self.histogram_names = names[counters:]
        place = self.meta.slots_offset
        self.counters = <const uint64_t *> (self.base + <uint64_t> place)
        place += align(counters * WORD, LINE)
        self.pages = <const HistogramPage *> (self.base + <uint64_t> place)

    cdef int accept(self, object meta) except -1:
        try:
            described = json.loads(meta.schema)
            counters, histograms = described["counters"], described["histograms"]
            if type(counters) is not int or type(histograms) is not int:
                raise ValueError(f"counts are {counters!r} and {histograms!r}")
            offset, capacity = sizes(counters, histograms)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise RingInvalid(f"schema is not that of counters: {error}") from None
        if meta.schema != schema_of(counters, histograms):
            raise RingInvalid("schema is not that of this version's counters")
        if (meta.slots_offset, meta.capacity, meta.slot_size) != (offset, capacity, LINE):
            raise RingInvalid(
                f"counters are {meta.capacity} lines at {meta.slots_offset:#x}, "
                f"not {capacity} at {offset:#x}"
            )
        return 0

    cdef void forget(self) noexcept:
        self.counters = NULL
        self.pages = NULL

    def values(self) -> dict[str, int]:
        """Return all counters; each is whole, but they are not of one moment."""
        if self.counters == NULL:
            raise ValueError("reader is released")
        return {
            name: load_relaxed(&self.counters[index])
            for index, name in enumerate(self.counter_names)
        }

    def histogram(self, str name) -> Histogram:
        """Return a copy of the histogram *name*; KeyError if there is none."""
        cdef HistogramPage page
        cdef int index = index_of(self.histogram_names, name)
        if self.pages == NULL:
            raise ValueError("reader is released")
        load_words(&page, &self.pages[index], sizeof(HistogramPage) / WORD)
        buckets = array("Q", PyBytes_FromStringAndSize(<char *> page.buckets, 8 * BUCKETS))
        # A value is in max_ns before it is in a bucket: read them the other way round.
        fence_acquire()
        return Histogram(buckets, load_relaxed(&self.pages[index].max_ns))


cdef list names_at(const char *place, int count):
    return [
        place[number * NAME_BYTES:(number + 1) * NAME_BYTES]
        .rstrip(b"\0").decode("ascii", "backslashreplace")
        for number in range(count)
    ]

"""A broadcast of fixed-size records: one writer, any number of readers that it ignores.

Layout and proofs are in segment.pxd and docs; slot n & (capacity - 1) holds record n.
"""

from libc.stdint cimport uint32_t, uint64_t

from feedhandler.segment cimport SegmentReader, SegmentWriter

#    slots_offset      + slot_size                         + capacity * slot_size
#    +-----+---------+-----+---------+-----+---------+----
#    | seq | payload | seq | payload | seq | payload | …
#    +-----+---------+-----+---------+-----+---------+----
#      0: never written; n + 1: record n is complete; BUSY | n + 1: being written


cpdef enum Found:
    EMPTY = 0
    RECORD = 1


cdef class Ring(SegmentWriter):
    cdef char *slots            # NULL when there is no segment: publish() does nothing
    cdef uint64_t mask
    cdef uint64_t count         # records published
    cdef uint32_t slot_size
    cdef uint32_t record_size
    cdef bint wakes             # readers may block until wake()
    cdef uint64_t flushed       # records published before the last wake()

    # Wait-free: no syscall, no shared state read. *record* is slot_size bytes, of which the
    # first word is ignored.
    cdef void publish(self, const void *record) noexcept nogil
    # Once per batch. A syscall if something was published since, and only if *wakes*.
    cdef void wake(self) noexcept nogil


cdef class Reader(SegmentReader):
    cdef const char *slots      # NULL when there is no segment: all is EMPTY
    cdef uint64_t mask
    cdef uint64_t capacity
    cdef uint64_t cursor        # the record wanted next
    cdef uint64_t origin        # the cursor at the start
    cdef uint64_t missed
    cdef uint32_t slot_size
    cdef bint latest            # a lapped reader goes on at the newest record, not at half
    cdef public bint watched    # look_around() is asked now and then when nothing is new
    cdef long long watch_ns     # when it is due
    cdef readonly object dtype
    cdef readonly object empty  # an array of no records
    cdef object expected        # the schema that a segment must have, or None
    cdef readonly int resets    # times that rebind() took it to another segment
    cdef bytearray raw          # the bytes of fill()'s batch, None before its first use
    cdef object filled          # the batch, and
    cdef dict views             # its fields

    # Copy the next record to *out*, of slot_size bytes. One cache line carries signal and
    # data: the quickest way to see a record. Returns Found.
    cdef int next(self, void *out) noexcept nogil

"""The first two pages of every shared-memory segment, and who may touch them.

A ring, a board and a set of counters differ only in what follows; `stream_kind` and the
schema in the meta page say which it is.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

#    0x0000         0x1000     0x1080                0x1100     0x1180     0x2000 or more
#    +--------------+----------+---------------------+----------+----------+----------------
#    | meta page    | head     | state, heartbeat    | wake_seq | reserved | [names] slots …
#    +--------------+----------+---------------------+----------+----------+----------------
#      written once   one writer; each word on its own 128 bytes             slots_offset

cdef enum:
    LIVE_OFFSET = 0x1000
    DATA_OFFSET = 0x2000        # the lowest slots_offset; a directory of names starts here
    PAGE = 4096
    LINE = 64
    NAME_BYTES = 64             # of the segment's name and the writer's version
    SCHEMA_BYTES = 3584
    CAPACITY_MIN = 64
    CAPACITY_MAX = 1 << 28
    SLOT_MAX = 4096

cdef extern from *:
    """
    #define FH_BUSY (1ULL << 63)
    """
    const uint64_t BUSY "FH_BUSY"   # of a slot's first word: it is being written


cpdef enum StreamKind:
    QUOTES = 1
    TRADES = 2
    GENERIC = 3                 # anything else; the schema tells


cpdef enum WriterState:
    LIVE = 1
    CLOSED = 2                  # the writer said goodbye; nothing more will come


cpdef enum SegmentFlags:
    WAKE = 0x1                  # the writer bumps wake_seq and wakes sleepers at flush()
    HUGE_PAGES = 0x2            # bits 16-31 must be understood by whoever attaches


cdef struct MetaPage:           # 4096 bytes, written before publication, never after
    uint64_t magic              # the bytes FHRING, 0, 1; stored last
    uint16_t abi_major
    uint16_t abi_minor
    uint32_t byte_order
    uint32_t flags
    uint32_t stream_kind
    uint64_t epoch              # random, not zero: one per life of a writer
    uint64_t capacity           # slots, a power of two
    uint32_t slot_size
    uint32_t record_size
    uint64_t slots_offset
    uint64_t file_size
    uint64_t schema_hash        # first 8 bytes of the BLAKE2b of the schema's text
    uint32_t schema_len
    uint32_t reserved
    int64_t created_realtime_ns
    int64_t created_monotonic_ns
    int32_t pid                 # diagnostics only: it lies across containers
    uint32_t uid
    uint64_t start_time         # of the process, in clock ticks since boot
    uint8_t boot_id[16]
    char name[64]
    char version[64]
    uint8_t unused[256]
    char schema[3584]           # JSON, not terminated


cdef struct LivePage:           # 4096 bytes; only the writer writes
    uint64_t head               # records published: the index of the next
    uint8_t pad_head[120]
    uint32_t state              # WriterState
    uint32_t pad_state
    uint64_t heartbeat_mono_ns  # CLOCK_MONOTONIC, from the writer's own loop
    uint64_t heartbeat_count
    uint64_t session_gap_count
    uint8_t pad_heartbeat[96]
    uint32_t wake_seq           # futex word
    uint8_t pad_wake[124]
    uint8_t unused[3712]


cdef class SegmentWriter:
    cdef object __weakref__
    cdef Py_buffer view
    cdef char *base             # NULL before format() and after release()
    cdef LivePage *live
    cdef int pinned             # calls that run without the GIL and use the pointers

    # Claim *buffer*, zero it and write all of the meta page but the magic.
    cdef int format(
        self, object buffer, StreamKind kind, uint64_t capacity, uint32_t slot_size,
        uint32_t record_size, uint64_t slots_offset, str schema, object origin,
    ) except -1
    cdef void seal(self) noexcept nogil     # the magic: from here on it is a segment
    cdef void forget(self) noexcept         # subclasses drop their own pointers
    cdef void beat(self, int64_t monotonic_ns) noexcept nogil   # every 100 ms
    cdef void note_gap(self) noexcept nogil     # counts one session gap in the live page


# Bump wake_seq and wake who sleeps on it: a syscall, so once per batch.
cdef void wake_readers(LivePage *live) noexcept nogil


cdef class SegmentReader:
    cdef object __weakref__
    cdef Py_buffer view
    cdef const char *base       # NULL before bind() and after release()
    cdef const LivePage *live
    cdef readonly object meta
    cdef int pinned             # calls that run without the GIL and use the pointers

    # Check the meta page of *buffer*, and only then let go of the segment before it.
    cdef int bind(self, object buffer) except -1
    cdef int accept(self, object meta) except -1    # subclasses refuse what is not theirs
    cdef void forget(self) noexcept

"""Commands of one engine to the handler: one producer, one consumer, nothing overwritten.

Each side writes a segment of its own and maps the other's read-only, and neither believes
what it reads there. docs/commands.md says what each promises the other.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from feedhandler.records cimport Command as Record
from feedhandler.segment cimport LivePage, SegmentReader, SegmentWriter

#    0x0000      0x1000     0x1080            0x2000         0x2080     0x3000
#    +-----------+----------+-----------------+--------------+----------+------+------+---
#    | meta page | produced | state           | writer epoch | revoked  | slot | slot | …
#    +-----------+----------+-----------------+--------------+----------+------+------+---
#    | meta page | cursor   | state,heartbeat | channel epoch| turn     |
#    +-----------+----------+-----------------+--------------+----------+
#      the engine's above, the handler's below; slots are as in a ring

cdef enum:
    SLOTS_OFFSET = 0x3000
    CHANNEL_MAX = 4096          # slots of a channel
    BATCH = 32                  # commands that take() takes at most


cpdef enum Published:           # below zero, the command is not in the channel
    SENT = 0
    SENT_ASLEEP = 1             # and the handler may sleep: wake it, then say woke()
    FULL = -1
    GONE = -2                   # the handler does not beat, said goodbye, or never came
    BROKEN = -3                 # its cursor is where no cursor can be


cdef struct ChannelPage:        # 4096 bytes; only the engine writes
    uint64_t writer_epoch       # of the handler that it is for; written before publication
    uint8_t pad_epoch[120]
    uint64_t revoked            # not 0: what is not taken yet must not be
    uint8_t pad_revoked[3960]


cdef struct CursorPage:         # 4096 bytes; only the handler writes
    uint64_t channel_epoch      # of the segment whose cursor this is; before publication
    uint8_t pad_epoch[120]
    uint64_t turn               # a new number before each sleep; 0: it never sleeps
    uint8_t pad_turn[3960]


cdef class CursorWriter(SegmentWriter):
    cdef CursorPage *page


cdef class CursorReader(SegmentReader):
    cdef const CursorPage *page


cdef class CommandWriter(SegmentWriter):
    cdef ChannelPage *page      # NULL when there is no segment
    cdef char *slots
    cdef uint64_t capacity
    cdef uint64_t count         # commands published
    cdef uint64_t known         # the last cursor that was seen
    cdef uint64_t epoch         # the segment's own
    cdef uint64_t seen          # the handler's turn at the last publish()
    cdef uint64_t woken         # the turn in which it was woken
    cdef bint revoked
    cdef CursorReader cursor    # None before follow(), and these two NULL
    cdef const LivePage *handler
    cdef const CursorPage *handler_page

    # Wait-free, no syscall. *now_ns* is CLOCK_MONOTONIC. Returns Published.
    cdef int publish(self, const Record *command, int64_t now_ns) noexcept nogil


cdef class CommandReader(SegmentReader):
    cdef const ChannelPage *page
    cdef const char *slots
    cdef uint64_t capacity
    cdef uint64_t position      # the command wanted next
    cdef uint64_t epoch         # of the writer whose commands may be carried out
    cdef int64_t offset_ns      # from CLOCK_MONOTONIC to the times in records
    cdef uint64_t head          # the largest count that the engine claimed
    cdef uint64_t busy          # the half-written slot's word at the last look, or 0
    cdef int64_t busy_ns        # since when it has been that
    cdef bint noted             # that it has been for too long
    cdef readonly str name
    cdef readonly bint broken   # something was read that no honest engine writes
    cdef readonly uint64_t stuck    # slots that were not finished for a second
    cdef CursorWriter cursor    # None before serve()
    cdef Record batch[32]

"""What one connection knows of the market: its books, and how far each can be trusted."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

from feedhandler.book cimport Level, OrderBook
from feedhandler.codec cimport Codec, Inbox
from feedhandler.counters cimport Counters
from feedhandler.records cimport LevelsView, Quote
from feedhandler.scan cimport Text
from feedhandler.sink cimport Sink, Tap
from feedhandler.sync cimport Sync


cpdef enum Action:
    NOTHING = 0
    SEND = 1                    # the outbox has messages for the venue
    RESYNC = 2                  # snapshots are wanted: call collect() when the read is done
    CLOSE = 4                   # this connection is of no more use; close_reason says why
    REFUSE = 8                  # the message is not UTF-8: close with 1007 (RFC 6455, 8.1)
    PING = 16                   # send a ping control frame with ping_payload
    DELIVER = 32                # there are messages or answers for the host to take


cdef enum Count:                # indices of the counters; COUNTERS has their names
    MESSAGES
    BYTES
    QUOTES
    TRADES
    TICKERS
    CANDLES
    SNAPSHOTS
    UPDATES
    GAPS
    RESYNCS
    DUPLICATES
    QUIETS
    MUTES
    CROSSINGS
    UNKNOWN_LOSSES
    MALFORMED
    UNKNOWN_TYPES
    UNROUTED
    BAD_VALUES
    MISMATCHES
    HEARTBEATS
    MISSED_HEARTBEATS
    PINGS
    STALLS
    CONNECTS
    DISCONNECTS
    ERRORS
    SINK_ERRORS
    FAULTS
    AUDITS
    DIFFERENCES
    CONFLATED

cdef enum:                      # indices of the histograms; HISTOGRAMS has their names
    FRAME_TO_RING = 0           # from the read of the socket to the sink's return
    DECODE = 1                  # from feed() to the values of the message
    APPLY = 2                   # from there to the book, before the sink is called
    ROUND_TRIP = 3              # from a ping to its pong

ctypedef int64_t (*Clock)() noexcept nogil      # monotonic nanoseconds


cdef enum Kind:
    ORDERBOOK
    TRADE
    TICKER
    CANDLE
    PRIVATE


cdef class TrackedBook:
    cdef readonly str symbol
    cdef readonly str channel
    cdef readonly int instrument
    cdef readonly OrderBook levels
    cdef Sync sync
    cdef Quote quote            # the last one published
    cdef readonly uint64_t sequence     # of the last message applied
    cdef readonly uint32_t epoch
    cdef int64_t venue_ns
    cdef bint quoted            # whether there was a quote at all
    cdef bint gap               # updates were lost since the last snapshot
    cdef readonly bint market_closed    # as the venue last told
    cdef list held              # updates that wait for what is missing
    cdef Py_ssize_t held_bytes
    cdef int unreached          # snapshots in a row that did not reach what is held
    cdef bint wanted            # a snapshot is to be asked for
    cdef int64_t due_ns         # when the snapshot asked for is overdue; 0: none asked for
    cdef int64_t patience_ns
    cdef int64_t checked_ns     # when a snapshot last said what the book is
    cdef int64_t last_ns        # when a message last came
    cdef int64_t quiet_ns       # so long without one is not normal; 0: nothing is watched
    cdef bint is_silent         # for so long: STALE until a snapshot says what is the matter
    cdef bint to_verify         # crossed, and no snapshot has said so yet
    cdef bint is_put_off        # what was applied is to be published when the read ends
    cdef int32_t bid_changed    # the best ranks that changed since it was published
    cdef int32_t ask_changed
    cdef TrackedBook next_put_off
    cdef int rung               # of the ladder: subscribe, unsubscribe + subscribe, reconnect


cdef class Route:
    cdef readonly str channel
    cdef readonly str symbol
    cdef Text symbol_text               # ASCII, borrowed from symbol
    cdef readonly int instrument
    cdef readonly int interval
    cdef readonly uint32_t epoch        # connections that it was held on; trades carry it
    cdef Kind kind
    cdef readonly TrackedBook book
    cdef readonly bint confirmed
    cdef uint64_t *seen         # hashes of the last trades' ids; NULL for other channels

    cdef bint is_repeated(self, const char *trade_id, Py_ssize_t length) noexcept nogil
    cdef void forget_trades(self) noexcept nogil


cdef struct Slot:               # of the table that finds a Route by the text of its channel
    uint64_t hash
    Text text                   # ASCII, borrowed from the Route's channel
    PyObject *route             # borrowed from Tracker.routes; NULL: free


cdef class RouteTable:
    cdef Slot *slots
    cdef uint64_t mask
    cdef list routes            # keeps what the slots borrow

    cdef Route find(self, const Text *channel)


cdef class Tracker(Inbox):
    cdef readonly Codec codec
    cdef readonly Sink sink
    cdef readonly Counters counters
    cdef public Tap tap
    cdef readonly dict routes
    cdef readonly list events
    cdef readonly object close_reason
    cdef readonly bint is_late              # what is read was sent long ago: all is STALE
    cdef int64_t stalled                    # how often we had not read for long
    cdef bint is_connected
    cdef bint changes_only
    cdef bint last_in_read                  # one quote of a book for all that one read brought
    cdef TrackedBook first_put_off          # and by next_put_off the others, in their order
    cdef TrackedBook last_put_off
    cdef int64_t quiet_after_ns             # 0: a book may be silent for ever
    cdef int64_t utc_offset_ns
    cdef readonly int64_t now_ns            # monotonic, of what it does or last did
    cdef int64_t heard_ns                   # when anything last came
    cdef int64_t in_time_until_ns           # what is read later was not read in time
    cdef int actions
    cdef int malformed_run
    cdef readonly uint64_t records          # quotes, trades, tickers, candles given to the sink
    cdef RouteTable table                   # the same as routes, for the hot path
    cdef LevelsView view
    cdef Clock clock                        # lent for a message that is sampled; or NULL
    cdef int64_t stage_ns                   # when the stage began that it is in

    cdef int feed(self, const char *payload, Py_ssize_t size, int64_t now_ns) except -1
    cdef int apply_snapshot(self, TrackedBook book, int64_t sequence, int64_t timestamp_ms,
                            const Level *bids, int bid_count,
                            const Level *asks, int ask_count) except -1
    cdef int audit(self, TrackedBook book, int64_t sequence) except -1
    cdef int fall_short(self, TrackedBook book) except -1
    cdef int put_off(self, TrackedBook book) except -1
    cdef int end_read(self) except -1
    cdef int crossing(self, TrackedBook book, uint16_t flags) except -1
    cdef int publish(self, TrackedBook book, int64_t recv_ns, uint16_t extra) except -1
    cdef int degrade(self, TrackedBook book, bint gap) except -1
    cdef int heal(self, TrackedBook book) except -1
    cdef int note_live(self, TrackedBook book) except -1
    cdef int drain(self, TrackedBook book, bint unpublished, int64_t recv_ns) except -1
    cdef Route find(self, const Text *channel, const Text *symbol, Kind kind)

"""The protocol state of one connection to the venue: bytes, events and time in, actions out."""

from libc.stdint cimport int64_t

from feedhandler.tracker cimport Tracker


cpdef enum State:
    CONNECTING = 0
    OPEN = 1
    AUTHENTICATED = 2
    SUBSCRIBED = 3
    CLOSING = 4
    CLOSED = 5
    FAILED = 6


cdef class Session(Tracker):
    cdef readonly str name
    cdef readonly State state
    cdef readonly list outbox
    cdef readonly list messages             # of private channels, for the host to take
    cdef readonly list answers
    cdef readonly object subscribe_throttle
    cdef readonly object other_throttle
    cdef readonly object key                # ApiKey; None: an endpoint without one
    cdef readonly object reconnect
    cdef readonly object failed             # why there will be no further attempt; or None
    cdef readonly bytes ping_payload
    cdef readonly int64_t heartbeat_ns      # when the last one came, or the connection opened
    cdef readonly int64_t round_trip_ns     # of the last ping; 0: none yet
    cdef readonly int64_t proven_ns         # when the last ping that was answered was sent
    cdef object login
    cdef object login_reason
    cdef int64_t patient_until_ns           # with a venue that is about to close; 0: it is not
    cdef object verdict                     # CloseAction of a close that we decided on
    cdef bint is_ended                      # we want no further attempt
    cdef bint was_subscribed
    cdef bint has_dropped                   # a channel was refused on this connection
    cdef int missed
    cdef int64_t stall_after_ns             # between two ticks: we did not read
    cdef int64_t resync_interval_ns         # 0: no audits
    cdef int64_t opened_ns
    cdef int64_t retry_ns                   # when the next attempt may begin
    cdef int64_t pinged_ns                  # 0: no ping waits for its pong
    cdef int64_t last_ping_ns
    cdef int64_t pinged_stall               # how often we had fallen behind by then
    cdef dict requests
    cdef dict late                          # timed out on this connection
    cdef list to_subscribe
    cdef list to_unsubscribe
    cdef int64_t next_id

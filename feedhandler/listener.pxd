"""What stands between picows and a Session: a translation, not a place to think."""

from libc.stdint cimport int64_t, uint64_t
from picows.picows cimport WSFrame, WSListener, WSTransport

from feedhandler.session cimport Session


cdef class Listener(WSListener):
    cdef readonly Session session
    cdef readonly WSTransport transport
    cdef readonly object close_code         # what ended the connection; None while it lives
    cdef readonly str close_reason
    cdef readonly object closed             # asyncio.Future, done when the socket is gone
    cdef object on_events
    cdef Py_ssize_t max_message_bytes
    cdef int64_t recv_ns                    # of the socket read that is being worked off
    cdef bint reading
    cdef bint closing                       # a close frame was sent or received
    cdef int64_t closing_ns                 # since when
    cdef bint discarded                     # nobody wants this connection any more
    cdef bint resync
    cdef bint in_message                    # between the fragments of a message
    cdef bint discarding
    cdef bytearray fragments
    cdef uint64_t frames
    cdef bint sampled                       # a message whose latency is to be recorded
    cdef object text                        # decoder of a message in fragments, if it is text

    cdef void sample(self, uint64_t records) noexcept nogil
    cdef int act(self, int actions) except -1
    cdef int act_or_fault(self, int actions) except -1
    cdef int special_or_fault(self, WSFrame frame) except -1
    cdef int special(self, WSFrame frame) except -1
    cdef int fragment(self, WSFrame frame) except -1
    cdef int close(self, WSFrame frame) except -1

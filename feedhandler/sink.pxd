"""Where normalised events go, and who sees raw frames.

A Sink is called on the loop's thread, with the GIL, before the next frame is read. What
it is given is lent for the length of the call.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from feedhandler.records cimport Candle, LevelsView, Quote, Ticker, Trade


cdef class Sink:
    # *sequence* is the venue's, in full; *epoch* the session epoch, in full.
    cdef int on_quote(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1
    # As on_quote, for a change below the top while quotes are published on changes only.
    cdef int on_depth(self, const Quote *quote, uint64_t sequence, uint32_t epoch,
                      const LevelsView *levels) except -1
    cdef int on_trade(self, const Trade *trade) except -1
    cdef int on_ticker(self, const Ticker *ticker) except -1
    cdef int on_candle(self, int instrument, int interval, const Candle *candle) except -1
    # All events of one read of the socket, or of one tick, were given.
    cdef int flush(self) except -1


cdef class Tee(Sink):
    cdef Sink first
    cdef Sink second
    cdef object on_error


cdef class PythonSink(Sink):
    pass


cdef class Tap:
    cdef int on_frame(self, const char *payload, Py_ssize_t size, int64_t recv_ns) except -1

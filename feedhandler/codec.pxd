"""One payload in, calls on an Inbox out."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from feedhandler.book cimport Level
from feedhandler.records cimport Candle, Ticker
from feedhandler.scan cimport Levels, Scanned, Text


cdef enum Decoded:
    DECODED = 0                 # the inbox was called
    UNKNOWN = 1                 # a message of a type that we do not know; ignore it
    MALFORMED = 2               # not a message of the reference
    NOT_UTF8 = 3                # not even text


cdef class Inbox:
    # Texts, records and levels are lent for the length of the call.
    # Values were checked: prices finite and > 0, sizes finite and >= 0, no -0.0; sequence
    # 0 .. 2**53 - 1; times in milliseconds, 0 .. 2**43.
    cdef int on_book(self, const Text *channel, const Text *symbol, bint snapshot, int64_t sequence,
                     int64_t timestamp_ms, const Level *bids, int bid_count,
                     const Level *asks, int ask_count) except -1
    # A book message whose numbers no venue may send: a lost update of that channel.
    cdef int on_bad_book(self, const Text *channel) except -1
    cdef int on_trade(self, const Text *channel, const Text *symbol, double price, double size, bint buy,
                      const Text *trade_id, int64_t trade_ms) except -1
    # The records come without instrument and receive time, with their venue times.
    cdef int on_ticker(self, const Text *channel, const Text *symbol, Ticker *ticker) except -1
    cdef int on_candle(self, const Text *channel, const Text *symbol, object interval,
                       Candle *candle, int64_t timestamp_ms) except -1
    # A message of any other channel whose numbers no venue may send.
    cdef int on_bad_value(self, const Text *channel) except -1
    cdef int on_heartbeat(self) except -1
    # Everything else: a Struct of protocol.messages.
    cdef int on_message(self, object message) except -1


cdef class Codec:
    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *
    cdef bytes encode(self, object message)


cdef class Payload:
    # A buffer over borrowed bytes, made once and pointed at one frame after the other.
    cdef const char *data
    cdef Py_ssize_t size


cdef class MsgspecCodec(Codec):
    cdef readonly object decoder
    cdef object encoder
    cdef object decode_payload
    cdef object known_types
    cdef Payload payload
    cdef Levels bids
    cdef Levels asks

    cdef int deliver_book(self, PyObject *message, bint snapshot, Inbox inbox) except -1
    cdef int deliver(self, object message, Inbox inbox) except -1
    cdef Decoded judge(self) except *


cdef class ScanCodec(MsgspecCodec):
    cdef readonly uint64_t scanned          # messages read without msgspec
    cdef Scanned message

"""What stands between picows and a Session: a translation, not a place to think.

picows parses frames; the rules of RFC 6455 that it leaves to its users are kept here:
reserved bits, the order and size of fragments, the close handshake, silence after it.
"""

import asyncio
import codecs
import socket
import struct

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from picows.picows cimport WSCloseCode, WSMsgType

from feedhandler.clock cimport monotonic_ns
from feedhandler.tracker cimport Action, FRAME_TO_RING

from feedhandler.protocol.codes import ABNORMAL, is_wire_code


cdef object RESET = struct.pack("ii", 1, 0)      # SO_LINGER: on, for no time
cdef object Utf8 = codecs.getincrementaldecoder("utf-8")

cdef enum:
    SAMPLE = 64                 # one message in so many has its latencies recorded
    PONG_BACKLOG = 1 << 16      # bytes that a venue which floods us with pings has not read


cdef class Listener(WSListener):
    """Feed one connection's frames to a Session and put what it says on the wire.

    *on_events* is called, without arguments, when the session has events. Nothing that
    the venue sends makes a callback raise. The loop's thread only.
    """

    def __cinit__(self, Session session not None, on_events not None,
                  Py_ssize_t max_message_bytes=4 << 20):
        self.session = session
        self.on_events = on_events
        self.max_message_bytes = max_message_bytes
        self.fragments = bytearray()
        self.close_reason = ""
        self.closed = asyncio.get_running_loop().create_future()

    cpdef on_ws_connected(self, WSTransport transport):
        self.transport = transport
        if self.discarded:
            transport.disconnect(False)
            return
        self.act(self.session.opened(monotonic_ns()))
        self.tick()

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef int actions = 0
        cdef uint64_t records = self.session.records
        if not self.reading:
            # One stamp for all that one read brought: the clock costs more than the ring.
            self.recv_ns = monotonic_ns()
            self.reading = True
        if (
            (frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.BINARY)
            and frame.fin
            and not (frame.rsv1 | frame.rsv2 | frame.rsv3 | self.closing | self.in_message)
            and frame.payload_size <= self.max_message_bytes
        ):
            self.frames += 1
            if self.frames % SAMPLE == 0:
                self.sampled = True
                self.session.clock = monotonic_ns
            actions = self.session.feed(frame.payload_ptr, frame.payload_size, self.recv_ns)
            self.session.clock = NULL
            if self.sampled:
                self.sample(records)
        else:
            actions = self.special_or_fault(frame)
        if actions & Action.RESYNC:
            self.resync = True
        if frame.last_in_buffer:
            self.reading = False
            actions |= self.session.end_read()
            if self.sampled:
                self.sample(records)
                self.sampled = False
            if self.resync or actions & Action.RESYNC:
                # All books that one read left behind go into one request.
                self.resync = False
                actions |= self.session.collect(self.recv_ns)
        if actions or self.session.events:
            self.act_or_fault(actions)

    cpdef on_ws_disconnected(self, WSTransport transport):
        if self.discarded:
            return
        handshake = transport.close_handshake
        if self.close_code is None:
            if handshake is not None and handshake.recv is not None and is_wire_code(
                int(handshake.recv.code)
            ):
                # picows hands on a read's first frame when it has parsed the second: a
                # breach there hid the close frame.
                self.close_code = int(handshake.recv.code)
                self.close_reason = handshake.recv.reason or ""
            elif handshake is not None and handshake.sent is not None:
                # picows found a breach of the protocol and closed by itself.
                self.close_code = int(handshake.sent.code)
                self.close_reason = f"protocol error: {handshake.sent.reason}"
                self.session.malformed(self.close_reason)
            else:
                self.close_code = ABNORMAL
                self.close_reason = "connection lost"
        self.session.closed(monotonic_ns(), self.close_code, self.close_reason)
        self.session.end_read()
        if not self.closed.done():
            self.closed.set_result(None)
        self.on_events()

    cdef void sample(self, uint64_t records) noexcept nogil:
        """Record how long the message took, if there are more *records* since it came."""
        if self.session.records != records:
            self.session.counters.record(FRAME_TO_RING, monotonic_ns() - self.recv_ns)
            self.sampled = False

    cdef int act(self, int actions) except -1:
        if actions & Action.REFUSE:
            self.begin_close(WSCloseCode.INVALID_TEXT, "text is not UTF-8")
        if actions & Action.SEND and not self.closing:
            for message in self.session.take_outbox():
                self.transport.send(WSMsgType.TEXT, message)
        if actions & Action.PING and not self.closing:
            self.transport.send_ping(self.session.ping_payload)
        if actions & Action.CLOSE:
            self.abandon(self.session.close_reason)
        if actions & Action.DELIVER or self.session.events:
            self.on_events()
        return 0

    cdef int act_or_fault(self, int actions) except -1:
        """Act; an error of our own is reported by the session and never by picows."""
        try:
            self.act(actions)
        except Exception as error:
            self.session.fault(error)
        return 0

    cdef int special_or_fault(self, WSFrame frame) except -1:
        try:
            return self.special(frame)
        except Exception as error:
            self.session.fault(error)
            return Action.RESYNC

    cdef int special(self, WSFrame frame) except -1:
        """Take every frame that is not a whole message of the right size."""
        if self.closing and frame.msg_type != WSMsgType.CLOSE:
            return 0
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self.refuse(WSCloseCode.PROTOCOL_ERROR, "reserved bits set")
        if frame.msg_type == WSMsgType.CLOSE:
            return self.close(frame)
        if frame.msg_type == WSMsgType.PING:
            self.session.pinged(self.recv_ns)
            if self.transport.underlying_transport.get_write_buffer_size() < PONG_BACKLOG:
                self.transport.send_pong(frame.get_payload_as_bytes())
            return 0
        if frame.msg_type == WSMsgType.PONG:
            self.session.pong(frame.get_payload_as_bytes(), self.recv_ns)
            return 0
        if (frame.msg_type == WSMsgType.CONTINUATION) != self.in_message:
            return self.refuse(WSCloseCode.PROTOCOL_ERROR, "fragments out of order")
        return self.fragment(frame)

    cdef int fragment(self, WSFrame frame) except -1:
        """Assemble a message; one that is too large is dropped and counted, not kept."""
        cdef int actions = 0
        if not self.in_message:
            self.text = Utf8() if frame.msg_type == WSMsgType.TEXT else None
        self.in_message = not frame.fin
        if len(self.fragments) + frame.payload_size > self.max_message_bytes:
            self.discarding = True
            self.fragments.clear()
        if not self.discarding:
            payload = frame.get_payload_as_bytes()
            if self.text is not None and not goes_on(self.text, payload, frame.fin):
                return self.refuse(WSCloseCode.INVALID_TEXT, "text is not UTF-8")
            self.fragments += payload
        if frame.fin:
            if self.discarding:
                self.session.malformed(f"a message is over {self.max_message_bytes} bytes")
                actions = Action.RESYNC
            else:
                actions = self.session.feed(
                    PyByteArray_AS_STRING(self.fragments),
                    PyByteArray_GET_SIZE(self.fragments),
                    self.recv_ns,
                )
            self.discarding = False
            self.fragments = bytearray()
        return actions

    cdef int close(self, WSFrame frame) except -1:
        """Take a close frame: answer it, then let go of the socket."""
        code = int(frame.get_close_code())
        cdef int answer = code
        if not is_wire_code(code):
            # No code at all is allowed, and one that may not be sent is a breach.
            answer = WSCloseCode.PROTOCOL_ERROR if frame.payload_size else WSCloseCode.OK
            code = ABNORMAL
        if self.close_code is None:
            self.close_code = code
            self.close_reason = frame.get_close_reason() or ""
        if not self.closing:
            self.start_closing()
            self.transport.send_close(<WSCloseCode> answer)
        self.transport.disconnect()
        return 0

    def refuse(self, int code, str reason) -> int:
        """End the connection over a breach of the WebSocket protocol."""
        self.session.malformed(reason)
        self.begin_close(code, reason)
        return 0

    def begin_close(self, int code, str reason):
        """Send a close frame; the venue's answer or the host's deadline does the rest."""
        if self.closing or self.transport is None:
            return
        self.close_code = code
        self.close_reason = reason
        self.start_closing()
        self.transport.send_close(<WSCloseCode> code, reason.encode()[:123])

    def abandon(self, reason):
        """Give up a connection that is of no more use, without waiting for anybody."""
        if self.closing:
            return
        self.close_code = ABNORMAL
        self.close_reason = reason or "given up"
        self.start_closing()
        self.transport.send_close(<WSCloseCode> 1001)
        self.abort()

    def start_closing(self):
        """Take no more data; the clock of the close handshake runs from here."""
        self.closing = True
        self.closing_ns = monotonic_ns()
        self.session.closing(self.closing_ns)
        self.session.end_read()

    def is_overdue(self, int64_t timeout_ns) -> bool:
        """Tell whether the close handshake has taken *timeout_ns* or more."""
        return self.closing and monotonic_ns() - self.closing_ns >= timeout_ns

    def discard(self):
        """Have nothing to do with this connection, even if it is made after all."""
        self.discarded = True
        self.abort()

    def abort(self):
        """Drop the socket at once.

        With a key, orders may be on their way in it: the kernel is to deliver none of them
        when the venue has told the next connection what there is.
        """
        if self.transport is None:
            return
        if self.session.key is not None:
            found = self.transport.underlying_transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.disconnect(False)

    def backlog(self) -> int:
        """Return how many bytes wait in this process because the socket takes no more."""
        if self.transport is None:
            return 0
        return self.transport.underlying_transport.get_write_buffer_size()

    def tick(self):
        """Let time pass for the session and do what it then asks for."""
        self.act(self.session.tick(monotonic_ns()))
        self.session.end_read()

    def flush(self):
        """Hand on what the session has done outside of a read, and wants sent."""
        self.session.end_read()
        if self.transport is not None and not self.closing:
            self.act(self.session.collect(monotonic_ns()))


cdef bint goes_on(text, bytes data, bint final) except -1:
    """Tell whether *data* continues a UTF-8 text, and ends it if it is *final*."""
    try:
        text.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True

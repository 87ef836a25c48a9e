"""The client's listener and codec as an echo: what they refuse, they refuse as shipped."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from picows.picows cimport WSFrame, WSMsgType, WSTransport

from feedhandler.codec cimport Decoded, Inbox, MsgspecCodec
from feedhandler.listener cimport Listener
from feedhandler.session cimport Session
from feedhandler.tracker cimport Action


cdef class EchoCodec(MsgspecCodec):
    """Have every message sent back, but a text that the product's codec says is none."""

    cdef bint binary            # the message that is being read; the listener says so

    cdef Decoded decode(self, const char *payload, Py_ssize_t size, Inbox inbox) except *:
        cdef Session session = <Session> inbox
        cdef Decoded decoded
        if not self.binary:
            decoded = MsgspecCodec.decode(self, payload, size, Inbox())
            if decoded == Decoded.NOT_UTF8:
                return decoded
        session.outbox.append(PyBytes_FromStringAndSize(payload, size))
        session.actions |= Action.SEND
        return Decoded.DECODED


cdef class EchoListener(Listener):
    """Send binary messages back as what they are; a session's own are all text."""

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef EchoCodec codec = self.session.codec
        if frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.BINARY:
            codec.binary = frame.msg_type == WSMsgType.BINARY
        Listener.on_ws_frame(self, transport, frame)

    cdef int act(self, int actions) except -1:
        cdef EchoCodec codec = self.session.codec
        if actions & Action.SEND and codec.binary and not self.closing:
            for message in self.session.take_outbox():
                self.transport.send(WSMsgType.BINARY, message)
        return Listener.act(self, actions)

"""An event loop that reads the sockets of a feed by itself, and need not ever sleep.

The sockets of a feed are taken out of the selector and read in turn, without the GIL,
straight into the buffer of picows. The rest of asyncio, which costs more than all that
follows a read, runs when a callback or a timer is due, or when another socket is ready.
Where the loop spins, the selector that knows of those is asked now and then; otherwise
the loop sleeps until one of all of them is ready. A socket that ends goes back to
asyncio, which knows how to end a connection. What is encrypted is left to the selector.
"""

import asyncio
import selectors

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport INT64_MAX

from feedhandler.clock cimport monotonic_ns


cdef extern from "<sys/socket.h>" nogil:
    const int MSG_DONTWAIT
    ssize_t recv(int descriptor, void *room, size_t size, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    struct epoll_event:
        pass
    int epoll_wait(int descriptor, epoll_event *events, int count, int timeout_ms)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    struct timespec:
        long tv_sec
        long tv_nsec
    const short POLLIN
    int ppoll(pollfd *ready, unsigned long count, const timespec *rest, const void *mask)

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view) noexcept


cdef object set_running_loop = asyncio._set_running_loop       # "to be used by event loops"
cdef object running_loop = asyncio._get_running_loop
cdef double FOREVER_S = 1e9

cdef enum:
    PASSES = 32                 # over all sockets, until the selector and the clock are asked


cdef class Pump:
    """Reads sockets by turns; one thread, that of the loop which made it."""

    def __cinit__(self):
        self.transports = []
        self.protocols = []
        self.updates = []
        self.rooms = []
        self.selector = -1
        self.due_ns = INT64_MAX

    def serve(self, int selector, bint spins):
        """Look also at the epoll with this descriptor, and never sleep if it *spins*."""
        self.selector = selector
        self.spins = spins

    def take(self, transport) -> bool:
        """Read *transport*'s socket from now on; False leaves it to the selector."""
        if transport.is_closing():
            return False
        if transport.get_extra_info("sslcontext") is not None or self.count == MOST_SOCKETS:
            self.indirect = True
            return False
        protocol = transport.get_protocol()
        transport.pause_reading()
        self.transports.append(transport)
        self.protocols.append(protocol)
        self.updates.append(protocol.buffer_updated)
        self.rooms.append(None)
        self.sockets[self.count].descriptor = transport.get_extra_info("socket").fileno()
        self.count += 1
        self.make_room(self.count - 1)
        return True

    def want(self):
        """Note that the loop has something to do."""
        self.wanted = True

    def want_at(self, double when):
        """Note that the loop has something to do at *when*, in its own seconds."""
        self.due_ns = min(self.due_ns, <int64_t> (1e9 * min(when, FOREVER_S)))

    cdef int make_room(self, int at) except -1:
        """Ask the protocol where the next bytes go; it keeps that until it has some."""
        cdef object view = (<object> self.protocols[at]).get_buffer(-1)
        cdef Py_buffer *buffer = PyMemoryView_GET_BUFFER(view)
        if buffer.readonly or buffer.len <= 0:
            raise BufferError("a protocol gave no room for what comes")
        self.rooms[at] = view
        self.sockets[at].room = <char *> buffer.buf
        self.sockets[at].size = buffer.len
        return 0

    cdef object remove(self, int at):
        """Read a socket no more; return its transport."""
        cdef int last = self.count - 1
        self.sockets[at] = self.sockets[last]
        for column in (self.transports, self.protocols, self.updates, self.rooms):
            column[at], column[last] = column[last], column[at]
        self.protocols.pop()
        self.updates.pop()
        self.rooms.pop()
        self.count = last
        return self.transports.pop()

    cdef Found look(self, bint wait) noexcept nogil:
        """Read until a socket has something or, if it is to *wait*, until the loop is due.

        Without *wait* every socket is asked once.
        """
        cdef Socket *socket
        cdef ssize_t size
        cdef int asked = 0
        while True:
            if asked == self.count:
                # A whole pass over all of them was in vain.
                if not wait:
                    return DUE
                asked = 0
                if self.spins:
                    self.passes += 1
                elif self.sleep():
                    return DUE
            if wait and (self.passes >= PASSES or self.indirect and asked == 0):
                if self.is_due():
                    return DUE
            if self.count == 0:
                continue
            if self.next >= self.count:
                self.next = 0
            self.at = self.next
            self.next += 1
            asked += 1
            socket = &self.sockets[self.at]
            size = recv(socket.descriptor, socket.room, socket.size, MSG_DONTWAIT)
            if size > 0:
                self.passes += 1
                self.size = size
                return DATA
            if size == 0 or errno not in (EAGAIN, EINTR):
                return ENDED

    cdef bint sleep(self) noexcept nogil:
        """Sleep until a socket, the selector or a timer is ready; tell if it is no socket."""
        cdef pollfd ready[129]
        cdef timespec rest
        cdef int64_t rest_ns
        cdef int at
        ready[0].fd = self.selector
        ready[0].events = POLLIN
        for at in range(self.count):
            ready[at + 1].fd = self.sockets[at].descriptor
            ready[at + 1].events = POLLIN
        rest_ns = self.due_ns - monotonic_ns() if self.due_ns < INT64_MAX else self.due_ns
        if rest_ns < 0:
            rest_ns = 0
        rest.tv_sec = rest_ns // 1_000_000_000
        rest.tv_nsec = rest_ns % 1_000_000_000
        if ppoll(ready, self.count + 1, &rest, NULL) <= 0 or ready[0].revents:
            return True
        for at in range(self.count):
            if ready[at + 1].revents:
                self.next = at
                break
        return False

    cdef bint is_due(self) noexcept nogil:
        """Ask selector and clock whether the loop has something to do."""
        cdef epoll_event event
        self.passes = 0
        return epoll_wait(self.selector, &event, 1, 0) != 0 or monotonic_ns() >= self.due_ns

    cdef int deliver(self) except -1:
        """Give a protocol what was read for it."""
        cdef int at = self.at
        transport = self.transports[at]
        self.reads += 1
        try:
            (<object> self.updates[at])(self.size)
            if not transport.is_closing():
                self.make_room(at)
                return 0
        except Exception as error:
            # As asyncio has it: a protocol that raises has lost its connection.
            asyncio.get_running_loop().call_exception_handler({
                "message": "Fatal error: protocol.buffer_updated() call failed.",
                "exception": error, "transport": transport,
            })
            transport.abort()
        self.remove(at)
        return 0

    def sweep(self):
        """Forget the sockets of connections that are being closed."""
        cdef int at
        for at in range(self.count - 1, -1, -1):
            if self.transports[at].is_closing():
                self.remove(at)

    def expect(self, timeout):
        """Note that the loop's next timer is due in *timeout* seconds; None: never."""
        self.due_ns = INT64_MAX
        if timeout is not None:
            self.due_ns = monotonic_ns() + <int64_t> (1e9 * max(0.0, min(timeout, FOREVER_S)))

    def read(self, timeout):
        """Read until the loop has something to do, or *timeout* seconds have passed."""
        cdef Found found
        self.sweep()
        self.wanted = False
        self.expect(timeout)
        if timeout is not None and timeout <= 0:
            self.read_once(None)
            return
        while not self.wanted:
            with nogil:
                found = self.look(True)
            if found == DATA:
                self.deliver()
            elif found == ENDED:
                self.remove(self.at).resume_reading()
            else:
                PyErr_CheckSignals()
                return

    cdef int read_once(self, loop) except -1:
        """Read every socket once."""
        cdef Found found
        cdef int left = self.count
        while left > 0:
            left -= 1
            found = self.look(False)
            if found == DUE:
                return 0
            if found == ENDED:
                self.remove(self.at).resume_reading()
                continue
            if loop is None:
                self.deliver()
                continue
            if running_loop() is not None:
                raise RuntimeError("this thread has a loop that is running already")
            set_running_loop(loop)
            try:
                self.deliver()
            finally:
                set_running_loop(None)
        return 0

    def turn(self, loop) -> bool:
        """Read every socket once, and let *loop*, which is not running, do what is due.

        Returns whether anything happened.
        """
        cdef int64_t before = self.reads
        self.read_once(loop)
        self.passes += 1
        if not self.wanted and (self.passes < PASSES and not self.indirect or not self.is_due()):
            return self.reads != before
        self.wanted = False
        loop.run_once()
        self.sweep()
        return True


class _Selector(selectors.EpollSelector):
    """The selector of the loop: where asyncio would sleep, the pump reads."""

    def __init__(self, pump, spin):
        super().__init__()
        self.pump = pump
        self.stop = None
        pump.serve(self.fileno(), spin)

    def select(self, timeout=None):
        """Return what is ready besides the pump's sockets, which were read meanwhile."""
        if self.stop is not None:
            self.pump.expect(timeout)
            self.stop()
        else:
            self.pump.read(timeout)
        return super().select(0)


class FeedEventLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that reads the sockets of a feed by itself.

    ``asyncio.Runner(loop_factory=FeedEventLoop)`` runs a program on it. A connection's
    socket is read by the *pump* once that was given its transport. With *spin* it takes a
    whole processor and never sleeps. While the loop is not running, turn() does what is
    ready without waiting for anything.
    """

    def __init__(self, spin=False):
        self.pump = Pump()
        self._reading = _Selector(self.pump, spin)
        super().__init__(self._reading)

    def call_soon(self, callback, *args, context=None):
        """As asyncio has it."""
        self.pump.want()
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        """As asyncio has it."""
        self.pump.want_at(when)
        return super().call_at(when, callback, *args, context=context)

    def turn(self):
        """Do what is ready, without waiting; return whether anything happened.

        For a thread without a running loop: raises RuntimeError where there is one.
        """
        return self.pump.turn(self)

    def within(self, act, /, *args, **kwargs):
        """Call *act* as if it were a callback of this loop, which is not running."""
        if running_loop() is not None:
            raise RuntimeError("this thread has a loop that is running already")
        set_running_loop(self)
        try:
            return act(*args, **kwargs)
        finally:
            set_running_loop(None)

    def run_once(self):
        """Run the callbacks and timers that are due, once."""
        self._reading.stop = self.stop
        try:
            self.run_forever()
        finally:
            self._reading.stop = None

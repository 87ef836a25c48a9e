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
from cpython.memoryview cimport PyMemoryView_Check
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
    LOOK_NS = 100_000           # until then, too, for a caller who turns slowly
    SIGNALS_NS = 100_000_000    # between looks at signals, which wake nobody who spins


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
        """Read *transport*'s socket from now on; False leaves it to the selector.

        False, too, for one that was taken already, or that somebody has paused.
        """
        if transport.is_closing():
            return False
        if transport.get_extra_info("sslcontext") is not None or self.count == MOST_SOCKETS:
            self.indirect = True
            return False
        if not transport.is_reading():
            return False
        protocol = transport.get_protocol()
        updated = protocol.buffer_updated
        self.sockets[self.count].descriptor = transport.get_extra_info("socket").fileno()
        self.transports.append(transport)
        self.protocols.append(protocol)
        self.updates.append(updated)
        self.rooms.append(None)
        self.count += 1
        try:
            self.make_room(self.count - 1)
        except BaseException:
            self.remove(self.count - 1)
            raise
        transport.pause_reading()
        return True

    def leave(self, int descriptor):
        """Read the socket with this descriptor no more: from now on the selector does."""
        cdef int at
        for at in range(self.count):
            if self.sockets[at].descriptor == descriptor:
                # Found to have ended when its turn comes: a callback of its may be running.
                self.sockets[at].descriptor = -1

    def forget(self):
        """Read nothing more: the loop was closed."""
        while self.count:
            self.remove(self.count - 1)
        self.wanted = True

    def want(self):
        """Note that the loop has something to do."""
        self.wanted = True

    def want_at(self, double when):
        """Note that the loop has something to do at *when*, in its own seconds."""
        self.due_ns = min(self.due_ns, <int64_t> (1e9 * min(when, FOREVER_S)))

    cdef int make_room(self, int at) except -1:
        """Ask the protocol where the next bytes go; it keeps that until it has some."""
        cdef object view = (<object> self.protocols[at]).get_buffer(-1)
        if not PyMemoryView_Check(view):
            view = memoryview(view)
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

    cdef int give_back(self, int at) except -1:
        """Leave a socket to the selector again."""
        transport = self.remove(at)
        try:
            transport.resume_reading()
        except OSError:
            # Somebody else has closed it.
            transport.abort()
        return 0

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
                    self.passes = self.passes + 1
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
            self.next = self.next + 1
            asked += 1
            socket = &self.sockets[self.at]
            size = recv(socket.descriptor, socket.room, socket.size, MSG_DONTWAIT)
            if size > 0:
                self.passes = self.passes + 1
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
        self.looked_ns = monotonic_ns()
        return epoll_wait(self.selector, &event, 1, 0) != 0 or self.looked_ns >= self.due_ns

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
        except (KeyboardInterrupt, SystemExit):
            # Whoever goes on after it must not read into the room there was before.
            self.give_back(at)
            raise
        except BaseException as error:
            # As asyncio has it: a protocol that raises has lost its connection.
            self.remove(at)
            asyncio.get_running_loop().call_exception_handler({
                "message": "Fatal error: protocol.buffer_updated() call failed.",
                "exception": error, "transport": transport,
            })
            transport.abort()
            return 0
        self.remove(at)
        return 0

    def sweep(self):
        """Forget the sockets of connections that are being closed."""
        cdef int at
        for at in range(self.count - 1, -1, -1):
            if self.transports[at].is_closing():
                self.remove(at)

    def expect(self, timeout):
        """Note that the loop's next timer is due in *timeout* seconds; None: never.

        It knows of all callbacks so far, and is about to run them: what they find closed,
        and may close for good, is read no more.
        """
        self.sweep()
        self.wanted = False
        self.due_ns = INT64_MAX
        if timeout is not None:
            self.due_ns = monotonic_ns() + <int64_t> (1e9 * max(0.0, min(timeout, FOREVER_S)))
        if self.spins:
            self.due_ns = min(self.due_ns, monotonic_ns() + SIGNALS_NS)

    def read(self, timeout):
        """Read until the loop has something to do, or *timeout* seconds have passed."""
        cdef Found found
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
                self.give_back(self.at)
            else:
                PyErr_CheckSignals()
                return

    cdef int read_once(self, loop) except -1:
        """Read every socket once, or until the loop has something to do.

        Callbacks may have closed a connection, which must not be read any more then.
        """
        cdef Found found
        cdef int left = self.count
        while left > 0:
            left -= 1
            found = self.look(False)
            if found == DUE:
                return 0
            if found == ENDED:
                self.give_back(self.at)
                continue
            if loop is None:
                self.deliver()
            else:
                set_running_loop(loop)
                try:
                    self.deliver()
                finally:
                    set_running_loop(None)
            if self.wanted:
                return 0
        return 0

    def turn(self, loop) -> bool:
        """Read every socket once, and let *loop*, which is not running, do what is due.

        Returns whether anything happened.
        """
        if self.turns or running_loop() is not None:
            raise RuntimeError("a loop is running already")
        self.turns = True
        try:
            return self.do_turn(loop)
        finally:
            self.turns = False

    cdef bint do_turn(self, loop) except -1:
        cdef int64_t before = self.reads
        if self.wanted:
            # Who wants something may have closed a connection.
            self.sweep()
        self.read_once(loop)
        self.passes = self.passes + 1
        if not self.wanted and not (self.is_to_look() and self.is_due()):
            return self.reads != before
        loop.run_once()
        return True

    cdef bint is_to_look(self) noexcept nogil:
        return (
            self.passes >= PASSES
            or self.indirect
            or monotonic_ns() - self.looked_ns >= LOOK_NS
        )


class _Selector(selectors.EpollSelector):
    """The selector of the loop: where asyncio would sleep, the pump reads."""

    def __init__(self, pump, spin):
        super().__init__()
        self.pump = pump
        self.stop = None
        pump.serve(self.fileno(), spin)

    def register(self, fileobj, events, data=None):
        """As selectors have it; what is read here is read nowhere else."""
        key = super().register(fileobj, events, data)
        if events & selectors.EVENT_READ:
            self.pump.leave(key.fd)
        return key

    def modify(self, fileobj, events, data=None):
        """As selectors have it; what is read here is read nowhere else."""
        key = super().modify(fileobj, events, data)
        if events & selectors.EVENT_READ:
            self.pump.leave(key.fd)
        return key

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

    def stop(self):
        """As asyncio has it."""
        self.pump.want()
        super().stop()

    def close(self):
        """As asyncio has it."""
        super().close()
        self.pump.forget()

    def turn(self):
        """Do what is ready, without waiting; return whether anything happened.

        For a thread without a running loop: raises RuntimeError where there is one, and
        from within a turn.
        """
        return self.pump.turn(self)

    def run_once(self):
        """Run the callbacks and timers that are due, once."""
        self._reading.stop = super().stop
        try:
            self.run_forever()
        finally:
            self._reading.stop = None

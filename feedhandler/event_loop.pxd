"""An event loop that reads the sockets of a feed by itself, and need not ever sleep."""

from libc.stdint cimport int64_t


cdef enum:
    MOST_SOCKETS = 128          # read directly; more go by the selector


cdef enum Found:
    DATA                        # *size* bytes from the socket *at*
    ENDED                       # the socket *at* gives no more
    DUE                         # the loop has something to do


cdef struct Socket:
    int descriptor
    char *room                  # where the protocol wants the next bytes
    Py_ssize_t size


cdef class Pump:
    cdef Socket sockets[128]
    cdef int count
    cdef int next               # the socket whose turn it is
    cdef int at
    cdef Py_ssize_t size
    cdef int selector           # descriptor of the epoll that has all other sockets
    cdef bint indirect          # a connection is left to the selector: ask it every time
    cdef int passes             # since the selector and the clock were looked at
    cdef list transports
    cdef list protocols
    cdef list updates           # each protocol's buffer_updated
    cdef list rooms             # memoryviews that keep what *room* points into
    cdef bint spins             # never sleeps
    cdef bint wanted            # callbacks or timers were added
    cdef bint turns             # a caller's turn is being done
    cdef int64_t due_ns         # of the loop's next timer
    cdef int64_t looked_ns      # when the selector was asked last
    cdef readonly int64_t reads         # of sockets, that brought something

    cdef bint sleep(self) noexcept nogil
    cdef bint is_due(self) noexcept nogil
    cdef bint is_to_look(self) noexcept nogil
    cdef bint do_turn(self, loop) except -1
    cdef int read_once(self, loop) except -1
    cdef Found look(self, bint wait) noexcept nogil
    cdef int deliver(self) except -1
    cdef int make_room(self, int at) except -1
    cdef object remove(self, int at)
    cdef int give_back(self, int at) except -1

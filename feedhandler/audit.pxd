"""The Sink that notes what was published in a file."""

from libc.stdint cimport uint64_t

from feedhandler.sink cimport Sink


cdef class AuditLog(Sink):
    cdef int fd                 # -1 when the log has ended
    cdef int error              # errno of what ended it; 0: nothing did
    cdef char *buffer
    cdef char *end              # of what is in the buffer
    cdef readonly uint64_t lines        # noted, written or not

"""The Sink that writes the rings and the board."""

from feedhandler.board cimport Board
from feedhandler.ring cimport Ring
from feedhandler.sink cimport Sink


cdef class Publisher(Sink):
    cdef readonly Ring quotes
    cdef readonly Ring trades
    cdef readonly Board board

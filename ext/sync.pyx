"""Stitch snapshots and a stream of updates into one gapless sequence.

Knows nothing of sockets, clocks or books: numbers in, a verdict out. It fails closed:
whenever it cannot prove that the book is what the venue has, in_sync() is false.
"""


cdef enum:
    # So many updates in a row that we already have are no echo: the venue counts anew
    # without having sent a snapshot.
    RUN = 3


cdef class Sync:
    """The sequence state of one order-book channel.

    *applied* is what the book holds, *highest* what was seen: the two differ exactly
    while updates are missing, so a missing one that still comes heals the gap.
    """

    def __cinit__(self):
        self.reset()

    cdef Verdict delta(self, int64_t sequence) noexcept nogil:
        cdef bint complete = self.in_sync()
        if self.applied < 0:
            return Verdict.HOLD
        if sequence == self.applied + 1 and not self.broken:
            self.applied = sequence
            self.highest = max(self.highest, sequence)
            self.run = 0
            return Verdict.APPLY
        if sequence <= self.applied:
            return self.skip(sequence)
        self.highest = max(self.highest, sequence)
        return Verdict.RESYNC if complete else Verdict.HOLD

    cdef Verdict skip(self, int64_t sequence) noexcept nogil:
        self.run = self.run + 1 if sequence == self.repeated + 1 else 1
        self.repeated = sequence
        if self.run < RUN or self.broken:
            return Verdict.SKIP
        self.broken = True
        return Verdict.RESYNC

    cdef void snapshot(self, int64_t sequence) noexcept nogil:
        """Start anew from a snapshot that contains everything up to *sequence*."""
        self.applied = sequence
        self.highest = sequence
        self.repeated = -1
        self.run = 0
        self.broken = False

    cdef void seen(self, int64_t sequence) noexcept nogil:
        """Note an update that is kept: the book is behind until it is applied."""
        self.highest = max(self.highest, sequence)

    cdef void reset(self) noexcept nogil:
        """Forget everything: a new connection, which starts with a snapshot."""
        self.applied = -1
        self.highest = -1
        self.repeated = -1
        self.run = 0
        self.broken = True

    cdef bint lost(self) noexcept nogil:
        """Note that something unknown was lost; return whether that is news."""
        cdef bint news = self.in_sync()
        self.broken = True
        return news

    cdef bint in_sync(self) noexcept nogil:
        return not self.broken and self.applied == self.highest

    # The same for Python: tests, and whoever stitches a stream of his own.

    def on_delta(self, sequence: int) -> Verdict:
        """Judge the update that carries *sequence*."""
        return Verdict(self.delta(sequence))

    def on_snapshot(self, sequence: int) -> None:
        """Start anew from a snapshot that contains everything up to *sequence*."""
        self.snapshot(sequence)

    def on_loss(self) -> bool:
        """Note that something unknown was lost; return whether that is news."""
        return self.lost()

    @property
    def is_in_sync(self) -> bool:
        """Whether the book is provably what the venue had at *applied*."""
        return self.in_sync()

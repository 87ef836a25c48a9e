"""A broadcast of fixed-size records over any buffer: Ring writes, Reader reads.

The letters and numbers in comments (W1, R3, B2) are the steps whose order is proven.
"""

import json
import re

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from feedhandler.atomic cimport (
    cpu_pause,
    fence_acquire,
    fence_release,
    load_acquire,
    load_acquire32,
    load_relaxed,
    load_words,
    store_release,
    store_words,
)
from feedhandler.clock cimport monotonic_ns
from feedhandler.futex cimport futex_wait
from feedhandler.segment cimport (
    BUSY,
    DATA_OFFSET,
    GENERIC,
    LINE,
    QUOTES,
    SLOT_MAX,
    TRADES,
    WAKE,
    MetaPage,
    StreamKind,
    wake_readers,
)

from feedhandler.errors import RingError, RingInvalid
from feedhandler.records import QUOTE, TRADE
from feedhandler.segment import Origin, align, capacity_for


cdef extern from *:
    """
    #include <sys/prctl.h>
    #include <time.h>

    /* Sleep for about *ns*; with the default slack of 50 us it would be 66 at least. */
    static void fh_nap(long ns)
    {
        struct timespec nap = {0, ns};
        nanosleep(&nap, NULL);
    }
    static int fh_set_timer_slack(int ns)
    {
        int before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
        prctl(PR_SET_TIMERSLACK, (unsigned long)ns, 0, 0, 0);
        return before;
    }
    """
    void nap "fh_nap"(long ns) noexcept nogil
    int set_timer_slack "fh_set_timer_slack"(int ns) noexcept nogil


cdef enum:
    LAPS = 64                   # times next() lets itself be lapped before it gives up
    LINE_WORDS = 7              # payload words of a 64-byte slot
    SPIN_NS = 20_000
    NAP_NS = 1_000
    NAP_MAX_NS = 100_000
    SLICE_NS = 50_000_000       # how long wait() goes without looking for signals
    WATCH_NS = 100_000_000
    SPINS = 64                  # looks at the head between two at the clock
    BATCH = 1024                # records that fill() takes at most

cdef enum News:
    FAILED = -1                 # an exception is set
    NOTHING
    RECORDS                     # below the head
    LAST                        # complete, but not counted by a writer that died

cdef enum Strategy:
    ADAPTIVE
    SPIN
    BLOCK

STRATEGIES = {"adaptive": ADAPTIVE, "spin": SPIN, "block": BLOCK}

_FORMAT = re.compile(r"[<|][uif][1248]|\|S[1-9][0-9]{0,3}")
_NO_ORIGIN = Origin(epoch=1)


def schema_of(dtype) -> str:
    """Return the text that describes *dtype* in a ring's meta page."""
    fields = [
        [name, dtype[name].str, dtype.fields[name][1]] for name in dtype.names or ()
    ]
    return json.dumps(fields, separators=(",", ":"))


def dtype_of(schema: str, record_size: int):
    """Build the dtype that *schema* describes, of which nothing is believed."""
    try:
        fields = json.loads(schema)
        for name, form, offset in fields:
            if not (isinstance(name, str) and isinstance(form, str)):
                raise ValueError("names and formats are not text")
            if not _FORMAT.fullmatch(form) or type(offset) is not int or offset < 0:
                raise ValueError(f"field {name!r} is {form!r} at {offset!r}")
        names, formats, offsets = zip(*fields)
        return np.dtype(
            {
                "names": list(names),
                "formats": list(formats),
                "offsets": list(offsets),
                "itemsize": record_size,
            }
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RingInvalid(f"schema is not that of a record: {error}") from None


cdef object padded(object dtype, int slot_size):
    """Return *dtype* with the slot's size, so that records can be copied in one piece."""
    if dtype.itemsize == slot_size:
        return dtype
    return np.dtype(
        {
            "names": list(dtype.names),
            "formats": [dtype[name] for name in dtype.names],
            "offsets": [dtype.fields[name][1] for name in dtype.names],
            "itemsize": slot_size,
        }
    )


cdef StreamKind kind_of(object dtype):
    if dtype == QUOTE:
        return QUOTES
    if dtype == TRADE:
        return TRADES
    return GENERIC


cdef class Ring(SegmentWriter):
    """The one writer of a ring of *dtype* records over *buffer*, which it formats.

    The first field of *dtype* is the slot's own 8-byte word. *capacity* is a power of two.
    With *wake* readers may block: each flush() after a publish() wakes them.
    """

    def __init__(self, buffer, dtype, capacity: int, origin=_NO_ORIGIN, *, bint wake=False):
        slot_size = align(dtype.itemsize, LINE)
        self.format(
            buffer, kind_of(dtype), capacity, slot_size, dtype.itemsize,
            DATA_OFFSET, schema_of(dtype), origin,
        )
        self.mask = capacity - 1
        self.slot_size = slot_size
        self.record_size = dtype.itemsize
        self.slots = self.base + DATA_OFFSET
        self.wakes = wake
        if wake:
            (<MetaPage *> self.base).flags = WAKE
        self.seal()

    @staticmethod
    def size_for(dtype, capacity: int) -> int:
        """Return the bytes that a ring of *capacity* such records takes."""
        if capacity != capacity_for(capacity):
            raise ValueError(f"capacity is {capacity}, not a power of two of 64 to 2^28")
        return align(DATA_OFFSET + capacity * align(dtype.itemsize, LINE), 4096)

    cdef void forget(self) noexcept:
        self.slots = NULL

    @property
    def published(self) -> int:
        """How many records were published: the index of the next."""
        return self.count

    cdef void publish(self, const void *record) noexcept nogil:
        cdef uint64_t number = self.count + 1
        cdef const char *payload = <const char *> record + sizeof(uint64_t)
        cdef uint64_t *slot
        if self.slots == NULL:
            return
        slot = <uint64_t *> (self.slots + (self.count & self.mask) * self.slot_size)
        store_release(slot, BUSY | number)                      # W1: after head(n)
        fence_release()                                         # W2
        if self.slot_size == LINE:
            store_words(slot + 1, payload, LINE_WORDS)         # W3
        else:
            store_words(slot + 1, payload, self.slot_size / sizeof(uint64_t) - 1)
        store_release(slot, number)                             # W4
        store_release(&self.live.head, number)                  # W5: per record, never later
        self.count = number

    def flush(self) -> None:
        """Wake readers that block, if something was published since; once per batch."""
        self.wake()

    cdef void wake(self) noexcept nogil:
        if self.slots == NULL or not self.wakes or self.flushed == self.count:
            return
        self.flushed = self.count
        wake_readers(self.live)                                 # W6

    def publish_record(self, record) -> None:
        """Publish *record*, any buffer of the dtype's size; its first word is ignored."""
        cdef Py_buffer view
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len != self.record_size:
                raise ValueError(f"record is {view.len} bytes, not {self.record_size}")
            publish_padded(self, <const char *> view.buf, 1)
        finally:
            PyBuffer_Release(&view)

    def publish_records(self, records) -> None:
        """Publish a buffer of any number of records, without the GIL."""
        cdef Py_buffer view
        PyObject_GetBuffer(records, &view, PyBUF_SIMPLE)
        try:
            if self.slots == NULL:
                return
            if view.len % self.record_size:
                raise ValueError(
                    f"records are {view.len} bytes, not a multiple of {self.record_size}")
            self.pinned += 1
            with nogil:
                publish_padded(
                    self, <const char *> view.buf, view.len // self.record_size)
            self.pinned -= 1
        finally:
            PyBuffer_Release(&view)


cdef void publish_padded(Ring ring, const char *records, Py_ssize_t count) noexcept nogil:
    """Publish *count* records that may be shorter than their slots."""
    cdef char slot[SLOT_MAX]
    cdef Py_ssize_t number
    if ring.record_size == ring.slot_size:
        for number in range(count):
            ring.publish(records + number * ring.slot_size)
        return
    memset(slot, 0, ring.slot_size)
    for number in range(count):
        memcpy(slot, records + number * ring.record_size, ring.record_size)
        ring.publish(slot)


cdef class Reader(SegmentReader):
    """A position in a ring, and the exact number of records that were lost on the way.

    *start* is "new" (what comes from now on), "oldest" (what is still there) or the number
    of a record. A reader that was lapped goes on half a ring behind the writer, or with
    *on_lap* "latest" at the newest record. With *dtype* only a ring of those records will
    do. At every return: received + lost == position - start.

    Arrays from poll() are private copies, and stay as they are. fill() is for who reads
    without pause: it makes no array, but copies over the reader's own one. Not for two
    threads.
    """

    def __init__(self, buffer, dtype=None, *, start="new", str on_lap="half"):
        if on_lap not in ("half", "latest"):
            raise ValueError(f"on_lap is {on_lap!r}, not 'half' or 'latest'")
        self.latest = on_lap == "latest"
        self.expected = None if dtype is None else schema_of(dtype)
        self.rebind(buffer, start)
        self.resets = 0

    def rebind(self, buffer, start) -> None:
        """Go on in another segment, from *start*; the position and the loss start anew."""
        cdef uint64_t head
        self.bind(buffer)
        head = load_acquire(&self.live.head)
        try:
            self.cursor = first_record(start, head, self.meta.capacity)
        except BaseException:
            self.release()
            raise
        self.origin = self.cursor
        self.missed = 0
        self.watch_ns = 0
        self.mask = self.meta.capacity - 1
        self.capacity = self.meta.capacity
        self.slot_size = self.meta.slot_size
        self.slots = self.base + <uint64_t> self.meta.slots_offset
        self.resets = self.resets + 1

    cdef int accept(self, object meta) except -1:
        if self.expected is not None and meta.schema != self.expected:
            raise RingInvalid(f"records are {meta.schema}, not {self.expected}")
        record = dtype_of(meta.schema, meta.record_size)
        if kind_of(record) != meta.kind:
            raise RingInvalid(f"stream kind is {meta.kind}, not {kind_of(record)}")
        record = padded(record, meta.slot_size)
        if self.dtype != record:
            self.dtype = record
            self.empty = np.empty(0, record)
            self.raw = None
        return 0

    cdef void forget(self) noexcept:
        self.slots = NULL

    @property
    def position(self) -> int:
        """The number of the record wanted next."""
        return self.cursor

    @property
    def start(self) -> int:
        """The position at the start."""
        return self.origin

    @property
    def lost(self) -> int:
        """How many records were overwritten before they were read."""
        return self.missed

    @property
    def received(self) -> int:
        """How many records were read."""
        return self.cursor - self.origin - self.missed

    @property
    def epoch(self) -> int:
        """The life of the writer that these records come from."""
        return self.meta.origin.epoch

    cdef int next(self, void *out) noexcept nogil:
        cdef const uint64_t *slot
        cdef uint64_t seq, head
        cdef int _lap
        if self.slots == NULL:
            return EMPTY
        for _lap in range(LAPS):
            slot = <const uint64_t *> (
                self.slots + (self.cursor & self.mask) * self.slot_size)
            seq = load_acquire(slot)                            # R1
            if seq == self.cursor + 1:
                load_words(<uint64_t *> out + 1, slot + 1,
                           self.slot_size / sizeof(uint64_t) - 1)   # R2
                fence_acquire()                                 # R3
                if load_relaxed(slot) == seq:                   # R4
                    (<uint64_t *> out)[0] = seq
                    # += needs the GIL in the checked build, whose None check may raise.
                    self.cursor = self.cursor + 1
                    return RECORD
                continue        # never act on R4's word: it was not acquired
            if (seq & ~BUSY) <= self.cursor + 1:
                return EMPTY    # of an older lap, or being written now
            head = load_acquire(&self.live.head)                # R5
            if not lapped(head, self.cursor, self.capacity):
                return EMPTY    # no writer of ours: head is at least a lap ahead of us
            skip(self, head)
        return EMPTY

    def poll(self, Py_ssize_t max=4096):
        """Return up to *max* new records as an array of its own, of length 0 if none."""
        cdef uint64_t head
        cdef News news = look(self, &head)
        if news == NOTHING or max <= 0:
            return self.empty
        return take(self, head, max) if news == RECORDS else self.take_one()

    def fill(self) -> int:
        """Copy new records over the last ones in ``batch``; return how many, at most 1024.

        ``columns["bid_price"][:n]`` are then the values of a field, with nothing made
        but that slice. Both stay the same arrays until ``resets`` grows.
        """
        cdef uint64_t head, count, bad
        cdef char *out
        cdef News news = look(self, &head)
        if news == NOTHING:
            return 0
        if self.raw is None:
            make_batch(self)
        out = PyByteArray_AS_STRING(self.raw)
        if news == LAST:
            return self.next(out) == RECORD
        count = available(self, head, BATCH)
        bad = copy_records(self, out, count)
        if bad > 0:
            memmove(out, out + bad * self.slot_size, (count - bad) * self.slot_size)
        return count - bad

    @property
    def batch(self):
        """The array that fill() writes to; another one, maybe, after a reset."""
        if self.raw is None:
            make_batch(self)
        return self.filled

    @property
    def columns(self) -> dict:
        """The fields of ``batch``, each a view of it."""
        if self.raw is None:
            make_batch(self)
        return self.views

    def take_one(self):
        """Return the next record, or none, as a slot reader sees it.

        It can be one that was complete when its writer died, but not yet counted.
        """
        if self.slots == NULL:
            raise ValueError("reader is released")
        raw = PyByteArray_FromStringAndSize(NULL, self.slot_size)
        if self.next(PyByteArray_AS_STRING(raw)) == EMPTY:
            return self.empty
        return np.frombuffer(raw, self.dtype)

    def has_next(self) -> bool:
        """Say if there is a next record, counted by its writer or only just complete."""
        cdef const char *slot
        if self.slots == NULL:
            raise ValueError("reader is released")
        if <int64_t> (load_acquire(&self.live.head) - self.cursor) > 0:
            return True
        slot = self.slots + (self.cursor & self.mask) * self.slot_size
        return load_acquire(<const uint64_t *> slot) == self.cursor + 1

    def wait(self, timeout=None, str strategy="adaptive") -> bool:
        """Wait until there is something to poll, or for *timeout* seconds; say if there is.

        "adaptive" spins for 20 us, then naps for 1 us, doubling to 100 us; "spin" never
        sleeps, for a core of its own; "block" sleeps until the writer's flush(), and
        needs a ring made with *wake*: RingError otherwise. All without the GIL.
        """
        how = STRATEGIES.get(strategy)
        if how is None:
            raise ValueError(f"strategy is {strategy!r}, not 'adaptive', 'spin' or 'block'")
        cdef int chosen = how
        cdef int64_t now_ns = monotonic_ns()
        cdef int64_t spin_ns = now_ns + SPIN_NS
        cdef int64_t end_ns = INT64_MAX
        cdef int64_t nap_ns = NAP_NS
        cdef int64_t slice_ns
        cdef bint found
        if timeout is not None:
            end_ns = now_ns + <int64_t> (min(timeout, 1e9) * 1e9)
        while True:
            if self.slots == NULL:
                raise ValueError("reader is released")
            # At every turn: a watched reader may have gone on in another ring.
            if chosen == BLOCK and not self.meta.flags & WAKE:
                raise RingError(
                    f"ring {self.meta.origin.name!r} does not wake readers, "
                    "not made with wake = true"
                )
            slice_ns = min(end_ns, monotonic_ns() + SLICE_NS)
            self.pinned = self.pinned + 1
            try:
                with nogil:
                    if chosen == BLOCK:
                        found = block_until_new(self, slice_ns)
                    elif chosen == SPIN:
                        found = spin_until_new(self, slice_ns)
                    else:
                        found = sleep_until_new(self, spin_ns, slice_ns, &nap_ns)
            finally:
                self.pinned -= 1
            if found:
                return True
            PyErr_CheckSignals()
            now_ns = monotonic_ns()
            if self.watched and now_ns >= self.watch_ns:
                self.watch_ns = now_ns + WATCH_NS
                if self.look_around():
                    self.watch_ns = 0       # what it saw may not be counted by the head
                    return True
            if now_ns >= end_ns:
                return False

    def look_around(self) -> bool:
        """Say if there is something to read that the head does not tell.

        Asked every 100 ms while there is nothing new, by poll(), fill() and wait(), if
        *watched*.
        """
        return False


cdef inline bint is_new(Reader reader) noexcept nogil:
    return <int64_t> (load_acquire(&reader.live.head) - reader.cursor) > 0


cdef bint spin_until_new(Reader reader, int64_t end_ns) noexcept nogil:
    """Look at the head all the time until *end_ns*; say whether it moved."""
    cdef int _spin
    while True:
        for _spin in range(SPINS):
            if is_new(reader):
                return True
            cpu_pause()
        if monotonic_ns() >= end_ns:
            return is_new(reader)


cdef bint block_until_new(Reader reader, int64_t end_ns) noexcept nogil:
    """Sleep until the writer's flush(), a signal or *end_ns*; say whether there is news."""
    # The word before the head: a flush() after this look ends the sleep, or prevents it.
    cdef uint32_t seen = load_acquire32(&reader.live.wake_seq)
    cdef int64_t left_ns
    if is_new(reader):
        return True
    left_ns = end_ns - monotonic_ns()
    if left_ns > 0:
        futex_wait(&reader.live.wake_seq, seen, left_ns)
    return is_new(reader)


cdef bint sleep_until_new(
    Reader reader, int64_t spin_ns, int64_t end_ns, int64_t *nap_ns
) noexcept nogil:
    """Wait until *end_ns* for the head to move past the reader; say whether it did."""
    cdef int64_t now_ns = monotonic_ns()
    cdef int slack = -1
    cdef bint found
    while True:
        found = is_new(reader)
        if found or now_ns >= end_ns:
            break
        if now_ns < spin_ns:
            cpu_pause()
        else:
            if slack < 0:
                slack = set_timer_slack(1)
            nap(<long> min(nap_ns[0], end_ns - now_ns))
            nap_ns[0] = min(2 * nap_ns[0], <int64_t> NAP_MAX_NS)
        now_ns = monotonic_ns()
    if slack >= 0:
        set_timer_slack(slack)
    return found


cdef object first_record(object start, uint64_t head, uint64_t capacity):
    """Return the number of the record at *start* of a ring whose head is *head*."""
    if start == "new":
        return head
    if start == "oldest":
        # The oldest of all may be about to be overwritten.
        return head - min(head, capacity - 1)
    if not isinstance(start, int):
        raise ValueError(f"start is {start!r}, not 'new', 'oldest' or a number")
    # A slot reader can be one ahead of the head.
    if not 0 <= start <= head + 1:
        raise ValueError(f"start is {start}, not 0 to {head}")
    return start


cdef bint lapped(uint64_t head, uint64_t cursor, uint64_t capacity) noexcept nogil:
    return <int64_t> (head - cursor) >= <int64_t> capacity


cdef void skip(Reader reader, uint64_t head) noexcept nogil:
    """Move a lapped reader on, and count what it lost."""
    cdef uint64_t target = head - 1 if reader.latest else head - reader.capacity // 2
    reader.missed = reader.missed + target - reader.cursor
    reader.cursor = target


cdef News look(Reader reader, uint64_t *head) except FAILED:
    """Look for news and, if there is nothing new, now and then at the writer."""
    if reader.slots == NULL:
        raise ValueError("reader is released")
    head[0] = load_acquire(&reader.live.head)                   # B1
    if <int64_t> (head[0] - reader.cursor) > 0:
        return RECORDS
    if not reader.watched or monotonic_ns() < reader.watch_ns:
        return NOTHING
    reader.watch_ns = monotonic_ns() + WATCH_NS
    if not reader.look_around() or reader.slots == NULL:
        return NOTHING
    head[0] = load_acquire(&reader.live.head)
    return RECORDS if <int64_t> (head[0] - reader.cursor) > 0 else LAST


cdef object take(Reader reader, uint64_t head, Py_ssize_t limit):
    """Copy at most *limit* records below *head*; at least one is there."""
    cdef uint64_t count = available(reader, head, limit)
    cdef uint64_t bad
    raw = PyByteArray_FromStringAndSize(NULL, count * reader.slot_size)
    bad = copy_records(reader, PyByteArray_AS_STRING(raw), count)
    records = np.frombuffer(raw, reader.dtype)
    return records[bad:] if bad else records


cdef uint64_t available(Reader reader, uint64_t head, uint64_t limit) noexcept nogil:
    """Return how many records to copy, having moved a lapped reader on."""
    if lapped(head, reader.cursor, reader.capacity):
        skip(reader, head)
    return min(head - reader.cursor, limit)


cdef uint64_t copy_records(Reader reader, char *out, uint64_t count) noexcept nogil:
    """Copy *count* records and pass them; return how many of the first are not whole."""
    cdef uint64_t head, first, whole, bad
    cdef size_t size = reader.slot_size
    first = reader.cursor & reader.mask
    whole = min(count, reader.capacity - first)
    memcpy(out, reader.slots + first * size, whole * size)      # B2
    memcpy(out + whole * size, reader.slots, (count - whole) * size)
    fence_acquire()                                             # B3
    head = load_relaxed(&reader.live.head)
    bad = 0
    # Record n is whole if head - n < capacity: strictly, for the next is being written.
    if lapped(head, reader.cursor, reader.capacity):
        bad = min(head - reader.capacity + 1 - reader.cursor, count)
    reader.missed = reader.missed + bad
    reader.cursor = reader.cursor + count
    return bad


cdef int make_batch(Reader reader) except -1:
    """Make the array of fill(): the bytes are the reader's, the array views them."""
    raw = bytearray(BATCH * reader.slot_size)
    filled = np.frombuffer(raw, reader.dtype)
    reader.views = {name: filled[name] for name in filled.dtype.names}
    reader.filled = filled
    reader.raw = raw
    return 0

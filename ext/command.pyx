"""Commands of one engine to the handler: one producer, one consumer, nothing overwritten.

W1 to W5 are the steps of a ring's writer. What this adds is a cursor that comes back (C1,
C2), and two pairs of a store and a load that must not pass each other, each with a full
fence between: publish() and sleep (P1, P2), take() and revoke() (T1, T2).
"""

import json
from typing import NamedTuple

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport isfinite, isnan
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

from feedhandler.atomic cimport (
    fence_full,
    fence_release,
    load_acquire,
    load_acquire32,
    load_words,
    store_release,
    store_words,
)
from feedhandler.records cimport (
    CANCEL,
    CANCEL_ALL,
    ID_BYTES,
    LIMIT,
    MODIFY,
    RESOLVE,
    STOP,
    STOP_LIMIT,
    SUBMIT,
)
from feedhandler.segment cimport BUSY, CAPACITY_MIN, DATA_OFFSET, GENERIC, LINE, LIVE, PAGE

from feedhandler.errors import RingInvalid
from feedhandler.records import COMMAND, CommandKind
from feedhandler.segment import Origin, align, capacity_for

cdef enum:
    WORDS = 23                  # of a slot, behind its own

cdef enum Fault:
    NO_FAULT
    BAD_KIND
    BAD_CLIENT_ID
    BAD_ORDER_ID
    BAD_SYMBOL
    BAD_SIDE
    BAD_TYPE
    BAD_TIF
    BAD_QUANTITY
    BAD_PRICE
    BAD_STOP_PRICE
    NO_CHANGE
    BAD_TIMES
    BAD_PADDING

cdef int64_t GONE_NS = 1_000_000_000        # without a beat
cdef int64_t STUCK_NS = 1_000_000_000
# A clock that is not ours must not make commands that never end. Engines have 60 s; the
# time of a turn is from before the commands that came in it.
cdef int64_t DEADLINE_MAX_NS = 61_000_000_000

_NO_ORIGIN = Origin(epoch=1)
SIDES = (None, "buy", "sell")
TYPES = (None, "market", "limit", "stop", "stop_limit")
TIMES_IN_FORCE = (None, "gtc", "ioc", "fok", "day")
_KINDS = (None, *CommandKind)
_KIND_NAMES = tuple(kind and kind.name for kind in _KINDS)

CHANNEL_SCHEMA = json.dumps(
    [[name, COMMAND[name].str, COMMAND.fields[name][1]] for name in COMMAND.names],
    separators=(",", ":"),
)
CURSOR_SCHEMA = '{"cursor":1,"channel_epoch":8192,"turn":8320}'
CURSOR_BYTES = DATA_OFFSET + PAGE
CHANNEL_BYTES_MAX = SLOTS_OFFSET + CHANNEL_MAX * sizeof(Record)


class Command(NamedTuple):
    """What an engine asks for, checked; None where it says nothing.

    Not to be carried out if there is a *problem*: then *is_expired* tells whether it came
    too late, or made no sense, and left no more than kind and *client_id*, if those did.
    Times are CLOCK_MONOTONIC.
    """

    channel: str
    kind: CommandKind | None
    client_id: str
    order_id: str | None = None
    symbol: str | None = None
    side: str | None = None
    type: str | None = None
    time_in_force: str | None = None
    quantity: float | None = None
    price: float | None = None
    stop_price: float | None = None
    deadline_ns: int = 0
    sent_ns: int = 0
    is_expired: bool = False
    problem: str = ""


cdef class CursorWriter(SegmentWriter):
    """What the handler says of one channel: how far it is, and whether it lives.

    Formats *buffer*. Its head is the number of commands taken.
    """

    def __init__(self, buffer, uint64_t channel_epoch, origin=_NO_ORIGIN):
        self.format(
            buffer, GENERIC, CAPACITY_MIN, LINE, LINE, DATA_OFFSET, CURSOR_SCHEMA, origin)
        self.page = <CursorPage *> (self.base + DATA_OFFSET)
        self.page.channel_epoch = channel_epoch
        self.seal()

    cdef void forget(self) noexcept:
        self.page = NULL

    def doze(self) -> None:
        """Begin another turn, and have who publishes in it wake the handler, once.

        Afterwards, and after the others', see CommandReader.has_next(): P1, then P2.
        """
        if self.page != NULL:
            store_release(&self.page.turn, self.page.turn + 1)
            fence_full()


cdef class CursorReader(SegmentReader):
    """What an engine knows of the handler; all of it may be a lie."""

    def __init__(self, buffer):
        self.bind(buffer)
        self.page = <const CursorPage *> (self.base + DATA_OFFSET)

    cdef int accept(self, object meta) except -1:
        if meta.schema != CURSOR_SCHEMA or meta.slots_offset != DATA_OFFSET:
            raise RingInvalid(f"segment is {meta.schema:.40}, not a cursor")
        return 0

    cdef void forget(self) noexcept:
        self.page = NULL

    @property
    def channel_epoch(self) -> int:
        """The life of the channel that this is for."""
        if self.page == NULL:
            raise ValueError("segment is released")
        return load_acquire(&self.page.channel_epoch)


@cython.final
cdef class CommandWriter(SegmentWriter):
    """The one producer of the channel in *buffer*, which it formats.

    *writer_epoch* is the handler's. Nothing can be published before follow(). In a forked
    child it is released, so that there are never two.
    """

    def __init__(self, buffer, uint64_t capacity, uint64_t writer_epoch, origin=_NO_ORIGIN):
        CommandWriter.size_for(capacity)
        self.format(
            buffer, GENERIC, capacity, sizeof(Record), sizeof(Record), SLOTS_OFFSET,
            CHANNEL_SCHEMA, origin)
        self.capacity = capacity
        self.epoch = origin.epoch
        self.page = <ChannelPage *> (self.base + DATA_OFFSET)
        self.page.writer_epoch = writer_epoch
        self.slots = self.base + SLOTS_OFFSET
        self.seal()

    @staticmethod
    def size_for(uint64_t capacity) -> int:
        """Return the bytes that a channel of *capacity* commands takes."""
        if capacity > CHANNEL_MAX or capacity != capacity_for(capacity):
            raise ValueError(
                f"capacity is {capacity}, not a power of two of 64 to {CHANNEL_MAX}")
        return align(SLOTS_OFFSET + capacity * sizeof(Record), PAGE)

    cdef void forget(self) noexcept:
        self.page = NULL
        self.slots = NULL
        self.handler = NULL
        self.handler_page = NULL
        self.cursor = None

    def follow(self, buffer) -> None:
        """Take the cursor from the handler's page; RingInvalid if it is another's."""
        cdef CursorReader cursor = CursorReader(buffer)
        if self.slots == NULL:
            raise ValueError("channel is released")
        if cursor.channel_epoch != self.epoch:
            raise RingInvalid(f"cursor is of {cursor.channel_epoch:#x}, not {self.epoch:#x}")
        self.cursor = cursor
        self.handler = cursor.live
        self.handler_page = cursor.page

    @property
    def published(self) -> int:
        """How many commands were published: the index of the next."""
        return self.count

    cdef int publish(self, const Record *command, int64_t now_ns) noexcept nogil:
        cdef uint64_t number = self.count + 1
        cdef uint64_t cursor
        cdef uint64_t *slot
        if self.slots == NULL or self.revoked or not is_there(self.handler, now_ns):
            return GONE
        if self.count - self.known >= self.capacity:
            # C1: acquired, so that the handler has read the slot before it is written.
            cursor = load_acquire(&self.handler.head)
            if not self.known <= cursor <= self.count:
                return BROKEN
            self.known = cursor
            if self.count - cursor >= self.capacity:
                return FULL
        slot = <uint64_t *> (
            self.slots + (self.count & (self.capacity - 1)) * sizeof(Record))
        store_release(slot, BUSY | number)                      # W1
        fence_release()                                         # W2
        store_words(slot + 1, <const uint64_t *> command + 1, WORDS)    # W3
        store_release(slot, number)                             # W4
        store_release(&self.live.head, number)                  # W5
        self.count = number
        fence_full()                                            # P1: it is there, then
        self.seen = load_acquire(&self.handler_page.turn)       # P2: does anybody sleep?
        return SENT if self.seen in (0, self.woken) else SENT_ASLEEP

    def publish_record(self, record, int64_t now_ns) -> Published:
        """Publish *record*, 192 bytes of which the first eight are ignored.

        *now_ns* is CLOCK_MONOTONIC, for the age of the handler's heartbeat.
        """
        cdef Py_buffer view
        if self.slots == NULL:
            raise ValueError("channel is released, or was its parent's before a fork")
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len != sizeof(Record):
                raise ValueError(f"command is {view.len} bytes, not {sizeof(Record)}")
            return Published(self.publish(<const Record *> view.buf, now_ns))
        finally:
            PyBuffer_Release(&view)

    def woke(self) -> None:
        """Note that the handler was woken: once a turn is enough."""
        self.woken = self.seen

    def revoke(self, str channel="", int64_t utc_offset_ns=0) -> list:
        """Publish nothing more, and take back what the handler has not taken.

        Return those commands, oldest first: none will be carried out, ever. What is not
        among them was taken, and may have been. Empty if the handler's cursor is no cursor:
        then nothing is known.
        """
        cdef uint64_t cursor, number
        if self.slots == NULL:
            raise ValueError("channel is released")
        store_release(&self.page.revoked, 1)                    # T1 of the engine
        fence_full()
        self.revoked = True
        if self.handler == NULL:
            return []
        cursor = load_acquire(&self.handler.head)               # T2
        if not self.known <= cursor <= self.count:
            return []
        self.known = cursor
        return [
            left_behind(channel, record_at(self, number), utc_offset_ns)
            for number in range(cursor, self.count)
        ]


cdef bint is_there(const LivePage *handler, int64_t now_ns) noexcept nogil:
    cdef uint64_t age_ns
    if handler == NULL or load_acquire32(&handler.state) != LIVE:
        return False
    # Unsigned: a beat of the future is as bad as one of long ago.
    age_ns = <uint64_t> now_ns - load_acquire(&handler.heartbeat_mono_ns)
    return age_ns + <uint64_t> GONE_NS <= 2 * <uint64_t> GONE_NS


cdef object left_behind(str channel, const Record *record, int64_t offset_ns):
    if fault_of(record) != NO_FAULT:
        return Command(channel, None, "", is_expired=True, problem="it made no sense")
    return told(channel, record, offset_ns, "no handler took it")


cdef const Record *record_at(CommandWriter writer, uint64_t number) noexcept:
    cdef const char *slots = writer.slots
    return <const Record *> (slots + (number & (writer.capacity - 1)) * sizeof(Record))


cdef class CommandReader(SegmentReader):
    """The one consumer of the channel in *buffer*, on behalf of the handler.

    *writer_epoch* and *utc_offset_ns* are those of the handler's board, *name* what commands
    are to say they came by. The engine may write what it likes and when: a record is copied
    once and then checked. When *broken*, there is nothing more to take.
    """

    def __init__(self, buffer, str name, uint64_t writer_epoch, int64_t utc_offset_ns=0):
        self.bind(buffer)
        self.name = name
        self.epoch = writer_epoch
        self.offset_ns = utc_offset_ns
        self.capacity = self.meta.capacity
        self.page = <const ChannelPage *> (self.base + DATA_OFFSET)
        self.slots = self.base + SLOTS_OFFSET

    cdef int accept(self, object meta) except -1:
        if meta.schema != CHANNEL_SCHEMA:
            raise RingInvalid(f"records are {meta.schema:.40}, not commands")
        if meta.slot_size != sizeof(Record) or meta.slots_offset != SLOTS_OFFSET:
            raise RingInvalid(
                f"slots are {meta.slot_size} bytes at {meta.slots_offset:#x}, not "
                f"{sizeof(Record)} at {SLOTS_OFFSET:#x}")
        if meta.capacity > CHANNEL_MAX:
            raise RingInvalid(f"capacity is {meta.capacity}, not {CHANNEL_MAX} or less")
        return 0

    cdef void forget(self) noexcept:
        self.page = NULL
        self.slots = NULL

    def serve(self, CursorWriter cursor not None) -> None:
        """Say by *cursor* how far it is, from here on."""
        self.cursor = cursor

    @property
    def taken(self) -> int:
        """How many commands were taken: the index of the next."""
        return self.position

    @property
    def writer_epoch(self) -> int:
        """The handler that the engine made this channel for."""
        if self.page == NULL:
            raise ValueError("channel is released")
        return load_acquire(&self.page.writer_epoch)

    def has_next(self) -> bool:
        """Say if there is a command to take."""
        if self.slots == NULL or self.broken:
            return False
        return load_acquire(slot_of(self)) == self.position + 1

    def take(self, Py_ssize_t limit, int64_t now_ns, *, bint is_dead=False) -> list:
        """Take up to *limit* commands, 32 at most; *now_ns* is CLOCK_MONOTONIC.

        The cursor has moved past them when this returns: what comes next, they are taken
        once. With *is_dead*, nobody waits for them any more, and all are expired.
        """
        cdef uint64_t count, number
        cdef bint is_revoked
        if self.slots == NULL or self.cursor is None or self.cursor.base == NULL:
            raise ValueError("channel is released")
        count = copy_complete(self, min(limit, BATCH))
        if count == 0:
            return []
        # C2: released, so that the records are read before the engine writes there again.
        store_release(&self.cursor.live.head, self.position)    # T1 of the handler
        fence_full()
        is_revoked = load_acquire(&self.page.revoked) != 0      # T2
        return [
            judged(self, &self.batch[number], now_ns, is_revoked, is_dead)
            for number in range(count)
        ]

    def inspect(self, int64_t now_ns) -> None:
        """Look for what no honest engine does; to be called ten times a second.

        *now_ns* is CLOCK_MONOTONIC.
        """
        cdef uint64_t head, seq
        cdef int64_t ahead
        if self.slots == NULL or self.broken:
            return
        head = load_acquire(&self.live.head)
        seq = load_acquire(slot_of(self))
        ahead = <int64_t> (head - self.position)
        # A command may be taken before it is counted, and is complete when it is.
        if head < self.head or not -1 <= ahead <= <int64_t> self.capacity:
            self.broken = True
        elif seq != self.position + 1 and (ahead > 0 or not is_waiting(self, seq)):
            self.broken = True
        self.head = head
        if seq != (BUSY | (self.position + 1)):
            self.busy = 0
        elif self.busy != seq:
            self.busy = seq
            self.busy_ns = now_ns
            self.noted = False
        elif not self.noted and now_ns - self.busy_ns > STUCK_NS:
            self.noted = True
            self.stuck += 1


cdef const uint64_t *slot_of(CommandReader reader) noexcept:
    cdef uint64_t place = reader.position & (reader.capacity - 1)
    return <const uint64_t *> (reader.slots + place * sizeof(Record))


cdef bint is_waiting(CommandReader reader, uint64_t seq) noexcept:
    """Say if *seq* is what the slot at the position may hold before its command does."""
    cdef uint64_t before = 0
    if reader.position >= reader.capacity:
        before = reader.position + 1 - reader.capacity
    return seq in (before, BUSY | (reader.position + 1))


cdef uint64_t copy_complete(CommandReader reader, Py_ssize_t limit) noexcept:
    """Copy commands to the batch and pass them; return how many."""
    cdef const uint64_t *slot
    cdef uint64_t seq
    cdef uint64_t count = 0
    while not reader.broken and count < <uint64_t> max(limit, 0):
        slot = slot_of(reader)
        seq = load_acquire(slot)
        if seq != reader.position + 1:
            reader.broken = not is_waiting(reader, seq)
            break
        load_words(<uint64_t *> &reader.batch[count] + 1, slot + 1, WORDS)
        reader.batch[count].seq = seq
        reader.position = reader.position + 1
        count += 1
    return count


cdef object judged(
    CommandReader reader, const Record *record, int64_t now_ns, bint is_revoked, bint is_dead
):
    """Return a private copy of a command as what it is."""
    cdef Fault fault = fault_of(record)
    cdef int64_t late_ns = 0
    problem = explained(fault, record)
    if not problem:
        # Both are positive: no difference of them is too large.
        late_ns = now_ns - (record.deadline_ns - reader.offset_ns)
        if late_ns < -DEADLINE_MAX_NS:
            problem = f"deadline is {-late_ns / 1e9:.3f} s away, not 61 or less"
    if problem:
        return Command(
            reader.name,
            None if fault == BAD_KIND else _KINDS[record.kind],
            text_of(record.client_id),
            problem=problem,
        )
    if is_revoked:
        problem = "its engine took it back"
    elif is_dead:
        problem = "its engine is dead"
    elif record.writer_epoch != reader.epoch:
        problem = f"it is for handler {record.writer_epoch:#x}, not {reader.epoch:#x}"
    elif late_ns >= 0:
        problem = f"it is {late_ns / 1e9:.3f} s past its deadline"
    return told(reader.name, record, reader.offset_ns, problem)


cdef object told(str channel, const Record *record, int64_t offset_ns, str problem):
    """Return all that a command says that makes sense; expired, if there is a *problem*."""
    return Command(
        channel,
        _KINDS[record.kind],
        text_of(record.client_id),
        text_of(record.order_id) or None,
        text_of(record.symbol) or None,
        SIDES[record.side],
        TYPES[record.type],
        TIMES_IN_FORCE[record.tif],
        number_of(record.quantity),
        number_of(record.price),
        number_of(record.stop_price),
        record.deadline_ns - offset_ns,
        record.sent_ns - offset_ns,
        problem != "",
        problem,
    )


def problem_of(record) -> str:
    """Say why a command of these 192 bytes makes no sense at any time; "" if it does."""
    cdef Py_buffer view
    cdef Record command
    PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
    try:
        if view.len != sizeof(Record):
            raise ValueError(f"command is {view.len} bytes, not {sizeof(Record)}")
        memcpy(&command, view.buf, sizeof(Record))
    finally:
        PyBuffer_Release(&view)
    return explained(fault_of(&command), &command)


cdef Fault fault_of(const Record *record) noexcept nogil:
    """Check all that does not depend on who asks or when."""
    cdef int kind = record.kind
    cdef int client_id = text_length(record.client_id)
    cdef int order_id = text_length(record.order_id)
    cdef bint is_new = kind == SUBMIT
    if not SUBMIT <= kind <= RESOLVE:
        return BAD_KIND
    # A modification or a cancel may name the order by either id; an answer needs ours.
    if client_id < 0 or client_id == 0 and (kind not in (MODIFY, CANCEL) or order_id == 0):
        return BAD_CLIENT_ID
    if order_id < 0 or order_id > 0 and kind not in (MODIFY, CANCEL):
        return BAD_ORDER_ID
    if not is_symbol(record.symbol, is_new, kind == CANCEL_ALL):
        return BAD_SYMBOL
    if not is_new <= record.side <= 2 * is_new:
        return BAD_SIDE
    if not is_new <= record.type <= 4 * is_new:
        return BAD_TYPE
    if record.tif > 4 * is_new:
        return BAD_TIF
    if not is_number(record.quantity, is_new, kind == MODIFY):
        return BAD_QUANTITY
    if not is_number(
        record.price, is_new and record.type in (LIMIT, STOP_LIMIT), kind == MODIFY
    ):
        return BAD_PRICE
    if not is_number(
        record.stop_price, is_new and record.type in (STOP, STOP_LIMIT), kind == MODIFY
    ):
        return BAD_STOP_PRICE
    if kind == MODIFY and isnan(record.quantity) and isnan(record.price) and isnan(
        record.stop_price
    ):
        return NO_CHANGE
    if not 0 < record.sent_ns <= record.deadline_ns <= INT64_MAX - DEADLINE_MAX_NS:
        return BAD_TIMES
    if (
        record.reserved | record.pad_command[0] | record.pad_command[1]
        | record.pad_command[2] | record.pad_command[3]
    ):
        return BAD_PADDING
    return NO_FAULT


cdef int text_length(const char *text) noexcept nogil:
    """Return the length of an id, padded with zeros; -1 if it is not printable."""
    cdef int length = 0
    cdef int place
    while length < ID_BYTES and 0x21 <= text[length] <= 0x7E:
        length += 1
    for place in range(length, ID_BYTES):
        if text[place] != 0:
            return -1
    return length


cdef bint is_symbol(const char *text, bint needed, bint allowed) noexcept nogil:
    cdef int length = text_length(text)
    cdef int place
    cdef char c
    if length <= 0:
        return length == 0 and not needed
    for place in range(length):
        c = text[place]
        if c'A' <= c <= c'Z' or c'0' <= c <= c'9':
            continue
        if place == 0 or not (c == c'.' or c == c'_' or c == c'-'):
            return False
    return needed or allowed


cdef bint is_number(double number, bint needed, bint allowed) noexcept nogil:
    if isnan(number):
        return not needed
    return (needed or allowed) and isfinite(number) and number > 0


cdef str text_of(const char *text):
    """Return an id or a symbol; "" if it is none."""
    cdef int length = text_length(text)
    return text[:length].decode("ascii") if length > 0 else ""


cdef object number_of(double number):
    return None if isnan(number) else number


cdef str explained(Fault fault, const Record *record):
    """Say what is wrong, with the value but for texts: those are an engine's."""
    if fault == NO_FAULT:
        return ""
    if fault == BAD_KIND:
        return f"kind is {record.kind}, not 1 to 5"
    kind = _KIND_NAMES[record.kind]
    if fault == BAD_CLIENT_ID:
        return f"client_id of {kind} is not 1 to 32 printable characters"
    if fault == BAD_ORDER_ID:
        return f"order_id of {kind} is not one, or not empty"
    if fault == BAD_SYMBOL:
        return f"symbol of {kind} is not one, or not empty"
    if fault == BAD_SIDE:
        return f"side of {kind} is {record.side}"
    if fault == BAD_TYPE:
        return f"type of {kind} is {record.type}"
    if fault == BAD_TIF:
        return f"time in force of {kind} is {record.tif}"
    if fault == BAD_QUANTITY:
        return f"quantity of {kind} is {record.quantity:g}"
    if fault == BAD_PRICE:
        return f"price of {kind} is {record.price:g}"
    if fault == BAD_STOP_PRICE:
        return f"stop price of {kind} is {record.stop_price:g}"
    if fault == NO_CHANGE:
        return "MODIFY changes nothing"
    if fault == BAD_TIMES:
        return f"it was sent at {record.sent_ns}, its deadline is {record.deadline_ns}"
    return "its reserved bytes are not 0"

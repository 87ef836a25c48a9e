"""An engine frozen between any two of its stores, and a handler before its only one."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from feedhandler import command
from feedhandler.command import CommandReader, CommandWriter, CursorWriter, Published
from feedhandler.records import COMMAND, CommandKind
from feedhandler.segment import Origin

CAPACITY = 64
HEAD, SLOTS, SIZE = 0x1000, 0x3000, 192
BUSY = 1 << 63
EPOCH, NOW_NS = 77, 5_000_000_000

# What publish() has stored when it is frozen there, in its order.
POINTS = ["begin", "half payload", "before seq", "before head", "done"]


def record(number: int) -> bytes:
    made = np.zeros(1, COMMAND)
    made["kind"], made["writer_epoch"] = CommandKind.CANCEL, EPOCH
    made["client_id"] = f"{number}".encode()
    made["sent_ns"] = made["deadline_ns"] = NOW_NS + 1
    for name in ("quantity", "price", "stop_price"):
        made[name] = np.nan
    return made.tobytes()


class StepEngine:
    """Does what publish() does to the bytes of a channel, one step at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray(CommandWriter.size_for(CAPACITY))
        CommandWriter(self.buffer, CAPACITY, EPOCH, Origin(epoch=9)).release()
        self.page = bytearray(command.CURSOR_BYTES)
        self.cursor = CursorWriter(self.page, 9, Origin(epoch=EPOCH))
        self.reader = CommandReader(self.buffer, "commands-1", EPOCH)
        self.reader.serve(self.cursor)
        self.count = 0

    def store(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.buffer, offset, value)

    def steps(self) -> Iterator[str]:
        number = self.count
        slot = SLOTS + number % CAPACITY * SIZE
        words = struct.unpack("<24Q", record(number))
        self.store(slot, BUSY | (number + 1))
        yield "begin"
        for word in range(1, 24):
            self.store(slot + 8 * word, words[word])
            if word == 12:
                yield "half payload"
        yield "before seq"
        self.store(slot, number + 1)
        yield "before head"
        self.store(HEAD, number + 1)
        self.count = number + 1
        yield "done"

    def freeze(self, point: str) -> None:
        for step in self.steps():
            if step == point:
                return

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.freeze("done")

    def take(self) -> list[int]:
        taken = self.reader.take(32, NOW_NS)
        assert {each.problem for each in taken} <= {""}
        return [int(each.client_id) for each in taken]


def test_the_step_engine_does_what_publish_does():
    steps = StepEngine()
    buffer = bytearray(CommandWriter.size_for(CAPACITY))
    writer = CommandWriter(buffer, CAPACITY, EPOCH, Origin(epoch=9))
    page = bytearray(command.CURSOR_BYTES)
    cursor = CursorWriter(page, 9, Origin(epoch=EPOCH))
    cursor.heartbeat(NOW_NS)
    writer.follow(page)
    reader = CommandReader(buffer, "commands-1", EPOCH)
    reader.serve(cursor)
    for number in range(CAPACITY + 5):
        writer.publish_record(record(number), NOW_NS)
        reader.take(1, NOW_NS)
    steps.publish(CAPACITY + 5)

    assert buffer[HEAD : HEAD + 8] == steps.buffer[HEAD : HEAD + 8]
    assert buffer[SLOTS:] == steps.buffer[SLOTS:]


@pytest.mark.req("F-76")
@pytest.mark.parametrize("before", [0, 1, CAPACITY - 1, CAPACITY, 3 * CAPACITY + 7])
@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("point", POINTS)
def test_a_command_is_taken_when_it_is_whole_and_not_before(point, left, before):
    engine = StepEngine()
    for _ in range(before):
        engine.publish(1)
        engine.take()
    engine.publish(left)
    engine.freeze(point)
    is_complete = point in ("before head", "done")
    engine.reader.inspect(NOW_NS)
    taken = engine.take()
    engine.reader.inspect(NOW_NS)

    assert taken == list(range(before, before + left + is_complete))
    assert not engine.reader.broken
    assert engine.take() == []
    assert engine.reader.has_next() is False


@pytest.mark.parametrize("first", POINTS)
@pytest.mark.parametrize("second", POINTS)
def test_an_engine_that_goes_on_loses_nothing(first, second):
    """The handler looks at two points of every publish, in either order."""
    engine = StepEngine()
    found = []
    for _ in range(CAPACITY + 3):
        for step in engine.steps():
            if step in (first, second):
                engine.reader.inspect(NOW_NS)
                found += engine.take()
    found += engine.take()

    assert found == list(range(CAPACITY + 3))
    assert not engine.reader.broken


def test_a_slot_is_free_when_the_cursor_is_stored_and_not_when_it_is_read():
    """A handler frozen between its copy and its store: the engine finds no room."""
    buffer = bytearray(CommandWriter.size_for(CAPACITY))
    page = bytearray(command.CURSOR_BYTES)
    cursor = CursorWriter(page, 9, Origin(epoch=EPOCH))
    cursor.heartbeat(NOW_NS)
    writer = CommandWriter(buffer, CAPACITY, EPOCH, Origin(epoch=9))
    writer.follow(page)
    for number in range(CAPACITY):
        writer.publish_record(record(number), NOW_NS)
    slot = bytes(buffer[SLOTS : SLOTS + SIZE])
    before = writer.publish_record(record(CAPACITY), NOW_NS)
    untouched = bytes(buffer[SLOTS : SLOTS + SIZE])
    struct.pack_into("<Q", page, HEAD, 1)
    after = writer.publish_record(record(CAPACITY), NOW_NS)

    assert (before, after) == (Published.FULL, Published.SENT)
    assert untouched == slot
    assert struct.unpack_from("<Q", buffer, SLOTS) == (CAPACITY + 1,)

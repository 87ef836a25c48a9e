"""A writer frozen between any two of its stores, as a signal or a debugger would."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring

CAPACITY = 64
HEAD = 0x1000
SLOTS = 0x2000
BUSY = 1 << 63
WIDE = np.dtype([("seq", "<u8"), *((f"word_{i}", "<u8") for i in range(1, 16))])

# What publish() has stored when it is frozen there, in its order.
POINTS = ["begin", "half payload", "before seq", "before head", "done"]


class StepWriter:
    """Does what publish() does to the bytes of a ring, one step at a time."""

    def __init__(self, dtype: np.dtype = QUOTE) -> None:
        self.buffer = bytearray(Ring.size_for(dtype, CAPACITY))
        Ring(self.buffer, dtype, CAPACITY).release()
        self.size = (dtype.itemsize + 63) // 64 * 64
        self.count = 0

    def store(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.buffer, offset, value)

    def steps(self) -> Iterator[str]:
        """Publish the next record; every word of it is its number."""
        number = self.count
        slot = SLOTS + number % CAPACITY * self.size
        words = self.size // 8
        self.store(slot, BUSY | (number + 1))
        yield "begin"
        for word in range(1, words):
            self.store(slot + 8 * word, number)
            if word == words // 2:
                yield "half payload"
        yield "before seq"
        self.store(slot, number + 1)
        yield "before head"
        self.store(HEAD, number + 1)
        self.count = number + 1
        yield "done"

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.freeze("done")

    def freeze(self, point: str) -> None:
        for step in self.steps():
            if step == point:
                return


def numbers_in(records: np.ndarray) -> list[int]:
    """Return the numbers of records, having checked that no word is of another."""
    words = np.ascontiguousarray(records).view(np.uint64)
    words = words.reshape(-1, records.itemsize // 8)
    assert (words[:, 1:] == words[:, :1] - np.uint64(1)).all()
    return [int(number) for number in words[:, 1]]


@pytest.mark.parametrize("dtype", [QUOTE, WIDE], ids=["64 bytes", "128 bytes"])
def test_the_step_writer_does_what_publish_does(dtype):
    steps = StepWriter(dtype)
    buffer = bytearray(Ring.size_for(dtype, CAPACITY))
    ring = Ring(buffer, dtype, CAPACITY)
    for number in range(CAPACITY + 5):
        words = np.full(dtype.itemsize // 8, number, np.uint64)
        ring.publish_record(words)
    steps.publish(CAPACITY + 5)

    assert buffer[HEAD : HEAD + 8] == steps.buffer[HEAD : HEAD + 8]
    assert buffer[SLOTS:] == steps.buffer[SLOTS:]


@pytest.mark.req("F-79")
@pytest.mark.parametrize("dtype", [QUOTE, WIDE], ids=["64 bytes", "128 bytes"])
@pytest.mark.parametrize("before", [0, 5, CAPACITY, 3 * CAPACITY + 7])
@pytest.mark.parametrize("point", POINTS)
def test_a_reader_at_the_head_sees_a_record_when_it_is_whole(point, before, dtype):
    writer = StepWriter(dtype)
    writer.publish(before)
    slots, bulk = Reader(writer.buffer), Reader(writer.buffer)
    writer.freeze(point)
    complete = point in ("before head", "done")

    assert slots.has_next() is complete
    assert numbers_in(slots.take_one()) == [before] * complete
    assert numbers_in(bulk.poll()) == [before] * (point == "done")
    assert slots.lost == bulk.lost == 0


@pytest.mark.req("F-79")
@pytest.mark.parametrize("point", POINTS)
def test_the_record_being_overwritten_is_never_returned(point):
    """Readers want the oldest of a full ring, whose slot is the one being written."""
    writer = StepWriter()
    writer.publish(2 * CAPACITY)
    oldest = CAPACITY
    slots, bulk = (Reader(writer.buffer, start=oldest) for _ in range(2))
    writer.freeze(point)
    seen, batch = numbers_in(slots.take_one()), numbers_in(bulk.poll())

    # Lapped, both go on half a ring behind; the slot reader only if the head says so.
    head = 2 * CAPACITY + (point == "done")
    assert seen == [head - CAPACITY // 2]
    assert batch == list(range(head - CAPACITY // 2, head))
    for reader in (slots, bulk):
        assert reader.received + reader.lost == reader.position - oldest
        assert reader.lost == head - CAPACITY // 2 - oldest


@pytest.mark.req("F-79")
@pytest.mark.parametrize("point", POINTS)
def test_the_second_oldest_is_still_whole(point):
    writer = StepWriter()
    writer.publish(2 * CAPACITY)
    second = CAPACITY + 1
    slots, bulk = (Reader(writer.buffer, start=second) for _ in range(2))
    writer.freeze(point)

    assert numbers_in(slots.take_one()) == [second]
    if point == "done":
        second = 2 * CAPACITY + 1 - CAPACITY // 2
    assert numbers_in(bulk.poll())[0] == second


@pytest.mark.req("F-79")
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("policy", ["half", "latest"])
@pytest.mark.parametrize("laps", [1, 2, 7])
def test_a_lapped_reader_finds_whole_records_at_every_point(point, policy, laps):
    writer = StepWriter()
    slots, bulk = (Reader(writer.buffer, start=0, on_lap=policy) for _ in range(2))
    writer.publish(laps * CAPACITY + 3)
    writer.freeze(point)
    head = struct.unpack_from("<Q", writer.buffer, HEAD)[0]
    back = 1 if policy == "latest" else CAPACITY // 2

    assert numbers_in(slots.take_one()) == [head - back]
    assert numbers_in(bulk.poll()) == list(range(head - back, head))
    assert slots.lost == bulk.lost == head - back
    while len(records := slots.take_one()):
        assert numbers_in(records) == [slots.position - 1]
    assert slots.position == head + (point == "before head")
    for reader in (slots, bulk):
        assert reader.received + reader.lost == reader.position


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_that_goes_on_loses_nothing(point):
    writer = StepWriter()
    reader = Reader(writer.buffer, start=0)
    writer.publish(3)
    steps = writer.steps()
    found = []
    for step in steps:
        if step == point:
            found += numbers_in(reader.poll()) + numbers_in(reader.take_one())
    writer.publish(2)

    assert found + numbers_in(reader.poll()) == [0, 1, 2, 3, 4, 5]
    assert reader.lost == 0

"""The ring: order, exact loss, laps, half-written slots, and no torn record."""

import contextlib
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.errors import RingInvalid
from feedhandler.records import QUOTE, TRADE
from feedhandler.ring import STRATEGIES, Reader, Ring, dtype_of, schema_of
from feedhandler.segment import Origin

CAPACITY = 64
HEAD = 0x1000
SLOTS = 0x2000
BUSY = 1 << 63
WIDE = np.dtype([("seq", "<u8"), ("value", "<u8"), ("text", "S50")], align=False)

PAGES = np.dtype([("seq", "<u8"), ("text", "S4088")])


def quotes(count: int, first: int = 0) -> np.ndarray:
    """Make records whose every field tells the record's number."""
    records = np.zeros(count, QUOTE)
    numbers = np.arange(first, first + count)
    for name in QUOTE.names[1:]:
        records[name] = numbers % 60_000
    return records


def new_ring(capacity: int = CAPACITY) -> tuple[bytearray, Ring]:
    buffer = bytearray(Ring.size_for(QUOTE, capacity))
    return buffer, Ring(buffer, QUOTE, capacity)


def numbers_in(records: np.ndarray) -> list[int]:
    """Return the records' numbers, having checked that no field is of another."""
    numbers = records["seq"].astype(np.int64) - 1
    for name in QUOTE.names[1:]:
        assert (records[name] == numbers % 60_000).all()
    return numbers.tolist()


def test_records_come_in_order_with_their_number_in_the_first_word():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(5))
    records = reader.poll()

    assert numbers_in(records) == [0, 1, 2, 3, 4]
    assert len(reader.poll()) == 0
    assert (reader.lost, reader.position, reader.received) == (0, 5, 5)
    assert ring.published == 5


def test_slots_and_head_are_where_the_layout_says():
    buffer, ring = new_ring()
    ring.publish_records(quotes(CAPACITY + 3))

    assert struct.unpack_from("<Q", buffer, HEAD) == (CAPACITY + 3,)
    assert struct.unpack_from("<Q", buffer, SLOTS + 2 * 64) == (CAPACITY + 3,)
    assert struct.unpack_from("<Q", buffer, SLOTS + 3 * 64) == (4,)
    assert struct.unpack_from("<d", buffer, SLOTS + 2 * 64 + 32) == (CAPACITY + 2,)


def test_an_array_stays_as_it_is_after_the_next_poll():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(3))
    first = reader.poll()
    ring.publish_records(quotes(CAPACITY, first=3))
    reader.poll()

    assert numbers_in(first) == [0, 1, 2]
    first["bid_price"] = 0.0
    assert first.flags.writeable


def test_an_empty_poll_makes_no_array():
    buffer, _ = new_ring()
    reader = Reader(buffer, QUOTE)

    assert reader.poll() is reader.poll()
    assert reader.poll().dtype == QUOTE


def test_poll_takes_no_more_than_asked():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(10))

    assert numbers_in(reader.poll(4)) == [0, 1, 2, 3]
    assert len(reader.poll(0)) == 0
    assert len(reader.poll(max=-1)) == 0
    assert numbers_in(reader.poll(100)) == [4, 5, 6, 7, 8, 9]


def test_readers_start_where_they_are_told():
    buffer, ring = new_ring()
    ring.publish_records(quotes(100))

    assert Reader(buffer, QUOTE).position == 100
    assert Reader(buffer, QUOTE, start="oldest").position == 100 - (CAPACITY - 1)
    assert Reader(buffer, QUOTE, start=70).poll()["seq"][0] == 71
    assert len(Reader(buffer, QUOTE, start="oldest").poll()) == CAPACITY - 1
    for wrong in (-1, 102, "late", None):
        with pytest.raises(ValueError, match="start is"):
            Reader(buffer, QUOTE, start=wrong)


def test_the_oldest_record_of_a_young_ring_is_the_first():
    buffer, ring = new_ring()
    ring.publish_records(quotes(3))

    assert numbers_in(Reader(buffer, QUOTE, start="oldest").poll()) == [0, 1, 2]


@pytest.mark.req("F-79")
@pytest.mark.parametrize("laps", [1, 100])
@pytest.mark.parametrize(("on_lap", "kept"), [("half", CAPACITY // 2), ("latest", 1)])
def test_a_lapped_reader_goes_on_where_its_policy_says(laps, on_lap, kept):
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE, on_lap=on_lap)
    total = laps * CAPACITY
    ring.publish_records(quotes(total))
    records = reader.poll()

    assert numbers_in(records) == list(range(total - kept, total))
    assert reader.lost == total - kept
    assert reader.position == total


@pytest.mark.req("F-79")
def test_a_reader_one_record_short_of_a_lap_loses_nothing():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(CAPACITY - 1))

    assert len(reader.poll()) == CAPACITY - 1
    assert reader.lost == 0


def test_an_unknown_policy_is_a_value_error():
    with pytest.raises(ValueError, match="on_lap is 'oldest'"):
        Reader(new_ring()[0], QUOTE, on_lap="oldest")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3 * CAPACITY)),
        st.tuples(st.just("poll"), st.integers(1, 2 * CAPACITY)),
        st.tuples(st.just("one"), st.just(1)),
    ),
    max_size=30,
)


@pytest.mark.req("F-79")
@settings(max_examples=200, deadline=None)
@given(steps, st.integers(0, 200), st.sampled_from(["half", "latest"]))
def test_received_and_lost_add_up_at_every_return(script, published, on_lap):
    """The model: what a reader wants next, and whether the ring still has it."""
    buffer, ring = new_ring()
    ring.publish_records(quotes(published))
    reader = Reader(buffer, QUOTE, on_lap=on_lap)
    wanted, received = published, 0
    for action, count in script:
        if action == "publish":
            ring.publish_records(quotes(count, first=published))
            published += count
            continue
        records = reader.take_one() if action == "one" else reader.poll(count)
        # The oldest of all may be half-overwritten: only its own word can tell.
        room = CAPACITY if action == "one" else CAPACITY - 1
        if published - wanted > room:
            wanted = published - (1 if on_lap == "latest" else CAPACITY // 2)
        expected = range(wanted, min(wanted + count, published))

        assert numbers_in(records) == list(expected)
        wanted += len(expected)
        received += len(expected)
        assert (reader.position, reader.received) == (wanted, received)
        assert reader.received + reader.lost == reader.position - reader.start


def test_fill_brings_the_same_records_over_and_over_in_one_array():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    batch, prices = reader.batch, reader.columns["bid_price"]
    for first, count in ((0, 3), (3, 40), (43, 1)):
        ring.publish_records(quotes(count, first=first))

        assert reader.fill() == count
        assert numbers_in(reader.batch[:count]) == list(range(first, first + count))
        assert prices[:count].tolist() == batch["bid_price"][:count].tolist()
    assert reader.fill() == 0
    assert reader.batch is batch
    assert reader.columns["bid_price"] is prices
    assert set(reader.columns) == set(QUOTE.names)
    assert (reader.received, reader.lost) == (44, 0)


def test_fill_takes_at_most_a_batch():
    buffer = bytearray(Ring.size_for(QUOTE, 4096))
    ring, reader = Ring(buffer, QUOTE, 4096), Reader(buffer, QUOTE)
    ring.publish_records(quotes(3000))

    assert [reader.fill() for _ in range(4)] == [1024, 1024, 952, 0]


@pytest.mark.req("F-79")
@pytest.mark.parametrize("on_lap", ["half", "latest"])
def test_fill_and_poll_lose_the_same(on_lap):
    buffer, ring = new_ring()
    filling = Reader(buffer, QUOTE, on_lap=on_lap)
    polling = Reader(buffer, QUOTE, on_lap=on_lap)
    for count in (5, 64, 63, 1000, 1):
        ring.publish_records(quotes(count, first=ring.published))
        records = polling.poll()

        assert numbers_in(filling.batch[: filling.fill()]) == numbers_in(records)
        assert (filling.position, filling.lost) == (polling.position, polling.lost)


def test_a_batch_is_made_anew_for_other_records_only():
    buffer, ring = new_ring()
    reader = Reader(buffer)
    batch = reader.batch
    reader.rebind(new_ring()[0], "new")
    same = reader.batch
    wide = bytearray(Ring.size_for(WIDE, CAPACITY))
    ring = Ring(wide, WIDE, CAPACITY)
    reader.rebind(wide, "new")
    ring.publish_record(np.full(1, 7, WIDE))

    assert same is batch
    assert reader.fill() == 1
    assert reader.columns["value"][0] == 7
    assert set(reader.columns) == set(WIDE.names)


def test_a_released_reader_fills_nothing():
    reader = Reader(new_ring()[0], QUOTE)
    reader.release()

    with pytest.raises(ValueError, match="reader is released"):
        reader.fill()


def test_a_record_that_is_being_written_is_not_there_yet():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(2))
    reader.poll()
    struct.pack_into("<Q", buffer, SLOTS + 2 * 64, BUSY | 3)

    assert len(reader.poll()) == 0
    assert len(reader.take_one()) == 0
    assert not reader.has_next()
    assert (reader.position, reader.lost) == (2, 0)


@pytest.mark.req("F-76")
def test_a_record_complete_but_uncounted_is_seen_by_a_slot_reader_alone():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(3))
    struct.pack_into("<Q", buffer, HEAD, 2)

    assert numbers_in(reader.poll()) == [0, 1]
    assert len(reader.poll()) == 0
    assert reader.has_next()
    assert numbers_in(reader.take_one()) == [2]
    # It is one ahead of head now, which must not look like a lap.
    assert len(reader.poll()) == 0
    assert len(reader.take_one()) == 0
    assert (reader.position, reader.lost) == (3, 0)


def test_the_oldest_slot_is_not_trusted_while_it_is_overwritten():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(CAPACITY))
    struct.pack_into("<Q", buffer, SLOTS, BUSY | (CAPACITY + 1))

    assert numbers_in(reader.poll()) == list(range(CAPACITY // 2, CAPACITY))
    assert reader.lost == CAPACITY // 2


def test_a_slot_reader_on_a_busy_slot_of_a_later_lap_is_lapped():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(CAPACITY))
    struct.pack_into("<Q", buffer, SLOTS, BUSY | (CAPACITY + 1))

    assert numbers_in(reader.take_one()) == [CAPACITY // 2]
    assert reader.lost == CAPACITY // 2


@pytest.mark.req("F-84", "SEC-19")
@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 2**64 - 1)), max_size=8),
)
def test_no_head_and_no_slot_word_can_make_a_reader_hang_or_crash(head, words):
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    ring.publish_records(quotes(10))
    struct.pack_into("<Q", buffer, HEAD, head)
    for slot, word in words:
        struct.pack_into("<Q", buffer, SLOTS + slot * 64, word)
    for _ in range(3):
        assert len(reader.poll()) <= CAPACITY
        assert len(reader.take_one()) <= 1


def test_records_shorter_than_their_slot_are_padded():
    buffer = bytearray(Ring.size_for(WIDE, CAPACITY))
    ring = Ring(buffer, WIDE, CAPACITY)
    reader = Reader(buffer, WIDE)
    records = np.zeros(2, WIDE)
    records["value"] = [7, 8]
    records["text"] = [b"a" * 50, b"b"]
    ring.publish_record(records[:1])
    ring.publish_record(records[1])
    ring.publish_records(records)
    read = reader.poll()

    assert WIDE.itemsize == 66
    assert read.dtype.itemsize == 128
    assert read["value"].tolist() == [7, 8, 7, 8]
    assert read["text"].tolist() == [b"a" * 50, b"b"] * 2


def test_a_record_of_the_wrong_size_is_refused():
    _, ring = new_ring()

    with pytest.raises(ValueError, match="record is 63 bytes, not 64"):
        ring.publish_record(bytes(63))
    with pytest.raises(ValueError, match="not a multiple of 64"):
        ring.publish_records(bytes(65))
    assert ring.published == 0


@pytest.mark.req("F-84")
def test_a_typed_reader_refuses_other_records():
    buffer, _ = new_ring()

    with pytest.raises(RingInvalid, match="records are"):
        Reader(buffer, TRADE)
    assert Reader(buffer).dtype == QUOTE


@pytest.mark.req("F-84")
def test_a_ring_that_lies_about_its_kind_is_refused():
    buffer, _ = new_ring()
    struct.pack_into("<I", buffer, 0x14, 2)

    with pytest.raises(RingInvalid, match="stream kind is 2"):
        Reader(buffer, QUOTE)


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{}",
        "[]",
        "[1]",
        "null",
        "[" * 3000,
        '[["a","O",0]]',
        '[["a","<u8",-8]]',
        '[["a","<u8",60]]',
        '[["a","<u8",1e3]]',
        '[["a","<u8",true]]',
        '[["a","<u8",0],["a","<u8",8]]',
        '[["a","S99999",0]]',
        '[[1,"<u8",0]]',
        '[["a",["<u8"],0]]',
        '[["a","<u8",99999999999999999999999]]',
    ],
)
def test_a_schema_that_is_not_of_a_record_is_refused(schema):
    with pytest.raises(RingInvalid, match="schema is not that of a record"):
        dtype_of(schema, 64)


def test_a_schema_gives_back_its_dtype():
    for dtype in (QUOTE, TRADE, WIDE):
        assert dtype_of(schema_of(dtype), dtype.itemsize) == dtype


def test_a_capacity_that_is_no_power_of_two_is_refused():
    for wrong in (0, 3, 32, 100):
        with pytest.raises(ValueError, match="capacity is"):
            Ring.size_for(QUOTE, wrong)
        with pytest.raises(ValueError, match="capacity is"):
            Ring(bytearray(1 << 20), QUOTE, wrong)


def test_rebinding_starts_anew_and_a_bad_segment_changes_nothing():
    old, ring = new_ring()
    reader = Reader(old, QUOTE)
    ring.publish_records(quotes(200))
    reader.poll()
    new = bytearray(Ring.size_for(QUOTE, CAPACITY))
    other = Ring(new, QUOTE, CAPACITY, Origin(epoch=2))
    other.publish_records(quotes(2))

    with pytest.raises(RingInvalid):
        reader.rebind(bytes(len(new)), 0)
    assert (reader.epoch, reader.resets, reader.position) == (1, 0, 200)
    reader.rebind(new, 0)
    assert numbers_in(reader.poll()) == [0, 1]
    assert (reader.epoch, reader.resets, reader.lost) == (2, 1, 0)


def test_a_released_reader_says_so():
    reader = Reader(new_ring()[0], QUOTE)
    reader.release()

    for call in (reader.poll, reader.take_one, reader.has_next, reader.wait):
        with pytest.raises(ValueError, match="released"):
            call()


def test_wait_ends_with_its_time():
    reader = Reader(new_ring()[0], QUOTE)
    before = time.monotonic()

    assert reader.wait(0.02) is False
    assert time.monotonic() - before >= 0.02
    assert reader.wait(0) is False


def test_wait_ends_with_a_record_and_lets_other_threads_run():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    publisher = threading.Timer(0.01, ring.publish_record, [quotes(1)])
    publisher.start()

    assert reader.wait(10) is True
    assert len(reader.poll()) == 1
    publisher.join()


def test_a_segment_is_not_released_under_a_waiting_thread():
    buffer, ring = new_ring()
    reader = Reader(buffer, QUOTE)
    waiter = threading.Thread(target=reader.wait, args=[10])
    waiter.start()
    deadline = time.monotonic() + 5
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            reader.release()
        except BufferError:
            refused = True
        else:
            reader.rebind(buffer, "new")
    ring.publish_record(quotes(1))
    waiter.join()

    assert refused


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_wait_can_be_interrupted(strategy):
    script = """
        import sys
        from feedhandler.records import QUOTE
        from feedhandler.ring import Reader, Ring

        buffer = bytearray(Ring.size_for(QUOTE, 64))
        ring = Ring(buffer, QUOTE, 64, wake=True)
        print("waiting", flush=True)
        Reader(buffer, QUOTE).wait(None, sys.argv[1])
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), strategy],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == -signal.SIGINT


SPEEDING_WRITER = """
    import sys
    import numpy as np
    from feedhandler.ring import Ring, dtype_of
    from feedhandler.segment import Mapping

    path, schema, size, capacity = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    dtype = dtype_of(schema, size)
    period = 4 * capacity
    words = np.zeros((period, size // 8), np.uint64)
    words[:] = np.arange(period, dtype=np.uint64)[:, None]
    with open(path, "r+b") as file:
        mapping = Mapping(file.fileno(), Ring.size_for(dtype, capacity), writable=True)
    ring = Ring(mapping, dtype, capacity)
    print("writing", flush=True)
    while True:
        ring.publish_records(words)
"""


@contextlib.contextmanager
def speeding(path, dtype: np.dtype, capacity: int):
    """Lend the memory of a ring that a process fills as fast as it can."""
    path.write_bytes(bytes(Ring.size_for(dtype, capacity)))
    arguments = [str(path), schema_of(dtype), str(dtype.itemsize), str(capacity)]
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SPEEDING_WRITER), *arguments],
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout.readline() == b"writing\n"
        yield np.memmap(path, np.uint8, "r")
    finally:
        writer.kill()
        writer.communicate()


def torn_in(records: np.ndarray, capacity: int) -> int:
    """Count the records with a word that is not of their own number."""
    if not len(records):
        return 0
    words = records.view(np.uint64).reshape(len(records), -1)
    wanted = (words[:, 0] - np.uint64(1)) % np.uint64(4 * capacity)
    return int((words[:, 1:] != wanted[:, None]).any(axis=1).sum())


def for_seconds(seconds: float):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


@pytest.mark.req("F-76", "F-79", "F-86")
@pytest.mark.parametrize("capacity", [64, 1024])
def test_no_batch_is_torn_under_a_writer_at_full_speed(tmp_path, capacity):
    torn = torn_raw = busy = last = taken = 0
    with speeding(tmp_path / "ring", QUOTE, capacity) as buffer:
        reader = Reader(buffer, QUOTE)
        raw = buffer[SLOTS:].view(np.uint64).reshape(-1, 8)
        for _ in for_seconds(1.0):
            records = reader.poll()
            taken += len(records)
            torn += torn_in(records, capacity)
            assert (np.diff(records["seq"].astype(np.int64)) == 1).all()
            assert not len(records) or int(records["seq"][0]) > last
            last = int(records["seq"][-1]) if len(records) else last
            assert reader.received == taken
            assert reader.received + reader.lost == reader.position - reader.start
            unchecked = raw.copy()
            torn_raw += torn_in(unchecked, capacity)
            busy += int((unchecked[:, 0] >= BUSY).sum())

    assert torn == 0
    assert reader.received > 1000
    # The same memory without the checks does tear, and is marked while it is written.
    assert torn_raw > 0
    assert busy > 0


@pytest.mark.req("F-76", "F-79", "F-86")
def test_no_record_is_torn_at_the_lap_edge(tmp_path):
    """Slots of 4096 bytes, and a reader that goes back whenever it is up to date."""
    torn = received = lost = 0
    with speeding(tmp_path / "ring", PAGES, CAPACITY) as buffer:
        reader = Reader(buffer, PAGES)
        for _ in for_seconds(1.0):
            lost_before = reader.lost
            record = reader.take_one()
            torn += torn_in(record, CAPACITY)
            received += len(record)
            lost += reader.lost - lost_before
            assert reader.received + reader.lost == reader.position - reader.start
            if not len(record):
                reader.rebind(buffer, "oldest")

    assert torn == 0
    assert received > 1000
    assert lost > 0


@pytest.mark.req("I-06", "F-79", "F-86")
def test_what_is_overwritten_while_it_is_copied_is_not_returned_but_lost(tmp_path):
    """Megabytes from the oldest record on: it is copying most of the time."""
    torn = received = lost = 0
    with speeding(tmp_path / "ring", PAGES, 512) as buffer:
        for _ in for_seconds(1.0):
            reader = Reader(buffer, PAGES, start="oldest")
            records = reader.poll()
            torn += torn_in(records[:64], 512) + torn_in(records[-8:], 512)
            assert reader.received == len(records)
            received += reader.received
            lost += reader.lost

    assert torn == 0
    assert received > 1000
    assert lost > 0

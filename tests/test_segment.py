"""The pages that every segment starts with: layout, checks, mapping, fork."""

import hashlib
import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from feedhandler.errors import RingInvalid
from feedhandler.records import QUOTE
from feedhandler.ring import Ring, schema_of
from feedhandler.segment import (
    Mapping,
    Origin,
    beat,
    capacity_for,
    mark_closed,
    read_live,
    read_meta,
    struct_layout,
)

ORIGIN = Origin(
    epoch=0x1122334455667788,
    created_realtime_ns=1_700_000_000_000_000_000,
    created_monotonic_ns=42,
    pid=4321,
    uid=1000,
    start_time=777,
    boot_id=bytes(range(16)),
    name="md.quotes",
    version="0.1.0",
)


def formatted(capacity: int = 64) -> bytearray:
    buffer = bytearray(Ring.size_for(QUOTE, capacity))
    Ring(buffer, QUOTE, capacity, ORIGIN).release()
    return buffer


def test_the_structs_have_the_offsets_of_the_layout():
    assert struct_layout() == {
        "MetaPage": {
            "magic": 0x000,
            "abi_major": 0x008,
            "abi_minor": 0x00A,
            "byte_order": 0x00C,
            "flags": 0x010,
            "stream_kind": 0x014,
            "epoch": 0x018,
            "capacity": 0x020,
            "slot_size": 0x028,
            "record_size": 0x02C,
            "slots_offset": 0x030,
            "file_size": 0x038,
            "schema_hash": 0x040,
            "schema_len": 0x048,
            "created_realtime_ns": 0x050,
            "created_monotonic_ns": 0x058,
            "pid": 0x060,
            "uid": 0x064,
            "start_time": 0x068,
            "boot_id": 0x070,
            "name": 0x080,
            "version": 0x0C0,
            "schema": 0x200,
            "size": 4096,
        },
        "LivePage": {
            "head": 0x000,
            "state": 0x080,
            "heartbeat_mono_ns": 0x088,
            "heartbeat_count": 0x090,
            "session_gap_count": 0x098,
            "wake_seq": 0x100,
            "size": 4096,
        },
    }


def test_a_formatted_segment_has_these_bytes():
    buffer = formatted(capacity=128)
    schema = schema_of(QUOTE).encode()
    digest = hashlib.blake2b(schema).digest()[:8]

    assert buffer[0:8] == b"FHRING\0\1"
    assert struct.unpack_from("<HHIIIQQIIQQ", buffer, 8) == (
        1, 0, 0x01020304, 0, 1, ORIGIN.epoch, 128, 64, 64, 0x2000, len(buffer),
    )  # fmt: skip
    assert buffer[0x40:0x48] == digest
    assert struct.unpack_from("<II", buffer, 0x48) == (len(schema), 0)
    assert struct.unpack_from("<qqiIQ", buffer, 0x50) == (
        ORIGIN.created_realtime_ns, 42, 4321, 1000, 777,
    )  # fmt: skip
    assert buffer[0x70:0x80] == bytes(range(16))
    assert buffer[0x80:0xC0] == b"md.quotes".ljust(64, b"\0")
    assert buffer[0xC0:0x100] == b"0.1.0".ljust(64, b"\0")
    assert buffer[0x100:0x200] == bytes(256)
    assert buffer[0x200 : 0x200 + len(schema)] == schema
    assert struct.unpack_from("<I", buffer, 0x1080) == (1,)
    assert len(buffer) == 0x2000 + 128 * 64


def test_what_was_formatted_is_read_back():
    meta = read_meta(bytes(formatted(capacity=128)))

    assert meta.origin == ORIGIN
    assert (meta.kind, meta.capacity, meta.slot_size) == (1, 128, 64)
    assert meta.schema == schema_of(QUOTE)


@pytest.mark.req("F-84", "SEC-19")
@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (0x00, "<Q", 0, "magic is"),
        (0x08, "<H", 2, "layout version is 2, not 1"),
        (0x0C, "<I", 0x04030201, "byte order"),
        (0x10, "<I", 1 << 16, "flags are"),
        (0x14, "<I", 4, "stream kind is 4"),
        (0x18, "<Q", 0, "epoch is 0"),
        (0x20, "<Q", 3, "capacity is 3"),
        (0x20, "<Q", 32, "capacity is 32"),
        (0x20, "<Q", 1 << 29, "capacity is"),
        (0x20, "<Q", 1 << 28, "not enough for"),
        (0x20, "<Q", 128, "not enough for"),
        (0x28, "<I", 0, "slots are 0"),
        (0x28, "<I", 96, "slots are 96"),
        (0x28, "<I", 8192, "slots are 8192"),
        (0x2C, "<I", 65, "records are 65"),
        (0x2C, "<I", 0, "records are 0"),
        (0x30, "<Q", 0x1000, "slots start at 0x1000"),
        (0x30, "<Q", 0x2040, "slots start at 0x2040"),
        (0x30, "<Q", 1 << 63, "slots start at"),
        (0x38, "<Q", 4096, "not the 4096 of its header"),
        (0x40, "<Q", 1, "schema hash is"),
        (0x48, "<I", 3585, "schema is 3585"),
        (0x48, "<I", 0xFFFFFFFF, "schema is"),
        (0x200, "<B", 0xFF, "schema hash is"),
    ],
)
def test_a_bad_header_field_is_refused_with_its_value(offset, form, value, reason):
    buffer = formatted()
    struct.pack_into(form, buffer, offset, value)

    with pytest.raises(RingInvalid, match=reason):
        read_meta(buffer)


@pytest.mark.req("F-84")
@pytest.mark.parametrize("size", [0, 1, 8, 4096, 8191])
def test_a_truncated_segment_is_refused(size):
    with pytest.raises(RingInvalid, match="not 8192 or more"):
        read_meta(bytes(formatted())[:size])


def test_a_newer_minor_version_and_unknown_low_flags_are_accepted():
    buffer = formatted()
    struct.pack_into("<H", buffer, 0x0A, 7)
    struct.pack_into("<I", buffer, 0x10, 0x8000)

    assert read_meta(buffer).abi_minor == 7


def test_formatting_wipes_what_was_there():
    buffer = bytearray(b"\xff" * Ring.size_for(QUOTE, 64))
    Ring(buffer, QUOTE, 64, ORIGIN).release()

    assert buffer == formatted()


def test_a_writer_refuses_a_buffer_that_is_too_small_or_not_aligned():
    size = Ring.size_for(QUOTE, 64)

    with pytest.raises(ValueError, match="not 12288 or more"):
        Ring(bytearray(size - 4096), QUOTE, 64)
    with pytest.raises(ValueError, match="not aligned"):
        Ring(memoryview(bytearray(size + 1))[1:], QUOTE, 64)
    with pytest.raises(BufferError):
        Ring(bytes(size), QUOTE, 64)


def test_a_writer_refuses_an_origin_that_does_not_fit():
    buffer = bytearray(Ring.size_for(QUOTE, 64))

    for wrong in (
        {"epoch": 0},
        {"boot_id": b""},
        {"name": "x" * 64},
        {"version": "x" * 64},
    ):
        with pytest.raises(ValueError, match=r"origin has|not less than 64"):
            Ring(buffer, QUOTE, 64, ORIGIN._replace(**wrong))
    Ring(buffer, QUOTE, 64, ORIGIN)


def test_the_live_page_says_what_the_writer_does():
    buffer = bytearray(Ring.size_for(QUOTE, 64))
    ring = Ring(buffer, QUOTE, 64, ORIGIN)
    before = read_live(buffer)
    ring.heartbeat(1_000)
    beat(buffer, 2_000)
    mark_closed(buffer)
    after = read_live(buffer)

    assert (before.head, before.state, before.heartbeat_mono_ns) == (0, 1, 42)
    assert (after.state, after.heartbeat_mono_ns, after.heartbeat_count) == (2, 2000, 2)
    assert struct.unpack_from("<QQ", buffer, 0x1088) == (2000, 2)
    assert ring.look() == after


def test_a_released_writer_writes_nothing():
    buffer = bytearray(Ring.size_for(QUOTE, 64))
    ring = Ring(buffer, QUOTE, 64, ORIGIN)
    ring.release()
    ring.release()
    before = bytes(buffer)
    ring.heartbeat(5)
    ring.publish_record(bytes(64))
    ring.publish_records(bytes(640))

    assert buffer == before
    with pytest.raises(ValueError, match="released"):
        ring.look()


def test_a_released_buffer_is_free_and_a_held_one_is_not():
    buffer = bytearray(Ring.size_for(QUOTE, 64))
    ring = Ring(buffer, QUOTE, 64, ORIGIN)

    with pytest.raises(BufferError):
        buffer.append(0)
    ring.release()
    buffer.append(0)


def test_capacity_is_the_next_power_of_two():
    assert [capacity_for(n) for n in (0, 1, 64, 65, 1 << 28)] == [
        64, 64, 64, 128, 1 << 28,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="capacity is"):
        capacity_for((1 << 28) + 1)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    return path


def test_a_mapping_shares_the_file_and_needs_no_descriptor(file):
    fd = os.open(file, os.O_RDWR)
    mapping = Mapping(fd, 8192, writable=True)
    os.close(fd)
    memoryview(mapping)[:3] = b"abc"
    mapping.close()

    assert file.read_bytes()[:4] == b"abc\0"
    with pytest.raises(BufferError, match="closed"):
        memoryview(mapping)


@pytest.mark.req("F-81", "SEC-18")
def test_a_mapping_for_reading_gives_no_writable_view(file):
    with file.open("rb") as opened:
        mapping = Mapping(opened.fileno(), 8192)
    view = np.frombuffer(mapping, np.uint8)

    assert not mapping.writable
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    with pytest.raises(TypeError, match="read-only"):
        memoryview(mapping)[0] = 1


def test_a_mapping_is_not_closed_under_its_users(file):
    with file.open("rb") as opened:
        mapping = Mapping(opened.fileno(), 8192)
    view = memoryview(mapping)

    with pytest.raises(BufferError, match="1 users"):
        mapping.close()
    view.release()
    mapping.close()


def test_a_mapping_of_a_bad_descriptor_is_an_os_error():
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(-1, 4096)


def test_a_forked_child_has_no_writer_and_no_mapping(file):
    script = """
        import os, sys
        from feedhandler.records import QUOTE
        from feedhandler.ring import Ring
        from feedhandler.segment import Mapping

        size = Ring.size_for(QUOTE, 64)
        with open(sys.argv[1], "r+b") as file:
            file.truncate(size)
            mapping = Mapping(file.fileno(), size, writable=True)
        ring = Ring(mapping, QUOTE, 64)
        ring.publish_record(bytes(64))
        child = os.fork()
        if child == 0:
            ring.publish_record(bytes(64))
            ring.heartbeat(1)
            mapping.close()
            del ring, mapping
            os._exit(7)
        status = os.waitpid(child, 0)[1]
        ring.publish_record(bytes(64))
        print(os.waitstatus_to_exitcode(status), ring.look().head)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(file)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout.split() == ["7", "2"]

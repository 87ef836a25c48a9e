"""The records: their C structs and dtypes agree, and rings carry every size."""

import itertools

import numpy as np
import pytest

from feedhandler import records
from feedhandler.protocol.codes import ErrorCode
from feedhandler.records import (
    ACCOUNT,
    CANDLE,
    COMMAND,
    FILL,
    NOTICE,
    ORDER_EVENT,
    QUOTE,
    TICKER,
    TRADE,
    AccountKind,
    CommandKind,
    EventCause,
    EventReason,
    NoticeKind,
    OrderOperation,
    OrderSide,
    OrderStatus,
    OrderType,
    PendingFlags,
    PrivateFlags,
    TimeInForce,
)
from feedhandler.ring import Reader, Ring, dtype_of, schema_of
from feedhandler.segment import StreamKind

SIZES = {
    "QUOTE": 64, "TRADE": 64, "TICKER": 128, "CANDLE": 64,
    "ORDER_EVENT": 192, "FILL": 192, "ACCOUNT": 128, "NOTICE": 1024,
    "COMMAND": 192,
}  # fmt: skip
DTYPES = {name: getattr(records, name) for name in SIZES}
PRIVATE = [ORDER_EVENT, FILL, ACCOUNT, NOTICE, COMMAND]


def filled(dtype: np.dtype, count: int, first: int = 0) -> np.ndarray:
    """Make records whose every field tells the record's number, texts to their end."""
    made = np.zeros(count, dtype)
    for index in range(count):
        for name in dtype.names[1:]:
            number = (first + index) % 251
            if dtype[name].kind == "S":
                text = f"{name}-{number}"
                made[name][index] = text.ljust(dtype[name].itemsize, "x").encode()
            else:
                made[name][index] = number
    return made


def test_dtypes_are_what_the_compiler_made_of_the_structs():
    layout = {
        name: {
            **{field: dtype.fields[field][1] for field in dtype.names},
            "itemsize": dtype.itemsize,
        }
        for name, dtype in DTYPES.items()
    }

    assert layout == records.struct_layout()


def test_the_sizes_are_those_of_the_layout():
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_fields_are_aligned_and_do_not_overlap(name):
    dtype = DTYPES[name]
    spans = sorted(
        (dtype.fields[field][1], dtype[field].itemsize, dtype[field].alignment)
        for field in dtype.names
    )

    assert all(offset % alignment == 0 for offset, _, alignment in spans)
    for (offset, size, _), (following, _, _) in itertools.pairwise(spans):
        assert offset + size <= following
    assert spans[-1][0] + spans[-1][1] <= dtype.itemsize
    assert dtype.names[0] == "seq" or name == "CANDLE"


@pytest.mark.parametrize("dtype", PRIVATE, ids=lambda dtype: str(dtype.itemsize))
@pytest.mark.parametrize("total", [1, 63, 64, 200])
def test_a_ring_carries_private_records_whole(dtype, total):
    buffer = bytearray(Ring.size_for(dtype, 64))
    ring = Ring(buffer, dtype, 64)
    reader, slots = Reader(buffer, dtype), Reader(buffer, dtype)
    sent = filled(dtype, total)
    ring.publish_records(sent[: total // 2])
    for record in sent[total // 2 :]:
        ring.publish_record(record)
    got = reader.poll()
    one = slots.take_one()

    assert reader.meta.slot_size == reader.meta.record_size == dtype.itemsize
    assert reader.meta.kind == StreamKind.GENERIC
    assert reader.lost == (0 if total < 64 else total - 32)
    assert got["seq"].tolist() == list(range(reader.lost + 1, total + 1))
    for name in dtype.names[1:]:
        assert (got[name] == sent[reader.lost :][name]).all()
        assert one[name] == sent[int(one["seq"][0]) - 1][name]


@pytest.mark.parametrize("dtype", [*PRIVATE, QUOTE, TRADE, TICKER, CANDLE])
def test_a_schema_tells_any_reader_the_dtype(dtype):
    schema = schema_of(dtype)

    assert len(schema) <= 3584
    assert dtype_of(schema, dtype.itemsize) == dtype


def test_ids_of_32_characters_are_whole():
    order = np.zeros(1, ORDER_EVENT)
    order["client_id"] = b"c" * 32

    assert order["client_id"][0] == b"c" * 32
    assert all(ORDER_EVENT[name].itemsize == 32 for name in ("order_id", "symbol"))
    assert all(FILL[name].itemsize == 32 for name in ("trade_id", "order_id"))


def test_the_codes_are_part_of_the_layout():
    codes = {
        OrderSide: ["SIDE_UNKNOWN", "SIDE_BUY", "SIDE_SELL"],
        OrderType: ["TYPE_UNKNOWN", "MARKET", "LIMIT", "STOP", "STOP_LIMIT"],
        TimeInForce: ["TIF_UNKNOWN", "GTC", "IOC", "FOK", "DAY"],
        OrderStatus: [
            "STATUS_UNKNOWN", "PENDING", "ACCEPTED", "PARTIALLY_FILLED", "FILLED",
            "CANCELED", "EXPIRED", "REJECTED",
        ],
        OrderOperation: [
            "OPERATION_NONE", "OPERATION_SUBMIT", "OPERATION_CANCEL",
            "OPERATION_MODIFY",
        ],
        EventCause: [
            "CAUSE_UNKNOWN", "CAUSE_SENT", "CAUSE_ACK", "CAUSE_UPDATE", "CAUSE_FILL",
            "CAUSE_REFUSED", "CAUSE_LOST", "CAUSE_ADOPTED", "CAUSE_SETTLED",
            "CAUSE_EXPIRED", "CAUSE_GUARDED", "CAUSE_THROTTLED", "CAUSE_NOT_CONNECTED",
        ],
        EventReason: [
            "REASON_NONE", "REASON_OTHER",
            *(f"REASON_{code.name}" for code in ErrorCode),
        ],
    }  # fmt: skip
    for enum, names in codes.items():
        assert [(code.name, code.value) for code in enum] == [
            (name, number) for number, name in enumerate(names)
        ]
    assert [kind.value for kind in AccountKind] == [1, 2]
    assert [kind.value for kind in NoticeKind] == [1, 2, 3]
    assert [kind.value for kind in CommandKind] == [1, 2, 3, 4, 5]
    assert [flag.value for flag in PrivateFlags] == [1, 2, 4, 8, 16, 32]
    assert [flag.value for flag in PendingFlags] == [1, 2, 4, 8, 16, 32]
    assert records.NO_INSTRUMENT == 0xFFFF

"""A line for a record: words for its numbers, and nothing that moves a cursor."""

import json
from typing import Any

import numpy as np
import pytest

from feedhandler.cli import STREAMS
from feedhandler.lines import as_json, as_text
from feedhandler.records import (
    NO_INSTRUMENT,
    PRIVATE_STREAMS,
    QUOTE,
    TRADE,
    AccountKind,
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
    TradeFlags,
)

SYMBOLS = ["MSFT", "AAPL"]
DTYPES = {"quotes": QUOTE, "trades": TRADE, **PRIVATE_STREAMS}
EVIL = b"\x1b[2J\r\nfake \xe2\x80\xae\xff"


def record(stream: str, **fields: Any) -> np.void:
    """Make a record of the instrument 1, of session epoch 2."""
    made = np.zeros(1, DTYPES[stream])[0]
    for name in made.dtype.names:
        if made.dtype[name].kind == "f":
            made[name] = np.nan
    for name, value in ({"instrument": 1} | fields).items():
        made[name] = value
    made["flags"] |= 2 << 8
    return made


ORDER = {
    "side": OrderSide.SIDE_BUY, "type": OrderType.STOP_LIMIT,
    "tif": TimeInForce.GTC, "status": OrderStatus.PARTIALLY_FILLED,
    "order_id": b"o-1", "client_id": b"c-1", "symbol": b"AAPL", "quantity": 10,
    "filled": 4, "remaining": 6, "price": 150.25, "stop_price": 149.5,
    "pending": PendingFlags.CANCEL_PENDING | PendingFlags.CANCEL_UNKNOWN,
    "cause": EventCause.CAUSE_REFUSED, "operation": OrderOperation.OPERATION_MODIFY,
    "reason": EventReason.REASON_MARKET_CLOSED,
    "flags": PrivateFlags.REPLAYED | PrivateFlags.UNTRIGGERED,
}  # fmt: skip
FILL = {
    "side": OrderSide.SIDE_SELL, "trade_id": b"t-1", "order_id": b"o-1",
    "client_id": b"c-1", "symbol": b"AAPL", "price": 150.5, "quantity": 4,
    "fee": 0.25, "fee_currency": b"USD",
}  # fmt: skip
CASH = {
    "instrument": NO_INSTRUMENT, "kind": AccountKind.BALANCE, "name": b"USD",
    "available": 90.5, "reserved": 9.5, "total": 100,
}  # fmt: skip
SHARES = {
    "kind": AccountKind.POSITION, "name": b"AAPL", "quantity": -10,
    "average_price": 150, "unrealized_pnl": 2.5, "realized_pnl": -1.25,
}  # fmt: skip
NOTE = {
    "instrument": NO_INSTRUMENT, "kind": NoticeKind.USER, "id": b"n-1",
    "level": b"warning", "title": b"Low cash", "message": b"Only 5 USD",
    "flags": PrivateFlags.TEXT_CUT,
}  # fmt: skip
ALERT = {
    "kind": NoticeKind.ALERT, "id": b"a-1", "symbol": b"AAPL",
    "condition": b"price_above", "title": b"High", "threshold": 150,
    "current_value": 150.25,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "fields", "text"),
    [
        (
            "orders", ORDER,
            "AAPL         partially_filled refused  buy  stop_limit 10 @ 150.25 "
            "filled=4 stop=149.5 order=o-1 client=c-1 answers=modify "
            "reason=market_closed CANCEL_PENDING|CANCEL_UNKNOWN REPLAYED|UNTRIGGERED",
        ),
        (
            "orders", {"symbol": b"AAPL", "status": OrderStatus.PENDING},
            "AAPL         pending          unknown  unknown unknown - @ - filled=- "
            "order=- client=-",
        ),
        (
            "fills", FILL,
            "AAPL         t-1              sell 4 @ 150.5 fee=0.25 USD order=o-1 "
            "client=c-1",
        ),
        (
            "account", CASH,
            "USD          balance  available=90.5 reserved=9.5 total=100",
        ),
        (
            "account", SHARES,
            "AAPL         position quantity=-10 average_price=150 unrealized_pnl=2.5 "
            "realized_pnl=-1.25",
        ),
        ("notices", NOTE, "user   warning  n-1 Low cash Only 5 USD TEXT_CUT"),
        (
            "notices", ALERT,
            "alert           a-1 High AAPL price_above 150 at 150.25",
        ),
        (
            "trades",
            {"trade_id": b"t-1", "price": 5, "size": 2, "flags": TradeFlags.BUY},
            "AAPL         t-1                         2 @ 5            BUY",
        ),
        (
            "quotes",
            {"sequence": 7, "bid_price": 1, "bid_size": 2, "flags": 0x21},
            "AAPL                  7            2 @ 1                       - @ -"
            "            LIVE|NO_ASK",
        ),
    ],
)  # fmt: skip
def test_a_record_is_a_line(stream, fields, text):
    assert as_text(stream, record(stream, **fields), SYMBOLS) == text


def test_an_order_is_an_object_of_words_and_numbers():
    shown = json.loads(as_json("orders", record("orders", **ORDER), SYMBOLS))

    assert shown == {
        "seq": 0, "venue_ns": 0, "recv_ns": 0, "created_ns": 0, "updated_ns": 0,
        "instrument": 1, "flags": ["REPLAYED", "UNTRIGGERED"], "epoch": 2,
        "side": "buy", "type": "stop_limit", "status": "partially_filled",
        "tif": "gtc", "order_id": "o-1", "client_id": "c-1", "symbol": "AAPL",
        "quantity": 10, "filled": 4, "remaining": 6, "price": 150.25,
        "stop_price": 149.5, "pending": ["CANCEL_PENDING", "CANCEL_UNKNOWN"],
        "cause": "refused", "reason": "market_closed", "operation": "modify",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "fields", "kind"),
    [
        ("account", CASH, "balance"), ("account", SHARES, "position"),
        ("notices", NOTE, "user"), ("notices", ALERT, "alert"),
        ("notices", {"kind": 77}, "unknown"),
    ],
)  # fmt: skip
def test_an_object_says_what_kind_of_record_it_is(stream, fields, kind):
    shown = json.loads(as_json(stream, record(stream, **fields), SYMBOLS))

    assert shown["kind"] == kind
    assert shown["instrument"] == (None if "instrument" in fields else 1)


def test_numbers_of_a_newer_writer_are_unknown():
    newer = {"status": 99, "cause": 99, "reason": 999, "side": 9, "pending": 0xC0}
    shown = json.loads(as_json("orders", record("orders", **newer), SYMBOLS))

    assert {shown[name] for name in ("status", "cause", "reason", "side")} == {
        "unknown"
    }
    assert shown["pending"] == []


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("write", [as_text, as_json])
def test_nothing_that_a_venue_sends_moves_a_cursor(stream, write):
    texts = {
        name: EVIL[: DTYPES[stream][name].itemsize]
        for name in DTYPES[stream].names
        if DTYPES[stream][name].kind == "S"
    }
    for kind in (0, 1, 2, 3):
        fields = texts | ({"kind": kind} if "kind" in DTYPES[stream].names else {})
        line = write(stream, record(stream, **fields), SYMBOLS)
        assert line.isprintable()
        assert bool(texts) == ("\\x1b" in line or "\\u001b" in line)

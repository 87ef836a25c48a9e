"""What other processes read of an account: every field, whatever a venue may send."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from feedhandler.order import Cause, Doubt, Operation, Order, Status
from feedhandler.orders import Orders
from feedhandler.private import Moment, PrivatePublisher
from feedhandler.protocol.codes import ErrorCode
from feedhandler.protocol.messages import (
    Alert,
    Balance,
    CustomAlert,
    Notice,
    OrderData,
    OrderUpdateData,
    Position,
    ServerMessage,
    SystemNotification,
    UserNotification,
    UserTrade,
    UserTradeData,
)
from feedhandler.records import (
    NO_INSTRUMENT,
    PRIVATE_STREAMS,
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
)
from feedhandler.ring import Reader, Ring
from tests.desk import Desk
from tests.feeds import TIME_MS

MS = 1_000_000
RECV_NS, EPOCH = 77, 259
SUBMIT, CANCEL, MODIFY = Operation.SUBMIT, Operation.CANCEL, Operation.MODIFY
MOST = np.finfo(np.float64).max
LATEST = (1 << 63) - 1


class Pipe:
    """A publisher, and a reader of each of its rings."""

    def __init__(self, wake: bool = False, account_rows: int = 64) -> None:
        self.rings: dict[str, Ring] = {}
        self.readers: dict[str, Reader] = {}
        for stream, dtype in PRIVATE_STREAMS.items():
            capacity = account_rows if stream == "account" else 64
            buffer = bytearray(Ring.size_for(dtype, capacity))
            self.rings[stream] = Ring(buffer, dtype, capacity, wake=wake)
            self.readers[stream] = Reader(buffer, dtype)
        self.publisher = PrivatePublisher(
            *self.rings.values(),
            instrument_of=lambda symbol: 3 if symbol == "AAPL" else NO_INSTRUMENT,
            moment=lambda: Moment(RECV_NS, EPOCH),
        )

    def rows(self, stream: str) -> list[dict[str, Any]]:
        """The new records of a stream by field; flags without the epoch."""
        records = self.readers[stream].poll()
        found = [
            dict(zip(records.dtype.names, record.tolist(), strict=True))
            for record in records
        ]
        for row in found:
            assert row["flags"] >> 8 == EPOCH & 0xFF
            row["flags"] &= 0xFF
        return found

    def row(self, stream: str) -> dict[str, Any]:
        (found,) = self.rows(stream)
        return found

    def order(
        self,
        order: Order,
        cause: Cause = Cause.UPDATE,
        operation: Operation | None = None,
        code: str | None = None,
        time_ms: int = TIME_MS,
        is_replay: bool = False,
    ) -> dict[str, Any]:
        """Tell the publisher of an order; return the record."""
        self.publisher.on_order(order, cause, operation, code, time_ms, is_replay)
        return self.row("orders")

    def fill(
        self, data: UserTradeData, order: Order | None = None, is_replay: bool = False
    ) -> dict[str, Any]:
        self.publisher.on_fill(data, order, is_replay)
        return self.row("fills")

    def account(self, *rows: Balance | Position) -> list[dict[str, Any]]:
        self.publisher.on_account(list(rows), TIME_MS)
        return self.rows("account")

    def notice(self, message: Any) -> dict[str, Any]:
        self.publisher.notice(message, RECV_NS, EPOCH)
        return self.row("notices")


def update(**fields: Any) -> OrderUpdateData:
    values: dict[str, Any] = {
        "order_id": "o-1", "client_id": "c-1", "symbol": "AAPL", "side": "buy",
        "type": "stop_limit", "quantity": 10.0, "filled_quantity": 4.0,
        "remaining_quantity": 6.0, "price": 150.25, "status": "partially_filled",
        "time_in_force": "gtc", "created_at": TIME_MS - 2, "updated_at": TIME_MS - 1,
        "stop_price": 149.5, "triggered": True,
    }  # fmt: skip
    return OrderUpdateData(**values | fields)


def told(**fields: Any) -> Order:
    """An order as the venue tells of it."""
    orders, data = Orders(), update(**fields)
    assert orders.updated(data)
    order = orders.by_order_id(data.order_id)
    assert order is not None
    return order


def sent(*asked: tuple[Operation, str], **fields: Any) -> Order:
    """An order of ours, and what was asked of it and is open or unknown."""
    data = {"symbol": "AAPL", "side": "sell", "type": "limit", "quantity": 1.0}
    orders = Orders()
    order = orders.submitted(OrderData(**data | {"client_order_id": "c"} | fields), 1)
    for number, (operation, word) in enumerate(asked):
        orders.asked(order, operation, f"r-{number}", 2)
        if word == "unknown":
            orders.answered(f"r-{number}", None)
    return order


def trade(**fields: Any) -> UserTradeData:
    values: dict[str, Any] = {
        "trade_id": "t-1", "order_id": "o-1", "symbol": "AAPL", "side": "sell",
        "price": 150.5, "quantity": 4.0, "fee": 0.25, "fee_currency": "USD",
        "trade_time": TIME_MS,
    }  # fmt: skip
    return UserTradeData(**values | fields)


def notice(kind: Any = UserNotification, **fields: Any) -> Any:
    values: dict[str, Any] = {
        "id": "n-1", "level": "warning", "title": "Low cash", "message": "Only 5 USD",
        "link": "https://x.example/n-1",
    }  # fmt: skip
    return kind(Notice(**values | fields), "user_notifications", TIME_MS)


def alert(**fields: Any) -> CustomAlert:
    values: dict[str, Any] = {
        "alert_id": "a-1", "name": "AAPL above 150", "condition": "price_above",
        "symbol": "AAPL", "threshold": 150.0, "current_value": 150.25,
        "triggered_at": TIME_MS - 5,
    }  # fmt: skip
    return CustomAlert(Alert(**values | fields), "custom_alerts", TIME_MS)


# ── every field ───────────────────────────────────────────────────────────────────────


@pytest.mark.req("UO-01", "OR-02")
def test_an_order_event_has_all_that_is_known_of_the_order():
    row = Pipe().order(told(), Cause.UPDATE)

    assert row == {
        "seq": 1, "venue_ns": TIME_MS * MS, "recv_ns": RECV_NS,
        "created_ns": (TIME_MS - 2) * MS, "updated_ns": (TIME_MS - 1) * MS,
        "instrument": 3, "flags": 0, "side": OrderSide.SIDE_BUY,
        "type": OrderType.STOP_LIMIT, "status": OrderStatus.PARTIALLY_FILLED,
        "tif": TimeInForce.GTC, "order_id": b"o-1", "client_id": b"c-1",
        "symbol": b"AAPL", "quantity": 10.0, "filled": 4.0, "remaining": 6.0,
        "price": 150.25, "stop_price": 149.5, "pending": 0,
        "cause": EventCause.CAUSE_UPDATE, "reason": 0, "operation": 0,
    }  # fmt: skip


@pytest.mark.req("UT-01")
def test_a_fill_has_all_that_the_venue_told_and_whose_it_is():
    row = Pipe().fill(trade(), told())

    assert row == {
        "seq": 1, "venue_ns": TIME_MS * MS, "recv_ns": RECV_NS, "instrument": 3,
        "flags": 0, "side": OrderSide.SIDE_SELL, "trade_id": b"t-1",
        "order_id": b"o-1", "client_id": b"c-1", "symbol": b"AAPL", "price": 150.5,
        "quantity": 4.0, "fee": 0.25, "fee_currency": b"USD",
    }  # fmt: skip


def test_a_fill_of_an_order_that_is_not_known_yet_is_nobody_s():
    assert Pipe().fill(trade(), None)["client_id"] == b""


@pytest.mark.req("AC-02", "AC-04", "AC-06")
def test_the_rows_of_an_account_update_are_records_that_count_down():
    cash, shares = Pipe().account(
        Balance("USD", 90.5, 9.5, 100.0), Position("AAPL", -10.0, 150.0, 2.5, -1.25)
    )
    common = {"venue_ns": TIME_MS * MS, "recv_ns": RECV_NS, "flags": 0}
    nothing = dict.fromkeys(
        ("available", "reserved", "total", "quantity", "average_price",
         "unrealized_pnl", "realized_pnl"), None,
    )  # fmt: skip

    assert {k: None if v != v else v for k, v in cash.items()} == nothing | common | {
        "seq": 1, "instrument": NO_INSTRUMENT, "kind": AccountKind.BALANCE,
        "rows_left": 1, "name": b"USD", "available": 90.5, "reserved": 9.5,
        "total": 100.0,
    }  # fmt: skip
    assert {k: None if v != v else v for k, v in shares.items()} == nothing | common | {
        "seq": 2, "instrument": 3, "kind": AccountKind.POSITION, "rows_left": 0,
        "name": b"AAPL", "quantity": -10.0, "average_price": 150.0,
        "unrealized_pnl": 2.5, "realized_pnl": -1.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param(
            SystemNotification, NoticeKind.SYSTEM, marks=pytest.mark.req("SN-01")
        ),
        pytest.param(UserNotification, NoticeKind.USER, marks=pytest.mark.req("UN-01")),
    ],
)
@pytest.mark.req("SN-02")
def test_a_notice_has_all_that_the_venue_told(kind, number):
    row = Pipe().notice(notice(kind))

    assert math.isnan(row.pop("threshold"))
    assert math.isnan(row.pop("current_value"))
    assert row == {
        "seq": 1, "venue_ns": TIME_MS * MS, "recv_ns": RECV_NS, "triggered_ns": 0,
        "instrument": NO_INSTRUMENT, "flags": 0, "kind": number, "id": b"n-1",
        "level": b"warning", "symbol": b"", "condition": b"", "title": b"Low cash",
        "link": b"https://x.example/n-1", "message": b"Only 5 USD",
    }  # fmt: skip


@pytest.mark.req("CA-02")
def test_an_alert_has_its_condition_and_what_came_true():
    assert Pipe().notice(alert()) == {
        "seq": 1, "venue_ns": TIME_MS * MS, "recv_ns": RECV_NS,
        "triggered_ns": (TIME_MS - 5) * MS, "instrument": 3, "flags": 0,
        "kind": NoticeKind.ALERT, "threshold": 150.0, "current_value": 150.25,
        "id": b"a-1", "level": b"", "symbol": b"AAPL", "condition": b"price_above",
        "title": b"AAPL above 150", "link": b"", "message": b"",
    }  # fmt: skip


def test_nothing_of_a_record_is_left_in_the_next():
    pipe = Pipe()
    pipe.order(told(), is_replay=True)
    order = sent(type="market", symbol="Z")
    pipe.fill(trade(), told())
    pipe.notice(alert())
    row, plain = (
        pipe.order(order, Cause.SENT, time_ms=0),
        pipe.notice(notice(link=None)),
    )

    assert [row[name] for name in ("venue_ns", "created_ns", "flags")] == [0, 0, 0]
    assert [row["order_id"], row["instrument"]] == [b"", NO_INSTRUMENT]
    assert all(math.isnan(row[name]) for name in ("price", "stop_price"))
    assert (plain["symbol"], plain["triggered_ns"], plain["link"]) == (b"", 0, b"")
    assert math.isnan(plain["threshold"])
    assert pipe.fill(trade())["client_id"] == b""


# ── words ─────────────────────────────────────────────────────────────────────────────


def of_status(status: Status) -> Order:
    if status is Status.PENDING:
        return sent((SUBMIT, "sent"))
    if status is Status.UNKNOWN:
        return sent((SUBMIT, "unknown"))
    word = "accepted" if status is Status.LIVE else status.value
    filled = {Status.PARTIALLY_FILLED: 4.0, Status.FILLED: 10.0}.get(status, 0.0)
    return told(status=word, filled_quantity=filled)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_number_and_the_last_four_are_the_highest(status):
    order = of_status(status)
    row = Pipe().order(order)
    names = {Status.LIVE: "ACCEPTED", Status.UNKNOWN: "STATUS_UNKNOWN"}

    assert order.status is status
    assert row["status"] == OrderStatus[names.get(status, status.name)]
    assert (row["status"] >= OrderStatus.FILLED) == order.is_terminal


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_number(cause):
    assert Pipe().order(told(), cause)["cause"] == EventCause[f"CAUSE_{cause.name}"]


@pytest.mark.parametrize(
    "cause", [Cause.EXPIRED, Cause.GUARDED, Cause.THROTTLED, Cause.NOT_CONNECTED]
)
def test_what_was_not_sent_is_rejected_if_it_was_the_order_itself(cause):
    pipe = Pipe()

    assert pipe.order(sent(), cause, SUBMIT)["status"] == OrderStatus.REJECTED
    for operation in (CANCEL, MODIFY):
        row = pipe.order(told(), cause, operation)
        assert row["status"] == OrderStatus.PARTIALLY_FILLED
        assert row["operation"] == OrderOperation[f"OPERATION_{operation.name}"]


def test_an_order_of_ours_that_is_told_of_before_its_answer_is_not_adopted():
    pipe, desk = Pipe(), Desk()
    desk.flow.hearers.append(pipe.publisher)
    desk.submit("c-1")
    desk.update("c-1", "accepted")
    desk.update("stranger", "accepted")
    causes = [row["cause"] for row in pipe.rows("orders")]

    assert causes == [
        EventCause.CAUSE_SENT, EventCause.CAUSE_UPDATE, EventCause.CAUSE_ADOPTED,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ([], []),
        ([(SUBMIT, "sent")], ["SUBMIT_PENDING"]),
        ([(SUBMIT, "unknown")], ["SUBMIT_PENDING", "SUBMIT_UNKNOWN"]),
        ([(CANCEL, "sent"), (MODIFY, "sent")], ["CANCEL_PENDING", "MODIFY_PENDING"]),
        (
            [(CANCEL, "unknown"), (MODIFY, "unknown")],
            ["CANCEL_PENDING", "MODIFY_PENDING", "CANCEL_UNKNOWN", "MODIFY_UNKNOWN"],
        ),
        ([(CANCEL, "unknown"), (CANCEL, "sent")], ["CANCEL_PENDING", "CANCEL_UNKNOWN"]),
    ],
)
def test_the_operations_without_an_outcome_are_bits(asked, names):
    row = Pipe().order(sent(*asked))

    assert [flag.name for flag in PendingFlags if row["pending"] & flag] == names


@pytest.mark.req("ER-01")
@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_code_is_a_number(code):
    row = Pipe().order(told(), Cause.REFUSED, CANCEL, code.value)

    assert (
        row["reason"] == EventReason[f"REASON_{code.name}"] > EventReason.REASON_OTHER
    )


def test_without_a_code_the_reason_is_why_the_order_ended_or_is_unknown():
    pipe = Pipe()
    rejected, settled, doubtful = sent(), sent(), told()
    rejected.end(Status.REJECTED, "market_closed")
    settled.end(Status.CANCELED, "venue restarted")
    doubtful.doubt = Doubt.NOT_FOUND

    assert pipe.order(rejected)["reason"] == EventReason.REASON_MARKET_CLOSED
    assert pipe.order(settled)["reason"] == EventReason.REASON_OTHER
    assert pipe.order(doubtful)["reason"] == EventReason.REASON_OTHER
    assert pipe.order(told())["reason"] == EventReason.REASON_NONE
    assert pipe.order(told(), code="new_code")["reason"] == EventReason.REASON_OTHER


@pytest.mark.parametrize("field", ["side", "type", "time_in_force"])
@pytest.mark.parametrize("word", ["", "BUY", "sideways", "buy\0"])
def test_a_word_that_the_api_does_not_list_is_0(field, word):
    row = Pipe().order(told(**{field: word}))

    assert row[{"time_in_force": "tif"}.get(field, field)] == 0
    assert Pipe().fill(trade(side=word))["side"] == 0


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("side", {"buy": OrderSide.SIDE_BUY, "sell": OrderSide.SIDE_SELL}),
        ("type", {"market": OrderType.MARKET, "limit": OrderType.LIMIT,
                  "stop": OrderType.STOP, "stop_limit": OrderType.STOP_LIMIT}),
        ("time_in_force", {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC,
                           "fok": TimeInForce.FOK, "day": TimeInForce.DAY}),
    ],
)  # fmt: skip
def test_a_word_that_it_lists_has_its_number(field, words):
    name = {"time_in_force": "tif"}.get(field, field)

    assert {w: Pipe().order(told(**{field: w}))[name] for w in words} == words


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({"triggered": False, "status": "accepted"}, True),
        ({"triggered": True, "status": "accepted"}, False),
        ({"triggered": UNSET, "status": "accepted"}, False),
        ({"triggered": False, "status": "canceled"}, False),
    ],
)
def test_a_stop_waits_while_the_venue_says_so(fields, waits):
    flags = Pipe().order(told(filled_quantity=0.0, **fields))["flags"]

    assert flags == (PrivateFlags.UNTRIGGERED if waits else 0)


@pytest.mark.req("I-09", "F-75")
def test_what_is_told_again_is_flagged():
    pipe = Pipe()

    for cause in Cause:
        flags = pipe.order(told(), cause, is_replay=True)["flags"]
        may_be = cause in (Cause.UPDATE, Cause.FILL, Cause.ADOPTED)
        assert flags == (PrivateFlags.REPLAYED if may_be else 0)
    assert pipe.fill(trade(), is_replay=True)["flags"] == PrivateFlags.REPLAYED
    assert pipe.order(told())["flags"] == pipe.fill(trade())["flags"] == 0


# ── texts ─────────────────────────────────────────────────────────────────────────────

ID, CLIENT, OWN, TEXT = (
    PrivateFlags.ORDER_ID_CUT, PrivateFlags.CLIENT_ID_CUT, PrivateFlags.OWN_ID_CUT,
    PrivateFlags.TEXT_CUT,
)  # fmt: skip
TEXTS = {
    "order order_id": (32, ID, lambda p, t: p.order(told(order_id=t))),
    "order client_id": (32, CLIENT, lambda p, t: p.order(told(client_id=t))),
    "order symbol": (32, TEXT, lambda p, t: p.order(told(symbol=t))),
    "fill trade_id": (32, OWN, lambda p, t: p.fill(trade(trade_id=t))),
    "fill order_id": (32, ID, lambda p, t: p.fill(trade(order_id=t))),
    "fill client_id": (32, CLIENT, lambda p, t: p.fill(trade(), told(client_id=t))),
    "fill symbol": (32, TEXT, lambda p, t: p.fill(trade(symbol=t))),
    "fill fee_currency": (8, TEXT, lambda p, t: p.fill(trade(fee_currency=t))),
    "balance name": (32, TEXT, lambda p, t: p.account(Balance(t, 1, 1, 2))[0]),
    "position name": (32, TEXT, lambda p, t: p.account(Position(t, 1, 1, 2, 3))[0]),
    "notice id": (32, OWN, lambda p, t: p.notice(notice(id=t))),
    "notice level": (16, TEXT, lambda p, t: p.notice(notice(level=t))),
    "notice title": (128, TEXT, lambda p, t: p.notice(notice(title=t))),
    "notice link": (216, TEXT, lambda p, t: p.notice(notice(link=t))),
    "notice message": (512, TEXT, lambda p, t: p.notice(notice(message=t))),
    "alert id": (32, OWN, lambda p, t: p.notice(alert(alert_id=t))),
    "alert symbol": (32, TEXT, lambda p, t: p.notice(alert(symbol=t))),
    "alert condition": (32, TEXT, lambda p, t: p.notice(alert(condition=t))),
    "alert title": (128, TEXT, lambda p, t: p.notice(alert(name=t))),
}


@pytest.mark.parametrize("field", TEXTS)
def test_a_text_that_fits_is_whole_and_a_longer_one_is_cut_and_flagged(field):
    size, flag, publish = TEXTS[field]
    pipe, name = Pipe(), field.split()[1]
    whole, long = publish(pipe, "x" * size), publish(pipe, "x" * (size + 1))

    assert (whole[name], whole["flags"]) == (b"x" * size, 0)
    assert (long[name], long["flags"]) == (b"x" * size, flag)


@pytest.mark.parametrize("field", TEXTS)
def test_a_text_is_cut_between_two_characters(field):
    size, flag, publish = TEXTS[field]
    row = publish(Pipe(), "x" * (size - 2) + "€")

    assert (row[field.split()[1]], row["flags"]) == (b"x" * (size - 2), flag)


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize(
    ("text", "kept"), [("one\0two", b"one"), ("one\0", b"one"), ("\ud800x", b"?x")]
)
def test_a_text_that_no_reader_would_see_whole_is_flagged_too(field, text, kept):
    """A C reader sees the end at a NUL, and half a surrogate pair is no UTF-8."""
    _, flag, publish = TEXTS[field]
    row = publish(Pipe(), text)

    assert (row[field.split()[1]], row["flags"]) == (kept, flag)


def test_several_cuts_are_flagged_together():
    data = update(order_id="o" * 40, client_id="c" * 40, symbol="s" * 40)
    orders = Orders()
    orders.updated(data)
    row = Pipe().order(orders.open[0], is_replay=True)

    assert row["flags"] == ID | CLIENT | TEXT | PrivateFlags.REPLAYED


# ── numbers and times ─────────────────────────────────────────────────────────────────


def test_a_number_that_nobody_told_is_nan():
    row = Pipe().order(told(price=None, stop_price=UNSET))

    assert math.isnan(row["price"])
    assert math.isnan(row["stop_price"])


@pytest.mark.parametrize(
    ("number", "kept"),
    [(10**400, MOST), (-(10**400), -MOST), (math.inf, MOST), (-math.inf, -MOST)],
)
def test_a_number_beyond_all_others_is_the_last_one(number, kept):
    pipe = Pipe()

    assert pipe.fill(trade(fee=number))["fee"] == kept
    assert pipe.order(told(price=number))["price"] == kept


@pytest.mark.parametrize(
    ("time_ms", "kept"),
    [(-1, 0), (-(1 << 70), 0), (0, 0), (1 << 70, LATEST), (LATEST // MS + 1, LATEST)],
)
def test_a_time_that_cannot_be_is_the_first_or_the_last(time_ms, kept):
    pipe = Pipe()
    row = pipe.order(told(created_at=time_ms, updated_at=time_ms), time_ms=time_ms)

    assert row["venue_ns"] == row["updated_ns"] == kept
    assert row["created_ns"] == kept
    assert pipe.fill(trade(trade_time=time_ms))["venue_ns"] == kept
    assert pipe.notice(alert(triggered_at=time_ms))["triggered_ns"] == kept
    message = notice()
    message.timestamp = time_ms
    assert pipe.notice(message)["venue_ns"] == kept


def test_more_rows_than_a_record_can_count_are_counted_as_many():
    pipe, row = Pipe(account_rows=1 << 17), Balance("USD", 1, 0, 1)
    pipe.publisher.on_account([row] * 65_540, TIME_MS)
    records = pipe.readers["account"].poll(65_540)

    assert records["rows_left"][:6].tolist() == [65_535] * 5 + [65_534]
    assert records["rows_left"][-1] == 0


class Anything:
    """Messages of the right types, and nothing else right about them."""

    texts = st.text(max_size=700) | st.sampled_from(
        ["buy", "stop", "AAPL", "\0", "€" * 99]
    )
    numbers = st.floats(allow_nan=False, allow_infinity=False) | st.just(1e308)
    times = st.integers() | st.sampled_from([-1, 0, TIME_MS, LATEST])

    @classmethod
    def of(cls, kind: Any, **fixed: Any) -> Any:
        """A strategy for Structs of a kind."""
        hints = {str: cls.texts, float: cls.numbers, int: cls.times}
        optional = {
            str | None: cls.texts | st.none(),
            float | None: cls.numbers | st.none(),
            bool | msgspec.UnsetType: st.booleans() | st.just(UNSET),
            float | msgspec.UnsetType: cls.numbers | st.just(UNSET),
            str | msgspec.UnsetType: cls.texts | st.just(UNSET),
            list[str] | msgspec.UnsetType: st.just(UNSET),
        }
        fields = {
            field.name: fixed.get(field.name) or (hints | optional)[field.type]
            for field in msgspec.structs.fields(kind)
        }
        return st.builds(kind, **fields)


def check(dtype: np.dtype, row: dict[str, Any]) -> None:
    """Whatever it was, it is a record that a reader can take as it is."""
    for name, value in row.items():
        if isinstance(value, bytes):
            assert len(value) <= dtype[name].itemsize
            assert "\0" not in value.decode()
        elif isinstance(value, float):
            assert not math.isinf(value)
        elif name.endswith("_ns"):
            assert 0 <= value <= LATEST


@given(Anything.of(OrderUpdateData), Anything.of(UserTradeData), Anything.times)
@settings(max_examples=150)
def test_no_order_or_fill_that_a_venue_can_tell_of_is_too_much(data, fill, time_ms):
    pipe, orders = Pipe(), Orders()
    orders.updated(data)
    orders.filled(msgspec.structs.replace(fill, order_id=data.order_id, quantity=1e308))
    for order in (*orders.open, *orders._ended):
        check(PRIVATE_STREAMS["orders"], pipe.order(order, time_ms=time_ms))
        check(PRIVATE_STREAMS["fills"], pipe.fill(fill, order))
    row = pipe.fill(fill)
    check(PRIVATE_STREAMS["fills"], row)
    assert bool(row["flags"] & OWN) == (row["trade_id"].decode() != fill.trade_id)
    assert bool(row["flags"] & ID) == (row["order_id"].decode() != fill.order_id)


@given(
    st.lists(Anything.of(Balance) | Anything.of(Position), max_size=20),
    Anything.times,
)
@settings(max_examples=100)
def test_no_row_that_a_venue_can_tell_of_is_too_much(rows, time_ms):
    pipe = Pipe()
    pipe.publisher.on_account(rows, time_ms)
    told = pipe.rows("account")

    assert [row["rows_left"] for row in told] == list(range(len(rows)))[::-1]
    for row in told:
        check(PRIVATE_STREAMS["account"], row)


@given(
    st.builds(SystemNotification, Anything.of(Notice), st.just(""), Anything.times)
    | st.builds(UserNotification, Anything.of(Notice), st.just(""), Anything.times)
    | st.builds(CustomAlert, Anything.of(Alert), st.just(""), Anything.times)
)
@settings(max_examples=150)
def test_no_notice_that_a_venue_can_tell_of_is_too_much(message):
    row = Pipe().notice(message)
    data = message.data
    own = data.alert_id if isinstance(data, Alert) else data.id

    check(PRIVATE_STREAMS["notices"], row)
    assert bool(row["flags"] & OWN) == (row["id"].decode() != own)


def test_what_the_decoder_lets_through_is_published():
    """Half of a surrogate pair, a NUL and a long number, as they stand in JSON."""
    payload = (
        rb'{"type":"user_trade","channel":"user_trades","timestamp":99999999999999999999,'
        rb'"data":{"trade_id":"t\u0000x","order_id":"\ud83d\ude00","symbol":"AAPL",'
        rb'"side":"buy","price":1e308,"quantity":1,"fee":0,"fee_currency":"USD",'
        rb'"trade_time":99999999999999999999}}'
    )
    message = msgspec.json.decode(payload, type=ServerMessage)
    assert isinstance(message, UserTrade)
    row = Pipe().fill(message.data)

    assert (row["trade_id"], row["flags"]) == (b"t", OWN)
    assert row["order_id"].decode() == "\N{GRINNING FACE}"
    assert row["venue_ns"] == LATEST


# ── readers ───────────────────────────────────────────────────────────────────────────


def test_readers_that_block_are_woken_once_for_a_batch_and_where_there_is_news():
    pipe = Pipe(wake=True)

    def woken() -> list[int]:
        return [reader.look().wake_seq for reader in pipe.readers.values()]

    pipe.publisher.flush()
    assert woken() == [0, 0, 0, 0]
    for _ in range(5):
        pipe.order(told())
        pipe.fill(trade())
    assert woken() == [0, 0, 0, 0]
    pipe.publisher.flush()
    pipe.publisher.flush()
    assert woken() == [1, 1, 0, 0]
    pipe.account(Balance("USD", 1, 0, 1))
    pipe.notice(notice())
    pipe.publisher.flush()
    assert woken() == [1, 1, 1, 1]


@pytest.mark.req("OR-03", "A-41")
def test_a_life_of_an_order_is_read_as_it_was_told():
    pipe, desk = Pipe(), Desk()
    desk.flow.hearers.append(pipe.publisher)
    request = desk.submit("c-1")
    desk.ack(request.request_id, "c-1")
    desk.update("c-1", "partially_filled", filled_quantity=4, remaining_quantity=6)
    desk.fill("t-1", "c-1", 4)
    canceled = desk.cancel("c-1")
    desk.refuse(canceled.request_id, "internal_error")
    desk.cut()
    rows = pipe.rows("orders")
    seen = [
        (OrderStatus(row["status"]).name, EventCause(row["cause"]).name) for row in rows
    ]

    assert seen == [
        ("PENDING", "CAUSE_SENT"),
        ("ACCEPTED", "CAUSE_ACK"),
        ("PARTIALLY_FILLED", "CAUSE_UPDATE"),
        ("PARTIALLY_FILLED", "CAUSE_FILL"),
        ("PARTIALLY_FILLED", "CAUSE_SENT"),
        ("PARTIALLY_FILLED", "CAUSE_REFUSED"),
    ]
    assert rows[1]["operation"] == OrderOperation.OPERATION_SUBMIT
    assert rows[4]["pending"] == PendingFlags.CANCEL_PENDING
    assert rows[5]["reason"] == EventReason.REASON_INTERNAL_ERROR
    assert rows[5]["pending"] & PendingFlags.CANCEL_UNKNOWN
    assert {row["client_id"] for row in rows} == {b"c-1"}
    assert pipe.row("fills")["client_id"] == b"c-1"


def test_an_order_that_a_lost_connection_leaves_unknown_says_so():
    pipe, desk = Pipe(), Desk()
    desk.flow.hearers.append(pipe.publisher)
    desk.submit("c-1")
    desk.cut()
    _, row = pipe.rows("orders")

    assert row["status"] == OrderStatus.STATUS_UNKNOWN
    assert row["cause"] == EventCause.CAUSE_LOST
    assert row["pending"] == PendingFlags.SUBMIT_PENDING | PendingFlags.SUBMIT_UNKNOWN
    assert row["flags"] == 0
    assert row["venue_ns"] == 0

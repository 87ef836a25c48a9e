"""What each codec lets through, seen from the session that it calls."""

import copy
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.codec import Codec, MsgspecCodec, ScanCodec
from feedhandler.records import Flags
from feedhandler.tracker import Action
from tests.feeds import AAPL, SOUND, TIME_MS, Feed, book, live_feed, wire_text

pytestmark = pytest.mark.parametrize("codec", [MsgspecCodec, ScanCodec])

CHANNELS = (AAPL, "trades:AAPL", "ticker:AAPL", "candles:AAPL:1m")

MESSAGES: dict[str, dict[str, Any]] = {
    "orderbook": book("orderbook", 100, *SOUND),
    "orderbook_update": book(
        "orderbook_update", 101, [(150.0, 600.0)], [(150.05, 0.0)]
    ),
    "trade": {
        "type": "trade",
        "data": {
            "symbol": "AAPL",
            "price": 150.25,
            "size": 100,
            "side": "buy",
            "trade_id": "t-12345",
            "trade_time": TIME_MS,
        },
        "channel": "trades:AAPL",
        "timestamp": TIME_MS,
    },
    "ticker": {
        "type": "ticker",
        "data": {
            "symbol": "AAPL",
            "last_price": 150.25,
            "last_size": 100,
            "bid": 150.20,
            "ask": 150.30,
            "volume": 1250000,
            "daily_change": 2.75,
            "daily_change_percent": 1.86,
            "high": 151.00,
            "low": 148.50,
            "open": 149.00,
        },
        "channel": "ticker:AAPL",
        "timestamp": TIME_MS,
    },
    "candle": {
        "type": "candle",
        "data": {
            "symbol": "AAPL",
            "interval": "1m",
            "open": 150.00,
            "high": 150.30,
            "low": 149.90,
            "close": 150.25,
            "volume": 12500,
            "start_time": TIME_MS - 60_000,
            "end_time": TIME_MS,
        },
        "channel": "candles:AAPL:1m",
        "timestamp": TIME_MS,
    },
}
FIELDS = [
    (kind, field) for kind, message in MESSAGES.items() for field in message["data"]
]
BOOKS = ("orderbook", "orderbook_update")


def everything(codec: type[Codec]) -> Feed:
    return live_feed(*CHANNELS, codec=codec())


def with_field(kind: str, field: str, value: Any) -> dict[str, Any]:
    message = copy.deepcopy(MESSAGES[kind])
    target = message if field in ("channel", "timestamp", "data") else message["data"]
    target[field] = value
    return message


def taken(feed: Feed) -> tuple[int, int, int, int, int]:
    return (
        feed.counter("snapshots"),
        feed.counter("updates"),
        len(feed.sink.trades),
        len(feed.sink.tickers),
        len(feed.sink.candles),
    )


def test_every_message_of_the_table_is_taken_as_it_is(codec):
    feed = everything(codec)
    before = taken(feed)
    for message in MESSAGES.values():
        feed.receive(message)

    assert taken(feed) == tuple(n + 1 for n in before)
    assert feed.counter("malformed") == feed.counter("bad_values") == 0
    assert feed.book().is_live
    if codec is ScanCodec:
        # One snapshot made the book LIVE; ticker and candle are not hot.
        assert feed.session.codec.scanned == 1 + 3


@pytest.mark.req("TR-01", "TR-02")
def test_a_trade_arrives_as_it_was_sent(codec):
    feed = Feed("trades:AAPL", codec=codec(), utc_offset_ns=7)
    feed.receive(MESSAGES["trade"])
    sold = with_field("trade", "side", "sell")
    sold["data"]["trade_id"] = "t-12346"
    feed.receive(sold)

    buy, sell = feed.sink.trades
    assert (buy.price, buy.size, buy.trade_id) == (150.25, 100.0, "t-12345")
    assert buy.venue_ns == TIME_MS * 1_000_000
    assert buy.recv_ns == feed.now_ns + 7
    assert (buy.flags, sell.flags) == (1, 2)


@pytest.mark.parametrize(
    ("text", "cut", "flagged"),
    [
        ("1234567890123456", "1234567890123456", False),
        ("12345678901234567", "1234567890123456", True),
        ("", "", False),
        ("é" * 8, "é" * 8, False),
        ("x" * 5000, "x" * 16, True),
    ],
)
def test_a_trade_id_longer_than_its_field_is_cut_and_flagged(codec, text, cut, flagged):
    feed = Feed("trades:AAPL", codec=codec())
    feed.receive(with_field("trade", "trade_id", text))

    assert feed.sink.trades[0].trade_id == cut
    assert bool(feed.sink.trades[0].flags & 4) is flagged


@pytest.mark.req("TK-01", "TK-02")
def test_a_ticker_arrives_as_it_was_sent_and_null_is_nan(codec):
    feed = Feed("ticker:AAPL", codec=codec())
    feed.receive(MESSAGES["ticker"])
    feed.receive(with_field("ticker", "last_price", None))

    first, second = feed.sink.tickers
    sent = MESSAGES["ticker"]["data"]
    for field in sent:
        if field != "symbol":
            assert getattr(first, field) == sent[field]
    assert first.venue_ns == TIME_MS * 1_000_000
    assert math.isnan(second.last_price)


@pytest.mark.req("CD-01", "CD-09")
def test_a_candle_arrives_as_it_was_sent(codec):
    feed = Feed("candles:AAPL:1m", codec=codec())
    feed.receive(MESSAGES["candle"])

    (candle,) = feed.sink.candles
    assert candle.interval == "1m"
    assert (candle.start_ns, candle.end_ns) == (
        (TIME_MS - 60_000) * 1_000_000,
        TIME_MS * 1_000_000,
    )
    assert candle[5:] == (150.0, 150.3, 149.9, 150.25, 12500.0)


# ── fields ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "field"), FIELDS)
@pytest.mark.req("F-30", "OB-03", "TR-02")
def test_a_message_without_a_field_is_malformed_and_nothing_of_it_is_used(
    codec, kind, field
):
    feed = everything(codec)
    before = taken(feed)
    message = copy.deepcopy(MESSAGES[kind])
    del message["data"][field]
    feed.receive(message)

    assert feed.counter("malformed") == 1
    assert taken(feed) == before
    assert feed.flags & Flags.STALE


@pytest.mark.parametrize("field", ["data", "channel"])
@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.req("MF-06", "MF-07")
def test_a_message_without_its_envelope_is_malformed(codec, kind, field):
    feed = everything(codec)
    message = copy.deepcopy(MESSAGES[kind])
    del message[field]
    feed.receive(message)

    assert feed.counter("malformed") == 1
    assert feed.flags & Flags.STALE


WRONG = [
    (kind, field, wrong)
    for kind, field in FIELDS
    for wrong in (True, [], {}, "150")
    if not (isinstance(wrong, str) and field in ("symbol", "trade_id", "interval"))
    and not (wrong == [] and field in ("bids", "asks"))
]


@pytest.mark.parametrize(("kind", "field", "wrong"), WRONG)
@pytest.mark.req("F-30", "CD-09", "TK-02")
def test_a_field_of_the_wrong_type_is_never_used(codec, kind, field, wrong):
    feed = everything(codec)
    before = taken(feed)
    feed.receive(with_field(kind, field, wrong))

    assert feed.counter("malformed") == 1
    assert taken(feed) == before
    assert feed.flags & Flags.STALE


@pytest.mark.parametrize(
    "sequence",
    [-1, 1.0, 1.5, "101", None, 2**53, 2**63, 2**64, 10**400, True],
    ids=repr,
)
@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.req("F-41")
def test_an_illegal_sequence_is_a_lost_update(codec, kind, sequence):
    feed = everything(codec)
    actions = feed.receive(with_field(kind, "sequence", sequence))

    assert feed.counter("malformed") + feed.counter("bad_values") == 1
    assert (
        feed.flags & (Flags.LIVE | Flags.STALE | Flags.GAP) == Flags.STALE | Flags.GAP
    )
    assert actions & Action.RESYNC
    assert feed.book().bids() == SOUND[0]


@pytest.mark.parametrize(
    "level",
    [
        [0, 1], [-1, 1], [-0.0, 1], [1, -1], [1e308, -1e-9], [], [1], [1, 2, 3],
        ["1", 2], [1, "2"], [None, 1], [1, None], [True, 1], [[1], 2], {"1": 2},
        5, None,
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.req("F-50", "OB-04")
def test_an_illegal_level_is_a_lost_update_and_nothing_of_it_is_applied(
    codec, kind, side, level
):
    feed = everything(codec)
    feed.receive(with_field(kind, side, [[151.0, 5], level]))

    assert feed.counter("malformed") + feed.counter("bad_values") == 1
    assert feed.flags & Flags.STALE
    assert (feed.book().bids(), feed.book().asks()) == SOUND


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "01", "1.", "+1"]
)
@pytest.mark.req("F-30", "F-50")
def test_a_number_that_json_does_not_have_is_malformed(codec, number):
    feed = everything(codec)
    feed.receive(
        wire_text(MESSAGES["orderbook_update"]).replace(b"600.0", number.encode())
    )

    assert feed.counter("malformed") == 1
    assert feed.flags & Flags.STALE


@pytest.mark.req("F-50")
def test_large_and_small_numbers_that_are_legal_are_kept_exactly(codec):
    feed = everything(codec)
    feed.snapshot(200, [(5e-324, 1e308), (1e-300, 5e-324)], [(1e308, 0.1)])

    assert feed.book().bids() == [(1e-300, 5e-324), (5e-324, 1e308)]
    assert feed.book().asks() == [(1e308, 0.1)]
    assert feed.book().is_live


@pytest.mark.req("F-50")
def test_negative_zero_removes_a_level(codec):
    feed = everything(codec)
    feed.update(101, [(150.0, -0.0)], [])

    assert feed.book().bids() == [(149.95, 1000.0)]
    assert feed.book().is_live


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("trade", "price", 0), ("trade", "price", -1), ("trade", "size", 0),
        ("trade", "size", -5), ("trade", "trade_time", -1),
        ("trade", "trade_time", 2**43), ("trade", "trade_time", 10**30),
        ("ticker", "last_price", 0), ("ticker", "bid", -1), ("ticker", "ask", 0),
        ("ticker", "high", -1), ("ticker", "low", 0), ("ticker", "open", -3),
        ("ticker", "last_size", -1), ("ticker", "volume", -1),
        ("ticker", "timestamp", -1), ("ticker", "timestamp", 2**43),
        ("candle", "open", 149.0), ("candle", "open", 151.0),
        ("candle", "close", 149.0), ("candle", "high", 0),
        ("candle", "low", 0), ("candle", "low", 150.1),
        ("candle", "volume", -1), ("candle", "start_time", TIME_MS),
        ("candle", "end_time", 2**43), ("candle", "start_time", -1),
        ("candle", "timestamp", 2**60),
    ],
)  # fmt: skip
@pytest.mark.req("F-50", "CD-11")
def test_an_illegal_value_is_dropped_and_counted_and_costs_no_book_its_trust(
    codec, kind, field, value
):
    feed = everything(codec)
    feed.receive(with_field(kind, field, value))

    assert feed.counter("bad_values") == 1
    assert feed.sink.trades == feed.sink.tickers == feed.sink.candles == []
    assert feed.book().is_live


@pytest.mark.parametrize("timestamp", [-1, 2**43, 10**30])
@pytest.mark.parametrize("kind", BOOKS)
def test_an_illegal_time_of_a_book_message_is_a_lost_update(codec, kind, timestamp):
    feed = everything(codec)
    feed.receive(with_field(kind, "timestamp", timestamp))

    assert feed.counter("bad_values") == 1
    assert feed.flags & Flags.STALE


def test_what_the_sink_gets_has_no_negative_zero(codec):
    feed = everything(codec)
    feed.receive(with_field("ticker", "volume", -0.0))
    feed.receive(with_field("ticker", "last_size", -0.0))
    feed.receive(with_field("candle", "volume", -0.0))

    assert math.copysign(1, feed.sink.tickers[0].volume) == 1
    assert math.copysign(1, feed.sink.tickers[1].last_size) == 1
    assert math.copysign(1, feed.sink.candles[0].volume) == 1


# ── whole payloads ────────────────────────────────────────────────────────────────────

TRADE = wire_text(MESSAGES["trade"])
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "payload",
    [
        b"", b" ", b"{", b"}", b"[]", b"{}", b"null", b"1", b'"orderbook"', b"\x00",
        b'{"type":null}', b'{"type":1}', b'{"type":["orderbook"]}', b'{"data":{}}',
        TRADE + b"x", TRADE + TRADE, TRADE[:-1], TRADE[: len(TRADE) // 2],
        b"\xef\xbb\xbf" + TRADE,
        TRADE.replace(b"t-12345", b"t-\\ud800"),
        TRADE.replace(b"t-12345", b"t-\n"),
        TRADE[:-1] + b',"note":' + DEEP + b"}",
        DEEP,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda payload: repr(payload[:40] + payload[-20:]),
)  # fmt: skip
@pytest.mark.req("F-30", "MF-01")
def test_a_payload_that_is_no_message_costs_every_book_its_trust(codec, payload):
    feed = everything(codec)
    actions = feed.receive(payload)

    assert feed.counter("malformed") == 1
    assert feed.sink.trades == []
    assert (
        feed.flags & (Flags.LIVE | Flags.STALE | Flags.GAP) == Flags.STALE | Flags.GAP
    )
    assert actions & Action.RESYNC


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        TRADE.replace(b"t-12345", b"t-\xff"),
        TRADE.replace(b"t-12345", b"t-\xed\xa0\x80"),
        TRADE.replace(b"t-12345", b"t-\xc0\xaf"),
        TRADE.replace(b"t-12345", b"t-\xf4\x90\x80\x80"),
        TRADE[:-1] + b',"note":"\xff"}',
        TRADE[:-1] + b',"\xc3\x28":1}',
        TRADE[:-1] + b',"note":"' + b"a" * 7 + b'\x80"}',
        b'{"type":"novel","data":"\xff"}',
    ],
    ids=lambda payload: repr(payload[:40] + payload[-20:]),
)
@pytest.mark.req("F-25", "F-30", "MF-01")
def test_a_payload_that_is_not_utf8_costs_every_book_its_trust_and_is_refused(
    codec, payload
):
    feed = everything(codec)
    actions = feed.receive(payload)

    assert feed.counter("malformed") == 1
    assert feed.sink.trades == []
    assert (
        feed.flags & (Flags.LIVE | Flags.STALE | Flags.GAP) == Flags.STALE | Flags.GAP
    )
    assert actions == Action.REFUSE


@pytest.mark.req("MF-15", "F-30")
@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"novel"}',
        b'{"type":"novel","data":{"sequence":"x"},"channel":"orderbook:AAPL:10"}',
        b'{"type":"","data":1}',
        b'{"type":"Orderbook","data":{}}',
        b'{"data":{"type":"orderbook"},"type":"subscribed"}',
    ],
)
def test_a_message_of_an_unknown_type_is_counted_and_ignored(codec, payload):
    feed = everything(codec)
    actions = feed.receive(payload)

    assert actions == Action.NOTHING
    assert feed.counter("unknown_types") == 1
    assert feed.counter("malformed") == 0
    assert feed.book().is_live


@pytest.mark.req("MF-15")
@pytest.mark.parametrize("kind", MESSAGES)
def test_unknown_fields_are_ignored(codec, kind):
    feed = everything(codec)
    message = copy.deepcopy(MESSAGES[kind])
    message["novel"] = message["data"]["novel"] = {"é": [1, None, {"x": "\0"}]}
    before = taken(feed)
    feed.receive(message)

    assert sum(taken(feed)) == sum(before) + 1
    assert feed.book().is_live


def test_the_order_of_the_fields_does_not_matter(codec):
    feed = everything(codec)
    message = MESSAGES["orderbook_update"]
    feed.receive({key: message[key] for key in reversed(message)})

    assert feed.book().sequence == 101


def test_the_last_of_two_equal_keys_counts(codec):
    feed = everything(codec)
    feed.receive(TRADE.replace(b'"price":150.25', b'"price":1,"price":150.5'))

    assert feed.sink.trades[0].price == 150.5


def test_nul_in_a_symbol_is_another_symbol(codec):
    feed = everything(codec)
    feed.update(101, [(150.0, 1.0)], symbol="AAPL\0")
    feed.receive(with_field("trade", "symbol", "AAPL\0"))
    feed.receive(with_field("trade", "channel", "trades:AAPL\0"))

    assert feed.counter("mismatches") == 2
    assert feed.counter("unrouted") == 1
    assert feed.sink.trades == []
    assert feed.flags & Flags.STALE


@pytest.mark.parametrize("side", ["BUY", "", "b", "unknown", None])
def test_a_trade_of_neither_side_is_malformed(codec, side):
    feed = everything(codec)
    feed.receive(with_field("trade", "side", side))

    assert feed.counter("malformed") == 1
    assert feed.sink.trades == []


# ── fuzz ──────────────────────────────────────────────────────────────────────────────

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 2**53, 2**53 - 1, 1e308, 5e-324, -0.0, 99, 100, 101, 102]),
    st.sampled_from([*CHANNELS, "AAPL", "buy", "orderbook", "orderbook_update", ""]),
    st.text(max_size=5),
    st.lists(st.lists(st.integers(-1, 200), max_size=3), max_size=5),
    st.lists(st.tuples(st.integers(140, 160), st.integers(0, 3)), max_size=5),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    message = copy.deepcopy(MESSAGES[draw(st.sampled_from(list(MESSAGES)))])
    for _ in range(draw(st.integers(0, 2))):
        target = message if draw(st.booleans()) else message.get("data")
        if not isinstance(target, dict) or not target:
            continue
        field = draw(st.sampled_from(sorted(target)))
        if draw(st.booleans()):
            target[field] = draw(VALUES)
        else:
            del target[field]
    payload = bytearray(wire_text(message))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        place = draw(st.integers(0, len(payload) - 1))
        payload[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(payload)


@given(payloads=st.lists(mutated() | st.binary(max_size=40), min_size=1, max_size=20))
@settings(max_examples=300, deadline=None)
@pytest.mark.req("F-30", "BP-12")
def test_whatever_arrives_no_book_is_live_and_unsound(
    codec: type[Codec], payloads: list[bytes]
):
    feed = everything(codec)
    for payload in payloads:
        feed.receive(payload)
        feed.collect()
        tracked = feed.book()
        bids, asks = tracked.bids(), tracked.asks()

        assert feed.counter("faults") == 0
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert all(p > 0 and s > 0 for p, s in bids + asks)
        if tracked.is_live:
            assert not (bids and asks) or bids[0][0] < asks[0][0]

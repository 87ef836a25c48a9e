"""Market data from engine reports: windows, trades, tickers, candles."""

from itertools import count, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.protocol.channels import INTERVAL_MS, parse_channel
from feedhandler.protocol.messages import ServerMessage
from feedhandler.venue.candles import bucket_start_ms
from feedhandler.venue.config import SymbolConfig, TradersConfig, VenueConfig
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.listing import Listing, Step
from feedhandler.venue.marketdata import MarketData
from feedhandler.venue.matching import Engine, Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
MINUTE = 60_000
# Wednesday 2021-06-30, the last minute of the day in UTC.
T0 = 1_625_097_540_000

decode = msgspec.json.Decoder(ServerMessage).decode


class Stand:
    """One symbol with its engine; keeps the messages by channel."""

    def __init__(self, previous_close=147.50):
        self.engine = Engine()
        self.listing = Listing(
            SymbolConfig(name="AAPL", tick="0.05", previous_close=previous_close)
        )
        self.data = MarketData(self.listing, self.engine)
        self.trade_ids = count(1)
        self.messages = []

    def open(self, name, now_ms=T0):
        return [decode(m) for m in self.data.open(parse_channel(name), name, now_ms)]

    def release(self, name):
        self.data.release(parse_channel(name), name)

    def submit(self, side, lots, price=None, tif=TimeInForce.GTC, now_ms=T0):
        ticks = None if price is None else self.listing.tick.count(price)
        return self._take(self.engine.submit(1, side, lots, ticks, tif), now_ms)

    def cancel(self, order_id, now_ms=T0):
        return self._take(self.engine.cancel(order_id), now_ms)

    def trade(self, lots, price, side=BUY, now_ms=T0):
        self.submit(1 - side, lots, price, now_ms=now_ms)
        self.submit(side, lots, price, now_ms=now_ms)

    def advance(self, now_ms):
        self._keep(self.data.advance(now_ms))

    def on(self, channel):
        return [m for name, m in self.messages if name == channel]

    def _take(self, report, now_ms):
        ids = [f"t-{next(self.trade_ids)}" for _ in report.fills]
        self._keep(self.data.take(report, ids, now_ms))
        return report

    def _keep(self, pushes):
        for push in pushes:
            message = decode(push.payload)
            assert message.channel == push.channel
            self.messages.append((push.channel, message))


# ── books ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OB-03", "OB-05", "A-07")
def test_a_snapshot_has_the_best_levels_first_and_the_last_sequence():
    stand = Stand()
    for price, lots in ((149.90, 750), (150.00, 500), (149.95, 1000)):
        stand.submit(BUY, lots, price)
    for price, lots in ((150.15, 600), (150.05, 300), (150.10, 800)):
        stand.submit(SELL, lots, price)

    (snapshot,) = stand.open("orderbook:AAPL:10")

    assert snapshot.data.bids == [(150.00, 500), (149.95, 1000), (149.90, 750)]
    assert snapshot.data.asks == [(150.05, 300), (150.10, 800), (150.15, 600)]
    assert snapshot.data.sequence == 1
    stand.submit(BUY, 1, 149.90)
    assert stand.open("orderbook:AAPL:10")[0].data.sequence == 2


@pytest.mark.req("OB-07", "OB-08", "OB-09")
def test_an_update_has_what_changed_absolute_and_zero_for_what_left():
    stand = Stand()
    stand.submit(BUY, 500, 150.00)
    stand.submit(SELL, 300, 150.05)
    stand.open("orderbook:AAPL:10")

    stand.submit(BUY, 100, 150.00)
    stand.submit(BUY, 500, 149.85)
    stand.submit(BUY, 300, 150.05, TimeInForce.IOC)

    updates = [message.data for message in stand.on("orderbook:AAPL:10")]
    assert [(u.bids, u.asks, u.sequence) for u in updates] == [
        ([(150.00, 600)], [], 2),
        ([(149.85, 500)], [], 3),
        ([], [(150.05, 0)], 4),
    ]


@pytest.mark.req("A-37", "OB-02")
def test_a_level_that_leaves_the_window_is_removed_and_one_that_enters_is_sent():
    stand = Stand()
    for price in (150.00, 149.95):
        stand.submit(BUY, 5, price)
    stand.open("orderbook:AAPL:2")

    best = stand.submit(BUY, 7, 150.05).order_id
    stand.cancel(best)

    pushed_out, back_in = (m.data.bids for m in stand.on("orderbook:AAPL:2"))
    assert sorted(pushed_out) == [(149.95, 0), (150.05, 7)]
    assert sorted(back_in) == [(149.95, 5), (150.05, 0)]


@pytest.mark.req("A-37", "OB-06")
def test_what_happens_behind_the_window_is_not_sent():
    stand = Stand()
    for price in (150.00, 149.95):
        stand.submit(BUY, 5, price)
    stand.open("orderbook:AAPL:2")

    stand.submit(BUY, 5, 149.00)

    assert stand.on("orderbook:AAPL:2") == []


@pytest.mark.req("A-07")
def test_the_sequence_outlives_its_subscribers():
    stand = Stand()
    stand.open("orderbook:AAPL:5")
    stand.submit(BUY, 5, 150.00)
    stand.release("orderbook:AAPL:5")
    stand.submit(BUY, 5, 149.95)

    (snapshot,) = stand.open("orderbook:AAPL:5")
    stand.submit(BUY, 5, 149.90)

    assert (snapshot.data.sequence, len(snapshot.data.bids)) == (2, 2)
    assert [m.data.sequence for m in stand.on("orderbook:AAPL:5")] == [2, 3]


DEPTHS = (1, 2, 3, 5, 100)
ACTIONS = st.lists(
    st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 9), st.integers(90, 110),
              st.sampled_from(["gtc", "gtc", "gtc", "ioc", "cancel", "reduce"])),
    min_size=1, max_size=120,
)  # fmt: skip


@pytest.mark.req("A-37", "OB-10", "I-01")
@given(ACTIONS, st.integers(0, 40))
def test_snapshot_and_updates_are_exactly_the_top_of_the_book_at_every_step(
    actions, opened_at
):
    stand, resting = Stand(), []
    books, sequences = {}, {}
    for step, (side, lots, ticks, action) in enumerate(actions):
        if step == min(opened_at, len(actions) - 1):
            for depth in DEPTHS:
                (snapshot,) = stand.open(f"orderbook:AAPL:{depth}")
                books[depth] = [dict(snapshot.data.bids), dict(snapshot.data.asks)]
                sequences[depth] = snapshot.data.sequence
        stand.messages.clear()
        if action in ("cancel", "reduce"):
            if not resting:
                continue
            order_id = resting.pop(ticks % len(resting))
            if stand.engine.order(order_id) is None:
                continue
            if action == "cancel":
                stand.cancel(order_id)
            else:
                stand._take(stand.engine.reduce(order_id, lots), T0)
        else:
            tif = TimeInForce.IOC if action == "ioc" else TimeInForce.GTC
            report = stand.submit(side, lots, ticks * 0.05, tif)
            if report.resting_lots:
                resting.append(report.order_id)
        for depth, book in books.items():
            for message in stand.on(f"orderbook:AAPL:{depth}"):
                assert message.data.sequence == sequences[depth] + 1
                assert message.data.bids or message.data.asks
                sequences[depth] += 1
                for held, levels in zip(
                    book, (message.data.bids, message.data.asks), strict=True
                ):
                    for price, quantity in levels:
                        if quantity:
                            held[price] = quantity
                        else:
                            del held[price]
            for held, engine_side in zip(book, (BUY, SELL), strict=True):
                wanted = {
                    stand.listing.tick.number(price): quantity
                    for price, quantity in stand.engine.top(engine_side, depth)
                }
                assert held == wanted


# ── trades ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("TR-03", "TR-04", "TR-05")
def test_one_trade_a_match_with_an_id_and_the_time_of_its_own():
    stand = Stand()
    stand.open("trades:AAPL")
    stand.submit(BUY, 60, 150.00)
    stand.submit(BUY, 60, 150.00)

    stand.submit(SELL, 100, 150.00, now_ms=T0 + 5)

    first, second = (message.data for message in stand.on("trades:AAPL"))
    assert (first.size, second.size) == (60, 40)
    assert first.trade_id != second.trade_id
    assert first.trade_time == stand.on("trades:AAPL")[0].timestamp == T0 + 5


@pytest.mark.req("TR-02", "A-38")
@pytest.mark.parametrize(("resting", "side"), [(BUY, "sell"), (SELL, "buy")])
def test_a_trade_has_the_resting_price_and_the_side_of_the_aggressor(resting, side):
    stand = Stand()
    stand.open("trades:AAPL")
    stand.submit(resting, 60, 150.00)

    stand.submit(SELL if resting == BUY else BUY, 100, 150.00)

    (trade,) = (message.data for message in stand.on("trades:AAPL"))
    assert (trade.symbol, trade.price, trade.side) == ("AAPL", 150.00, side)


def test_nothing_is_encoded_for_nobody():
    stand = Stand()
    for name in ("trades:AAPL", "ticker:AAPL", "orderbook:AAPL:5", "candles:AAPL:1m"):
        stand.open(name)
        stand.release(name)

    stand.trade(5, 150.00)
    stand.advance(T0 + 5 * MINUTE)

    assert stand.messages == []


# ── ticker ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("TK-02", "TK-03", "TK-04")
def test_the_ticker_of_the_reference():
    stand = Stand(previous_close=147.50)
    for price, lots in ((149.00, 100), (151.00, 100), (148.50, 100)):
        stand.trade(lots, price)
    stand.trade(1_249_600, 150.00)
    stand.trade(100, 150.25)
    stand.submit(BUY, 10, 150.20)
    stand.submit(SELL, 10, 150.30)

    (ticker,) = stand.open("ticker:AAPL")

    data = msgspec.structs.asdict(ticker.data)
    assert data == {
        "symbol": "AAPL", "last_price": 150.25, "last_size": 100, "bid": 150.20,
        "ask": 150.30, "volume": 1_250_000, "daily_change": 2.75,
        "daily_change_percent": 1.86, "high": 151.00, "low": 148.50, "open": 149.00,
    }  # fmt: skip


@pytest.mark.req("A-39")
def test_what_the_venue_does_not_know_is_null():
    (ticker,) = Stand().open("ticker:AAPL")

    data = msgspec.structs.asdict(ticker.data)
    assert [key for key, value in data.items() if value is not None] == [
        "symbol", "volume",
    ]  # fmt: skip


@pytest.mark.req("A-39")
def test_a_ticker_is_sent_at_most_every_100_ms_and_the_last_state_wins():
    stand = Stand()
    stand.open("ticker:AAPL", T0)

    for ms in range(1, 250):
        stand.submit(BUY, 1, 149.00 + ms % 7 * 0.05, now_ms=T0 + ms)
        stand.advance(T0 + ms)
    stand.submit(BUY, 1, 152.00, now_ms=T0 + 250)
    stand.advance(T0 + 299)
    stand.advance(T0 + 300)

    tickers = stand.on("ticker:AAPL")
    assert all(b.timestamp - a.timestamp >= 100 for a, b in pairwise(tickers))
    assert tickers[0].timestamp == T0 + 100
    assert tickers[-1].data.bid == 152.00
    assert stand.data.due_ms() is None or stand.data.due_ms() > T0 + 300


@pytest.mark.req("A-39")
def test_a_ticker_that_did_not_change_is_not_sent():
    stand = Stand()
    stand.submit(BUY, 5, 150.00)
    stand.open("ticker:AAPL", T0)

    stand.submit(BUY, 5, 149.00, now_ms=T0 + 200)
    stand.advance(T0 + 400)

    assert stand.on("ticker:AAPL") == []


@pytest.mark.req("A-39", "TK-03")
def test_a_new_day_starts_at_midnight_utc_from_the_last_close():
    stand = Stand()
    stand.trade(100, 150.00, now_ms=T0)
    stand.open("ticker:AAPL", T0)

    midnight = bucket_start_ms("1d", T0) + INTERVAL_MS["1d"]
    assert stand.data.due_ms() <= midnight
    stand.advance(midnight)
    stand.trade(100, 153.00, now_ms=midnight + 1000)
    stand.advance(midnight + 2000)

    tickers = [message.data for message in stand.on("ticker:AAPL")]
    assert (tickers[0].open, tickers[0].high, tickers[0].volume) == (None, None, 0)
    assert (tickers[0].last_price, tickers[0].daily_change) == (150.00, 0)
    assert (tickers[-1].open, tickers[-1].daily_change) == (153.00, 3.00)
    assert tickers[-1].daily_change_percent == 2.00


@pytest.mark.req("TK-05")
@given(st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 9),
                          st.integers(90, 110)), max_size=60))  # fmt: skip
def test_low_last_open_and_high_are_in_order(orders):
    stand = Stand()
    for side, lots, ticks in orders:
        stand.submit(side, lots, ticks * 0.05)

    data = stand.open("ticker:AAPL")[0].data

    if data.last_price is not None:
        assert data.low <= data.open <= data.high
        assert data.low <= data.last_price <= data.high
    if data.bid is not None and data.ask is not None:
        assert data.bid < data.ask


# ── candles ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("CD-09", "CD-10")
def test_the_candle_of_the_reference():
    stand = Stand()
    stand.open("candles:AAPL:1m")
    for offset, price, lots in (
        (0, 150.00, 2500), (10, 150.30, 5000),
        (20, 149.90, 2500), (59_999, 150.25, 2500),
    ):  # fmt: skip
        stand.trade(lots, price, now_ms=1_625_097_540_000 + offset)

    stand.advance(1_625_097_600_000)

    (candle,) = stand.on("candles:AAPL:1m")
    assert candle.timestamp == 1_625_097_600_000
    assert msgspec.structs.asdict(candle.data) == {
        "symbol": "AAPL", "interval": "1m", "open": 150.00, "high": 150.30,
        "low": 149.90, "close": 150.25, "volume": 12500,
        "start_time": 1_625_097_540_000, "end_time": 1_625_097_600_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "start"),
    [
        pytest.param("1m", 1_625_097_540_000, marks=pytest.mark.req("CD-02")),
        pytest.param("5m", 1_625_097_300_000, marks=pytest.mark.req("CD-03")),
        pytest.param("15m", 1_625_096_700_000, marks=pytest.mark.req("CD-04")),
        pytest.param("1h", 1_625_094_000_000, marks=pytest.mark.req("CD-05")),
        pytest.param("4h", 1_625_083_200_000, marks=pytest.mark.req("CD-06")),
        pytest.param("1d", 1_625_011_200_000, marks=pytest.mark.req("CD-07")),
        pytest.param("1w", 1_624_838_400_000, marks=pytest.mark.req("CD-08")),
    ],
)
def test_a_bucket_starts_in_utc_and_its_end_belongs_to_the_next(interval, start):
    stand = Stand()
    name = f"candles:AAPL:{interval}"
    end = start + INTERVAL_MS[interval]
    stand.open(name)
    stand.trade(3, 150.00, now_ms=T0)
    stand.trade(4, 151.00, now_ms=end)

    stand.advance(end + INTERVAL_MS[interval])

    first, second = (message.data for message in stand.on(name))
    assert (first.start_time, first.end_time, first.volume) == (start, end, 3)
    assert (second.start_time, second.open, second.volume) == (end, 151.00, 4)


@pytest.mark.req("CD-08", "A-40")
def test_a_week_starts_on_monday():
    monday = 1_624_838_400_000  # 2021-06-28 00:00 UTC

    assert bucket_start_ms("1w", monday) == monday
    assert bucket_start_ms("1w", monday - 1) == monday - INTERVAL_MS["1w"]


@pytest.mark.req("A-40")
def test_a_bucket_without_trades_is_flat_and_before_the_first_there_is_none():
    stand = Stand()
    stand.open("candles:AAPL:1m")
    stand.advance(T0 + 10 * MINUTE)
    assert stand.messages == []

    stand.trade(5, 150.25, now_ms=T0 + 10 * MINUTE)
    stand.advance(T0 + 13 * MINUTE)

    candles = [message.data for message in stand.on("candles:AAPL:1m")]
    assert [candle.volume for candle in candles] == [5, 0, 0]
    flat = candles[1]
    assert flat.open == flat.high == flat.low == flat.close == 150.25


@pytest.mark.req("CD-11")
@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(90, 110),
                          st.integers(1, 9)), max_size=40))  # fmt: skip
def test_candles_add_up_to_the_trades(trades):
    stand, now_ms = Stand(), T0
    stand.open("candles:AAPL:1m")
    for gap_ms, ticks, lots in trades:
        now_ms += gap_ms
        stand.trade(lots, ticks * 0.05, now_ms=now_ms)
    stand.advance(now_ms + MINUTE)

    candles = [message.data for message in stand.on("candles:AAPL:1m")]
    assert sum(candle.volume for candle in candles) == sum(t[2] for t in trades)
    for candle in candles:
        assert candle.low <= min(candle.open, candle.close)
        assert candle.high >= max(candle.open, candle.close)
    for earlier, later in pairwise(candles):
        assert later.start_time == earlier.end_time


# ── numbers and traders ───────────────────────────────────────────────────────────────


@pytest.mark.req("A-28")
@given(st.integers(1, 10**9), st.sampled_from(["0.01", "0.05", "0.0001", "1", "0.25"]))
def test_a_price_is_the_double_that_its_decimal_text_is(count_, tick):
    from decimal import Decimal

    number = Step(tick).number(count_)

    assert float(number) == float(Decimal(tick) * count_)
    assert Step(tick).count(number) == count_


def run_traders(seed, steps=3000):
    config = VenueConfig(traders=TradersConfig(seed=seed))
    exchange = Exchange(config, T0 * 1_000_000)
    names = [f"orderbook:{symbol.name}:10" for symbol in config.symbols]
    for name in [*names, "trades:AAPL"]:
        exchange.open(name, T0 * 1_000_000)
    payloads = []
    for step in range(1, steps):
        payloads += [
            push.payload for push in exchange.advance(T0 * 1_000_000 + step * 5_000_000)
        ]
        for engine in exchange.engines.values():
            bid, ask = engine.price_at(BUY, 0), engine.price_at(SELL, 0)
            assert bid < ask
            assert min(engine.depth(BUY), engine.depth(SELL)) >= 15
    return payloads


def test_traders_keep_the_books_deep_and_never_crossed():
    payloads = run_traders(seed=3)

    assert len(payloads) > 3000
    assert any(b'"type":"trade"' in payload for payload in payloads)


def test_the_same_seed_makes_the_same_market():
    assert run_traders(seed=5, steps=400) == run_traders(seed=5, steps=400)
    assert run_traders(seed=5, steps=400) != run_traders(seed=6, steps=400)

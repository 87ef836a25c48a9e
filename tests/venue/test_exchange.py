"""The market as a whole in virtual time: sessions, halts, notices, alerts, books."""

import subprocess
import sys
from itertools import pairwise

import msgspec
import pytest

from feedhandler.venue.config import AlertConfig, CalendarConfig, TradersConfig
from feedhandler.venue.matching import Side
from tests.trading import (
    DAY,
    HOUR,
    MINUTE,
    MS,
    SECOND,
    START,
    Books,
    Venue,
    account,
    code_of,
)

builtins = msgspec.to_builtins
SYSTEM = "system_notifications"
BOTH = ["AAPL", "BTC-USD"]
# START is a Wednesday's midnight: the market opens nine hours later.
OFFICE_HOURS = CalendarConfig(opens="09:00", closes="17:00")


def office(*accounts, **fields):
    """A market that is open from 9 to 17; it is midnight."""
    return Venue(*accounts, calendar=OFFICE_HOURS, **fields)


def at(hours, *accounts, **fields):
    """A market with office hours, when it is so many hours after midnight."""
    venue = office(*accounts, **fields)
    venue.wait(round(hours * HOUR))
    return venue


def events(venue):
    """The event and symbols of the system notices that were pushed."""
    return [(n.event, list(n.symbols or ())) for n in venue.on(SYSTEM)]


def standing(venue):
    """The event and symbols that a late subscriber is told."""
    notices = [message.data for message in venue.open(SYSTEM)]
    assert notices[0].event == "start"
    return [(n.event, n.symbols) for n in notices[1:]]


@pytest.mark.req("OV-08")
def test_the_market_needs_no_socket_and_no_event_loop():
    program = (
        "import sys, feedhandler.venue.exchange\n"
        "print(sorted({'asyncio', 'picows', 'socket', 'ssl'} & sys.modules.keys()))"
    )

    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert found.stdout == "[]\n"


# ── sessions ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("ER-10", "A-24")
def test_orders_are_taken_in_the_session_only():
    venue = office()
    for hours, takes in ((0, False), (9, True), (7, True), (1, False), (16, True)):
        venue.wait(hours * HOUR)
        if takes:
            assert venue.submit("ann", "buy", 1, 1.00).status == "accepted"
        else:
            assert code_of(venue.submit, "ann", "buy", 1, 1.00) == "market_closed"


@pytest.mark.req("OV-07", "A-24")
def test_the_market_says_when_it_opens_and_closes():
    venue = office()
    assert standing(venue) == [("close", BOTH)]

    venue.wait(9 * HOUR - MS)
    assert events(venue) == []
    venue.wait(MS)
    assert events(venue) == [("open", BOTH)]
    assert standing(venue) == []
    venue.wait(8 * HOUR)

    assert events(venue) == [("open", BOTH), ("close", BOTH)]
    assert standing(venue) == [("close", BOTH)]
    assert [n.level for n in venue.on(SYSTEM)] == ["info", "info"]


@pytest.mark.req("OR-11", "A-23", "F-101")
def test_day_orders_expire_with_the_session_and_give_their_funds_back():
    venue = at(10)
    venue.trade(150.00)
    venue.submit("ann", "buy", 100, 149.00, tif="day")
    venue.submit("ann", "buy", 100, stop=151.00, tif="day")
    venue.submit("ann", "buy", 10, 148.00, stop=151.00, tif="day")
    venue.submit("ann", "sell", 100, 155.00, tif="day")
    venue.house("sell", 40, 149.00)
    venue.wait(7 * HOUR - MS)
    assert {u.status for u in venue.orders("ann").values()} == {
        "accepted", "partially_filled"
    }  # fmt: skip
    venue.wait(MS)

    updates = venue.orders("ann").values()
    assert [u.status for u in updates] == ["expired"] * 4
    assert [u.updated_at for u in updates] == [venue.now_ns // MS] * 4
    assert [u.remaining_quantity for u in updates] == [60, 100, 10, 100]
    assert venue.balance("ann")[1] == 0
    assert venue.book() == ([], [])
    assert venue.ledger.conserved() == []


@pytest.mark.req("OR-08", "A-24", "F-101")
def test_gtc_orders_and_stops_outlive_the_session_and_trade_in_the_next():
    venue = at(10)
    venue.trade(150.00)
    venue.submit("ann", "buy", 10, 149.00, tif="gtc")
    venue.submit("ann", "buy", 10, stop=151.00, tif="gtc")
    venue.submit("bob", "sell", 10, 151.00, tif="gtc")
    held = venue.balance("ann")
    venue.wait(7 * HOUR)

    assert [u.status for u in venue.orders("ann").values()] == ["accepted"] * 2
    assert venue.balance("ann") == held
    assert venue.book() == ([(149.00, 10)], [(151.00, 10)])
    assert venue.cancel("ann", "o-1").status == "canceled"
    venue.wait(16 * HOUR)
    venue.house("sell", 1, 151.00)
    venue.house("buy", 1, 151.00)
    assert venue.statuses("o-2")[1:] == ["accepted", "partially_filled", "filled"]
    assert venue.statuses("o-3")[-1] == "filled"


@pytest.mark.req("A-23", "OR-11")
def test_a_market_that_never_closes_ends_its_day_at_midnight_in_utc():
    venue = Venue(now_ns=START + 23 * HOUR)
    venue.submit("ann", "buy", 10, 1.00, tif="day")
    venue.submit("ann", "buy", 10, 1.00, tif="gtc")

    venue.wait(HOUR - MS)
    assert venue.statuses("o-1") == ["accepted"]
    venue.wait(MS)

    assert venue.statuses("o-1") == ["accepted", "expired"]
    assert venue.statuses("o-2") == ["accepted"]
    assert venue.on(SYSTEM) == []


@pytest.mark.req("A-23", "A-24")
def test_an_early_close_and_a_holiday_are_kept():
    venue = Venue(
        calendar=CalendarConfig(
            opens="09:00",
            closes="17:00",
            holidays=["2021-07-01"],
            early_closes={"2021-06-30": "13:00"},
        )
    )
    venue.wait(10 * HOUR)
    venue.submit("ann", "buy", 1, 1.00, tif="day")

    venue.wait(3 * HOUR)
    assert venue.statuses("o-1") == ["accepted", "expired"]
    assert standing(venue) == [("close", BOTH)]
    venue.wait(21 * HOUR)
    assert standing(venue) == [("close", BOTH)]
    venue.wait(DAY)

    assert standing(venue) == []


@pytest.mark.req("A-23", "F-58")
@pytest.mark.parametrize("hours", [8, 23, 24 + 8, 5 * 24])
def test_a_stall_over_the_close_expires_what_it_should_have(hours):
    venue = at(10)
    venue.submit("ann", "buy", 10, 1.00, tif="day")

    venue.wait(hours * HOUR)

    assert venue.statuses("o-1") == ["accepted", "expired"]
    hour = (10 + hours) % 24
    assert (standing(venue) == []) is (9 <= hour < 17)
    if 9 <= hour < 17:
        assert venue.submit("ann", "buy", 1, 1.00, tif="day").status == "accepted"
        venue.wait(8 * HOUR)
        assert venue.statuses("o-2") == ["accepted", "expired"]


@pytest.mark.req("A-24")
@pytest.mark.parametrize("closed", ["session", "halt"])
def test_the_traders_rest_while_the_market_is_closed(closed):
    venue = at(16.5, traders=TradersConfig(seed=3))
    for name in ("trades:AAPL", "orderbook:AAPL:10"):
        venue.open(name)
    venue.wait(SECOND)
    assert len(venue.on("orderbook:AAPL:10")) > 20
    if closed == "halt":
        venue.halt()
    else:
        venue.wait(HOUR)
    told, book = len(venue.told), venue.book()

    for _ in range(50):
        venue.wait(100 * MS)

    assert venue.book() == book
    assert len(venue.told) == told
    if closed == "halt":
        venue.resume()
    else:
        venue.wait(16 * HOUR)
    venue.wait(SECOND)
    assert venue.book() != book


@pytest.mark.req("A-16", "ER-09")
def test_a_client_order_id_is_taken_over_a_weekend_and_the_session_after_it():
    venue = at(2 * 24 + 16)
    venue.submit("ann", "buy", 1, 1.00, client_order_id="x")
    venue.cancel("ann", client_order_id="x")

    for hours in (0, 2 * 24 + 17, 7):
        venue.wait(hours * HOUR)
        code = code_of(venue.submit, "ann", "buy", 1, 1.00, client_order_id="x")
        assert code == "duplicate_client_order_id"
    venue.wait(17 * HOUR)

    assert venue.submit("ann", "buy", 1, 1.00, client_order_id="x").order_id == "o-2"


# ── halts ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("A-23", "F-101")
def test_the_session_begins_and_ends_by_the_clock_whoever_is_told_first():
    venue = at(8)

    # Nobody has let the market know of the time yet.
    venue.now_ns += HOUR - MS
    assert code_of(venue.submit, "ann", "buy", 1, 1.00) == "market_closed"
    venue.now_ns += MS
    assert venue.submit("ann", "buy", 1, 1.00).status == "accepted"
    venue.wait(8 * HOUR - MS)
    venue.now_ns += MS

    assert code_of(venue.submit, "ann", "buy", 1, 1.00) == "market_closed"
    assert code_of(venue.modify, "ann", "o-1", quantity=2) == "market_closed"
    assert venue.cancel("ann", "o-1").status == "canceled"
    assert events(venue)[-1] == ("open", BOTH)


@pytest.mark.req("A-24", "OV-07")
def test_a_halt_and_its_end_are_told_once():
    venue = Venue()

    venue.halt()
    venue.halt()
    venue.halt("NOPE")
    assert standing(venue) == [("halt", ["AAPL"])]
    venue.resume()
    venue.resume()
    venue.resume("BTC-USD")

    assert events(venue) == [("halt", ["AAPL"]), ("open", ["AAPL"])]
    assert [n.level for n in venue.on(SYSTEM)] == ["warning", "info"]
    assert standing(venue) == []


@pytest.mark.req("A-24")
def test_the_opening_of_the_market_does_not_end_a_halt():
    venue = office()
    venue.halt()

    venue.wait(9 * HOUR)

    assert events(venue)[-1] == ("open", ["BTC-USD"])
    assert code_of(venue.submit, "ann", "buy", 1, 1.00) == "market_closed"
    venue.resume()
    assert events(venue)[-1] == ("open", ["AAPL"])
    assert venue.submit("ann", "buy", 1, 1.00).status == "accepted"


@pytest.mark.req("A-24", "OV-07")
def test_a_late_subscriber_is_told_of_no_market_that_has_opened_since():
    venue = office()
    venue.halt()
    assert standing(venue) == [("close", BOTH), ("halt", ["AAPL"])]

    venue.wait(9 * HOUR)
    assert standing(venue) == [("halt", ["AAPL"])]
    venue.wait(8 * HOUR)

    assert standing(venue) == [("halt", ["AAPL"]), ("close", ["BTC-USD"])]
    venue.resume()
    venue.wait(16 * HOUR)
    assert standing(venue) == []


@pytest.mark.req("A-24", "SN-01")
def test_where_every_market_is_halted_no_opening_is_told():
    venue = office()
    for symbol in BOTH:
        venue.halt(symbol)

    venue.wait(9 * HOUR)

    assert events(venue) == [("halt", ["AAPL"]), ("halt", ["BTC-USD"])]


@pytest.mark.req("A-23", "A-24")
def test_day_orders_of_a_halted_market_expire_too():
    venue = at(10)
    venue.submit("ann", "buy", 1, 1.00, tif="day")
    venue.halt()

    venue.wait(7 * HOUR)

    assert venue.statuses("o-1") == ["accepted", "expired"]
    assert venue.balance("ann")[1] == 0


# ── notices ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OV-07", "SN-01", "SN-02")
def test_a_subscriber_is_told_of_the_start_with_the_epoch_of_the_venue():
    (start,) = Venue().open(SYSTEM)

    assert builtins(start) == {
        "type": "system_notification",
        "data": {
            "id": "n-1",
            "level": "info",
            "title": "Venue started",
            "message": "The venue has started; orders of a former life are gone.",
            "event": "start",
            "venue_epoch": "epoch-1",
        },
        "channel": SYSTEM,
        "timestamp": START // MS,
    }


@pytest.mark.req("A-50", "OV-07", "SN-02")
def test_the_end_of_the_venue_is_a_warning_to_everybody():
    venue = Venue()

    venue.exchange.shut_down(START, "Back in a minute.")
    venue.collect(venue.exchange.take())

    (notice,) = venue.on(SYSTEM)
    assert (notice.event, notice.level) == ("shutdown", "warning")
    assert notice.message == "Back in a minute."


@pytest.mark.req("UN-01", "UO-06")
@pytest.mark.parametrize(("lots", "told"), [(9, 0), (10, 1), (11, 1)])
def test_a_large_fill_is_told_to_its_owner(lots, told):
    venue = Venue(account("ann", large_fill="1500"), "bob")
    venue.submit("ann", "buy", lots, 150.00)
    venue.submit("bob", "sell", lots, 150.00)

    notices = venue.on("user_notifications", "ann")
    assert len(notices) == told
    assert venue.on("user_notifications", "bob") == []
    for notice in notices:
        assert (notice.level, notice.title) == ("info", "Large fill")
        assert notice.message == f"Your order o-1 traded {lots} AAPL at 150."


@pytest.mark.req("UN-01", "UO-06")
def test_a_large_fill_is_told_after_the_update_that_it_is_of():
    venue = Venue(account("ann", large_fill="1500"), "bob")
    venue.submit("ann", "buy", 20, 150.00)
    before = len(venue.types_to("ann"))
    venue.submit("bob", "sell", 20, 150.00)

    told = venue.types_to("ann")[before:]
    assert told.index("OrderUpdate") < told.index("UserNotification")


@pytest.mark.req("UN-02")
def test_low_cash_is_told_once_and_again_after_it_was_not():
    venue = Venue(account("ann", low_cash=50_000), "bob")
    warnings = []

    def warned():
        notices = venue.on("user_notifications", "ann")[len(warnings) :]
        warnings.extend(notices)
        return len(notices)

    venue.submit("ann", "buy", 300, 150.00)
    assert warned() == 0
    venue.submit("ann", "buy", 100, 150.00)
    assert warned() == 1
    venue.submit("ann", "buy", 1, 150.00)
    venue.house("sell", 50, 150.00)
    assert warned() == 0
    venue.cancel("ann", "o-2")
    assert warned() == 0
    venue.submit("ann", "buy", 100, 150.00)
    assert warned() == 1

    assert warnings[0].level == "warning"
    assert warnings[0].title == "Margin Call Warning"
    assert "39998.8 USD available, below 50000" in warnings[0].message
    assert warnings[0].id != warnings[1].id
    assert venue.on("user_notifications", "bob") == []


# ── alerts ────────────────────────────────────────────────────────────────────────────


def alert(name, condition="price_above", threshold="150.00", symbol="AAPL"):
    return AlertConfig(
        id=name, name=f"{symbol} Price Alert", condition=condition, symbol=symbol,
        threshold=threshold,
    )  # fmt: skip


@pytest.mark.req("CA-01", "CA-02", "OV-06")
def test_an_alert_is_told_as_the_reference_shows():
    venue = Venue(account("ann", alerts=[alert("a-12345")]), "bob")

    venue.trade(149.00)
    venue.trade(150.25)

    ((channel, message),) = venue.told
    assert channel == "custom_alerts/ann"
    assert builtins(message) == {
        "type": "custom_alert",
        "data": {
            "alert_id": "a-12345",
            "name": "AAPL Price Alert",
            "condition": "price_above",
            "symbol": "AAPL",
            "threshold": 150,
            "current_value": 150.25,
            "triggered_at": START // MS,
        },
        "channel": "custom_alerts",
        "timestamp": START // MS,
    }


@pytest.mark.req("CA-03", "CA-04", "A-27")
def test_alerts_fire_on_each_crossing_for_those_who_have_them():
    venue = Venue(
        account("ann", alerts=[alert("a-1"), alert("a-2", "price_below", "149")]),
        account("bob", alerts=[alert("b-1", threshold="151")]),
        "eve",
    )
    for price in (150.00, 150.01, 150.02, 151.00, 148.99, 148.00, 152.00, 149.00):
        venue.trade(price)
    venue.trade(99_999, symbol="BTC-USD")

    fired = {
        who: [(a.alert_id, a.current_value) for a in venue.on("custom_alerts", who)]
        for who in venue.names
    }
    assert fired == {
        "ann": [("a-1", 150.01), ("a-2", 148.99), ("a-1", 152.00)],
        "bob": [("b-1", 152.00)],
        "eve": [],
    }


@pytest.mark.req("CA-03", "A-27")
def test_an_alert_that_the_close_before_satisfied_waits_for_a_crossing():
    alerts = [alert("a-1", threshold="100"), alert("a-2", "price_below", "200")]
    venue = Venue(account("ann", alerts=alerts))

    venue.trade(150.00)
    venue.trade(151.00)
    assert venue.on("custom_alerts", "ann") == []
    for price in (99.00, 101.00, 201.00, 199.00):
        venue.trade(price)

    fired = [(a.alert_id, a.current_value) for a in venue.on("custom_alerts", "ann")]
    assert fired == [("a-1", 101), ("a-2", 199)]


@pytest.mark.req("CA-03")
def test_an_alert_sees_every_price_of_a_sweep_and_the_orders_of_accounts():
    venue = Venue(account("ann", alerts=[alert("a-1"), alert("a-2", threshold="151")]))
    for price in (149.00, 150.50, 151.50):
        venue.house("sell", 1, price)

    venue.submit("ann", "buy", 3)

    values = [(a.alert_id, a.current_value) for a in venue.on("custom_alerts", "ann")]
    assert values == [("a-1", 150.50), ("a-2", 151.50)]


# ── market data ───────────────────────────────────────────────────────────────────────


@pytest.mark.req("OV-02", "TR-01", "CD-01")
def test_a_match_reaches_every_public_channel():
    venue = Venue()
    for name in ("trades:AAPL", "orderbook:AAPL:10", "candles:AAPL:1m", "ticker:AAPL"):
        venue.open(name)

    venue.submit("ann", "buy", 10, 150.00)
    venue.submit("bob", "sell", 4, 150.00)
    venue.wait(MINUTE)

    (trade,) = venue.on("trades:AAPL")
    assert (trade.price, trade.size, trade.side) == (150.00, 4, "sell")
    assert [u.bids for u in venue.on("orderbook:AAPL:10")] == [
        [(150.00, 10)], [(150.00, 6)]
    ]  # fmt: skip
    assert venue.on("candles:AAPL:1m")[0].volume == 4
    ticker = venue.on("ticker:AAPL")[-1]
    assert (ticker.last_price, ticker.bid, ticker.ask) == (150.00, 150.00, None)


@pytest.mark.req("A-39", "A-40")
def test_where_nothing_trades_there_are_no_candles_and_nothing_new_in_the_ticker():
    venue = Venue()
    venue.open("candles:AAPL:1m")
    (ticker,) = venue.open("ticker:AAPL")
    for _ in range(5):
        venue.wait(MINUTE)
    assert venue.told == []
    assert (ticker.data.last_price, ticker.data.volume) == (None, 0)

    venue.trade(150.00)
    venue.told.clear()
    for _ in range(3):
        venue.wait(MINUTE)

    candles = venue.on("candles:AAPL:1m")
    assert [(c.open, c.close, c.volume) for c in candles] == [
        (150, 150, 1), (150, 150, 0), (150, 150, 0)
    ]  # fmt: skip
    assert all(a.end_time == b.start_time for a, b in pairwise(candles))


@pytest.mark.req("OB-10", "A-07", "A-37")
def test_the_book_of_every_channel_is_the_engines_and_no_sequence_is_skipped():
    rich = {"usd": 10**7, "positions": {"AAPL": 10**5}}
    venue = Venue(
        account("ann", **rich), account("bob", **rich), traders=TradersConfig(seed=7)
    )
    names = [f"orderbook:{s}:{d}" for s in BOTH for d in (1, 5, 10, 50)]
    books = Books(venue, names)
    for step in range(300):
        venue.wait(20 * MS)
        best = venue.exchange.engines["AAPL"].price_at(step % 2, 0) / 100
        if step % 3 == 0:
            venue.submit("ann", "buy", 20, best, tif="gtc")
        if step % 5 == 0:
            venue.submit("bob", "sell", 25)
        if step % 7 == 0:
            for who in ("ann", "bob"):
                for each in venue.desk.open_orders(who):
                    venue.cancel(who, each.id)
        assert books.wrong() == []

    assert min(books.sequences.values()) > 20
    assert venue.ledger.conserved() == []


# ── the venue's traders beside accounts ───────────────────────────────────────────────


def penny_bids(venue, who, count):
    """Orders of an account at so many prices, far below all others."""
    for number in range(1, count + 1):
        venue.submit(who, "buy", 1, number / 100)


@pytest.mark.req("A-17", "A-19")
def test_the_traders_cancel_no_order_but_their_own():
    venue = Venue(traders=TradersConfig(seed=1))
    penny_bids(venue, "ann", 60)
    bids = venue.exchange.engines["AAPL"].depth(Side.BUY)

    for _ in range(40):
        venue.wait(100 * MS)

    assert {u.status for u in venue.orders("ann").values()} == {"accepted"}
    assert bids > 80
    near = [price for price, _ in venue.book()[0] if price > 100]
    assert len(near) >= 10


@pytest.mark.parametrize(("side", "price"), [("buy", 0.01), ("sell", 2**52 / 100)])
def test_an_order_at_the_end_of_all_prices_does_not_stop_the_traders(side, price):
    venue = Venue(
        account("ann", usd=10**9, positions={"AAPL": 10**9}),
        traders=TradersConfig(seed=1),
    )
    venue.submit("ann", side, 1, price)
    others = venue.book()[side == "sell"][:-1]
    venue.submit("ann", "sell" if side == "buy" else "buy", sum(q for _, q in others))
    assert venue.book()[side == "sell"] == [(price, 1)]

    for _ in range(40):
        venue.wait(100 * MS)

    assert len(venue.book()[side == "sell"]) >= 16
    assert venue.statuses("o-1")[-1] in ("accepted", "filled")
    assert venue.ledger.conserved() == []


def test_a_bid_at_the_last_price_of_all_does_not_stop_the_traders():
    venue = Venue(account("ann", usd=10**18), traders=TradersConfig(seed=1))
    asked = sum(quantity for _, quantity in venue.book()[1])
    venue.submit("ann", "buy", asked + 100, 2**52 / 100)
    assert venue.book()[1] == []

    for _ in range(40):
        venue.wait(100 * MS)

    assert venue.statuses("o-1")[-1] == "filled"
    assert len(venue.book()[1]) >= 16
    assert venue.ledger.conserved() == []


def test_the_market_says_when_it_next_has_something_to_do():
    venue = office()
    assert venue.exchange.due_ns() == START + 9 * HOUR

    venue.wait(9 * HOUR)
    assert venue.exchange.due_ns() == START + 17 * HOUR
    venue.trade(150.00)
    assert venue.exchange.due_ns() == venue.now_ns + MINUTE
    venue.exchange.halt("AAPL", venue.now_ns)

    assert venue.exchange.due_ns() == 0

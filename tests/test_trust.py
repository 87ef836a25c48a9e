"""When a book is believed: audits, crossed, quiet and mute books, repeated trades."""

from typing import Any

import pytest

from feedhandler.records import Flags
from feedhandler.session import State
from feedhandler.tracker import Action
from tests.feeds import AAPL, SECOND_NS, SOUND, TIME_MS, Feed, Levels, live_feed

TRUST = Flags.LIVE | Flags.STALE | Flags.CROSSED
LIVE, STALE, CROSSED = Flags.LIVE, Flags.STALE, Flags.CROSSED
CROSSING: Levels = [(150.10, 5.0)]
QUIET_NS = 5 * SECOND_NS
TRADES = "trades:AAPL"


def asked_once(feed: Feed) -> None:
    """A snapshot of the book was asked for, in one request."""
    feed.collect()
    assert feed.asked() == [("subscribe", [AAPL])]


# ── crossed ───────────────────────────────────────────────────────────────────────────


def crossed() -> Feed:
    """A book that an update crossed, a while after its snapshot."""
    feed = live_feed(answers=True)
    feed.pass_s(2)
    feed.update(101, CROSSING)
    return feed


@pytest.mark.req("F-43", "I-02")
def test_a_book_that_crosses_is_not_live_and_is_audited_once():
    feed = crossed()

    (quote,) = feed.quotes()
    assert quote.flags & TRUST == CROSSED
    asked_once(feed)
    assert feed.events("crossed") == []

    for sequence in range(102, 120):
        feed.update(sequence, [(150.10, float(sequence))])
        feed.tick(0.1)

    assert feed.asked() == []
    assert all(quote.flags & TRUST == CROSSED for quote in feed.quotes())


@pytest.mark.req("F-43", "OB-13")
def test_a_crossed_book_that_the_venue_has_too_is_its_state_and_one_alarm():
    feed = crossed()
    feed.collect()
    bids = [(150.10, 5.0), *SOUND[0]]
    feed.snapshot(101, bids, SOUND[1])

    (alarm,) = feed.events("crossed")
    assert alarm.detail["bid"] == [(150.10, 5.0)]
    assert alarm.detail["ask"] == [(150.05, 300.0)]
    assert feed.flags & TRUST == CROSSED
    feed.sent()

    for sequence in range(102, 400):
        feed.update(sequence, [(150.10, float(sequence))])
        feed.tick(0.1)
    assert feed.asked() == []
    assert feed.events("crossed", "audit") == []

    feed.update(400, [(150.10, 0.0)])
    assert feed.flags & TRUST == LIVE

    feed.update(401, CROSSING)
    asked_once(feed)


@pytest.mark.req("F-42", "F-43", "I-26")
def test_a_book_that_only_we_had_crossed_is_replaced_and_the_levels_are_told():
    feed = crossed()
    feed.collect()
    feed.snapshot(101, *SOUND)

    assert feed.flags & TRUST == LIVE
    (alarm,) = feed.events("audit")
    assert alarm.detail["levels"] == [("bid", 150.10, 5.0, None)]
    assert feed.counter("differences") == 1
    assert feed.counter("crossings") == 1


@pytest.mark.req("F-43", "I-02")
@pytest.mark.parametrize("ask", [149.0, 150.0])
def test_a_snapshot_that_is_crossed_or_locked_is_audited_a_second_later(ask: float):
    feed = live_feed(answers=True)
    feed.update(102)
    feed.collect()
    feed.sent()
    feed.snapshot(102, [(150.0, 1.0)], [(ask, 1.0)])

    assert feed.flags & TRUST == CROSSED
    for _ in range(9):
        feed.tick(0.1)
    assert feed.asked() == []
    feed.tick(0.1)
    assert feed.asked() == [("subscribe", [AAPL])]
    assert feed.events("crossed") == []

    feed.snapshot(102, [(150.0, 1.0)], [(ask, 1.0)])

    assert len(feed.events("crossed")) == 1
    for _ in range(100):
        feed.tick(0.1)
    assert feed.asked() == []


@pytest.mark.req("F-43", "I-02")
def test_a_snapshot_that_was_crossed_by_mistake_is_mended_by_its_audit():
    feed = live_feed(answers=True)
    feed.snapshot(200, [(150.0, 1.0)], [(149.0, 1.0)])
    feed.events()
    feed.tick(1)
    feed.snapshot(200, *SOUND)

    assert feed.flags & TRUST == LIVE
    assert feed.events("crossed") == []
    assert feed.counter("differences") == 1


@pytest.mark.req("F-43")
def test_an_audit_that_differs_and_is_crossed_too_is_the_venue_s_state():
    feed = crossed()
    feed.collect()
    feed.snapshot(101, [(151.0, 1.0)], [(150.5, 1.0)])

    assert [e.kind for e in feed.events("crossed", "audit")] == ["audit", "crossed"]
    feed.sent()
    for _ in range(100):
        feed.tick(0.1)
    assert feed.asked() == []


@pytest.mark.req("F-43", "I-14")
def test_a_book_that_flickers_is_audited_at_most_once_a_second():
    feed = live_feed(answers=True)
    sequence = 100
    for _ in range(300):
        for bids in (CROSSING, [(150.10, 0.0)]):
            sequence += 1
            feed.update(sequence, bids)
            feed.tick(0.05)
            feed.collect()
            if any(m["action"] == "subscribe" for m in feed.sent()):
                feed.snapshot(sequence, [*feed.book().bids()], [*feed.book().asks()])

    assert 20 <= feed.counter("resyncs") <= 31
    assert feed.counter("differences") == 0


def test_a_book_that_is_crossed_for_long_right_after_a_snapshot_is_audited_later():
    feed = live_feed(answers=True)
    feed.update(101, CROSSING)
    feed.tick(0.5)
    assert feed.asked() == []

    feed.tick(0.5)

    assert feed.asked() == [("subscribe", [AAPL])]


# ── quiet or mute ─────────────────────────────────────────────────────────────────────


def silent(**options: Any) -> Feed:
    """A book of which nothing came for five seconds, while heartbeats flow."""
    feed = live_feed(answers=True, quiet_after_ns=QUIET_NS, **options)
    wait(feed, 5)
    return feed


def wait(feed: Feed, seconds: float) -> None:
    for _ in range(round(10 * seconds)):
        feed.tick(0.1)
        if feed.now_ns // SECOND_NS % 20 == 0:
            feed.heartbeat()


@pytest.mark.req("F-53", "I-03")
def test_a_book_of_which_nothing_comes_is_stale_and_asked_for_once():
    feed = live_feed(answers=True, quiet_after_ns=QUIET_NS)
    wait(feed, 4.9)
    assert feed.flags & TRUST == LIVE
    assert feed.asked() == []

    wait(feed, 0.1)

    assert feed.flags & TRUST == STALE
    assert not feed.flags & Flags.GAP
    assert feed.asked() == [("subscribe", [AAPL])]
    assert [e.kind for e in feed.events("quiet", "stale")] == ["quiet", "stale"]
    wait(feed, 1.9)
    assert feed.asked() == []


@pytest.mark.req("F-53", "OB-13")
def test_an_equal_snapshot_says_that_the_market_is_quiet_and_the_patience_doubles():
    feed = silent()
    for patience_s in (10, 20, 40):
        feed.snapshot(100, *SOUND)
        assert feed.flags & TRUST == LIVE
        feed.sent()
        wait(feed, patience_s - 0.1)
        assert feed.flags & TRUST == LIVE
        wait(feed, 0.1)
        assert feed.flags & TRUST == STALE

    feed.snapshot(100, *SOUND)
    feed.update(101, [(150.0, 1.0)])
    feed.snapshot(101, [(150.0, 1.0), *SOUND[0][1:]], SOUND[1])
    assert feed.session.state == State.SUBSCRIBED
    assert feed.counter("quiets") == 4
    assert feed.counter("mutes") == 0


@pytest.mark.req("F-53")
def test_the_patience_is_an_hour_at_most_and_normal_again_after_a_replacement():
    feed = silent()
    for _ in range(12):
        feed.snapshot(100, *SOUND)
        feed.sent()
        while feed.flags & TRUST == LIVE:
            feed.tick(1)
            feed.heartbeat()
    began_ns = feed.now_ns
    feed.snapshot(100, *SOUND)
    while feed.flags & TRUST == LIVE:
        feed.tick(1)
        feed.heartbeat()
    assert feed.now_ns - began_ns == 3600 * SECOND_NS

    feed.snapshot(101, *SOUND)
    feed.sent()
    wait(feed, 5)
    assert feed.flags & TRUST == STALE


@pytest.mark.req("F-53")
def test_a_snapshot_that_is_further_says_that_the_line_was_mute():
    feed = silent()
    feed.snapshot(140, *SOUND)

    assert feed.flags & TRUST == LIVE
    (event,) = feed.events("mute")
    assert event.detail == {"channel": AAPL, "applied": 100, "sequence": 140}
    assert feed.counter("mutes") == 1


@pytest.mark.req("F-53")
def test_an_update_that_comes_first_ends_the_silence():
    feed = silent()
    feed.quotes()
    feed.update(101, [(150.0, 1.0)])

    assert feed.flags & TRUST == LIVE
    assert [q.flags & TRUST for q in feed.quotes()] == [LIVE]


@pytest.mark.req("F-53", "A-06")
def test_a_silent_book_whose_snapshot_does_not_come_climbs_the_ladder():
    feed = silent()
    assert feed.asked() == [("subscribe", [AAPL])]

    wait(feed, 2)
    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]

    for _ in range(19):
        assert not feed.tick(0.1) & Action.CLOSE
    assert feed.tick(0.1) & Action.CLOSE


@pytest.mark.req("F-53")
def test_a_book_that_was_confirmed_and_never_came_climbs_the_ladder_too():
    feed = Feed(AAPL, answers=True, quiet_after_ns=QUIET_NS)
    feed.sent()

    wait(feed, 2)

    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]


def test_one_silent_book_says_nothing_of_the_others():
    other = "orderbook:MSFT:10"
    feed = live_feed(AAPL, other, answers=True, quiet_after_ns=QUIET_NS)
    for second in range(6):
        wait(feed, 1)
        feed.update(101 + second, channel=other)

    assert not feed.book().is_live
    assert feed.book(other).is_live
    assert feed.asked() == [("subscribe", [AAPL])]


def test_without_a_threshold_a_book_may_be_silent():
    feed = live_feed(answers=True)
    wait(feed, 80)

    assert feed.flags & TRUST == LIVE


# ── trades ────────────────────────────────────────────────────────────────────────────


def trade(feed: Feed, trade_id: str, price: float = 150.0) -> None:
    data = {
        "symbol": "AAPL", "price": price, "size": 1, "side": "buy",
        "trade_id": trade_id, "trade_time": TIME_MS,
    }  # fmt: skip
    feed.receive(
        {"type": "trade", "data": data, "channel": TRADES, "timestamp": TIME_MS}
    )


@pytest.mark.req("I-07", "TR-05")
def test_a_trade_is_published_once_within_a_connection():
    feed = live_feed(TRADES, answers=True)
    ids = [f"t-{n}" for n in range(100)]
    for trade_id in ids:
        trade(feed, trade_id)
    again = ids[-20:]
    for trade_id in again:
        trade(feed, trade_id)

    assert [t.trade_id for t in feed.sink.trades] == ids
    assert feed.counter("duplicates") == len(again)


def test_trades_whose_ids_are_long_or_alike_are_told_apart():
    feed = live_feed(TRADES, answers=True)
    ids = [
        "a",
        "a\0",
        "b" * 16,
        "b" * 17,
        "b" * 24,
        "b" * 25,
        "c" * 100,
        "c" * 99 + "d",
    ]
    for trade_id in ids:
        trade(feed, trade_id)

    assert len(feed.sink.trades) == len(ids)
    assert feed.counter("duplicates") == 0


def test_trades_without_an_id_are_not_taken_for_each_other():
    feed = live_feed(TRADES, answers=True)
    trade(feed, "")
    trade(feed, "")

    assert feed.counter("trades") == 2


def test_no_trade_of_many_is_taken_for_another():
    feed = live_feed(TRADES, answers=True)
    for number in range(20_000):
        trade(feed, f"{number}")
    for number in range(20_000):
        trade(feed, f"T{number:015d}")

    assert feed.counter("trades") == 40_000
    assert feed.counter("duplicates") == 0


@pytest.mark.req("I-07", "TR-03")
def test_what_was_lost_between_two_connections_is_unknown_and_not_zero():
    feed = live_feed(TRADES, answers=True)
    trade(feed, "t-1")
    feed.close()
    assert feed.events("loss") == []
    feed.pass_s(3)
    feed.open()
    trade(feed, "t-1")

    assert feed.counter("unknown_losses") == 1
    (event,) = feed.events("loss")
    assert event.detail == {"channel": TRADES, "trades": "unknown"}
    assert event.symbol == "AAPL"
    assert feed.counter("trades") == 2, "a venue that was restarted counts anew"

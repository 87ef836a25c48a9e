"""The life of a session, in virtual time: bytes, events and time in, actions out."""

import itertools
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.board import Board
from feedhandler.publisher import Publisher
from feedhandler.records import QUOTE, TRADE, Flags
from feedhandler.ring import Reader, Ring
from feedhandler.session import TRANSITIONS, State
from feedhandler.sink import PythonSink
from feedhandler.tracker import Action
from tests.feeds import (
    AAPL,
    SECOND_NS,
    SOUND,
    START_NS,
    TIME_MS,
    Feed,
    Recorder,
    book,
    live_feed,
)

MSFT = "orderbook:MSFT:10"
ALL = (AAPL, "trades:AAPL", "ticker:AAPL", "candles:AAPL:1m")
TRUST = Flags.LIVE | Flags.STALE | Flags.GAP | Flags.CROSSED
LIVE, STALE, GAP, CROSSED = Flags.LIVE, Flags.STALE, Flags.GAP, Flags.CROSSED


def lossy(feed: Feed, sequence: int = 102) -> int:
    """Lose the update before *sequence*, and collect what is to be asked for."""
    actions = feed.update(sequence, [(150.0, 1.0)])
    return actions | feed.collect()


# ── subscribing ───────────────────────────────────────────────────────────────────────


@pytest.mark.req("SB-01", "BP-06", "CN-03")
def test_everything_held_is_subscribed_to_in_one_request_when_the_connection_opens():
    feed = Feed(*ALL, opened=False)

    assert feed.sent() == []

    actions = feed.open()

    (request,) = feed.sent()
    assert actions == Action.SEND
    assert request["action"] == "subscribe"
    assert request["data"] == {"channels": list(ALL)}
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", request["id"])


def test_a_session_that_holds_nothing_asks_for_nothing():
    feed = Feed()

    assert feed.sent() == []
    assert feed.session.state == State.OPEN


@pytest.mark.req("LC-02", "LC-04", "SB-02")
def test_a_session_is_subscribed_once_a_channel_is_confirmed():
    feed = Feed(*ALL)

    assert feed.session.state == State.OPEN
    assert not any(route.confirmed for route in feed.session.routes.values())

    feed.answer()

    assert feed.session.state == State.SUBSCRIBED
    assert all(route.confirmed for route in feed.session.routes.values())


@pytest.mark.req("LC-04", "SB-03", "RC-09")
def test_giving_up_the_last_channel_leaves_subscribed():
    feed = live_feed(AAPL, "trades:AAPL")
    feed.session.remove(AAPL)

    assert feed.session.state == State.SUBSCRIBED

    feed.session.remove("trades:AAPL")
    feed.collect()

    assert feed.session.state == State.OPEN
    assert feed.asked() == [("unsubscribe", [AAPL, "trades:AAPL"])]

    feed.close()
    feed.open()

    assert feed.asked() == []


@pytest.mark.req("RC-08")
def test_a_channel_added_twice_is_subscribed_to_once():
    feed = live_feed(AAPL)
    feed.session.add(AAPL, 5)
    feed.session.add(MSFT, 1)
    feed.session.add(MSFT, 1)
    feed.collect()

    assert feed.asked() == [("subscribe", [MSFT])]


def test_a_channel_removed_and_added_again_starts_anew():
    feed = live_feed(AAPL)
    feed.session.remove(AAPL)
    feed.session.add(AAPL, 0)
    feed.collect()

    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]
    assert not feed.book().is_live

    feed.snapshot(200, *SOUND)

    assert feed.book().is_live


def test_a_channel_added_and_removed_before_it_was_asked_for_is_never_asked_for():
    feed = live_feed(AAPL)
    feed.session.add(MSFT, 1)
    feed.session.remove(MSFT)
    feed.collect()

    assert feed.asked() == []


@pytest.mark.req("SB-05")
def test_what_comes_after_the_unsubscribe_is_dropped_and_counted():
    feed = live_feed(AAPL, MSFT)
    feed.session.remove(AAPL)
    feed.collect()
    (last,) = feed.quotes()
    feed.update(101, [(150.0, 1.0)])

    assert last.flags & TRUST == STALE
    assert feed.quotes() == []
    assert feed.counter("unrouted") == 1
    assert feed.book(MSFT).is_live


def test_a_sink_may_give_up_the_channel_that_it_hears_is_given_up():
    class Quitting(Recorder):
        def quote(self, event):
            super().quote(event)
            if event.flags & STALE:
                feed.session.remove(AAPL)

    feed = live_feed(AAPL, sink=Quitting())
    feed.session.remove(AAPL)
    feed.collect()

    assert [quote.flags & TRUST for quote in feed.quotes()] == [STALE]
    assert feed.asked() == [("unsubscribe", [AAPL])]
    assert feed.session.routes == {}


def test_a_channel_outside_the_grammar_is_refused():
    feed = Feed()

    with pytest.raises(ValueError, match="depth"):
        feed.session.add("orderbook:AAPL:0", 0)
    assert feed.session.routes == {}


@pytest.mark.req("RC-07", "BP-08")
def test_a_new_connection_subscribes_to_everything_again():
    feed = live_feed(*ALL)
    feed.close()
    feed.open()

    assert feed.asked() == [("subscribe", list(ALL))]
    assert not any(route.confirmed for route in feed.session.routes.values())


def test_request_ids_are_never_used_twice():
    feed = live_feed()
    ids = []
    for _ in range(20):
        feed.close()
        feed.open()
        ids += [message["id"] for message in feed.sent()]

    assert len(ids) == len(set(ids)) == 20


# ── answers ───────────────────────────────────────────────────────────────────────────


@pytest.mark.req("MF-10", "F-32")
@pytest.mark.parametrize("request_id", ["sub-77", "", None])
def test_an_answer_to_nothing_changes_nothing(request_id):
    feed = Feed(AAPL)
    feed.receive(
        {
            "type": "subscription_response",
            "data": {"status": "success", "channels": [AAPL]},
            "timestamp": TIME_MS,
            "id": request_id,
        }
    )

    assert feed.session.state == State.OPEN
    assert feed.counter("unrouted") == 1


@pytest.mark.req("F-32")
def test_the_second_answer_to_a_request_is_counted_and_changes_nothing():
    feed = Feed(AAPL)
    (request,) = feed.sent()
    feed.answer(request)
    feed.answer(request, "error")

    assert feed.counter("unrouted") == 1
    assert feed.session.routes[AAPL].confirmed


@pytest.mark.req("MF-11")
def test_a_request_without_an_answer_ends_the_connection_after_ten_seconds():
    feed = Feed("trades:AAPL")

    assert feed.tick(9.999) == Action.NOTHING
    assert feed.tick(0.001) & Action.CLOSE
    assert "no answer to subscribe" in feed.session.close_reason


def test_a_refusing_answer_is_reported():
    feed = Feed(AAPL)
    feed.answer(status="error")

    assert feed.session.state == State.OPEN
    assert [e.detail["channels"] for e in feed.events("rejected")] == [[AAPL]]


# ── heartbeats ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("HB-02", "HB-03", "HB-07")
@pytest.mark.parametrize(
    "message",
    [
        {"type": "heartbeat", "data": {"interval": 30000}, "timestamp": TIME_MS},
        {"type": "heartbeat"},
        {"type": "heartbeat", "data": {}},
        {"type": "heartbeat", "data": None, "channel": "x", "novel": 1},
    ],
)
def test_a_heartbeat_is_answered_within_the_same_call(message):
    feed = live_feed(utc_offset_ns=5 * SECOND_NS)
    actions = feed.receive(message)

    assert actions == Action.SEND
    assert feed.sent() == [
        {"action": "pong", "data": {"timestamp": START_NS // 1_000_000 + 5000}}
    ]
    assert feed.quotes() == []
    assert feed.counter("heartbeats") == 1


@pytest.mark.req("HB-05", "HB-06", "F-54")
def test_a_connection_without_heartbeats_lives_for_90_seconds():
    feed = live_feed(AAPL, MSFT)

    assert feed.tick(89.9) == Action.NOTHING
    assert feed.book().is_live

    assert feed.tick(0.1) & Action.CLOSE
    assert [quote.flags & TRUST for quote in feed.quotes()] == [STALE, STALE]
    assert feed.session.close_reason == "no heartbeat for 90 s"


@pytest.mark.req("HB-05", "F-52")
def test_only_heartbeats_count_as_heartbeats():
    feed = live_feed()
    feed.pass_s(60)
    feed.heartbeat()
    feed.pass_s(89.9)
    feed.update(101, [(150.0, 1.0)])

    assert feed.tick() == Action.NOTHING
    assert feed.tick(0.1) & Action.CLOSE


@pytest.mark.req("HB-05")
def test_the_time_without_heartbeats_starts_anew_with_each_connection():
    feed = live_feed()
    feed.pass_s(80)
    feed.close()
    feed.pass_s(3600)
    feed.open()
    feed.answer()
    feed.snapshot(1, *SOUND)

    assert feed.tick(89.9) == Action.NOTHING
    assert feed.tick(0.1) & Action.CLOSE


@pytest.mark.req("LM-06", "F-27")
def test_a_flood_of_heartbeats_is_not_answered_with_a_flood():
    feed = live_feed()
    for _ in range(1000):
        feed.heartbeat()

    assert len(feed.sent()) + feed.pings == 180


# ── gaps ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("OB-14", "BP-16", "F-34")
def test_after_a_gap_a_stale_quote_with_the_last_good_prices_comes_at_once():
    feed = live_feed()
    actions = feed.update(102, [(151.0, 7.0)])

    (quote,) = feed.quotes()
    assert quote.flags & TRUST == STALE | GAP
    assert (quote.bid_price, quote.ask_price) == (150.0, 150.05)
    assert quote.sequence == 100
    assert actions == Action.RESYNC
    assert feed.counter("gaps") == 1
    (gap,) = feed.events("gap")
    assert gap.symbol == "AAPL"
    assert (gap.detail["expected"], gap.detail["received"]) == (101, 102)


@pytest.mark.req("OB-14", "F-35", "LC-04")
def test_updates_during_a_resync_are_held_and_applied_after_the_snapshot():
    feed = live_feed()
    lossy(feed)
    feed.update(103, [(149.0, 3.0)])
    feed.update(104, [], [(150.05, 0.0)])

    assert feed.asked() == [("subscribe", [AAPL])]
    assert len(feed.quotes()) == 1

    feed.snapshot(102, [(149.5, 9.0)], [(150.05, 1.0), (150.2, 2.0)])

    quotes = feed.quotes()
    assert [quote.sequence for quote in quotes] == [102, 103, 104]
    assert [bool(quote.flags & LIVE) for quote in quotes] == [False, False, True]
    assert quotes[0].flags & Flags.SNAPSHOT
    assert feed.book().bids() == [(149.5, 9.0), (149.0, 3.0)]
    assert feed.book().asks() == [(150.2, 2.0)]
    assert [event.kind for event in feed.events("live")] == ["live"]


@pytest.mark.req("F-35")
def test_a_held_update_keeps_the_times_of_when_it_was_sent_and_read():
    feed = live_feed(utc_offset_ns=7)
    read_ns = []
    for sequence in (102, 103, 104):
        feed.pass_s(1)
        feed.update(sequence, timestamp=TIME_MS + sequence)
        read_ns.append(feed.now_ns + 7)
    feed.quotes()
    feed.pass_s(1)
    feed.snapshot(101, *SOUND)

    snapshot, *held = feed.quotes()
    assert snapshot.recv_ns == feed.now_ns + 7
    assert [quote.venue_ns // 1_000_000 - TIME_MS for quote in held] == [102, 103, 104]
    # The last one is news of now: with it the book is LIVE.
    assert [quote.recv_ns for quote in held] == [*read_ns[:2], feed.now_ns + 7]


@pytest.mark.req("F-36", "F-37")
def test_an_update_that_is_held_twice_is_applied_once():
    feed = live_feed()
    for sequence in (102, 102, 103, 102):
        feed.update(sequence)
    feed.quotes()
    feed.update(101)

    assert [quote.sequence for quote in feed.quotes()] == [101, 102, 103]
    assert feed.book().is_live


@pytest.mark.req("OB-15", "F-35")
def test_levels_of_the_old_book_do_not_survive_a_snapshot():
    feed = live_feed()
    lossy(feed)
    feed.snapshot(110, [(140.0, 1.0)], [])

    assert feed.book().bids() == [(140.0, 1.0)]
    assert feed.book().asks() == []
    assert feed.flags & TRUST == LIVE


@pytest.mark.req("F-37")
def test_a_missing_update_that_still_comes_heals_the_book():
    feed = live_feed()
    lossy(feed, 103)
    feed.update(102, [(149.9, 2.0)])
    feed.quotes()
    feed.update(101, [(149.8, 1.0)])

    quotes = feed.quotes()
    assert [quote.sequence for quote in quotes] == [101, 102, 103]
    assert [quote.flags & TRUST for quote in quotes] == [STALE | GAP] * 2 + [LIVE]
    assert feed.book().bids() == [
        (150.0, 1.0), (149.95, 1000.0), (149.9, 2.0), (149.8, 1.0),
    ]  # fmt: skip


@pytest.mark.req("F-37", "I-03")
def test_a_book_with_a_second_gap_is_not_healed_by_the_end_of_the_first():
    feed = live_feed()
    lossy(feed, 104)
    feed.quotes()
    feed.update(101)

    (quote,) = feed.quotes()
    assert (quote.sequence, quote.flags & TRUST) == (101, STALE | GAP)
    assert feed.events("live") == []


@pytest.mark.req("F-37", "BP-20")
def test_healing_is_an_event_as_the_gap_was():
    feed = live_feed()
    lossy(feed)
    feed.update(101)

    assert [e.kind for e in feed.events("gap", "stale", "live")] == [
        "gap",
        "stale",
        "live",
    ]


@pytest.mark.req("F-37", "OB-13")
def test_the_snapshot_after_a_healing_is_an_audit():
    feed = live_feed()
    lossy(feed)
    feed.answer()
    feed.update(101)
    bids, asks = feed.book().bids(), feed.book().asks()
    epoch = feed.book().epoch
    feed.quotes()
    feed.snapshot(102, bids, asks)

    assert feed.quotes() == []
    assert feed.book().epoch == epoch
    assert feed.counter("audits") == 1
    assert feed.counter("differences") == 0
    assert feed.tick(60) == Action.NOTHING


@pytest.mark.req("F-36")
def test_a_duplicate_is_counted_and_changes_nothing():
    feed = live_feed()
    feed.update(101, [(150.0, 1.0)])
    feed.quotes()
    actions = feed.update(101, [(150.0, 9.0)])

    assert actions == Action.NOTHING
    assert feed.quotes() == []
    assert feed.counter("duplicates") == 1
    assert feed.book().bids(1) == [(150.0, 1.0)]


@pytest.mark.req("F-38")
def test_an_update_that_the_snapshot_contains_is_dropped():
    feed = live_feed()
    lossy(feed)
    feed.snapshot(103, *SOUND)
    feed.quotes()
    feed.update(103, [(150.0, 9.0)])
    feed.update(104, [(149.0, 1.0)])

    assert feed.book().bids(1) == [(150.0, 500.0)]
    assert feed.book().is_live


@pytest.mark.req("F-39", "OB-15")
def test_a_snapshot_at_a_lower_sequence_replaces_the_book():
    feed = live_feed(sequence=5000)
    epoch = feed.book().epoch
    feed.snapshot(1, [(10.0, 1.0)], [(11.0, 1.0)])
    feed.update(2, [(10.5, 1.0)])

    assert feed.book().is_live
    assert feed.book().epoch == epoch + 1
    assert feed.book().sequence == 2
    assert feed.book().bids() == [(10.5, 1.0), (10.0, 1.0)]


@pytest.mark.req("F-40")
def test_a_sequence_that_runs_again_from_below_is_a_loss():
    feed = live_feed(sequence=5000)
    for sequence in (1, 2, 3):
        feed.update(sequence, [(10.0, 1.0)])

    assert feed.flags & TRUST == STALE | GAP
    assert feed.collect() & Action.SEND
    assert feed.asked() == [("subscribe", [AAPL])]
    assert feed.book().bids() == SOUND[0]


@pytest.mark.req("F-45")
def test_a_snapshot_that_does_not_reach_the_held_updates_is_not_enough():
    feed = live_feed()
    lossy(feed, 110)
    feed.sent()
    actions = feed.snapshot(105, *SOUND)

    assert actions & Action.RESYNC
    assert not feed.book().is_live
    feed.collect()
    assert feed.asked() == [("subscribe", [AAPL])]

    feed.snapshot(109, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 110


@pytest.mark.req("F-46")
def test_one_request_is_outstanding_for_a_book_whatever_is_lost_meanwhile():
    feed = live_feed()
    lossy(feed)
    for sequence in range(104, 300, 2):
        feed.update(sequence)
        feed.receive(b"{")
        feed.collect()

    assert feed.asked() == [("subscribe", [AAPL])]


@pytest.mark.req("I-17", "F-46")
def test_events_that_nobody_takes_are_bounded_and_the_newest_stay():
    feed = live_feed()
    for number in range(1000, 1000 + 20 * 2000, 20):
        for message in (
            book("orderbook", number, *SOUND),
            book("orderbook_update", number + 2, [], []),
        ):
            feed.session.receive(json.dumps(message).encode(), feed.now_ns)
    events = feed.session.take_events()

    assert 2048 <= len(events) <= 4096
    assert [event.kind for event in events[-3:]] == ["live", "gap", "stale"]
    assert events[-2].detail["received"] == number + 2


@pytest.mark.req("F-51", "BP-06")
def test_all_books_that_lost_something_are_asked_for_in_one_request():
    channels = [f"orderbook:S{number}:10" for number in range(50)]
    feed = live_feed(*channels)
    for channel in channels:
        feed.update(102, channel=channel)
    feed.collect()

    assert feed.asked() == [("subscribe", channels)]
    assert feed.counter("resyncs") == 50


@pytest.mark.req("F-46", "I-17")
def test_held_updates_are_bounded_and_a_full_hold_starts_over():
    feed = live_feed()
    for sequence in range(102, 102 + 1025):
        feed.update(sequence)
    feed.snapshot(500, *SOUND)

    assert not feed.book().is_live

    feed.snapshot(1125, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 1126


@pytest.mark.req("F-46", "I-17")
def test_held_updates_are_bounded_in_bytes_too():
    feed = live_feed()
    update = json.dumps(book("orderbook_update", 0, [(1, 1)] * 70_000, []))
    for sequence in range(102, 102 + 15):
        feed.receive(update.replace('"sequence": 0', f'"sequence": {sequence}'))
    feed.snapshot(101, *SOUND)

    assert not feed.book().is_live

    feed.snapshot(115, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 116


@pytest.mark.req("F-46")
def test_1024_held_updates_are_all_applied():
    feed = live_feed()
    for sequence in range(102, 102 + 1024):
        feed.update(sequence, [(100.0 + sequence % 3, float(sequence))])
    feed.snapshot(101, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 1125


@pytest.mark.req("F-31")
@pytest.mark.parametrize("kind", ["orderbook", "orderbook_update"])
def test_a_wrong_symbol_on_a_book_channel_is_a_lost_update(kind):
    feed = live_feed(AAPL, MSFT)
    actions = feed.receive(book(kind, 101, *SOUND, symbol="MSFT"))

    assert actions & Action.RESYNC
    assert feed.counter("mismatches") == 1
    assert feed.flags & TRUST == STALE | GAP
    assert feed.book(MSFT).is_live


@pytest.mark.req("I-17", "F-48")
@pytest.mark.parametrize("too_many", [False, True])
def test_an_update_of_more_levels_than_a_book_can_need_is_a_lost_one(too_many):
    feed = live_feed()
    feed.update(101, [(1.0, 0.0)] * (2 * 10 + 1024 + too_many))

    assert feed.book().is_live is not too_many
    assert feed.counter("bad_values") == too_many


@pytest.mark.req("F-31")
@pytest.mark.parametrize(
    "channel",
    [
        "orderbook:TSLA:10",
        "orderbook:AAPL:1",
        "orderbook:AAPL:100",
        "",
        "é",
        "x" * 5000,
    ],
)
def test_a_message_of_an_unknown_channel_is_dropped_and_counted(channel):
    feed = live_feed()
    message = book("orderbook_update", 101, *SOUND)
    message["channel"] = channel

    assert feed.receive(message) == Action.NOTHING
    assert feed.counter("unrouted") == 1
    assert feed.book().is_live


@pytest.mark.req("F-31")
def test_a_message_of_the_wrong_kind_for_its_channel_is_counted():
    feed = live_feed(*ALL)
    message = book("orderbook_update", 101, *SOUND)
    message["channel"] = "trades:AAPL"
    feed.receive(message)
    candle = {
        "type": "candle",
        "data": {
            "symbol": "AAPL", "interval": "5m", "open": 1, "high": 1, "low": 1,
            "close": 1, "volume": 0, "start_time": 0, "end_time": 1,
        },
        "channel": "candles:AAPL:1m",
        "timestamp": 1,
    }  # fmt: skip
    feed.receive(candle)
    candle["channel"] = AAPL
    feed.receive(candle)

    assert feed.counter("mismatches") == 3
    assert feed.sink.candles == []


@pytest.mark.req("F-30")
def test_a_malformed_frame_makes_every_book_stale_until_it_is_resynced():
    feed = live_feed(AAPL, MSFT)
    assert feed.receive(b"{") & Action.RESYNC
    feed.collect()

    assert [quote.flags & TRUST for quote in feed.quotes()] == [STALE | GAP] * 2
    assert feed.asked() == [("subscribe", [AAPL, MSFT])]

    feed.update(101, channel=AAPL)
    feed.snapshot(101, *SOUND, channel=AAPL)

    assert feed.book(AAPL).is_live
    assert not feed.book(MSFT).is_live


# ── the ladder ────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-44", "HB-06")
def test_a_snapshot_that_does_not_come_is_asked_for_more_and_more_firmly():
    feed = live_feed()
    lossy(feed)
    feed.answer()
    assert feed.asked() == [("subscribe", [AAPL])]

    assert feed.tick(1.999) == Action.NOTHING
    feed.tick(0.001)
    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]

    assert not feed.tick(1.999) & Action.CLOSE
    assert feed.tick(0.001) & Action.CLOSE
    assert AAPL in feed.session.close_reason


@pytest.mark.req("F-44")
def test_a_snapshot_on_any_rung_ends_the_ladder():
    feed = live_feed()
    lossy(feed)
    feed.answer()
    feed.tick(2)
    for request in feed.sent()[-2:]:
        feed.answer(request)
    feed.snapshot(102, *SOUND)

    assert feed.book().is_live
    assert feed.tick(60) == Action.NOTHING

    lossy(feed, 104)

    assert feed.asked() == [("subscribe", [AAPL])]


@pytest.mark.req("F-37", "F-44")
def test_a_book_that_healed_starts_at_the_foot_of_the_ladder_the_next_time():
    feed = live_feed()
    lossy(feed)
    feed.answer()
    feed.tick(2)
    for request in feed.sent()[-2:]:
        feed.answer(request)
    feed.update(101)
    assert feed.book().is_live
    feed.tick(5)
    feed.sent()
    lossy(feed, 104)

    assert feed.asked() == [("subscribe", [AAPL])]


@pytest.mark.req("F-37", "F-44")
def test_a_book_that_healed_in_part_stays_where_it_is_on_the_ladder():
    feed = live_feed(answers=True)
    lossy(feed, 104)
    feed.tick(2)
    feed.update(101)

    assert feed.tick(2) & Action.CLOSE


@pytest.mark.req("F-44")
def test_the_first_snapshot_has_the_same_ladder():
    feed = Feed(AAPL)
    feed.answer()
    feed.sent()
    feed.tick(2)

    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]
    assert feed.tick(2) & Action.CLOSE


@pytest.mark.req("F-44", "A-06")
def test_a_venue_that_gives_no_snapshots_is_given_more_and_more_time():
    feed = Feed(AAPL, answers=True)
    for patience_s in (2, 4, 8, 16, 32, 64, 64):
        assert feed.asked() == [("subscribe", [AAPL])]
        wait(feed, patience_s)
        assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]
        assert wait(feed, patience_s) & Action.CLOSE
        feed.close()
        feed.open()

    feed.snapshot(100, *SOUND)
    feed.update(102)
    feed.collect()
    feed.sent()
    wait(feed, 2)
    assert feed.asked() == [("unsubscribe", [AAPL]), ("subscribe", [AAPL])]


def wait(feed: Feed, seconds: float) -> int:
    """Let time pass up to a moment at which, and not before, something is due."""
    feed.pass_s(-0.001)
    for _ in range(round(10 * seconds)):
        assert feed.tick(0.1) & ~Action.SEND == Action.NOTHING
        if feed.now_ns // (SECOND_NS // 10) % 200 == 0:
            feed.heartbeat()
    assert [m for m in feed.wire if m["action"] == "unsubscribe"] == []
    return feed.tick(0.001)


# ── connections ───────────────────────────────────────────────────────────────────────


@pytest.mark.req("CC-03", "CC-10", "F-06")
def test_a_lost_connection_makes_every_book_stale_once():
    feed = live_feed(AAPL, MSFT)
    feed.close()
    feed.close()

    quotes = feed.quotes()
    assert [(q.instrument, q.flags & TRUST) for q in quotes] == [(0, STALE), (1, STALE)]
    assert quotes[0].bid_price == 150.0
    assert feed.counter("disconnects") == 1
    assert len(feed.events("stale")) == 2


@pytest.mark.req("F-39", "CC-10")
def test_a_new_connection_is_a_new_epoch_and_waits_for_its_snapshot():
    feed = live_feed()
    epoch = feed.book().epoch
    feed.close()
    feed.open()
    assert feed.book().epoch > epoch
    feed.answer()
    feed.quotes()
    feed.update(101, [(150.0, 1.0)])

    assert feed.quotes() == []
    assert not feed.book().is_live

    feed.snapshot(100, [(149.0, 1.0)], [])

    assert feed.book().is_live
    assert feed.book().sequence == 101
    assert feed.book().bids() == [(150.0, 1.0), (149.0, 1.0)]


@pytest.mark.req("I-04")
def test_epoch_and_sequence_only_grow_in_what_is_published():
    feed = Feed(AAPL)
    seen = []
    for sequence in (50, 20, 70):
        feed.answer()
        feed.snapshot(sequence, *SOUND)
        feed.update(sequence + 1)
        feed.update(sequence + 3)
        feed.update(sequence + 2)
        seen += [(q.epoch, q.sequence) for q in feed.quotes() if q.flags & LIVE]
        feed.close()
        feed.open()

    assert seen == sorted(set(seen))
    assert len(seen) == 9


def test_updates_held_on_one_connection_are_not_applied_on_the_next():
    feed = live_feed()
    lossy(feed, 102)
    feed.close()
    feed.open()
    feed.snapshot(101, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 101


@pytest.mark.req("F-39", "CC-10")
def test_the_first_updates_of_a_venue_that_started_anew_wait_for_its_snapshot():
    feed = live_feed()
    feed.close()
    feed.open()
    feed.update(1)
    feed.update(2)
    feed.snapshot(0, *SOUND)

    assert feed.book().is_live
    assert feed.book().sequence == 2


def test_requests_of_one_connection_are_not_answered_on_the_next():
    feed = Feed(AAPL)
    (request,) = feed.sent()
    feed.close()
    feed.open()
    feed.answer(request)

    assert feed.session.state == State.OPEN


def drive(feed: Feed, state: State) -> None:
    """Take a session to a state by what happens to it."""
    session, now = feed.session, feed.now_ns
    if state is State.CONNECTING:
        return
    if state in (State.CLOSED, State.FAILED):
        session.closed(now)
        if state is State.FAILED:
            session.move("failed")
        return
    session.opened(now)
    if state is State.AUTHENTICATED:
        session.move("authenticated")
    if state is State.SUBSCRIBED:
        session.move("subscribed")
    if state is State.CLOSING:
        session.closing(now)


LEGAL = {
    State.CONNECTING: "opened closed",
    State.OPEN: "authenticated subscribed closing closed",
    State.AUTHENTICATED: "subscribed closing closed",
    State.SUBSCRIBED: "closing closed",
    State.CLOSING: "closed",
    State.CLOSED: "connecting failed",
    State.FAILED: "",
}
HAPPENINGS = sorted({event for row in TRANSITIONS.values() for event in row})


@pytest.mark.req("LC-07")
@pytest.mark.parametrize(("old", "event"), list(itertools.product(State, HAPPENINGS)))
def test_only_legal_transitions_happen(old: State, event: str):
    feed = Feed(opened=False)
    drive(feed, old)
    assert feed.session.state == old
    legal = event in LEGAL[old].split() or (
        event.startswith("holds nothing") and old is State.SUBSCRIBED
    )

    if legal:
        feed.session.move(event)
        assert feed.session.state == TRANSITIONS[old][event]
    else:
        with pytest.raises(ValueError, match=f"{old.name} cannot be {event}"):
            feed.session.move(event)
        assert feed.session.state == old


@pytest.mark.req("LC-07")
def test_a_subscribed_session_is_not_opened_again():
    feed = live_feed()

    with pytest.raises(ValueError, match="SUBSCRIBED cannot be opened"):
        feed.session.opened(feed.now_ns)
    assert feed.book().is_live
    feed.update(101)
    assert feed.book().sequence == 101


CALLS = [
    *("connecting", "opened", "closing", "closed", "tick", "collect"),
    *("answer", "heartbeat", "update", "remove", "add", "bad"),
]


@pytest.mark.req("LC-07")
@given(calls=st.lists(st.sampled_from(CALLS), max_size=30))
@settings(max_examples=300, deadline=None)
def test_whatever_the_host_calls_only_legal_transitions_are_reported(calls):
    feed = Feed(AAPL, opened=False)
    for call in calls:
        match call:
            case "opened":
                if feed.session.state == State.CONNECTING:
                    feed.open()
                else:
                    with pytest.raises(ValueError, match="cannot be opened"):
                        feed.session.opened(feed.now_ns)
            case "connecting":
                if feed.session.state in (State.CONNECTING, State.CLOSED):
                    feed.session.connecting(feed.now_ns)
                else:
                    with pytest.raises(ValueError, match="cannot be connecting"):
                        feed.session.connecting(feed.now_ns)
            case "answer":
                if feed.wire and feed.wire[-1]["action"] != "pong":
                    feed.answer()
            case "heartbeat":
                feed.heartbeat()
            case "update":
                feed.update(7)
            case "bad":
                feed.receive(b"?")
            case "add":
                feed.session.add(AAPL, 0)
            case "remove":
                feed.session.remove(AAPL)
            case "tick":
                feed.tick(7)
            case _:
                getattr(feed.session, call)(feed.now_ns)
    feed.collect()

    assert feed.counter("faults") == 0
    state = "connecting"
    for event in feed.events("state"):
        assert event.detail["from"] == state
        state = event.detail["to"]
        old = State[event.detail["from"].upper()]
        assert State[state.upper()] in TRANSITIONS[old].values()
    assert State[state.upper()] == feed.session.state


# ── limits and refusals ───────────────────────────────────────────────────────────────


@pytest.mark.req("LM-07", "LM-10", "ER-06")
def test_a_rate_limited_request_waits_as_long_as_the_venue_says():
    feed = Feed(*ALL)
    feed.refuse("rate_limit_exceeded", "slow down", retry_after=7)
    feed.sent()
    feed.collect()
    feed.tick(6.999)

    assert feed.asked() == []

    feed.tick(0.001)

    assert feed.asked() == [("subscribe", list(ALL))]


@pytest.mark.req("LM-10")
def test_a_rate_limit_without_a_time_to_wait_waits_a_minute():
    feed = Feed(AAPL)
    feed.refuse("rate_limit_exceeded")
    feed.sent()
    feed.tick(59.9)

    assert feed.asked() == []

    feed.tick(0.1)

    assert feed.asked() == [("subscribe", [AAPL])]


@pytest.mark.req("LM-10", "BP-07")
def test_a_rate_limited_unsubscribe_is_tried_again():
    feed = live_feed(AAPL, MSFT)
    feed.session.remove(MSFT)
    feed.collect()
    feed.refuse("rate_limit_exceeded", retry_after=5)
    feed.sent()
    feed.tick(4.9)
    assert feed.asked() == []

    feed.tick(0.1)
    assert feed.asked() == [("unsubscribe", [MSFT])]


@pytest.mark.req("LM-10", "F-30")
@pytest.mark.parametrize("retry_after", [1e300, 2**62, -5, 0, 1e-9])
def test_an_absurd_time_to_wait_neither_stops_the_feed_nor_is_a_storm(retry_after):
    feed = Feed(AAPL)
    for _ in range(200):
        if feed.wire:
            feed.refuse("rate_limit_exceeded", retry_after=retry_after)
        feed.sent()
        feed.collect()
    for _ in range(24 * 60 + 1):
        feed.heartbeat()
        feed.tick(60)

    assert feed.counter("faults") == 0
    assert ("subscribe", [AAPL]) in feed.asked()


@pytest.mark.req("ER-04", "SB-07")
def test_channels_that_the_venue_names_are_dropped_and_the_rest_asked_for_again():
    channels = (AAPL, "orderbook:ZZZZ:10", "trades:ZZZZ", "trades:AAPL")
    feed = Feed(*channels)
    feed.refuse("invalid_parameter", "unknown: orderbook:ZZZZ:10, trades:ZZZZ")
    feed.sent()
    feed.collect()

    assert feed.asked() == [("subscribe", [AAPL, "trades:AAPL"])]
    assert list(feed.session.routes) == [AAPL, "trades:AAPL"]
    rejected = [event.detail["channels"] for event in feed.events("rejected")]
    assert rejected == [["orderbook:ZZZZ:10"], ["trades:ZZZZ"]]


PREFIXES = ("orderbook:AAPL:1", "orderbook:AAPL:10", "orderbook:AAPL:100")


@pytest.mark.req("ER-04", "SB-07")
@pytest.mark.parametrize("refused", PREFIXES)
@pytest.mark.parametrize(
    "text",
    ["{}", "invalid channel: {}", "bad channel '{}'.", "[{}] is unknown", "{}, x"],
)
def test_only_the_channel_that_is_named_is_dropped(refused: str, text: str):
    feed = Feed(*PREFIXES)
    feed.refuse("invalid_parameter", text.format(refused))
    feed.sent()
    feed.collect()

    rest = [channel for channel in PREFIXES if channel != refused]
    assert feed.asked() == [("subscribe", rest)]


@pytest.mark.req("ER-04", "SB-07")
@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("trades:BRK", "unknown channel trades:BRK.B"),
        ("trades:BTC", "unknown channel trades:BTC-USD"),
        ("trades:AAPL", "unknown channel user_trades:AAPL"),
        ("candles:AAPL:1m", "unknown channel candles:AAPL:1month"),
    ],
)
def test_a_channel_inside_a_longer_name_is_not_named(held: str, message: str):
    feed = Feed(held, AAPL)
    feed.refuse("invalid_parameter", message)

    assert held in feed.session.routes


@pytest.mark.req("ER-04")
def test_channels_listed_beside_the_message_are_what_is_dropped():
    feed = Feed(AAPL, MSFT)
    feed.refuse("invalid_parameter", "two channels are unknown", channels=[MSFT, "x"])
    feed.sent()
    feed.collect()

    assert feed.asked() == [("subscribe", [AAPL])]


@pytest.mark.req("ER-04", "BP-20")
def test_a_book_whose_channel_is_refused_is_flagged_stale_for_good():
    feed = live_feed(AAPL, MSFT, resync_interval_ns=60 * SECOND_NS)
    tracked = feed.book(MSFT)
    feed.heartbeat()
    feed.tick(60)
    feed.quotes()
    feed.refuse("invalid_parameter", f"delisted: {MSFT}")

    (quote,) = feed.quotes()
    assert (quote.instrument, quote.flags & TRUST) == (1, STALE)
    assert not tracked.is_live
    assert feed.book(AAPL).is_live


@pytest.mark.req("ER-04")
def test_a_channel_refused_while_it_waits_to_be_asked_for_is_not_asked_for():
    feed = Feed(AAPL, MSFT)
    first = feed.wire[-1]
    feed.tick(2)
    second = feed.wire[-1]
    feed.sent()
    feed.refuse("rate_limit_exceeded", request=first, retry_after=1)
    feed.refuse("invalid_parameter", f"unknown {MSFT}", request=second)
    feed.tick(1)

    assert [channels for _, channels in feed.asked()] == [[AAPL]]


@pytest.mark.req("ER-01", "ER-12", "BP-17")
@pytest.mark.parametrize(
    "code",
    ["authentication_required", "invalid_action", "internal_error", "novel", "",
     "invalid_parameter"],
)  # fmt: skip
def test_a_subscription_refused_for_anything_else_ends_the_connection(code: str):
    feed = Feed(AAPL)
    actions = feed.refuse(code, "no")

    assert actions & Action.CLOSE
    assert code in feed.session.close_reason
    assert [event.detail["code"] for event in feed.events("error")] == [code]


@pytest.mark.req("ER-01", "ER-12")
@pytest.mark.parametrize("request_id", [None, "order-1"])
def test_an_error_of_no_request_of_ours_is_reported_and_changes_nothing(request_id):
    feed = live_feed()
    actions = feed.receive(
        {
            "type": "error",
            "data": {
                "code": "invalid_parameter",
                "message": AAPL,
                "request_id": request_id,
            },
            "timestamp": TIME_MS,
        }
    )

    assert actions == Action.NOTHING
    assert feed.book().is_live
    assert feed.counter("errors") == 1


@pytest.mark.req("BP-07")
def test_a_channel_given_up_while_it_waits_for_the_limiter_is_unsubscribed_from():
    feed = live_feed(AAPL, MSFT)
    lossy(feed)
    feed.refuse("rate_limit_exceeded", retry_after=5)
    feed.sent()
    feed.session.remove(AAPL)
    feed.tick(5)

    assert feed.asked() == [("unsubscribe", [AAPL])]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "gap",
                "bad",
                "snapshot",
                "drop",
                "limited",
                "invalid",
                "answer",
                "add",
                "remove",
                "wait",
                "beat",
            ]
        ),
        st.sampled_from([0.0, 0.01, 0.5, 2.0, 5.0]),
    ),
    max_size=120,
)


@pytest.mark.req("LM-04", "LM-09", "BP-24")
@given(steps=STEPS, limit=st.sampled_from([2, 5, 45]))
@settings(max_examples=100, deadline=None)
def test_the_limit_of_subscriptions_holds_whatever_happens(steps, limit: int):
    feed = Feed(AAPL, MSFT, subscribes=limit)
    sent_ns: list[int] = []
    sequence = 100
    last: dict[str, Any] | None = None
    for step, seconds in steps:
        sequence += 2
        match step:
            case "gap":
                feed.update(sequence)
            case "bad":
                feed.receive(b"?")
            case "snapshot":
                feed.snapshot(sequence, *SOUND)
            case "drop":
                feed.close()
                feed.open()
            case "limited" if last:
                feed.refuse("rate_limit_exceeded", request=last, retry_after=1)
            case "invalid" if last:
                feed.refuse("invalid_parameter", MSFT, request=last)
            case "answer" if last:
                feed.answer(last)
            case "add":
                feed.session.add(MSFT, 1)
            case "remove":
                feed.session.remove(MSFT)
            case "beat":
                feed.heartbeat()
        feed.collect()
        for _ in range(2):
            for message in feed.sent():
                if message["action"] in ("subscribe", "unsubscribe"):
                    sent_ns.append(feed.now_ns)
                    last = message
            feed.tick(seconds)

    assert feed.counter("faults") == 0
    for start in sent_ns:
        assert sum(start <= ns < start + 61 * SECOND_NS for ns in sent_ns) <= limit


# ── the flags ─────────────────────────────────────────────────────────────────────────


def test_an_update_in_sequence_is_live():
    feed = live_feed()
    feed.update(101, [(150.01, 1.0)])

    (quote,) = feed.quotes()
    assert quote.flags == LIVE


@pytest.mark.req("F-49")
@pytest.mark.parametrize(
    ("bids", "asks", "missing"),
    [
        ([], SOUND[1], Flags.NO_BID),
        (SOUND[0], [], Flags.NO_ASK),
        ([], [], Flags.NO_BID | Flags.NO_ASK),
    ],
)
def test_a_missing_side_is_flagged_and_has_no_price(bids, asks, missing):
    feed = live_feed()
    feed.snapshot(200, bids, asks)
    feed.update(201)

    first, second = feed.quotes()
    assert first.flags == LIVE | Flags.SNAPSHOT | missing
    assert second.flags == LIVE | missing
    if missing & Flags.NO_BID:
        assert math.isnan(second.bid_price)
        assert second.bid_size == 0
    if missing & Flags.NO_ASK:
        assert math.isnan(second.ask_price)
        assert second.ask_size == 0


def test_a_snapshot_is_live_and_flagged_as_one():
    feed = live_feed()
    feed.snapshot(200, *SOUND)

    (quote,) = feed.quotes()
    assert quote.flags == LIVE | Flags.SNAPSHOT


@pytest.mark.req("F-34", "F-30")
@pytest.mark.parametrize("loss", ["gap", "bad message", "bad number"])
def test_gap_is_flagged_from_the_loss_to_the_next_snapshot(loss):
    feed = live_feed()
    if loss == "gap":
        feed.update(102)
    elif loss == "bad message":
        feed.receive(b"?")
    else:
        feed.update(101, [(-1.0, 1.0)])
    (quote,) = feed.quotes()
    assert quote.flags == STALE | GAP

    feed.snapshot(150, *SOUND)

    (quote,) = feed.quotes()
    assert quote.flags == LIVE | Flags.SNAPSHOT


@pytest.mark.req("I-03")
@pytest.mark.parametrize("event", ["closed", "heartbeat", "removed"])
def test_a_connection_that_is_lost_is_stale_but_no_gap(event):
    feed = live_feed()
    if event == "closed":
        feed.close()
    elif event == "heartbeat":
        feed.tick(90)
    else:
        feed.session.remove(AAPL)

    (quote,) = feed.quotes()
    assert quote.flags == STALE


@pytest.mark.req("LC-05", "I-03")
def test_from_the_begin_of_a_close_on_nothing_is_live():
    feed = live_feed()
    feed.session.closing(feed.now_ns)
    feed.update(101)

    assert [quote.flags for quote in feed.quotes()] == [STALE]
    assert not feed.book().is_live


@pytest.mark.req("F-43", "I-02")
@pytest.mark.parametrize("price", [150.05, 151.0])
def test_a_crossed_or_locked_book_is_neither_live_nor_stale(price):
    feed = live_feed()
    feed.update(101, [(price, 1.0)])
    feed.update(102, [(price, 0.0)])

    crossed, sound = feed.quotes()
    assert crossed.flags == CROSSED
    assert (crossed.bid_price, crossed.ask_price) == (price, 150.05)
    assert sound.flags == LIVE


@pytest.mark.req("F-43", "I-02")
def test_a_crossed_snapshot_is_not_live():
    feed = live_feed()
    feed.snapshot(200, [(150.0, 1.0)], [(149.0, 1.0)])

    (quote,) = feed.quotes()
    assert quote.flags == CROSSED | Flags.SNAPSHOT


def test_a_crossed_book_turns_stale_like_any_other():
    feed = live_feed()
    feed.update(101, [(151.0, 1.0)])
    feed.quotes()
    feed.close()

    (quote,) = feed.quotes()
    assert quote.flags == STALE | CROSSED


@pytest.mark.req("A-24")
def test_the_quotes_of_a_closed_market_say_so_until_it_opens():
    feed = live_feed(AAPL, MSFT)
    for closed in ({"AAPL"}, {"AAPL"}, set()):
        feed.session.mark_markets(closed, feed.now_ns)
        feed.update(feed.book().sequence + 1)

    assert [(quote.instrument, quote.flags) for quote in feed.quotes()] == [
        *[(0, LIVE | Flags.MARKET_CLOSED)] * 3,
        *[(0, LIVE)] * 2,
    ]


@pytest.mark.req("I-04")
def test_the_flags_of_a_quote_have_the_low_byte_of_its_epoch():
    memory = bytearray(Ring.size_for(QUOTE, 512))
    trades = Ring(bytearray(Ring.size_for(TRADE, 64)), TRADE, 64)
    board = Board(bytearray(Board.size_for(4, 10)), 4, 10)
    feed = live_feed(sink=Publisher(Ring(memory, QUOTE, 512), trades, board))
    reader, epochs = Reader(memory), []
    for sequence in range(200, 500):
        feed.snapshot(sequence, *SOUND)
        epochs.append(feed.book().epoch)

    assert epochs[-1] > 256
    assert [flags >> 8 for flags in reader.poll()["flags"].tolist()] == [
        epoch & 0xFF for epoch in epochs
    ]


@pytest.mark.req("F-43")
def test_a_gap_that_a_crossed_snapshot_ended_is_not_told_of_again():
    feed = live_feed()
    feed.receive(b"?")
    feed.snapshot(102, [(150.0, 1.0)], [(149.0, 1.0)])
    feed.quotes()
    feed.close()

    (quote,) = feed.quotes()
    assert quote.flags == STALE | CROSSED


def test_no_trust_changes_twice():
    feed = live_feed()
    feed.update(102)
    feed.receive(b"?")
    feed.update(105)
    feed.tick(90)
    feed.close()

    assert [quote.flags for quote in feed.quotes()] == [STALE | GAP]


# ── publish = "last_in_read" ──────────────────────────────────────────────────────────


def test_with_last_in_read_a_book_has_one_quote_for_a_read():
    feed = live_feed(last_in_read=True)
    feed.update(101, [(150.0, 501.0)])
    feed.update(102, [(150.01, 1.0)])
    feed.update(103, [(149.0, 1.0)])
    assert feed.quotes() == []

    feed.session.read_ended()
    (quote,) = feed.quotes()

    assert (quote.sequence, quote.bid_price, quote.flags & TRUST) == (103, 150.01, LIVE)
    assert feed.counter("conflated") == 2
    assert feed.counter("quotes") + 2 == feed.counter("snapshots") + 3
    feed.session.read_ended()
    assert feed.quotes() == []


def test_with_last_in_read_books_are_published_in_the_order_of_their_first_message():
    other = "orderbook:MSFT:10"
    feed = live_feed(AAPL, other, last_in_read=True)
    feed.update(101, [(150.0, 2.0)], channel=other)
    feed.update(101, [(150.0, 3.0)])
    feed.update(102, [(150.0, 4.0)], channel=other)
    feed.session.read_ended()

    assert [(q.instrument, q.bid_size) for q in feed.quotes()] == [(1, 4.0), (0, 3.0)]


@pytest.mark.req("I-03")
def test_with_last_in_read_a_change_of_trust_waits_for_nothing():
    feed = live_feed(last_in_read=True)
    feed.update(101, [(150.0, 2.0)])
    feed.update(103, [(150.0, 4.0)])

    (quote,) = feed.quotes()
    assert (quote.sequence, quote.bid_size) == (101, 2.0)
    assert quote.flags & TRUST == STALE | GAP

    feed.snapshot(103, *SOUND)
    (quote,) = feed.quotes()
    assert (quote.sequence, quote.flags & TRUST) == (103, LIVE)
    feed.session.read_ended()
    assert feed.quotes() == []


def test_with_last_in_read_a_book_that_crosses_is_asked_for_when_the_read_ends():
    feed = live_feed(last_in_read=True)
    feed.now_ns += 2 * SECOND_NS
    feed.update(101, [(160.0, 2.0)])

    assert feed.session.read_ended() & Action.RESYNC
    assert feed.quotes()[0].flags & Flags.CROSSED


def test_with_last_in_read_a_snapshot_overtakes_what_was_put_off():
    feed = live_feed(last_in_read=True)
    feed.update(101, [(150.0, 2.0)])
    feed.snapshot(200, *SOUND)
    feed.session.read_ended()

    assert [quote.sequence for quote in feed.quotes()] == [200]
    assert feed.counter("conflated") == 1


@pytest.mark.req("I-03")
def test_with_last_in_read_what_is_not_live_waits_for_no_end():
    feed = live_feed(last_in_read=True, pongs=False)
    feed.tick()
    feed.tick(3)
    feed.quotes()
    feed.update(101, [(150.0, 2.0)])
    feed.update(102, [(150.0, 3.0)])

    assert [(q.sequence, q.flags & TRUST) for q in feed.quotes()] == [
        (101, STALE), (102, STALE),
    ]  # fmt: skip


def test_with_last_in_read_a_book_told_of_in_between_hides_no_other():
    other, third = "orderbook:MSFT:10", "orderbook:TSLA:10"
    feed = live_feed(AAPL, other, third, last_in_read=True)
    feed.update(101, [(150.0, 2.0)])
    feed.update(101, [(150.0, 3.0)], channel=other)
    feed.snapshot(200, *SOUND)
    feed.update(201, [(150.0, 4.0)])
    feed.update(101, [(150.0, 5.0)], channel=third)
    feed.session.read_ended()

    assert [(q.instrument, q.sequence) for q in feed.quotes()] == [
        (0, 200), (0, 201), (1, 101), (2, 101),
    ]  # fmt: skip


class Refusing(Recorder):
    """Raises at updates of one instrument."""

    def quote(self, event):
        super().quote(event)
        if event.instrument == 0 and event.sequence > 100:
            raise RuntimeError("no")


@pytest.mark.req("I-03")
def test_with_last_in_read_a_sink_that_raises_keeps_no_book_from_the_others():
    other, third = "orderbook:MSFT:10", "orderbook:TSLA:10"
    feed = live_feed(AAPL, other, third, last_in_read=True, sink=Refusing())
    for sequence in (101, 102):
        for channel in (AAPL, other, third):
            feed.update(sequence, [(150.0, 2.0)], channel=channel)
        feed.session.read_ended()

        assert [q.sequence for q in feed.quotes()] == 3 * [sequence]
    assert feed.counter("sink_errors") == 2
    assert feed.counter("faults") == 0


def test_with_last_in_read_an_audit_passes_nothing_over():
    feed = live_feed(last_in_read=True)
    feed.update(101, [(150.0, 2.0)])
    feed.snapshot(101, [(150.0, 2.0), (149.95, 1000.0)], SOUND[1])
    feed.session.read_ended()

    assert [quote.sequence for quote in feed.quotes()] == [101]
    assert feed.counter("audits") == 1
    assert feed.counter("conflated") == 0


def test_with_last_in_read_a_quote_is_of_when_its_message_came():
    feed = live_feed(last_in_read=True)
    came_ns = feed.now_ns
    feed.update(101, [(150.0, 2.0)])
    feed.session.prove(came_ns + SECOND_NS)
    feed.session.read_ended()

    assert [quote.recv_ns for quote in feed.quotes()] == [came_ns]


# ── publish = "changes" ───────────────────────────────────────────────────────────────


def test_with_changes_only_what_touches_the_top_is_a_quote():
    feed = live_feed(changes_only=True)
    feed.update(101, [(150.0, 501.0)])
    feed.quotes()
    feed.update(102, [(149.0, 5.0)])
    feed.update(103, [(149.0, 6.0)], [(160.0, 1.0)])

    assert feed.quotes() == []
    assert feed.book().sequence == 103

    feed.update(104, [(150.0, 1.0)])
    feed.update(105, [(150.01, 1.0)])
    feed.update(106, [], [(150.05, 2.0)])

    assert [quote.sequence for quote in feed.quotes()] == [104, 105, 106]


def test_with_changes_only_the_first_update_after_a_snapshot_is_no_news_either():
    feed = live_feed(changes_only=True)
    feed.update(101, [(149.0, 5.0)])

    assert feed.quotes() == []


@pytest.mark.req("F-49")
def test_with_changes_only_a_missing_side_that_stays_missing_is_no_news():
    feed = live_feed(changes_only=True)
    feed.snapshot(200, [(150.0, 1.0)], [])
    feed.update(201, [(150.0, 2.0)])
    feed.quotes()
    feed.update(202, [(149.0, 1.0)])

    assert feed.quotes() == []


def test_with_changes_only_every_change_of_trust_is_a_quote():
    feed = live_feed(changes_only=True)
    feed.update(102)
    feed.snapshot(102, *SOUND)
    feed.close()

    assert [quote.flags & TRUST for quote in feed.quotes()] == [
        STALE | GAP,
        LIVE,
        STALE,
    ]


# ── audits ────────────────────────────────────────────────────────────────────────────


def audited() -> Feed:
    return live_feed(resync_interval_ns=60 * SECOND_NS)


@pytest.mark.req("OB-13", "BP-15")
def test_an_audit_is_asked_for_at_the_interval_and_says_nothing_when_equal():
    feed = audited()
    feed.tick(59.9)
    assert feed.asked() == []

    feed.tick(0.1)
    assert feed.asked() == [("subscribe", [AAPL])]
    feed.snapshot(100, *SOUND)

    assert feed.quotes() == []
    assert feed.events() == []
    assert (feed.counter("audits"), feed.counter("differences")) == (1, 0)
    assert feed.book().is_live


@pytest.mark.req("OB-13", "F-42", "I-26")
def test_an_audit_that_differs_is_counted_reported_and_replaces_the_book():
    feed = audited()
    epoch = feed.book().epoch
    feed.tick(60)
    feed.answer()
    feed.snapshot(100, [(150.0, 499.0)], SOUND[1])

    (quote,) = feed.quotes()
    assert quote.flags == LIVE | Flags.SNAPSHOT
    assert quote.epoch == epoch + 1
    assert feed.counter("differences") == 1
    assert [event.detail["sequence"] for event in feed.events("audit")] == [100]
    assert feed.book().bids() == [(150.0, 499.0)]


@pytest.mark.req("OB-13", "F-42")
@pytest.mark.parametrize(
    ("bids", "asks"),
    [
        ([SOUND[0][0], (149.95, 1001.0)], SOUND[1]),
        ([SOUND[0][0], (149.94, 1000.0)], SOUND[1]),
        (SOUND[0], [SOUND[1][0], (150.1, 801.0)]),
        (SOUND[0], [*SOUND[1], (150.2, 1.0)]),
    ],
    ids=["a bid's size", "a bid's price", "an ask's size", "one ask more"],
)
def test_an_audit_finds_the_smallest_difference(bids, asks):
    feed = live_feed()
    feed.snapshot(100, bids, asks)

    assert feed.counter("differences") == 1
    assert (feed.book().bids(), feed.book().asks()) == (bids, asks)


@pytest.mark.req("OB-13")
def test_an_audit_that_is_not_answered_says_nothing_against_the_book():
    feed = audited()
    feed.tick(60)
    feed.answer()
    feed.tick(10)

    assert feed.book().is_live
    assert feed.session.close_reason is None
    assert feed.asked() == [("subscribe", [AAPL])]

    feed.heartbeat()
    feed.tick(60)
    assert feed.asked()[-1] == ("subscribe", [AAPL])


@pytest.mark.req("OB-13")
def test_without_an_interval_nothing_is_audited():
    feed = live_feed()
    for _ in range(100):
        feed.heartbeat()
        feed.tick(60)

    assert {message["action"] for message in feed.sent()} == {"pong"}


# ── an embedder's mistakes ────────────────────────────────────────────────────────────


class Raising(PythonSink):
    def __init__(self) -> None:
        self.raises = False
        self.flags: list[int] = []

    def quote(self, event) -> None:
        self.flags.append(event.flags)
        if self.raises:
            raise RuntimeError("the strategy has a bug")


@pytest.mark.req("F-29", "I-23")
def test_a_sink_that_raises_costs_trust_and_nothing_else():
    feed = live_feed(AAPL, MSFT, sink=Raising())
    feed.sink.raises = True
    feed.update(101, [(150.0, 1.0)])

    assert feed.counter("faults") >= 1
    assert not feed.book(AAPL).is_live
    assert not feed.book(MSFT).is_live
    assert any(event.kind == "fault" for event in feed.happened)


@pytest.mark.req("F-29", "I-03")
def test_a_sink_that_raises_does_not_keep_a_lost_connection_from_any_book():
    feed = live_feed(AAPL, MSFT, sink=Raising())
    feed.sink.raises = True
    feed.close()

    assert feed.session.state == State.CLOSED
    assert not feed.book(AAPL).is_live
    assert not feed.book(MSFT).is_live


class Leaving(Recorder):
    """A strategy that gives its only channel up at the first quote after a gap."""

    feed: Feed

    def quote(self, event) -> None:
        super().quote(event)
        if event.sequence == 101:
            self.feed.session.remove(AAPL)


def test_a_sink_that_gives_a_book_up_while_it_heals_is_not_given_the_rest():
    sink = Leaving()
    sink.feed = live_feed(sink=sink)
    book = sink.feed.book()
    for sequence in (102, 103, 104):
        sink.feed.update(sequence)
    sink.feed.quotes()
    sink.feed.update(101)

    # The one in hand may go on; those behind it do not.
    assert book.sequence <= 102
    assert all(quote.sequence <= 102 for quote in sink.feed.quotes())
    assert sink.feed.counter("faults") == 0


# ── one model of it all ───────────────────────────────────────────────────────────────


@pytest.mark.req("I-01", "I-03", "F-35")
@given(
    fates=st.lists(
        st.sampled_from(["", "", "", "lose", "double", "late", "corrupt"]), max_size=60
    ),
    reply_after=st.integers(1, 5),
)
@settings(max_examples=300, deadline=None)
def test_a_live_quote_is_the_venues_book_whatever_the_wire_does(fates, reply_after):
    feed = live_feed()
    truth = {100: 500.0}
    wire: list[Any] = []
    replies: list[int] = []
    late: list[bytes] = []
    for number, fate in enumerate(fates):
        sequence = 101 + number
        truth[sequence] = float(sequence)
        payload = json.dumps(
            book("orderbook_update", sequence, [(150.0, truth[sequence])], [])
        ).encode()
        wire = {
            "": [payload], "double": [payload, payload], "lose": [], "late": [],
            "corrupt": [payload[:-9]],
        }[fate] + late  # fmt: skip
        late = [payload] if fate == "late" else []
        for item in wire:
            feed.receive(item)
        feed.collect()
        if any(message["action"] == "subscribe" for message in feed.sent()):
            replies.append(number + reply_after)
        if replies and replies[0] <= number and not late:
            replies.pop(0)
            feed.snapshot(sequence, [(150.0, truth[sequence])], [(150.05, 1.0)])
            feed.collect()
            if any(message["action"] == "subscribe" for message in feed.sent()):
                replies.append(number + reply_after)
        for quote in feed.quotes():
            if quote.flags & LIVE:
                assert quote.bid_size == truth[quote.sequence]


@pytest.mark.req("F-30")
def test_a_hundred_malformed_frames_in_a_row_end_the_connection():
    feed = live_feed()
    for _ in range(99):
        assert not feed.receive(b"?") & Action.CLOSE
    feed.update(101)
    for _ in range(99):
        assert not feed.receive(b"?") & Action.CLOSE

    assert feed.receive(b"?") & Action.CLOSE


def test_trades_carry_the_number_of_the_connection_they_came_on():
    size = Ring.size_for(TRADE, 64)
    quotes, trades = bytearray(Ring.size_for(QUOTE, 64)), bytearray(size)
    board = Board(bytearray(Board.size_for(4, 10)), 4, 10)
    sink = Publisher(Ring(quotes, QUOTE, 64), Ring(trades, TRADE, 64), board)
    feed = Feed("trades:AAPL", sink=sink)
    reader = Reader(trades, start="oldest")
    trade = {
        "type": "trade",
        "data": {
            "symbol": "AAPL", "price": 1, "size": 1, "side": "sell", "trade_id": "t",
            "trade_time": TIME_MS,
        },
        "channel": "trades:AAPL",
        "timestamp": TIME_MS,
    }  # fmt: skip
    feed.receive(trade)
    feed.close()
    feed.open()
    feed.receive(trade)

    assert [flags >> 8 for flags in reader.poll()["flags"].tolist()] == [1, 2]

"""A feed that its caller drives."""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from feedhandler import Event, Feed, FeedConfig, PythonSink, attach
from feedhandler.config import build
from feedhandler.errors import ConnectionFailed, RingAbsent, RingBusy
from feedhandler.protocol.messages import OrderData, OrderUpdate
from feedhandler.secret import Secret
from feedhandler.testing.venue import RunningVenue
from tests.end_to_end.processes import unique

SECONDS = 15.0


def config(venue: RunningVenue, **more: Any) -> FeedConfig:
    return build(
        {
            "url": venue.url,
            "shm": {"name": unique("feed")},
            "codec": "scan",
            "limits": {"reconnect_base_s": 0.02, "reconnect_jitter": 0.0},
            "instruments": [{"symbol": "AAPL"}, {"symbol": "MSFT"}],
            **more,
        }
    )


def until(feed: Feed, probe: Callable[[], Any], what: str) -> int:
    """Poll until *probe* is true; return how many events that brought."""
    end = time.monotonic() + SECONDS
    events = 0
    while not probe():
        events += feed.poll()
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
    return events


class Heard(PythonSink):
    def __init__(self) -> None:
        self.count = 0

    def quote(self, event: Any) -> None:
        self.count += 1

    def trade(self, event: Any) -> None:
        self.count += 1


def test_polling_brings_the_market_and_counts_what_it_brought(feedhandler_venue):
    heard = Heard()
    told: list[Event] = []
    with Feed(config(feedhandler_venue), heard, told.append) as feed:
        feed.live(SECONDS)
        before = heard.count + len(told)
        events = until(feed, lambda: heard.count > 200, "the market")

        assert events == heard.count + len(told) - before
        assert feed.handler.book("AAPL").is_live
        with attach(feed.handler.config.shm.name) as market:
            assert market.top("AAPL").is_live
            assert market.status().state == "LIVE"
    with pytest.raises(RingAbsent):
        attach(feed.handler.config.shm.name)


def test_an_idle_poll_returns_at_once(feedhandler_venue):
    feedhandler_venue.do(lambda venue: venue.faults.freeze("orderbook:AAPL:10"))
    with Feed(config(feedhandler_venue, instruments=[{"symbol": "AAPL"}])) as feed:
        end = time.monotonic() + 1.0
        slow = 0
        while time.monotonic() < end:
            start = time.monotonic()
            feed.poll()
            slow += time.monotonic() - start > 0.05
        # Others use the machine, too; a poll that slept would do so each time.
        assert slow < 5


@pytest.mark.req("I-03")
def test_a_caller_that_stops_polling_finds_its_books_stale(feedhandler_venue):
    told: list[Event] = []
    settings = config(feedhandler_venue, stall_after=0.2)
    with Feed(settings, on_event=told.append) as feed:
        feed.live(SECONDS)
        time.sleep(0.5)
        until(feed, lambda: any(e.kind == "stall" for e in told), "the stall")
        until(feed, lambda: feed.handler.is_live, "being in time again")


def test_a_venue_that_restarts_is_found_again(feedhandler_venue):
    with Feed(config(feedhandler_venue)) as feed:
        feed.live(SECONDS)
        feedhandler_venue.do(lambda venue: venue.faults.close_all(1001, "going away"))
        until(feed, lambda: not feed.handler.is_live, "the end of the connection")
        until(feed, lambda: feed.handler.is_live, "all books again")


def test_a_feed_that_has_given_up_says_so_when_it_is_polled():
    settings = build(
        {
            "url": "ws://127.0.0.1:1",
            "shm": {"name": ""},
            "limits": {"reconnect_base_s": 0.0, "reconnect_attempts": 1},
            "instruments": [{"symbol": "AAPL"}],
        }
    )
    with (
        Feed(settings) as feed,
        pytest.raises(ConnectionFailed, match="Connect call failed"),
    ):
        until(feed, lambda: False, "the end")


def test_waiting_for_what_has_failed_ends_at_once(feedhandler_venue):
    settings = config(
        feedhandler_venue,
        credentials={"api_key": "key-of-nobody"},
        limits={"reconnect_base_s": 0.0, "reconnect_attempts": 0},
    )
    with (
        Feed(settings, secret=Secret("wrong")) as feed,
        pytest.raises(ConnectionFailed),
    ):
        feed.live(10 * SECONDS)


def test_a_name_that_is_taken_leaves_nothing_open(feedhandler_venue):
    settings = config(feedhandler_venue)
    with Feed(settings) as feed:
        other = Feed(settings)
        with pytest.raises(RingBusy):
            other.start()
        with pytest.raises(RuntimeError, match="not running"):
            other.poll()
        feed.live(SECONDS)


@pytest.mark.req("BP-07")
def test_symbols_come_and_go_between_polls(feedhandler_venue):
    limits = {"subscriptions_per_connection": 2}
    settings = config(feedhandler_venue, limits=limits)
    with Feed(settings) as feed:
        feed.live(SECONDS)
        feed.handler.subscribe("BTC-USD")
        until(feed, lambda: feed.handler.book("BTC-USD").is_live, "the new book")
        feed.handler.unsubscribe("AAPL")
        assert feed.handler.symbols == ["MSFT", "BTC-USD"]
        feed.live(SECONDS)


@pytest.mark.req("OV-05")
def test_orders_are_sent_and_answered_between_polls(feedhandler_venue):
    key, secret = feedhandler_venue.credentials
    heard: list[Any] = []
    settings = config(feedhandler_venue, credentials={"api_key": key})
    with Feed(settings, on_message=heard.append, secret=Secret(secret)) as feed:
        flow = feed.handler.flow
        until(feed, lambda: flow.is_ready, "the account")
        order = OrderData(
            symbol="AAPL", side="buy", type="limit", quantity=10, price=120.0
        )
        sent = flow.submit(order, time.monotonic_ns())
        answer = feed.handler.answer(sent)
        until(feed, answer.done, "the answer")

        assert answer.result().data.status == "accepted"
        until(
            feed, lambda: any(isinstance(m, OrderUpdate) for m in heard), "its update"
        )


def test_it_can_be_started_again(feedhandler_venue):
    feed = Feed(config(feedhandler_venue))
    for _ in range(2):
        feed.start()
        feed.live(SECONDS)
        feed.stop()
        feed.stop()
    feed.start()
    with pytest.raises(RuntimeError, match="already"):
        feed.start()
    feed.stop()


def offline(**more: Any) -> FeedConfig:
    """A feed that finds no venue, and goes on trying."""
    return build(
        {
            "url": "ws://127.0.0.1:1",
            "shm": {"name": ""},
            "limits": {"reconnect_base_s": 0.01, "reconnect_jitter": 0.0},
            "instruments": [{"symbol": "AAPL"}],
            **more,
        }
    )


def test_stop_and_poll_from_within_a_callback_are_refused_and_harm_nothing():
    refused: list[str] = []
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        for call in (feed.stop, feed.start, feed.poll):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))

    feed = Feed(offline(), on_event=on_event)
    feed.start()
    until(feed, lambda: len(told) > 3, "some events")
    assert len(refused) == 3 * len(told)
    feed.stop()
    assert not feed.handler.is_running


def test_in_a_running_loop_a_feed_neither_starts_nor_stops():
    feed = Feed(offline())

    async def call(what: Callable[[], None]) -> None:
        with pytest.raises(RuntimeError, match="running"):
            what()

    asyncio.run(call(feed.start))
    assert not feed.handler.is_running
    feed.start()
    asyncio.run(call(feed.stop))
    feed.poll()
    feed.stop()
    assert not feed.handler.is_running
    gc.collect()  # nothing is left that was never awaited or closed


def test_an_interrupt_in_a_callback_leaves_a_feed_that_can_be_stopped():
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if len(told) == 1:
            raise KeyboardInterrupt

    feed = Feed(offline(), on_event=on_event)
    with pytest.raises(KeyboardInterrupt), feed:
        until(feed, lambda: False, "the interrupt")
    assert not feed.handler.is_running
    feed.start()
    feed.stop()


def test_a_start_that_fails_late_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
):
    def refuse() -> None:
        raise RuntimeError("not in this process")

    feed = Feed(offline(loop={"gc": "beat"}))
    with monkeypatch.context() as patch:
        # Asked for when the connections have begun already.
        patch.setattr(gc, "disable", refuse)
        with pytest.raises(RuntimeError, match="not in this process"):
            feed.start()
    assert not feed.handler.is_running
    assert gc.isenabled()
    feed.start()
    feed.stop()


def test_an_instrument_that_wants_a_new_connection_comes_between_two_polls(
    feedhandler_venue,
):
    limits = {
        "reconnect_base_s": 0.02,
        "reconnect_jitter": 0.0,
        "subscriptions_per_connection": 2,
        "connections": 4,
    }
    settings = config(
        feedhandler_venue, limits=limits, instruments=[{"symbol": "AAPL"}]
    )
    with Feed(settings) as feed:
        feed.live(SECONDS)
        before = len(feed.handler.states)
        feed.handler.subscribe("MSFT")
        assert len(feed.handler.states) == before + 1
        until(feed, lambda: feed.handler.book("MSFT").is_live, "its book")


def test_an_order_is_sent_and_answered_between_two_polls(feedhandler_venue):
    key, secret = feedhandler_venue.credentials
    settings = config(
        feedhandler_venue,
        credentials={"api_key": key},
        trading={"commands": True, "cancel_on_exit": True},
    )
    with Feed(settings, secret=Secret(secret)) as feed:
        feed.live(SECONDS)
        flow = feed.handler.flow
        until(feed, lambda: flow.is_ready, "the account")
        # So low that it rests.
        order = OrderData("AAPL", "buy", "limit", 5, price=100.0)
        answer = feed.handler.answer(flow.submit(order, time.monotonic_ns()))
        until(feed, answer.done, "the answer")
        assert answer.result() is not None
        until(feed, lambda: len(flow.orders.open) == 1, "the order")
    assert not flow.orders.open

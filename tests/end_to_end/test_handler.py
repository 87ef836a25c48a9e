"""The feed handler in process, with the reference venue on the same loop."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from feedhandler import Event, FeedHandler, Flags, Instrument, PythonSink
from feedhandler.config import build
from feedhandler.consumer import attach
from feedhandler.errors import (
    ConfigError,
    ConnectionFailed,
    RingBusy,
    RingError,
    UnknownSymbol,
)
from feedhandler.tracker import HISTOGRAMS
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.faults import FaultPlan
from feedhandler.venue.server import Venue
from tests.end_to_end.processes import left_behind, unique

SECONDS = 15.0


def run(work: Callable[[Venue], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(4 * SECONDS):
            async with Venue(VenueConfig(port=0), FaultPlan()) as venue:
                await work(venue)

    asyncio.run(bounded())


async def eventually(probe: Callable[[], Any], what: str) -> Any:
    try:
        async with asyncio.timeout(SECONDS):
            while not (found := probe()):
                await asyncio.sleep(0.002)
            return found
    except TimeoutError:
        raise AssertionError(f"waited {SECONDS} s for {what}") from None


def config(venue: Venue, name: str, *symbols: str, **more: Any):
    return build(
        {
            "url": venue.url,
            "shm": {"name": unique(name)},
            "limits": {"reconnect_base_s": 0.02, "reconnect_jitter": 0.0},
            "instruments": [{"symbol": s} for s in symbols or ("AAPL",)],
            **more,
        }
    )


class Recorder(PythonSink):
    def __init__(self) -> None:
        self.quotes: list[Any] = []
        self.trades: list[Any] = []

    def quote(self, event: Any) -> None:
        self.quotes.append(event)

    def trade(self, event: Any) -> None:
        self.trades.append(event)


def test_a_book_goes_live_and_equals_what_the_board_says():
    async def work(venue: Venue) -> None:
        sink = Recorder()
        settings = config(venue, "live")
        async with FeedHandler(settings, sink=sink) as feed:
            await feed.live(SECONDS)
            with attach(settings.shm.name) as market:
                await eventually(lambda: len(sink.quotes) > 50, "quotes")
                await eventually(lambda: sink.trades, "a trade")
                book = feed.book("AAPL")
                depth = market.depth("AAPL")
                assert depth.bids.tolist() == [list(level) for level in book.bids(10)]
                assert depth.asks.tolist() == [list(level) for level in book.asks(10)]
                assert book.is_live
                assert book.bid_price < book.ask_price
                assert market.status().counters["quotes"] == len(sink.quotes)
        assert left_behind(settings.shm.name) == []

    run(work)


@pytest.mark.parametrize("wake", [True, False])
def test_readers_may_block_where_the_feed_wakes_them(wake: bool):
    async def work(venue: Venue) -> None:
        name = unique("wake")
        settings = config(venue, "wake", shm={"name": name, "wake": wake})
        async with FeedHandler(settings, sink=Recorder()) as feed:
            await feed.live(SECONDS)
            with attach(name) as market:
                quotes = market.quotes()
                if wake:
                    assert await asyncio.to_thread(quotes.wait, SECONDS, "block")
                    assert 0 < quotes.look().wake_seq <= quotes.look().head
                else:
                    with pytest.raises(
                        RingError, match=f"{name}.quotes' does not wake"
                    ):
                        quotes.wait(SECONDS, "block")
                    assert quotes.look().wake_seq == 0

    run(work)


def test_one_message_in_64_has_its_stages_timed():
    async def work(venue: Venue) -> None:
        settings = config(venue, "stages")
        async with FeedHandler(settings) as feed:
            await feed.live(SECONDS)
            with attach(settings.shm.name) as market:
                await eventually(lambda: market.histogram("apply_ns").count, "a sample")
                messages = feed.counters()["messages"]
                whole, decode, apply = map(market.histogram, HISTOGRAMS[:3])
                assert 1 <= apply.count <= decode.count <= messages // 64
                assert apply.count <= whole.count
                assert 0 < decode.max < 1_000_000_000
                if whole.count == 1 == decode.count:
                    assert decode.max + apply.max <= whole.max

    run(work)


@pytest.mark.req("F-34", "OB-14", "BP-16")
def test_a_lost_update_is_stale_before_anything_else_and_healed_by_a_snapshot():
    async def work(venue: Venue) -> None:
        sink, events = Recorder(), []
        async with FeedHandler(config(venue, "gap"), sink, events.append) as feed:
            await feed.live(SECONDS)
            await eventually(lambda: len(sink.quotes) > 20, "quotes")
            epoch = feed.book("AAPL").epoch
            venue.faults.skip("orderbook:AAPL:10", 1)
            await eventually(lambda: feed.counters()["gaps"], "the gap")
            await feed.live(SECONDS)

            flags = [quote.flags for quote in sink.quotes]
            lost = flags.index(Flags.STALE | Flags.GAP)
            after = flags[lost + 1 :]
            assert after[0] == Flags.LIVE | Flags.SNAPSHOT
            assert set(flags[1:lost]) == {Flags.LIVE}
            assert feed.book("AAPL").epoch == epoch + 1
            assert feed.counters()["resyncs"] == 1
            gap = next(event for event in events if event.kind == "gap")
            assert gap.detail["received"] == gap.detail["expected"] + 1
            sequences = [q.sequence for q in sink.quotes if q.flags & Flags.LIVE]
            assert sequences == sorted(set(sequences))

    run(work)


@pytest.mark.req("F-36")
def test_a_repeated_update_changes_nothing():
    async def work(venue: Venue) -> None:
        async with FeedHandler(config(venue, "twice")) as feed:
            await feed.live(SECONDS)
            venue.faults.repeat("orderbook:AAPL:10")
            await eventually(lambda: feed.counters()["duplicates"], "the repetition")
            assert feed.is_live
            assert feed.counters()["gaps"] == 0

    run(work)


@pytest.mark.req("CC-10", "RC-07", "F-06")
@pytest.mark.parametrize("code", [1001, 1011, 4004, None])
def test_a_closed_connection_is_stale_reconnected_and_live_again(code: int | None):
    async def work(venue: Venue) -> None:
        sink = Recorder()
        settings = config(venue, "close", "AAPL", "MSFT")
        async with FeedHandler(settings, sink) as feed:
            await feed.live(SECONDS)
            if code is None:
                venue.faults.abort_all()
            else:
                venue.faults.close_all(code, "test")
            await eventually(lambda: feed.counters()["disconnects"], "the close")
            await feed.live(SECONDS)
            stale = [q.instrument for q in sink.quotes if q.flags & Flags.STALE]
            assert sorted(stale) == [0, 1]
            assert feed.counters()["connects"] == 2

    run(work)


@pytest.mark.req("I-04", "BP-07")
def test_the_epochs_of_a_book_go_on_when_it_comes_back():
    async def work(venue: Venue) -> None:
        settings = config(venue, "epochs", "AAPL", "MSFT")
        async with FeedHandler(settings) as feed:
            await feed.live(SECONDS)
            first = feed.book("AAPL").epoch
            feed.unsubscribe("AAPL")
            feed.subscribe("AAPL")
            await feed.live(SECONDS)
            assert feed.book("AAPL").epoch == first + 1

    run(work)


@pytest.mark.req("BP-07", "SB-05")
def test_instruments_come_and_go_while_the_feed_runs():
    async def work(venue: Venue) -> None:
        settings = config(venue, "come")
        async with FeedHandler(settings) as feed:
            await feed.live(SECONDS)
            feed.subscribe(Instrument(symbol="MSFT", depth=5))
            feed.subscribe("BTC-USD")
            await feed.live(SECONDS)
            assert len(feed.book("MSFT").bids()) == 5
            with attach(settings.shm.name) as market:
                assert market.symbols() == ["AAPL", "MSFT", "BTC-USD"]
                feed.unsubscribe("MSFT")
                assert not market.is_live("MSFT")
                assert market.is_live("BTC-USD")
                with pytest.raises(UnknownSymbol):
                    feed.book("MSFT")
                feed.subscribe("MSFT")
                await feed.live(SECONDS)
                assert market.symbols() == ["AAPL", "MSFT", "BTC-USD"]
                assert market.is_live("MSFT")
            with pytest.raises(ConfigError, match="already"):
                feed.subscribe("AAPL")
            with pytest.raises(ValueError, match=r"'\.\./x'"):
                feed.subscribe("../x")
            with pytest.raises(UnknownSymbol):
                feed.unsubscribe("NONE")

    run(work)


@pytest.mark.req("A-29", "SB-07")
def test_a_symbol_that_the_venue_does_not_list_does_not_stop_the_others():
    async def work(venue: Venue) -> None:
        events: list[Event] = []
        settings = config(venue, "unlisted", "AAPL", "NOSUCH", "MSFT")
        async with FeedHandler(settings, on_event=events.append) as feed:
            await feed.live(SECONDS)
            assert feed.book("AAPL").is_live
            assert feed.book("MSFT").is_live
            rejected = {e.symbol for e in events if e.kind == "rejected"}
            assert rejected == {"NOSUCH"}

    run(work)


def test_a_feed_of_which_every_channel_was_refused_is_never_live():
    async def work(venue: Venue) -> None:
        events: list[Event] = []
        settings = config(venue, "none", "NOSUCH")
        async with FeedHandler(settings, on_event=events.append) as feed:
            await eventually(lambda: len(events) > 3, "the refusal")
            assert [e.kind for e in events].count("rejected") == 2
            assert not feed.is_live
            with pytest.raises(TimeoutError):
                await feed.live(0.05)

    run(work)


@pytest.mark.req("LM-02", "BP-06")
def test_more_channels_than_a_connection_takes_are_spread_over_several():
    async def work(venue: Venue) -> None:
        symbols = [symbol.name for symbol in venue.config.symbols]
        settings = config(venue, "spread", *symbols)
        values = {"connections": 2, "subscriptions_per_connection": 4}
        settings = build(
            {
                "url": venue.url,
                "shm": {"name": settings.shm.name},
                "limits": values,
                "instruments": [{"symbol": s} for s in symbols],
            }
        )
        async with FeedHandler(settings) as feed:
            await feed.live(SECONDS)
            assert len(feed.states) == venue.connections == 2
            with pytest.raises(ConfigError, match="do not fit"):
                feed.subscribe("MORE")

    run(work)


def test_a_sink_that_raises_is_counted_and_stops_nothing():
    class Faulty(PythonSink):
        def quote(self, event: Any) -> None:
            raise RuntimeError("a strategy's own mistake")

    async def work(venue: Venue) -> None:
        settings = config(venue, "faulty")
        events: list[Event] = []
        async with FeedHandler(settings, Faulty(), events.append) as feed:
            await feed.live(SECONDS)
            with attach(settings.shm.name) as market:
                quotes = market.quotes()
                await eventually(lambda: quotes.poll().size, "a quote in the ring")
            assert feed.counters()["sink_errors"] > 0
            assert feed.counters()["faults"] == 0
            assert feed.is_live
        assert any("sink" in event.detail for event in events)

    run(work)


def test_an_on_event_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture):
    def faulty(event: Event) -> None:
        raise RuntimeError("not today")

    async def work(venue: Venue) -> None:
        async with FeedHandler(config(venue, "on-event"), on_event=faulty) as feed:
            await feed.live(SECONDS)

    run(work)

    assert "on_event raised" in caplog.text


@pytest.mark.parametrize("codec", ["msgspec", "scan"])
def test_the_counters_say_how_many_messages_were_scanned(codec: str):
    async def work(venue: Venue) -> None:
        settings = config(venue, "scanned", codec=codec)
        async with FeedHandler(settings) as feed:
            await feed.live(SECONDS)
            if codec == "scan":
                await eventually(lambda: feed.counters()["scanned"] > 10, "scanning")
            else:
                await eventually(lambda: feed.counters()["updates"] > 10, "updates")
                assert feed.counters()["scanned"] == 0

    run(work)


def test_quotes_on_changes_only_are_fewer_and_the_depth_is_still_right():
    async def work(venue: Venue) -> None:
        sink = Recorder()
        settings = config(venue, "changes", publish="changes")
        async with FeedHandler(settings, sink) as feed:
            await feed.live(SECONDS)
            await eventually(lambda: feed.counters()["updates"] > 100, "updates")
            counters = feed.counters()
            assert counters["quotes"] < counters["updates"]
            tops = [
                (q.flags, q.bid_price, q.bid_size, q.ask_price, q.ask_size)
                for q in sink.quotes
            ]
            assert all(a != b for a, b in pairwise(tops))
            with attach(settings.shm.name) as market:
                bids = market.depth("AAPL").bids.tolist()
                assert bids == [list(level) for level in feed.book("AAPL").bids(10)]

    run(work)


@pytest.mark.req("OB-13", "BP-15")
def test_an_audit_of_a_sound_book_changes_nothing():
    async def work(venue: Venue) -> None:
        async with FeedHandler(config(venue, "audit", resync_interval=0.05)) as feed:
            await feed.live(SECONDS)
            epoch = feed.book("AAPL").epoch
            await eventually(lambda: feed.counters()["audits"] >= 2, "two audits")
            assert feed.counters()["differences"] == 0
            assert feed.book("AAPL").epoch == epoch
            assert feed.is_live

    run(work)


@pytest.mark.req("RC-06", "AU-16")
def test_waiting_for_a_venue_that_is_not_there_fails():
    async def work() -> None:
        settings = build(
            {
                "url": "ws://127.0.0.1:1",
                "shm": {"name": unique("nobody")},
                "limits": {"reconnect_base_s": 0.001, "reconnect_attempts": 2},
                "instruments": [{"symbol": "AAPL"}],
            }
        )
        async with FeedHandler(settings) as feed:
            assert math.isnan(feed.book("AAPL").bid_price)
            with pytest.raises(ConnectionFailed, match="after 3 attempts") as failed:
                await feed.live(SECONDS)
            assert failed.value.attempts == 3
            with pytest.raises(ConnectionFailed):
                await feed.wait()

    asyncio.run(work())


def test_a_second_feed_of_the_same_name_is_refused_and_the_first_goes_on():
    async def work(venue: Venue) -> None:
        settings = config(venue, "second")
        async with FeedHandler(settings) as feed:
            with pytest.raises(RingBusy):
                await FeedHandler(settings).start()
            await feed.live(SECONDS)

    run(work)

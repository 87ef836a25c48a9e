"""The venue and the feed handler, with a proxy between them that fails on purpose."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from picows import ws_connect

from feedhandler import FeedHandler, Flags
from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.testing import FaultProxy, FixedGap, MultiGap, RandomGap
from feedhandler.venue import Venue, VenueConfig
from tests.clients import Client
from tests.loops import SECONDS, eventually, run
from tests.proxied import BOOK, Quotes, books_are_equal, fed

# ── the venue behind the proxy ────────────────────────────────────────────────────────


def serve(scene: Callable[[Venue, FaultProxy], Awaitable[None]]) -> None:
    async def work() -> None:
        async with Venue(VenueConfig(port=0)) as venue, FaultProxy(venue.url) as proxy:
            await scene(venue, proxy)

    run(work)


async def subscribed(proxy: FaultProxy) -> Client:
    """Connect to the market and subscribe to a book."""
    _, client = await ws_connect(Client, proxy.url + MARKET_DATA)
    assert isinstance(client, Client)
    client.subscribe(BOOK)
    return client


def updates(client: Client) -> list[int]:
    return [
        message["data"]["sequence"]
        for message in client.on(BOOK)
        if message["type"] == "orderbook_update"
    ]


def lost_between(numbers: list[int]) -> list[int]:
    return [lost for a, b in pairwise(numbers) for lost in range(a + 1, b)]


@pytest.mark.req("F-35", "I-26")
@pytest.mark.parametrize(
    "gaps",
    [MultiGap(radix=16, length=3, total=4), RandomGap(0.1, seed=7)],
    ids=["multi", "random"],
)
def test_a_client_of_the_venue_misses_exactly_what_the_log_says(gaps):
    async def scene(venue: Venue, proxy: FaultProxy) -> None:
        proxy.down.gap(gaps)
        client = await subscribed(proxy)
        await client.until(lambda: len(updates(client)) > 120)
        seen = updates(client)
        told = [e.detail["sequence"] for e in proxy.log if e.kind == "gap"]
        first, last = seen[0], seen[-1]
        assert lost_between(seen) == [n for n in told if first < n < last]
        assert gaps.updates == len(told) >= 5
        runs = sum(b != a + 1 for a, b in pairwise([-9, *told]))
        assert gaps.gaps == runs
        client.transport.disconnect()
        await client.gone()

    serve(scene)


@pytest.mark.req("F-34")
def test_a_gap_of_the_venue_s_updates_is_where_it_was_asked_for():
    async def scene(venue: Venue, proxy: FaultProxy) -> None:
        client = await subscribed(proxy)
        await client.until(lambda: updates(client))
        place = updates(client)[-1] + 50
        gaps = FixedGap(place, 4)
        proxy.down.gap(gaps, channel=BOOK)
        await client.until(lambda: updates(client)[-1] > place + 10)
        assert lost_between(updates(client)) == list(range(place, place + 4))
        assert (gaps.gaps, gaps.updates) == (1, 4)
        client.transport.disconnect()
        await client.gone()

    serve(scene)


# ── the product's client behind the proxy ─────────────────────────────────────────────


@pytest.mark.req("F-34", "I-01", "I-03")
def test_the_feed_detects_each_gap_and_its_book_is_right_again():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        for length in (1, 2, 5, 30):
            gaps = FixedGap(feed.book("AAPL").sequence + 20, length)
            fault = proxy.down.gap(gaps)
            before = feed.counters()
            await eventually(lambda g=gaps, n=length: g.updates == n, "the loss")
            await eventually(
                lambda b=before: feed.counters()["gaps"] > b["gaps"], "its detection"
            )
            await feed.live(SECONDS)
            proxy.down.end(fault)
            after = feed.counters()
            assert after["gaps"] - before["gaps"] == 1
            assert after["resyncs"] - before["resyncs"] == 1
            assert gaps.gaps == 1
        assert sink.turns == [*["LIVE", "STALE"] * 4, "LIVE"]
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


@pytest.mark.req("F-35", "I-01", "I-14")
def test_many_gaps_cost_one_or_two_resyncs_each():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        gaps = MultiGap(radix=32, length=3, total=8)
        proxy.down.gap(gaps)
        await eventually(lambda: gaps.updates == 24, "the losses")
        await eventually(lambda: feed.counters()["gaps"] == 8, "the last gap")
        await feed.live(SECONDS)
        counters = feed.counters()
        assert gaps.gaps == 8
        assert 8 <= counters["resyncs"] <= 16
        live = [q.sequence for q in sink.quotes if q.flags & Flags.LIVE]
        assert live == sorted(set(live))
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


@pytest.mark.req("F-36", "F-37", "I-01")
def test_repeated_and_exchanged_updates_need_no_resync():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        proxy.down.duplicate(type="orderbook_update", count=3)
        await proxy.happened("duplicate", 3)
        await eventually(lambda: feed.counters()["duplicates"] == 3, "the copies")
        assert sink.turns == ["LIVE"]
        proxy.down.swap(type="orderbook_update")
        await proxy.happened("swap")
        await eventually(lambda: feed.book("AAPL").is_live, "the book")
        await books_are_equal(venue, feed)
        assert feed.counters()["disconnects"] == 0

    run(lambda: fed(scene))


@pytest.mark.req("F-06", "F-07", "I-03")
@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        ("reset", lambda proxy: proxy.reset()),
        ("half_close", lambda proxy: proxy.down.half_close()),
        ("limit", lambda proxy: proxy.down.limit_data(1000)),
        ("cut", lambda proxy: proxy.down.cut(20, type="orderbook_update")),
    ],
)
def test_a_cut_connection_turns_the_book_stale_and_is_made_again(kind, cut):
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        cut(proxy)
        await proxy.happened(kind)
        proxy.heal()
        await eventually(lambda: feed.counters()["disconnects"] == 1, "the end")
        await feed.live(SECONDS)
        assert sink.turns[-3:] == ["LIVE", "STALE", "LIVE"]
        assert feed.counters()["connects"] == 2
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


@pytest.mark.req("F-05", "F-01")
def test_a_handshake_that_is_swallowed_is_given_up_and_tried_again():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        proxy.blackhole()
        for connection in proxy.connections:
            connection.reset()
        await eventually(lambda: len(proxy.log) >= 3, "a handshake to be swallowed")
        assert not feed.is_live
        proxy.refuse()
        await eventually(lambda: feed.counters()["connects"] == 1, "the feed")
        proxy.heal()
        await feed.live(SECONDS)
        assert feed.counters()["connects"] == 2
        assert sink.turns[-3:] == ["LIVE", "STALE", "LIVE"]

    run(lambda: fed(scene, connect_timeout_s=0.1))


@pytest.mark.req("F-44")
def test_a_lost_snapshot_is_asked_for_again():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        proxy.down.drop(type="orderbook")
        proxy.down.drop(type="orderbook_update")
        await proxy.happened("drop", 2)
        assert not feed.is_live
        await feed.live(SECONDS)
        assert feed.counters()["disconnects"] == 0
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


@pytest.mark.req("F-08", "I-03")
def test_a_book_stays_stale_in_a_blackhole_and_comes_back_when_it_ends():
    """The hole opens on the request for a snapshot: it never leaves."""

    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        def shut(message: Any) -> bool:
            proxy.blackhole()
            return False

        proxy.up.drop(where=shut)
        proxy.down.drop(type="orderbook_update")
        await proxy.happened("blackhole")
        assert not feed.is_live
        proxy.heal()
        await feed.live(SECONDS)
        assert sink.turns == ["LIVE", "STALE", "LIVE"]
        assert feed.counters()["disconnects"] == 0
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


@pytest.mark.req("F-13", "F-10", "I-01")
def test_slices_and_latency_make_no_gap():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        proxy.down.slicer(7)
        proxy.up.latency(0.005, 0.005)
        await eventually(lambda: feed.counters()["updates"] > 50, "updates")
        proxy.heal()
        await books_are_equal(venue, feed)
        assert feed.counters()["gaps"] == 0
        assert proxy.counts["slicer"] == 1

    run(lambda: fed(scene))

"""Networks that are late or narrow, and those that cut and join what they carry."""

import asyncio
import statistics
from collections.abc import Awaitable, Callable

import pytest

from feedhandler import FeedHandler, Flags
from feedhandler.testing import FaultProxy
from feedhandler.venue import Venue, VenueConfig
from feedhandler.venue.connection import HIGH_WATER_BYTES
from tests.faults.backlog import (
    CONFIG,
    MOST_KEPT_BYTES,
    keep_little,
    kept_bytes,
    trade,
)
from tests.feeds import SOUND, book
from tests.loops import SECONDS, eventually, run
from tests.proxied import Quotes, base, books_are_equal, fed, settings
from tests.rawpeer import PING, PONG, TEXT, Peer, Server, frame

# ── late ──────────────────────────────────────────────────────────────────────────────


def lateness_s(sink: Quotes, begin: int) -> float:
    """Return how late the quotes from *begin* on were, at the median."""
    times = [quote.recv_ns - quote.venue_ns for quote in sink.quotes[begin:]]
    return statistics.median(times) / 1e9


@pytest.mark.req("F-10", "I-01", "I-23")
@pytest.mark.parametrize("delay_s", [0.001, 0.05, 0.5])
def test_latency_makes_quotes_as_late_as_it_is_and_costs_nothing_else(delay_s: float):
    """Heartbeats are late too: they come back after a second, and are answers."""
    jitter_s = delay_s / 5

    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        await eventually(lambda: len(sink.quotes) > 30, "quotes")
        usual_s = lateness_s(sink, 1)
        for faults in (proxy.down, proxy.up):
            faults.latency(delay_s, jitter_s, seed=1)
        begin = len(sink.quotes) + 10
        await eventually(lambda: len(sink.quotes) > begin + 60, "late quotes")
        added_s = lateness_s(sink, begin) - usual_s
        assert delay_s - jitter_s - 0.002 < added_s < delay_s + jitter_s + 0.05
        assert feed.counters()["heartbeats"] > 0
        proxy.heal()
        await books_are_equal(venue, feed)
        counters = feed.counters()
        assert (counters["gaps"], counters["disconnects"]) == (0, 0)
        assert sink.turns == ["LIVE"]

    config = VenueConfig(port=0, heartbeat_s=0.1, heartbeat_timeout_s=2.0)
    run(lambda: fed(scene, config, other_per_minute=1000))


# ── narrow ────────────────────────────────────────────────────────────────────────────


@pytest.mark.req("F-11", "I-17", "I-03")
def test_a_line_too_narrow_for_the_market_loses_the_connection_and_not_memory():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        keep_little(venue)
        proxy.reset()
        await eventually(lambda: feed.counters()["connects"] == 2, "another connection")
        await feed.live(SECONDS)
        proxy.down.bandwidth(64_000 // 8)
        (slow,) = venue._connections
        kept: list[int] = []

        def is_given_up() -> bool:
            trade(venue)
            kept.append(kept_bytes(venue))
            return slow.closing

        await eventually(is_given_up, "the venue's patience to end")
        assert HIGH_WATER_BYTES < max(kept) < MOST_KEPT_BYTES
        await eventually(lambda: not venue.connections, "the connection to go")
        proxy.heal()
        await eventually(lambda: feed.counters()["disconnects"] == 2, "the end")
        assert not feed.is_live
        await feed.live(SECONDS)
        assert feed.counters()["gaps"] == 0
        assert sink.turns == ["LIVE", "STALE"] * 2 + ["LIVE"]
        await books_are_equal(venue, feed)

    run(lambda: fed(scene, CONFIG))


@pytest.mark.req("F-11", "I-01")
def test_a_line_wide_enough_costs_nothing():
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        proxy.down.bandwidth(4_000_000 // 8)
        begin = len(sink.quotes)
        await eventually(lambda: len(sink.quotes) > begin + 100, "quotes")
        await books_are_equal(venue, feed)
        counters = feed.counters()
        assert (counters["gaps"], counters["disconnects"]) == (0, 0)
        assert proxy.counts["bandwidth"] == 1

    run(lambda: fed(scene, CONFIG))


# ── in pieces, and all at once ────────────────────────────────────────────────────────

Send = Callable[[Peer, FaultProxy, list[bytes]], Awaitable[None]]


async def synchronise(peer: Peer) -> None:
    """Return when the feed has taken everything that was sent."""
    await peer.send(frame(PING, b"sync"))
    while await peer.receive() != (PONG, b"sync"):
        pass


def quotes_of(count: int, send: Send) -> Quotes:
    """Return what a feed makes of a snapshot and *count* updates that *send* sends."""
    frames = [frame(TEXT, book("orderbook", 0, *SOUND))] + [
        frame(TEXT, book("orderbook_update", n, [(150.0, float(n))], []))
        for n in range(1, count + 1)
    ]
    sink = Quotes()
    done = asyncio.Event()
    proxy: FaultProxy

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await send(peer, proxy, frames)
        await synchronise(peer)
        done.set()
        await peer.goodbye()

    async def work() -> None:
        nonlocal proxy
        async with Server(script) as server, FaultProxy(base(server)) as proxy:
            async with FeedHandler(settings(proxy.url, "orderbook"), sink) as feed:
                await asyncio.wait_for(done.wait(), 4 * SECONDS)
                assert feed.counters()["gaps"] == 0
            assert set(proxy.counts) <= {"slicer", "stall"}

    run(work)
    return sink


def is_whole(sink: Quotes, count: int) -> bool:
    """Tell whether each update made one quote, in order, with its values."""
    *live, stale = sink.quotes
    return (
        [quote.sequence for quote in live] == list(range(count + 1))
        and [quote.bid_size for quote in live[1:]] == [*map(float, range(1, count + 1))]
        and all(quote.bid_price == 150.0 for quote in live)
        and all(quote.flags & Flags.LIVE for quote in live)
        and bool(stale.flags & Flags.STALE)
    )


@pytest.mark.req("F-13", "I-01")
@pytest.mark.parametrize("size_bytes", range(1, 8))
def test_slices_make_the_same_quotes(size_bytes: int):
    async def send(peer: Peer, proxy: FaultProxy, frames: list[bytes]) -> None:
        slices = proxy.down.slicer(size_bytes)
        await peer.send(*frames)
        await synchronise(peer)
        proxy.down.end(slices)
        assert proxy.counts["slicer"] == 1

    assert is_whole(quotes_of(30, send), 30)


@pytest.mark.req("F-14", "I-01")
def test_a_thousand_messages_at_once_are_a_thousand_quotes():
    async def send(peer: Peer, proxy: FaultProxy, frames: list[bytes]) -> None:
        await peer.send(frames[0])
        await synchronise(peer)
        held = proxy.down.stall()
        for each in frames[1:]:
            await peer.send(each)
        await proxy.happened("stall")
        (connection,) = proxy.connections
        pipe = connection.lanes[1].pipe
        size = sum(map(len, frames[1:]))
        await eventually(lambda: pipe._held_bytes == size, "all of it in the proxy")
        proxy.down.end(held)

    sink = quotes_of(1000, send)

    assert is_whole(sink, 1000)
    # One stamp for each read: they came in few.
    assert len({quote.recv_ns for quote in sink.quotes[1:-1]}) < 20

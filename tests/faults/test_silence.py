"""Networks that carry nothing any more and say so to nobody, both ways or one."""

import asyncio
import time
from collections.abc import Callable

import pytest

from feedhandler import FeedHandler
from feedhandler.testing import FaultProxy
from feedhandler.venue import Venue, VenueConfig
from tests.faults.segments import lose_all, needs_filters, sockets
from tests.loops import SECONDS, eventually, run
from tests.proxied import Quotes, books_are_equal, fed

# A feed that hears nothing for 10 s asks with a ping, and gives up after 10 s more. It
# looks ten times a second.
SILENCE_FOUND_WITHIN_S = 21.0


def lose_both_ways(proxy: FaultProxy) -> None:
    for end in sockets(proxy):
        lose_all(end)


@pytest.mark.stress
@pytest.mark.req("F-08", "F-09", "I-03")
@pytest.mark.parametrize(
    "silence",
    [
        FaultProxy.blackhole,
        lambda proxy: proxy.down.blackhole(),
        pytest.param(lose_both_ways, marks=needs_filters),
    ],
    ids=["both ways", "from the venue", "not even acknowledged"],
)
def test_a_silent_network_is_found_in_time_and_live_again_when_it_speaks(
    silence: Callable[[FaultProxy], object],
):
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        await eventually(lambda: len(sink.quotes) > 10, "quotes")
        began_ns = time.monotonic_ns()
        silence(proxy)
        async with asyncio.timeout(2 * SILENCE_FOUND_WITHIN_S):
            while sink.stale_ns is None:
                await asyncio.sleep(0.01)
        found_s = (sink.stale_ns - began_ns) / 1e9
        print(f"found after {found_s:.2f} s")
        assert found_s < SILENCE_FOUND_WITHIN_S
        assert feed.counters()["disconnects"] == 1
        proxy.heal()
        await feed.live(SECONDS)
        assert sink.turns == ["LIVE", "STALE", "LIVE"]
        await books_are_equal(venue, feed)

    run(lambda: fed(scene), seconds=3 * SILENCE_FOUND_WITHIN_S)


@pytest.mark.req("F-09", "HB-09", "I-03")
def test_a_feed_that_is_not_heard_is_sent_away_and_comes_back():
    """Its pongs are lost; what the venue says arrives, and at last its close frame."""

    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        (connection,) = proxy.connections
        connection.up.blackhole()
        await eventually(lambda: feed.counters()["disconnects"] == 1, "the close")
        await feed.live(SECONDS)
        counters = feed.counters()
        assert counters["heartbeats"] > 2
        assert (counters["connects"], counters["gaps"]) == (2, 0)
        assert sink.turns == ["LIVE", "STALE", "LIVE"]
        await books_are_equal(venue, feed)

    config = VenueConfig(port=0, heartbeat_s=0.1, heartbeat_timeout_s=0.4)
    run(lambda: fed(scene, config, other_per_minute=1000))

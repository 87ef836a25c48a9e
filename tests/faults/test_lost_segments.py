"""A network that loses TCP segments: some of them, or all of them for a while."""

import asyncio
import socket

import pytest

from feedhandler import FeedHandler
from feedhandler.errors import ConnectionFailed
from feedhandler.testing import FaultProxy
from feedhandler.venue import Venue
from tests.faults.segments import (
    lose,
    lose_all,
    lose_none,
    lost,
    needs_filters,
    sockets,
)
from tests.loops import SECONDS, run
from tests.proxied import (
    BOOK,
    Quotes,
    beside,
    books_are_equal,
    fed,
    settings,
)

STRESS = pytest.mark.stress


@needs_filters
@pytest.mark.req("F-12", "I-01")
@pytest.mark.parametrize(
    ("share", "updates"),
    [
        (0.05, 100),
        pytest.param(0.01, 2000, marks=STRESS),
        pytest.param(0.05, 2000, marks=STRESS),
        pytest.param(0.2, 2000, marks=STRESS),
    ],
)
def test_lost_segments_make_the_book_late_and_nothing_else(share: float, updates: int):
    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        ends = sockets(proxy)
        begin = len(sink.quotes)
        for end in ends:
            lose(end, share)
        async with asyncio.timeout(120):
            while len(sink.quotes) < begin + updates or not sum(map(lost, ends)):
                await asyncio.sleep(0.01)
        for end in ends:
            lose_none(end)
        await books_are_equal(venue, feed)
        counters = feed.counters()
        assert (counters["gaps"], counters["disconnects"]) == (0, 0)
        assert sink.turns == ["LIVE"]
        late = sorted((q.recv_ns - q.venue_ns) / 1e6 for q in sink.quotes[begin:])
        print(
            f"{share:.0%} lost, {sum(map(lost, ends))} segments: "
            f"p50 {late[len(late) // 2]:.1f} ms, p99 {late[len(late) * 99 // 100]:.1f} "
            f"ms, max {late[-1]:.1f} ms late"
        )

    run(lambda: fed(scene))


@needs_filters
@pytest.mark.req("F-18", "I-01", "I-03")
@pytest.mark.parametrize("updates", [150, pytest.param(1500, marks=STRESS)])
def test_a_network_that_is_down_for_a_while_costs_no_connection(updates: int):
    """For about a second, and ten: TCP repeats what was lost, and goes on."""

    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        other = await beside(venue.url)
        for end in sockets(proxy):
            lose_all(end)
        begin = len(other.messages)
        async with asyncio.timeout(60):
            while len(other.messages) < begin + updates:
                other.changed.clear()
                await other.changed.wait()
        told = other.on(BOOK)[-1]["data"]["sequence"]
        assert feed.book("AAPL").sequence < told - updates // 2
        for end in sockets(proxy):
            lose_none(end)
        async with asyncio.timeout(60):
            while feed.book("AAPL").sequence <= told:
                await asyncio.sleep(0.01)
        counters = feed.counters()
        assert (counters["gaps"], counters["disconnects"]) == (0, 0)
        assert sink.turns == ["LIVE"]
        sequences = [quote.sequence for quote in sink.quotes]
        assert sequences == list(range(sequences[0], sequences[-1] + 1))
        other.transport.disconnect()
        await other.gone()

    run(lambda: fed(scene))


@needs_filters
@pytest.mark.req("F-02", "I-20")
def test_a_venue_that_answers_no_syn_is_an_attempt_that_timed_out():
    async def work() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            lose_all(silent)
            url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
            limits = {"connect_timeout_s": 0.1, "reconnect_attempts": 2}
            async with FeedHandler(settings(url, **limits)) as feed:
                began = loop.time()
                with pytest.raises(ConnectionFailed, match="3 attempts") as failed:
                    await feed.live(SECONDS)
                took = loop.time() - began
        assert "Timeout" in str(failed.value)
        # Three times 100 ms, with 20 and 40 ms between them.
        assert 0.35 < took < 2.0

    run(work)

"""A feed that reads nothing for a while, because its process was stopped."""

import asyncio
import signal
from pathlib import Path

import pytest

from feedhandler import Flags
from feedhandler.consumer import MarketData
from feedhandler.testing import RunningVenue
from tests.end_to_end.processes import attached, program, unique, until
from tests.faults.backlog import (
    CONFIG,
    MOST_KEPT_BYTES,
    keep_little,
    kept_bytes,
    trade,
)
from tests.proxied import Read, is_the_venue_s

LATE_NS = 1_000_000_000
TOML = """
url = "{url}"
[shm]
name = "{name}"
[limits]
reconnect_base_s = 0.02
[[instruments]]
symbol = "AAPL"
channels = ["orderbook"]
"""


def kept_until_it_is_left(venue: RunningVenue) -> list[int]:
    """Let the venue trade until it gives its client up; return what it kept then."""
    (slow,) = venue.do(lambda v: list(v._connections))
    kept: list[int] = []

    def is_left() -> bool:
        venue.do(trade)
        kept.append(venue.do(kept_bytes))
        return slow.closing

    until(is_left, "the venue's patience to end")
    return kept


def levels(market: MarketData) -> Read | None:
    depth = market.depth("AAPL")
    if not depth.top.is_live:
        return None
    return depth.top.sequence, depth.bids.tolist(), depth.asks.tolist()


@pytest.mark.req("F-20", "I-17", "I-03")
def test_a_stopped_feed_is_left_by_the_venue_and_live_again_when_it_goes_on(
    tmp_path: Path,
):
    name = unique("stopped")
    config = tmp_path / "feed.toml"
    with RunningVenue(CONFIG) as venue:
        venue.do(keep_little)
        config.write_text(TOML.format(url=venue.url, name=name))
        with (
            program("run", "--config", str(config)) as feed,
            attached(name) as market,
        ):
            until(lambda: market.is_live("AAPL"), "a live book")
            first = market.top("AAPL").session_epoch
            quotes = market.quotes("oldest")
            until(lambda: market.counters()["updates"] > 20, "updates")

            feed.process.send_signal(signal.SIGSTOP)
            try:
                kept = kept_until_it_is_left(venue)
                assert 0 < max(kept) < MOST_KEPT_BYTES
                until(lambda: not venue.do(lambda v: v.connections), "the end")
                # The last quote says LIVE; its writer does not beat.
                assert market.status().state == "STALLED"
                assert market.top("AAPL").is_live
                assert not market.is_live("AAPL")
            finally:
                feed.process.send_signal(signal.SIGCONT)

            def is_another() -> bool:
                return market.is_live("AAPL") and (
                    market.top("AAPL").session_epoch > first
                )

            until(is_another, "another session's book")
            read = quotes.poll(1 << 20)
            assert any(read["flags"] & Flags.STALE)
            # What waited in the socket meanwhile is not of now.
            live = read[read["flags"] & Flags.LIVE != 0]
            assert max(live["recv_ns"] - live["venue_ns"]) < LATE_NS
            assert any(read["recv_ns"] - read["venue_ns"] > LATE_NS)
            asyncio.run(is_the_venue_s(venue.url, lambda: levels(market)))
            assert feed.process.poll() is None

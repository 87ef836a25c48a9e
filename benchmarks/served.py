"""A venue in a process of its own: ``python -m benchmarks.served WHAT PROCESSOR``.

It prints its URL. *market*: the traders of every symbol trade one after the other, as
fast as the venue can tell of it. *orders*: nobody trades but who sends orders.
"""

import asyncio
import os
import sys

import uvloop

from feedhandler.venue.config import (
    AccountConfig,
    LimitsConfig,
    TradersConfig,
    VenueConfig,
)
from feedhandler.venue.exchange import Exchange
from feedhandler.venue.server import Venue

KEY, SECRET = "bench", "no secret"
NO_LIMIT = 1 << 40
# How often each trader trades between two looks at the sockets.
STRIDE = 16


def config(traders: bool) -> VenueConfig:
    account = AccountConfig(
        id="acc-bench",
        api_key=KEY,
        secret=SECRET,
        balances={"USD": 1_000_000_000},
        positions={"AAPL": 1_000_000_000},
    )
    limits = LimitsConfig(orders_per_minute=NO_LIMIT, outbound_bytes=NO_LIMIT)
    # By its own clock the venue would trade once in a thousand seconds.
    trading = TradersConfig(enabled=traders, rate=0.001)
    return VenueConfig(port=0, accounts=[account], limits=limits, traders=trading)


async def trade(venue: Venue) -> None:
    """Trade while somebody keeps up with being told of it."""
    assert isinstance(venue.market, Exchange)
    while True:
        await asyncio.sleep(0)
        if not venue._subscribers or venue._congested():
            await asyncio.sleep(0.0001)
            continue
        now_ns = venue.now_ns()
        for trader in venue.market._traders * STRIDE:
            trader.step(now_ns)
        venue.acted()


async def main(what: str) -> None:
    async with Venue(config(traders=what == "market")) as venue:
        print(venue.url, flush=True)
        if what == "market":
            await trade(venue)
        await asyncio.Event().wait()


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    uvloop.run(main(sys.argv[1]))

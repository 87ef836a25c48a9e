"""Processes that do what a line on stdin tells them: a venue, and a reader of a feed.

``python -m benchmarks.told venue`` has fifty symbols and few traders. It says *ready*,
then *listening NS* after ``listen PORT``, *restarting NS* and *restarted NS* after
``restart``. ``python -m benchmarks.told reader NAME`` says *ready* after ``watch`` when
every book is LIVE, *stale FIRST ALL* when the first and the last of them is not, and
*live NS* when all of them are again. It spins meanwhile. Times are CLOCK_MONOTONIC.
"""

import asyncio
import sys
import time

import numpy as np
import uvloop

from feedhandler import Flags, attach
from feedhandler.consumer import MarketData, Stream
from feedhandler.venue import Venue, VenueConfig
from feedhandler.venue.config import SymbolConfig, TradersConfig

SYMBOLS = [f"S{number:02}" for number in range(50)]
ORDERS_A_SECOND = 2.0
# A feed takes a connection for a useful one when a heartbeat comes after a second.
HEARTBEAT_S = 0.5


def say(*words: object) -> None:
    print(*words, flush=True)


# ── the venue ─────────────────────────────────────────────────────────────────────────


def config(port: int) -> VenueConfig:
    return VenueConfig(
        port=port,
        heartbeat_s=HEARTBEAT_S,
        symbols=[SymbolConfig(name=name, previous_close=150.0) for name in SYMBOLS],
        traders=TradersConfig(rate=ORDERS_A_SECOND),
    )


async def serve() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    say("ready")
    line = await lines.readline()
    if not line:
        return
    async with Venue(config(port=int(line.split()[1]))) as venue:
        say("listening", time.monotonic_ns(), venue.port)
        while await lines.readline() == b"restart\n":
            say("restarting", time.monotonic_ns())
            await venue.restart()
            say("restarted", time.monotonic_ns())


# ── the reader ────────────────────────────────────────────────────────────────────────


class Books:
    """Which books are LIVE, by the quotes of a feed in another process."""

    def __init__(self, market: MarketData) -> None:
        self._market = market
        self._quotes: Stream = market.quotes()
        self.live = np.zeros(len(SYMBOLS), bool)

    def look(self) -> None:
        """Take the books as the board has them; what is in the ring is older."""
        while self._quotes.poll().size:
            pass
        self.live[:] = [self._market.top(symbol).is_live for symbol in SYMBOLS]

    def spin(self) -> int:
        """Wait for the next quotes, and return when they were there."""
        while not (records := self._quotes.poll()).size:
            pass
        now_ns = time.monotonic_ns()
        self.live[records["instrument"]] = records["flags"] & Flags.LIVE != 0
        return now_ns


def watch(name: str) -> None:
    with attach(name) as market:
        assert market.symbols() == SYMBOLS
        books = Books(market)
        while sys.stdin.readline() == "watch\n":
            books.look()
            while not books.live.all():
                books.spin()
            say("ready")
            first_ns = 0
            while books.live.any():
                now_ns = books.spin()
                if not books.live.all():
                    first_ns = first_ns or now_ns
            say("stale", first_ns, now_ns)
            while not books.live.all():
                now_ns = books.spin()
            say("live", now_ns)


if __name__ == "__main__":
    if sys.argv[1] == "venue":
        uvloop.run(serve())
    else:
        watch(sys.argv[2])

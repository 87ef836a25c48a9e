"""A feed of the venue with a proxy between them, and what a test asks about it."""

import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from picows import ws_connect

from feedhandler import FeedHandler, Flags, PythonSink
from feedhandler.config import FeedConfig, build
from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.testing import FaultProxy
from feedhandler.venue import Venue, VenueConfig
from tests.clients import Client
from tests.end_to_end.processes import unique
from tests.loops import SECONDS, eventually
from tests.rawpeer import Server

BOOK = "orderbook:AAPL:10"

Levels = list[tuple[float, float]]
Read = tuple[int, Levels, Levels]


class Quotes(PythonSink):
    """Keeps the quotes, and when each of them came."""

    def __init__(self) -> None:
        self.quotes: list[Any] = []
        self.came_ns: list[int] = []

    def quote(self, event: Any) -> None:
        self.quotes.append(event)
        self.came_ns.append(time.monotonic_ns())

    @property
    def turns(self) -> list[str]:
        """What the book was, without repetitions."""
        names = ["LIVE" if q.flags & Flags.LIVE else "STALE" for q in self.quotes]
        return [a for a, b in pairwise([*names, ""]) if a != b]

    @property
    def stale_ns(self) -> int | None:
        """When the book was first STALE after it was LIVE; None if it has not been."""
        live = False
        for quote, came_ns in zip(self.quotes, self.came_ns, strict=True):
            if live and not quote.flags & Flags.LIVE:
                return came_ns
            live = live or bool(quote.flags & Flags.LIVE)
        return None


def settings(url: str, *channels: str, **limits: Any) -> FeedConfig:
    """Return a feed's configuration that reconnects sooner than a user's would."""
    instrument: dict[str, Any] = {"symbol": "AAPL"}
    if channels:
        instrument["channels"] = channels
    return build(
        {
            "url": url,
            "shm": {"name": unique("proxy")},
            "limits": {
                "reconnect_base_s": 0.02,
                "reconnect_jitter": 0.0,
                "subscribe_per_minute": 1000,
            }
            | limits,
            "instruments": [instrument],
        }
    )


def base(server: Server) -> str:
    """Return the URL of a scripted venue, to which a feed adds the path."""
    return server.url.removesuffix(MARKET_DATA)


Scene = Callable[[Venue, FaultProxy, FeedHandler, Quotes], Awaitable[None]]


async def fed(scene: Scene, config: VenueConfig | None = None, **limits: Any) -> None:
    """Run a scene with a feed that is LIVE, of the venue through a proxy."""
    async with (
        Venue(config or VenueConfig(port=0)) as venue,
        FaultProxy(venue.url) as proxy,
    ):
        sink = Quotes()
        async with FeedHandler(settings(proxy.url, **limits), sink) as feed:
            await feed.live(SECONDS)
            await scene(venue, proxy, feed, sink)


async def beside(url: str) -> Client:
    """Subscribe somebody to the book with no proxy in between."""
    _, client = await ws_connect(Client, url + MARKET_DATA)
    assert isinstance(client, Client)
    client.subscribe(BOOK)
    return client


async def books_are_equal(venue: Venue, feed: FeedHandler) -> None:
    """Compare the feed's book with that of another client, which has no proxy."""
    book = feed.book("AAPL")

    def read() -> Read | None:
        return (book.sequence, book.bids(10), book.asks(10)) if book.is_live else None

    await is_the_venue_s(venue.url, read)


async def is_the_venue_s(url: str, read: Callable[[], Read | None]) -> None:
    """Compare what is read of a book with what another client knows of it then."""
    client = await beside(url)
    sides: dict[str, dict[float, float]] = {"bids": {}, "asks": {}}
    known: dict[int, tuple[Any, Any]] = {}
    seen = 0

    def found() -> tuple[Read, tuple[Any, Any]] | None:
        nonlocal seen
        told = client.on(BOOK)
        for message in told[seen:]:
            data = message["data"]
            for side, levels in sides.items():
                levels.update(map(tuple, data[side]))
                for price in [p for p, size in levels.items() if not size]:
                    del levels[price]
            bids, asks = (sorted(sides[side].items()) for side in ("bids", "asks"))
            known[data["sequence"]] = (bids[::-1], asks)
        seen = len(told)
        at = read()
        return (at, known[at[0]]) if at is not None and at[0] in known else None

    (_, bids, asks), theirs = await eventually(found, "both to be at one sequence")
    assert (list(map(tuple, bids)), list(map(tuple, asks))) == theirs
    client.transport.disconnect()
    await client.gone()

"""All four endpoints at once: a feed with an API key, and the reference venue."""

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from feedhandler import Event, FeedHandler, Flags
from feedhandler.config import FeedConfig, build
from feedhandler.errors import ConfigError, ConnectionFailed
from feedhandler.secret import Secret
from feedhandler.session import State
from feedhandler.testing import FaultProxy
from feedhandler.venue import Journal, Venue, VenueConfig
from feedhandler.venue.config import with_demo_account
from tests.end_to_end.processes import left_behind, unique
from tests.loops import SECONDS, eventually, run

NUMBERS = count()
SECRET = "an-end-to-end-secret"
PRIVATE = {
    "/ws/trading": ["user_orders", "user_trades", "account_updates"],
    "/ws/notifications": ["system_notifications", "user_notifications"],
    "/ws/custom": ["custom_alerts"],
}


class Scene:
    """A venue, a proxy in front of it, and what the venue noted."""

    def __init__(self, venue: Venue, proxy: FaultProxy, pages: io.BytesIO) -> None:
        self.venue = venue
        self.proxy = proxy
        self._pages = pages
        self.events: list[Event] = []
        self.messages: list[Any] = []

    def config(self, **more: Any) -> FeedConfig:
        values = {
            "url": self.proxy.url,
            "shm": {"name": f"{unique('endpoints')}-{next(NUMBERS)}"},
            "credentials": {"api_key": self.venue.credentials[0]},
            "limits": {"reconnect_base_s": 0.02, "reconnect_jitter": 0.0},
            "instruments": [{"symbol": "AAPL"}],
        }
        return build(values | more)

    def feed(self, secret: str = SECRET, **more: Any) -> FeedHandler:
        return FeedHandler(
            self.config(**more),
            on_event=self.events.append,
            on_message=self.messages.append,
            secret=Secret(secret),
        )

    def connections(self) -> dict[int, tuple[str, list[dict[str, Any]]]]:
        """Each connection's endpoint, and what it said, as the venue noted it."""
        found: dict[int, tuple[str, list[dict[str, Any]]]] = {}
        for line in self._pages.getvalue().splitlines():
            note = json.loads(line)
            if note["k"] == "open":
                found[note["c"]] = (note["endpoint"], [])
            elif note["k"] == "in":
                found[note["c"]][1].append(json.loads(note["m"]))
        return found

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def play(act: Callable[[Scene], Awaitable[None]]) -> None:
    async def work() -> None:
        pages = io.BytesIO()
        config = with_demo_account(VenueConfig(port=0), SECRET)
        async with (
            Venue(config, journal=Journal(pages)) as venue,
            FaultProxy(venue.url) as proxy,
        ):
            await act(Scene(venue, proxy, pages))

    run(work)


@pytest.mark.req("BP-01", "BP-05", "BP-22")
def test_every_endpoint_has_a_connection_and_only_its_own_channels():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            states = [health.state for health in feed.health()]
            assert states == [State.SUBSCRIBED] * 4
        told = dict(scene.connections().values())
        assert len(scene.connections()) == len(told) == 4
        for endpoint, channels in PRIVATE.items():
            first, second = told[endpoint]
            assert first["action"] == "authenticate"
            assert second["action"] == "subscribe"
            assert second["data"]["channels"] == channels
        (subscribe,) = told["/ws/market-data"]
        assert subscribe["action"] == "subscribe"
        assert subscribe["data"]["channels"] == ["orderbook:AAPL:10", "trades:AAPL"]

    play(act)


@pytest.mark.req("CN-01", "CN-02", "LC-06")
def test_the_life_of_every_connection_can_be_followed():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
        for name in ("market-data-1", "trading", "notifications", "custom"):
            states = [
                event.detail["to"]
                for event in scene.of("state")
                if event.detail["connection"] == name
            ]
            middle = [] if name == "market-data-1" else ["authenticated"]
            assert states == ["open", *middle, "subscribed", "closing", "closed"]
        ends = [(e.detail["code"], e.detail["reason"]) for e in scene.of("closed")]
        assert ends == [(1000, "")] * 4

    play(act)


@pytest.mark.req("RC-10", "AU-14", "RC-07")
def test_a_lost_connection_is_made_again_and_no_other_notices():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            epoch = feed.book("AAPL").epoch
            trading = next(
                connection
                for connection, (endpoint, _) in scene.connections().items()
                if endpoint == "/ws/trading"
            )
            order = sorted(scene.connections())
            scene.proxy.connections[order.index(trading)].reset()
            await eventually(lambda: scene.of("closed"), "the connection to be lost")
            await eventually(
                lambda: all(h.state is State.SUBSCRIBED for h in feed.health()),
                "all connections to be there",
            )
            assert feed.book("AAPL").epoch == epoch
            assert feed.book("AAPL").is_live
            assert [h.attempts for h in feed.health()] == [1, 2, 1, 1]
            (lost,) = scene.of("closed")
            assert lost.detail["connection"] == "trading"
        *_, (endpoint, told) = scene.connections().values()
        assert endpoint == "/ws/trading"
        assert [m["action"] for m in told] == ["authenticate", "subscribe"]
        assert told[1]["data"]["channels"] == PRIVATE[endpoint]

    play(act)


@pytest.mark.req("AU-11", "AU-16", "BP-20")
def test_a_wrong_secret_fails_the_private_endpoints_and_not_the_market():
    async def act(scene: Scene) -> None:
        async with scene.feed("a-wrong-secret") as feed:
            with pytest.raises(ConnectionFailed, match="authentication failed"):
                await feed.live(SECONDS)
            await eventually(lambda: len(scene.of("failed")) == 3, "three to fail")
            await eventually(lambda: feed.book("AAPL").is_live, "a live book")
            assert [h.failed is None for h in feed.health()] == [True, *[False] * 3]
            await eventually(
                lambda: feed.counters()["failed_connections"] == 3, "the gauge"
            )
        attempts = [endpoint for endpoint, _ in scene.connections().values()]
        assert len(attempts) == 4, "nobody tries a wrong secret twice"

    play(act)


@pytest.mark.req("LM-01", "I-16")
def test_a_sixth_connection_of_a_key_in_this_process_is_an_error_at_the_start():
    async def act(scene: Scene) -> None:
        first, second = scene.feed(), scene.feed()
        async with first:
            await first.live(SECONDS)
            with pytest.raises(ConfigError, match="has 5 connections in this process"):
                await second.start()
            assert left_behind(second.config.shm.name) == []
            assert first.is_live
        async with second:
            await second.live(SECONDS)

    play(act)


@pytest.mark.req("CN-05", "EP-07")
def test_a_feed_that_was_started_is_not_started_again():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            with pytest.raises(RuntimeError, match="started already"):
                await feed.start()
            assert feed.is_live
        assert len(scene.connections()) == 4

    play(act)


def test_a_key_without_a_secret_is_an_error_at_the_start():
    async def act(scene: Scene) -> None:
        feed = FeedHandler(scene.config())
        with pytest.raises(ConfigError, match="no secret"):
            await feed.start()
        assert left_behind(feed.config.shm.name) == []

    play(act)


@pytest.mark.req("AC-01", "SN-01", "MF-13")
def test_private_messages_reach_the_embedder_whatever_he_does_with_them(caplog):
    async def act(scene: Scene) -> None:
        def raise_at(message: Any) -> None:
            scene.messages.append(message)
            raise ValueError("not today")

        feed = FeedHandler(scene.config(), on_message=raise_at, secret=Secret(SECRET))
        async with feed:
            await feed.live(SECONDS)
            kinds = {"AccountUpdate", "SystemNotification"}
            await eventually(
                lambda: kinds <= {type(m).__name__ for m in scene.messages},
                "the account and the start of the venue",
            )
            assert feed.is_live

    play(act)

    assert "on_message raised" in caplog.text


def test_a_market_that_the_venue_halts_is_flagged_until_it_opens():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            book = feed.book("AAPL")
            assert not book.flags & Flags.MARKET_CLOSED
            scene.venue.halt("AAPL")
            await eventually(lambda: book.flags & Flags.MARKET_CLOSED, "the halt")
            assert book.is_live
            scene.venue.resume("AAPL")
            await eventually(lambda: not book.flags & Flags.MARKET_CLOSED, "the open")

    play(act)


def test_a_feed_that_comes_late_is_told_which_markets_are_closed():
    async def act(scene: Scene) -> None:
        scene.venue.halt("MSFT")
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            await eventually(lambda: len(scene.messages) >= 3, "the notifications")
            feed.subscribe("MSFT")
            await feed.live(SECONDS)
            assert feed.book("MSFT").flags & Flags.MARKET_CLOSED
            assert not feed.book("AAPL").flags & Flags.MARKET_CLOSED

    play(act)


@pytest.mark.req("BP-09", "F-58")
def test_a_loop_that_was_blocked_has_stale_books_until_it_has_caught_up():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            await asyncio.sleep(0.3)
            scene.events.clear()
            epoch = feed.book("AAPL").epoch
            asyncio.get_running_loop().call_soon(time.sleep, 1.5)
            await eventually(lambda: scene.of("live"), "the book to be live again")
            kinds = [event.kind for event in scene.events if event.symbol == "AAPL"]
            assert kinds == ["stale", "live"]
            assert feed.book("AAPL").epoch == epoch, "no snapshot was needed"
            assert feed.counters()["stalls"] >= 1
            assert feed.counters()["resyncs"] == 0

    play(act)


@pytest.mark.req("HB-08", "BP-04")
def test_the_health_of_the_connections_is_in_the_counters():
    async def act(scene: Scene) -> None:
        async with scene.feed() as feed:
            await feed.live(SECONDS)
            await eventually(
                lambda: feed.counters()["open_connections"] == 4, "the gauge"
            )
            ages = [health.heartbeat_age_s for health in feed.health()]
            assert all(age is not None and 0 <= age < SECONDS for age in ages)
            assert feed.counters()["heartbeat_age_ms"] <= max(ages) * 1000 + 1000

    play(act)

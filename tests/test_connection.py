"""Keeping one connection: attempts, delays, close codes, and an end in time."""

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from feedhandler.backoff import Backoff
from feedhandler.connection import Connection
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.session import State
from tests.feeds import AAPL, SOUND, Feed, book
from tests.rawpeer import CLOSE, TEXT, Peer, Server, close_frame, frame

SECONDS = 10.0
SNAPSHOT = frame(TEXT, book("orderbook", 100, *SOUND))

Script = Callable[[Peer], Awaitable[Any]]


class Waits:
    """What Connection asks to sleep for, in whole seconds; none of it is slept.

    Some of a delay is over when it begins to sleep.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds: list[int] = []
        patch.setattr(Connection, "_sleep", self.sleep)

    def sleep(self, seconds: float) -> Awaitable[None]:
        self.seconds.append(math.ceil(seconds))
        return asyncio.sleep(0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def feed_with(backoff: Backoff | None = None, forever: bool = False) -> Feed:
    """A feed whose session reconnects as it is told; without jitter by default."""
    reconnect = Reconnect(backoff or Backoff(jitter=0), forever)
    return Feed(AAPL, opened=False, reconnect=reconnect)


def connection_to(url: str, feed: Feed, **options: Any) -> Connection:
    return Connection(
        url,
        feed.session,
        lambda: feed.happened.extend(feed.session.take_events()),
        **options,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keep(
    script: Script, upgrade: bool = True, **options: Any
) -> tuple[Connection, int]:
    """Run a connection against *script* until it has failed."""
    feed = feed_with(options.pop("backoff", None))

    async def run() -> tuple[Connection, int]:
        async with Server(script, upgrade) as server, asyncio.timeout(SECONDS):
            connection = connection_to(server.url, feed, **options)
            await connection.run()
        return connection, server.connections

    return asyncio.run(run())


def closing_with(code: int) -> Script:
    async def script(peer: Peer) -> None:
        await peer.send(close_frame(code, b"because"))
        await peer.gone()

    return script


async def drop(peer: Peer) -> None:
    peer.reset()


DELAYS = [2**n for n in range(10)]


# ── attempts ──────────────────────────────────────────────────────────────────────────


@pytest.mark.req("RC-02", "RC-04", "F-01")
def test_a_venue_that_is_down_is_tried_ten_times_more_and_then_no_more(waits: Waits):
    feed = feed_with()
    connection = connection_to(f"ws://127.0.0.1:{free_port()}/", feed)
    asyncio.run(connection.run())

    assert waits.seconds == DELAYS
    assert connection.attempts == 11
    assert connection.failed
    assert connection.state == State.FAILED


@pytest.mark.req("RC-12", "BP-03", "BP-18")
def test_every_failed_attempt_is_logged_and_so_is_the_end(waits: Waits, caplog):
    feed = feed_with(Backoff(attempts=3, jitter=0))
    url = f"ws://127.0.0.1:{free_port()}/"
    connection = connection_to(url, feed)
    asyncio.run(connection.run())

    messages = [record.getMessage() for record in caplog.records]
    assert [text.split()[0] for text in messages] == ["reconnect"] * 3 + ["failed"]
    assert all(url in text for text in messages)


@pytest.mark.req("RC-11", "F-05")
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:%d/\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: d3Jvbmc=\r\n\r\n",
        b"\x16\x03\x01garbage\r\n\r\n",
        b"",
    ],
    ids=["302", "401", "503", "wrong key", "garbage", "nothing"],
)
def test_an_upgrade_that_fails_is_an_attempt_that_failed(waits: Waits, response: bytes):
    elsewhere = []

    async def other(reader: Any, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(1)
        writer.close()

    async def run() -> tuple[Connection, int]:
        target = await asyncio.start_server(other, "127.0.0.1", 0)
        port = target.sockets[0].getsockname()[1]

        async def script(peer: Peer) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(response.replace(b"%d", b"%d" % port))

        async with Server(script, upgrade=False) as server, asyncio.timeout(SECONDS):
            feed = feed_with(Backoff(attempts=2, jitter=0))
            connection = connection_to(server.url, feed)
            await connection.run()
        target.close()
        return connection, server.connections

    connection, connections = asyncio.run(run())

    assert connections == 3
    assert waits.seconds == [1, 2]
    assert connection.failed
    assert elsewhere == [], "a redirect was followed"


@pytest.mark.req("F-02", "F-05", "LC-01")
def test_a_peer_that_stalls_the_upgrade_is_left_in_time(waits: Waits):
    states = []
    feed = feed_with(Backoff(attempts=1))

    async def stall(peer: Peer) -> None:
        states.append(feed.session.state)
        await peer.gone()

    async def run() -> Connection:
        async with Server(stall, upgrade=False) as server, asyncio.timeout(SECONDS):
            connection = connection_to(server.url, feed, connect_timeout_s=0.05)
            await connection.run()
        return connection

    assert asyncio.run(run()).failed
    assert states == [State.CONNECTING] * 2


@pytest.mark.req("F-03")
@pytest.mark.parametrize(
    "url",
    ["ws://name.invalid/", "ws://a..b/", "ws://127.0.0.1:99999/", f"ws://{'x' * 70}/"],
    ids=["unknown", "empty label", "port", "long label"],
)  # fmt: skip
def test_an_address_that_leads_nowhere_fails_and_says_why(waits: Waits, url: str):
    feed = feed_with(Backoff(attempts=1, jitter=0))
    connection = connection_to(url, feed)
    asyncio.run(connection.run())

    assert connection.failed
    assert connection.state == State.FAILED


@pytest.mark.req("RC-01", "RC-02")
def test_retrying_forever_starts_the_delays_over(waits: Waits):
    feed = feed_with(Backoff(attempts=2, jitter=0), forever=True)

    async def run() -> None:
        connection = connection_to(f"ws://127.0.0.1:{free_port()}/", feed)
        running = asyncio.ensure_future(connection.run())
        while len(waits.seconds) < 6:
            await asyncio.sleep(0)
        await connection.close()
        await running
        assert connection.failed is None

    asyncio.run(run())

    assert waits.seconds[:6] == [1, 2, 1, 2, 1, 2]


@pytest.mark.req("RC-01")
def test_without_attempts_the_first_failure_is_the_last(waits: Waits):
    connection, connections = keep(drop, backoff=Backoff(attempts=0))

    assert connections == 1
    assert waits.seconds == []
    assert connection.failed == "closed with 1006 connection lost"


@pytest.mark.req("RC-05", "F-19", "A-34")
def test_a_peer_that_accepts_and_drops_does_not_start_the_delays_over(waits: Waits):
    connection, connections = keep(drop)

    assert connections == 11
    assert waits.seconds == DELAYS
    assert connection.failed


# ── close codes ───────────────────────────────────────────────────────────────────────

STOP: list[int] = []
BACKOFF = [1, 2, 4]
ONCE = [1]
TWICE = [2, 4, 8]
ZOMBIES = [90]
AT_ONCE = [0, *BACKOFF]
COOL_DOWN = [61, 61, 61]


@pytest.mark.parametrize(
    ("code", "delays"),
    [
        pytest.param(1000, BACKOFF, marks=pytest.mark.req("CC-01")),
        pytest.param(1001, AT_ONCE, marks=pytest.mark.req("CC-02", "A-35")),
        pytest.param(1006, BACKOFF, marks=pytest.mark.req("CC-03", "CC-11")),
        pytest.param(1008, STOP, marks=pytest.mark.req("CC-04")),
        pytest.param(1011, BACKOFF, marks=pytest.mark.req("CC-05")),
        pytest.param(4000, STOP, marks=pytest.mark.req("CC-06", "AU-11")),
        pytest.param(4001, COOL_DOWN, marks=pytest.mark.req("CC-07", "LM-09")),
        pytest.param(4002, STOP, marks=pytest.mark.req("CC-08", "A-29")),
        pytest.param(4003, ZOMBIES, marks=pytest.mark.req("CC-09", "A-08")),
        pytest.param(4004, BACKOFF, marks=pytest.mark.req("CC-10")),
        pytest.param(1002, ONCE, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1003, ONCE, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1007, ONCE, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1009, BACKOFF, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1010, ONCE, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1012, BACKOFF, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(1013, TWICE, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(3000, BACKOFF, marks=pytest.mark.req("CC-11", "A-36")),
        pytest.param(4999, BACKOFF, marks=pytest.mark.req("CC-11", "A-36")),
    ],
)
@pytest.mark.req("I-19")
def test_a_close_code_decides_what_is_done(waits: Waits, code: int, delays: list[int]):
    connection, connections = keep(
        closing_with(code), backoff=Backoff(attempts=3, jitter=0)
    )

    # What is done at once is not waited for.
    assert waits.seconds == [delay for delay in delays if delay]
    assert connections == len(delays) + 1
    if code != 1006:
        assert connection.failed == f"closed with {code} because"


@pytest.mark.req("CN-02", "CC-10")
@pytest.mark.parametrize("phase", ["before the snapshot", "live", "during a resync"])
def test_in_every_phase_a_restart_means_stale_and_another_connection(
    waits: Waits, phase: str
):
    feed = feed_with(Backoff(attempts=2, jitter=0))

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        if phase != "before the snapshot":
            await peer.send(SNAPSHOT)
        if phase == "during a resync":
            await peer.send(frame(TEXT, book("orderbook_update", 110, [], [])))
            await peer.message()
        await peer.send(close_frame(4004, b"restarting"))
        await peer.gone()

    async def run() -> int:
        async with Server(script) as server, asyncio.timeout(SECONDS):
            await connection_to(server.url, feed).run()
        return server.connections

    assert asyncio.run(run()) == 3
    assert feed.flags & (Flags.LIVE | Flags.STALE) == Flags.STALE
    subscribes = [
        event for event in feed.events("state") if event.detail["to"] == "open"
    ]
    assert len(subscribes) == 3


# ── our own close ─────────────────────────────────────────────────────────────────────


def close_after(
    script: Script, until: Callable[[Feed], bool], **options: Any
) -> tuple[Connection, int, float, Feed]:
    """Close the connection once *until* holds; return it, the connects and the time."""
    feed = feed_with(options.pop("backoff", None))

    async def run() -> tuple[Connection, int, float]:
        async with Server(script) as server, asyncio.timeout(SECONDS):
            connection = connection_to(server.url, feed, **options)
            running = asyncio.ensure_future(connection.run())
            while not until(feed):
                await asyncio.sleep(0)
            begun = time.monotonic()
            await connection.close()
            await running
            took = time.monotonic() - begun
            await asyncio.sleep(0.05)
        return connection, server.connections, took

    return *asyncio.run(run()), feed


@pytest.mark.req("CN-07", "CC-01", "EX-04")
def test_closing_sends_1000_and_does_not_reconnect():
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(SNAPSHOT)
        assert await peer.receive() == (CLOSE, b"\x03\xe8")
        await peer.send(close_frame(1000))
        await peer.gone()

    connection, connections, _, feed = close_after(
        script,
        lambda feed: feed.book().is_live,
        backoff=Backoff(base_ns=1_000_000, jitter=0),
    )

    assert connections == 1
    assert connection.failed is None
    assert feed.session.state == State.CLOSED
    assert feed.flags & Flags.STALE


@pytest.mark.req("CN-07", "F-16", "LC-05")
def test_a_venue_that_does_not_answer_the_close_is_left_in_time():
    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.gone()

    _, connections, took, feed = close_after(
        script,
        lambda feed: feed.session.state == State.SUBSCRIBED,
        close_timeout_s=0.05,
    )

    assert connections == 1
    assert 0.04 < took < 2
    assert feed.session.state == State.CLOSED


@pytest.mark.req("CN-07")
def test_closing_while_backing_off_ends_the_wait():
    connection, connections, took, _ = close_after(
        drop,
        lambda feed: feed.session.state == State.CLOSED,
        backoff=Backoff(base_ns=3_600_000_000_000),
    )

    assert connections == 1
    assert took < 1
    assert connection.failed is None


def test_closing_twice_and_before_the_start_is_no_mistake():
    feed = Feed(AAPL, opened=False)

    async def run() -> Connection:
        connection = connection_to("ws://127.0.0.1:1/", feed)
        await connection.close()
        await connection.close()
        await connection.run()
        connection.tick()
        connection.flush()
        return connection

    assert asyncio.run(run()).attempts == 0


@pytest.mark.req("RC-07", "SB-01")
def test_a_channel_added_while_open_is_subscribed_to_by_flush():
    feed = Feed(AAPL, opened=False)
    seen: list[list[str]] = []

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        request = await peer.message()
        seen.append(request["data"]["channels"])
        await peer.send(close_frame(1008))
        await peer.gone()

    async def run() -> None:
        async with Server(script) as server, asyncio.timeout(SECONDS):
            connection = connection_to(server.url, feed)
            running = asyncio.ensure_future(connection.run())
            while feed.session.state != State.SUBSCRIBED:
                await asyncio.sleep(0)
            feed.session.add("trades:AAPL", 0)
            while not running.done():
                connection.flush()
                await asyncio.sleep(0)

    asyncio.run(run())

    assert seen == [["trades:AAPL"]]

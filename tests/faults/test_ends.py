"""Connections that end: inside any byte of a message, in our kernel, and always."""

import asyncio
import shutil
import socket
import subprocess
import threading
from typing import Any

import pytest
import uvloop

from feedhandler import FeedHandler, Flags
from feedhandler.protocol.limits import PER_MINUTE, RateClass
from feedhandler.testing import FaultProxy
from feedhandler.testing.connection import LINGER_0
from feedhandler.testing.thread import LoopThread
from feedhandler.venue import Venue
from tests.feeds import SOUND, book
from tests.loops import SECONDS, eventually, run
from tests.proxied import Quotes, base, books_are_equal, fed, settings
from tests.rawpeer import CONTINUATION, PING, TEXT, Peer, Server, frame

SNAPSHOT = frame(TEXT, book("orderbook", 100, *SOUND))


# ── inside a message ──────────────────────────────────────────────────────────────────


def update(sequence: int, **more: Any) -> dict[str, Any]:
    return book("orderbook_update", sequence, [(150.0, float(sequence))], []) | more


def pieces() -> list[tuple[bytes, bool]]:
    """What follows a snapshot: frames, and whether each ends an update of the book."""
    whole = frame(TEXT, update(102, note="é" * 4))
    payload = whole[4:]
    assert whole[1] == 126, "the length is in two bytes of their own"
    return [
        (frame(TEXT, update(101)), True),
        (frame(PING, b"between"), False),
        (frame(TEXT, payload[:100], fin=False), False),
        (frame(PING, b"inside"), False),
        (frame(CONTINUATION, payload[100:]), True),
    ]


STREAM = b"".join(piece for piece, _ in pieces())


def applied(cut: int) -> list[int]:
    """Return the sequences of the updates that *cut* bytes hold whole."""
    sequences, size = [100], 0
    for piece, is_update in pieces():
        size += len(piece)
        if is_update and size <= cut:
            sequences.append(sequences[-1] + 1)
    return sequences


@pytest.mark.req("F-15", "I-01", "I-05")
def test_a_stream_that_is_cut_anywhere_has_applied_its_whole_messages_and_no_more():
    cuts = iter(range(len(STREAM) + 1))
    tried: list[int] = []
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        cut = next(cuts, None)
        if cut is None:
            done.set()
            await peer.goodbye()
            return
        tried.append(cut)
        await peer.send(SNAPSHOT)
        await peer.send(STREAM[:cut])
        peer.writer.write_eof()
        await peer.gone()

    sink = Quotes()

    async def work() -> None:
        async with Server(script) as server:
            limits = {"reconnect_base_s": 0.0, "retry_forever": True}
            config = settings(base(server), "orderbook", **limits)
            async with FeedHandler(config, sink):
                await asyncio.wait_for(done.wait(), 4 * SECONDS)

    run(work)

    lives: list[list[Any]] = [[]]
    for quote in sink.quotes:
        lives[-1].append(quote)
        if not quote.flags & Flags.LIVE:
            lives.append([])
    assert len(STREAM) > 300
    assert tried == list(range(len(STREAM) + 1))
    assert lives.pop() == []
    for cut, quotes in zip(tried, lives, strict=True):
        *live, stale = quotes
        assert [quote.sequence for quote in live] == applied(cut), cut
        assert stale.flags & Flags.STALE
        assert (stale.sequence, stale.bid_size) == (
            live[-1].sequence,
            live[-1].bid_size,
        )


# ── in our kernel ─────────────────────────────────────────────────────────────────────


def kill_sockets(port: int) -> str:
    """Have the kernel abort the sockets connected to *port*; return what it said."""
    command = ["ss", "-K", "-t", "-n", "-H", "dport", "=", f":{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def is_allowed_to_kill() -> bool:
    """Tell by trying: without the right, or the kernel's support, nothing is killed."""
    if shutil.which("ss") is None:
        return False
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as victim, server.accept()[0]:
            kill_sockets(address[1])
            victim.settimeout(0.5)
            try:
                victim.recv(1)
            except ConnectionAbortedError:
                return True
            except TimeoutError:
                return False
    return False


@pytest.mark.req("F-17", "I-22")
def test_a_socket_that_is_killed_on_our_side_is_stale_and_connected_again():
    if not is_allowed_to_kill():
        pytest.skip("ss -K kills no socket here: no CAP_NET_ADMIN, or no support")

    async def scene(
        venue: Venue, proxy: FaultProxy, feed: FeedHandler, sink: Quotes
    ) -> None:
        kill_sockets(proxy.port)
        await eventually(lambda: feed.counters()["disconnects"] == 1, "the end")
        await feed.live(SECONDS)
        assert sink.turns == ["LIVE", "STALE", "LIVE"]
        assert feed.counters()["connects"] == 2
        await books_are_equal(venue, feed)

    run(lambda: fed(scene))


# ── behind a message ──────────────────────────────────────────────────────────────────


class Busy(Quotes):
    """A sink that keeps the loop from reading, from its first quote until *over*."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.over = threading.Event(), threading.Event()

    def quote(self, event: Any) -> None:
        super().quote(event)
        self.begun.set()
        assert self.over.wait(SECONDS)


@pytest.mark.req("F-06", "I-03")
@pytest.mark.parametrize(
    ("loop", "how"),
    [
        ("asyncio", "FIN"),
        ("asyncio", "RST"),
        ("uvloop", "FIN"),
        ("uvloop", "RST"),
    ],
)
def test_an_end_right_behind_a_message_is_stale_at_once(loop: str, how: str):
    """A feed finds both in its socket when it reads again."""
    sink = Busy()

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await peer.send(SNAPSHOT)
        await asyncio.to_thread(sink.begun.wait, SECONDS)
        await peer.send(frame(TEXT, update(101)))
        if how == "RST":
            peer.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0
            )
        peer.writer.transport.abort()
        # The socket is closed in the loop's next turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sink.over.set()

    async def work(url: str) -> None:
        async with FeedHandler(settings(url, "orderbook"), sink):
            async with asyncio.timeout(0.5):
                while sink.turns != ["LIVE", "STALE"]:
                    await asyncio.sleep(0.001)

    server = Server(script)
    other = LoopThread("venue")
    try:
        other.wait(server.__aenter__())
        factory = uvloop.new_event_loop if loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work(base(server)))
    finally:
        other.finish(server.__aexit__)

    assert [quote.sequence for quote in sink.quotes] == [100, 101, 101]


# ── again and again ───────────────────────────────────────────────────────────────────

BASE_S = 0.00005
ATTEMPTS = 10
DROPS = 100


@pytest.mark.req("F-19", "I-14", "I-20")
@pytest.mark.parametrize(
    "hold_s", [0.0, 0.01, pytest.param(0.5, marks=pytest.mark.stress)]
)
def test_a_venue_that_drops_whoever_it_accepts_is_asked_less_and_less(hold_s: float):
    """A hundred times: after ten, as a user wants who retries for ever, from the start.

    The first delay is a twenty-thousandth of the reference's.
    """
    begun: list[float] = []
    ended: list[float] = []
    subscribes: list[dict[str, Any]] = []
    open_now: list[int] = []

    async def script(peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        begun.append(loop.time())
        open_now.append(len(begun) - len(ended))
        if hold_s:
            try:
                async with asyncio.timeout(hold_s):
                    while True:
                        subscribes.append(await peer.message())
            except TimeoutError:
                pass
        ended.append(loop.time())
        peer.reset()

    sink = Quotes()

    async def work() -> None:
        async with Server(script) as server:
            limits = {
                "reconnect_base_s": BASE_S,
                "reconnect_attempts": ATTEMPTS,
                "retry_forever": True,
                "subscribe_per_minute": 45,
            }
            config = settings(base(server), "orderbook", **limits)
            async with FeedHandler(config, sink) as feed, asyncio.timeout(180):
                while len(ended) < DROPS:
                    await asyncio.sleep(0.001)
                assert not feed.is_live

    run(work)

    waits = [b - e for e, b in zip(ended, begun[1:], strict=False)][: DROPS - 1]
    delays = [BASE_S * 2 ** (n % ATTEMPTS) for n in range(DROPS - 1)]
    assert all(wait >= 0.9 * delay for wait, delay in zip(waits, delays, strict=True))
    assert sum(waits) < sum(delays) + DROPS * 0.05
    assert set(open_now) == {1}, "more than one attempt at a time"
    assert len(subscribes) <= 45 < PER_MINUTE[RateClass.SUBSCRIBE]
    assert bool(subscribes) == bool(hold_s)

"""What no echo shows of RFC 6455: the ends of a connection, and its beginning.

Raw sockets against the classes that are shipped: as a client of the venue, then as a
venue of the client.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from feedhandler.backoff import Backoff
from feedhandler.connection import Connection
from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.reconnect import Reconnect
from feedhandler.records import Flags
from feedhandler.session import State
from feedhandler.venue.connection import CLOSE_DEADLINE_S
from tests.clients import eventually
from tests.feeds import AAPL, SOUND, Feed, Recorder, book
from tests.rawpeer import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    Server,
    close_frame,
    frame,
)
from tests.rfc6455.server import EchoGateway, EchoVenue, config

SECONDS = 15.0
REQUEST = (
    f"GET {MARKET_DATA} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()
HELLO = frame(TEXT, b"hello", masked=True)
# One breach that is left to us, and one that picows answers before it hands it on.
BREACHES = [frame(TEXT, b"", rsv=4, masked=True), frame(3, b"", masked=True)]
BREACH = BREACHES[0]
BYE = frame(CLOSE, b"\x03\xe8", masked=True)


# ── a client of the venue ─────────────────────────────────────────────────────────────


class Raw:
    """A socket to the venue; frames come as opcode and payload."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def upgrade(self, behind: bytes = b"") -> None:
        self.writer.write(REQUEST + behind)
        await self.upgraded()

    async def upgraded(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")

    async def receive(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int:
        opcode, payload = await self.receive()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big")

    async def rest(self) -> bytes:
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


class Fragile(EchoGateway):
    """A gateway with a fault of ours."""

    def receive(self, payload: bytes, now_ns: int) -> Any:
        if payload == b"raise":
            raise RuntimeError("a fault of ours")
        return super().receive(payload, now_ns)


class FragileVenue(EchoVenue):
    gateway = Fragile


def meet_venue(script: Callable[[Raw], Awaitable[None]]) -> None:
    """Let *script* have a socket to a venue that echoes; it is alone at the end."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), FragileVenue(config(4096)) as venue:
            reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
            await script(Raw(reader, writer))
            writer.close()
            await eventually(lambda: not venue.connections)

    asyncio.run(run())


@pytest.mark.req("F-28")
def test_the_venue_answers_nothing_that_comes_after_a_close_frame():
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        raw.writer.write(HELLO + BYE + HELLO + frame(PING, b"?", masked=True))

        assert await raw.receive() == (TEXT, b"hello")
        assert await raw.closed_with() == 1000
        assert await raw.rest() == b""

    meet_venue(script)


@pytest.mark.req("F-28", "F-16")
@pytest.mark.parametrize("breach", BREACHES, ids=["ours", "picows"])
def test_the_venue_answers_no_ping_after_its_own_close_frame(breach: bytes):
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        raw.writer.write(breach)
        assert await raw.closed_with() == 1002
        raw.writer.write(frame(PING, b"?", masked=True) + HELLO)
        await raw.writer.drain()
        raw.writer.write(BYE)

        assert await raw.rest() == b""

    meet_venue(script)


@pytest.mark.req("F-16")
def test_the_venue_leaves_a_client_that_does_not_answer_its_close_frame_in_time():
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        raw.writer.write(BREACH)
        assert await raw.closed_with() == 1002
        closed = time.monotonic()
        assert await raw.rest() == b""

        assert CLOSE_DEADLINE_S - 0.5 < time.monotonic() - closed < CLOSE_DEADLINE_S + 2

    meet_venue(script)


@pytest.mark.req("F-16")
def test_the_venue_ends_the_connection_itself_when_both_have_closed():
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        started = time.monotonic()
        raw.writer.write(BYE)
        assert await raw.closed_with() == 1000
        assert await raw.rest() == b""

        assert time.monotonic() - started < CLOSE_DEADLINE_S / 2

    meet_venue(script)


@pytest.mark.req("F-29", "F-102")
def test_frames_of_one_read_behind_a_fault_of_the_venue_are_not_taken():
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        raw.writer.write(
            HELLO
            + frame(TEXT, b"raise", masked=True)
            + HELLO
            + frame(PING, b"?", masked=True)
        )

        assert await raw.receive() == (TEXT, b"hello")
        assert await raw.closed_with() == 1011
        raw.writer.write(BYE)
        assert await raw.rest() == b""

    meet_venue(script)


@pytest.mark.parametrize("first", [0, 1, len(HELLO) - 1, len(HELLO)])
def test_a_frame_right_behind_the_request_is_taken(first: int):
    async def script(raw: Raw) -> None:
        await raw.upgrade(HELLO[:first])
        raw.writer.write(HELLO[first:])

        assert await raw.receive() == (TEXT, b"hello")

    meet_venue(script)


def test_a_request_may_come_a_byte_at_a_time():
    async def script(raw: Raw) -> None:
        for byte in REQUEST + HELLO:
            raw.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await raw.upgraded()

        assert await raw.receive() == (TEXT, b"hello")

    meet_venue(script)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(
    "line", [b"X: " + b"x" * 70_000, b"X: x\r\n" * 12_000], ids=["long", "many"]
)
def test_a_request_without_end_is_cut(line: bytes):
    async def script(raw: Raw) -> None:
        started = time.monotonic()
        raw.writer.write(REQUEST[:-2] + line)
        answer = await raw.rest()

        assert not answer.startswith(b"HTTP/1.1 101")
        assert time.monotonic() - started < 4.0

    meet_venue(script)


@pytest.mark.req("F-23")
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_the_venue_refuses_a_frame_that_is_not_masked(opcode: int):
    async def script(raw: Raw) -> None:
        await raw.upgrade()
        raw.writer.write(frame(opcode, b"\x03\xe8"))
        assert await raw.closed_with() == 1002
        raw.writer.write(BYE)

        assert await raw.rest() == b""

    meet_venue(script)


# ── a venue of the client ─────────────────────────────────────────────────────────────


def meet_client(
    script: Callable[[Peer, Connection], Awaitable[None]],
    upgrade: bool = True,
    **options: Any,
) -> Feed:
    """Let *script* be the venue of a feed once; return the feed."""
    once = Reconnect(Backoff(attempts=0))
    feed = Feed(AAPL, opened=False, reconnect=once, **options)
    done: list[bool] = []
    connection: Connection

    async def whole(peer: Peer) -> None:
        await script(peer, connection)
        done.append(True)

    async def run() -> None:
        nonlocal connection
        async with Server(whole, upgrade) as server, asyncio.timeout(SECONDS):
            connection = Connection(
                server.url,
                feed.session,
                lambda: feed.happened.extend(feed.session.take_events()),
            )
            running = asyncio.ensure_future(connection.run())
            while not running.done():
                connection.tick()
                await asyncio.wait([running], timeout=0.02)
            running.result()

    asyncio.run(run())
    assert done, "the peer did not get to the end of its script"
    return feed


def snapshot(sequence: int = 100) -> bytes:
    return frame(TEXT, book("orderbook", sequence, *SOUND))


def update(sequence: int) -> bytes:
    return frame(TEXT, book("orderbook_update", sequence, [(150.0, 7.0)], []))


@pytest.mark.req("F-16", "LC-05")
def test_the_client_leaves_a_venue_that_does_not_answer_its_close_frame_in_time():
    async def script(peer: Peer, connection: Connection) -> None:
        await peer.subscribed()
        started = time.monotonic()
        closing = asyncio.ensure_future(connection.close())
        assert await peer.close_code() == 1000
        assert await peer.gone() == b""
        await closing

        assert 1.5 < time.monotonic() - started < 4.0

    assert meet_client(script).session.state == State.CLOSED


@pytest.mark.req("F-16", "LC-05")
def test_the_client_waits_for_no_venue_that_has_closed_and_holds_the_socket():
    async def script(peer: Peer, connection: Connection) -> None:
        await peer.subscribed()
        started = time.monotonic()
        await peer.send(close_frame(1000))
        assert await peer.close_code() == 1000
        assert await peer.gone() == b""

        assert time.monotonic() - started < 1.0

    meet_client(script)


@pytest.mark.req("F-28")
@pytest.mark.parametrize("opcode", [CONTINUATION, 3], ids=["ours", "picows"])
def test_the_client_takes_nothing_after_its_own_close_frame(opcode: int):
    async def script(peer: Peer, connection: Connection) -> None:
        await peer.subscribed()
        await peer.send(snapshot())
        await peer.send(frame(PING, b"taken"))
        assert await peer.receive() == (PONG, b"taken")
        await peer.send(frame(opcode, b""))
        assert await peer.close_code() == 1002
        await peer.send(update(101), frame(PING, b"?"), frame(TEXT, b"\xff"))
        await peer.send(close_frame(1002))

        assert await peer.gone() == b""

    feed = meet_client(script)

    assert feed.book().sequence == 100
    assert feed.counter("malformed") == 1


class Breaking(Recorder):
    """A sink with a fault in it, at one sequence."""

    def quote(self, event: Any) -> None:
        super().quote(event)
        if event.sequence == 102:
            raise RuntimeError("a fault of an embedder")


@pytest.mark.req("F-29")
def test_a_fault_at_one_frame_of_a_read_leaves_no_book_that_says_it_is_live():
    async def script(peer: Peer, connection: Connection) -> None:
        await peer.subscribed()
        await peer.send(snapshot(), *map(update, range(101, 106)))
        request = await peer.message()
        assert request["data"]["channels"] == [AAPL]
        await peer.send(frame(PING, b"end"), close_frame(1000))
        assert await peer.receive() == (PONG, b"end")

    feed = meet_client(script, sink=Breaking())
    quotes = feed.quotes()
    live = [quote.sequence for quote in quotes if quote.flags & Flags.LIVE]

    assert feed.counter("faults") == 1
    assert live == [100, 101, 102]
    assert quotes[-1].flags & Flags.STALE


@pytest.mark.req("F-05")
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_frames_right_behind_the_response_are_taken(cut: int):
    async def script(peer: Peer, connection: Connection) -> None:
        plain, behind = peer.send, snapshot()

        async def with_more(*pieces: bytes) -> None:
            await plain(*pieces, frame(PING, b"early"), behind[: len(behind) - cut])

        peer.send = with_more  # type: ignore[method-assign]
        await peer.upgrade()
        peer.send = plain  # type: ignore[method-assign]
        await peer.send(behind[len(behind) - cut :], frame(PING, b"late"))
        pongs = []
        while len(pongs) < 2:
            opcode, payload = await peer.receive()
            if opcode == PONG:
                pongs.append(payload)
        assert pongs == [b"early", b"late"]
        await peer.send(close_frame(1000))

    assert meet_client(script, upgrade=False).book().sequence == 100


@pytest.mark.req("F-05")
def test_a_response_without_end_is_left():
    sent = 0

    async def script(peer: Peer, connection: Connection) -> None:
        nonlocal sent
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n")
        try:
            while sent < 64 << 20:
                await peer.send(b"X-Header: x\r\n" * 100)
                sent += 1300
        except ConnectionError:
            pass

    feed = meet_client(script, upgrade=False)

    assert feed.session.state == State.FAILED
    assert sent < 16 << 20

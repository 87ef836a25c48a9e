"""A venue that only plays: ``… benchmarks.replayed PROCESSOR SYMBOLS DEPTH COUNT``.

It says *listening PORT*. Whoever subscribes to a book gets its snapshot. Told ``play
RATE N`` it sends the first N of COUNT one-level updates, each to who subscribed to its
book, and says *played NS*, when it began. At a RATE, in messages a second, each is a
write of its own when it is due; with 0, as many as the sockets take.
"""

import asyncio
import logging
import os
import sys
import time

import msgspec
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from benchmarks import updates
from benchmarks.told import say

# Messages in one write when there is no rate, and bytes that may wait for a socket.
BATCH = 64
MOST_WAITING = 1 << 18


class Wanted(msgspec.Struct, frozen=True):
    channels: list[str] = []


class Request(msgspec.Struct):
    action: str
    id: str | None = None
    data: Wanted = Wanted()


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


def channels_of(symbols: int, depth: int) -> list[str]:
    return [f"orderbook:S{number}:{depth}" for number in range(symbols)]


def framed(payload: bytes) -> bytes:
    """Return a text message in the one frame that a server sends."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return bytes((0x81, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload


class Player:
    """The stream, and who gets which of its books."""

    def __init__(self, symbols: int, depth: int, count: int) -> None:
        channels = channels_of(symbols, depth)
        stream = updates.stream([depth] * symbols, "mixed", count)
        first = updates.first_frames(stream, channels)
        self.snapshots = dict(zip(channels, first, strict=True))
        self.books = [channels[book] for book in stream.updates["book"].tolist()]
        self.frames = [framed(f) for f in updates.frames(stream, channels)]
        self.takers: dict[str, asyncio.WriteTransport] = {}

    async def play(self, rate: int, count: int) -> int:
        """Send the first *count* updates; return when that began."""
        began_ns = time.monotonic_ns()
        size = 1 if rate else BATCH
        gap_ns = 1_000_000_000 // rate if rate else 0
        for start in range(0, count, size):
            while time.monotonic_ns() < began_ns + start * gap_ns:
                pass
            batch: dict[asyncio.WriteTransport, list[bytes]] = {}
            for number in range(start, min(start + size, count)):
                taker = self.takers[self.books[number]]
                batch.setdefault(taker, []).append(self.frames[number])
            for taker, frames in batch.items():
                taker.write(b"".join(frames))
            while any(t.get_write_buffer_size() > MOST_WAITING for t in batch):
                await asyncio.sleep(0)
        return began_ns


class Subscriber(WSListener):
    """Confirms every subscription, and sends the snapshots."""

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.player = player

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        if frame.msg_type != WSMsgType.TEXT:
            return
        request = decode(frame.get_payload_as_bytes())
        data = {"status": "success", "channels": request.data.channels}
        answer = {"type": "subscription_response", "data": data, "id": request.id}
        transport.send(WSMsgType.TEXT, encode(answer))
        if request.action == "subscribe":
            for channel in request.data.channels:
                self.player.takers[channel] = transport.underlying_transport
                transport.send(WSMsgType.TEXT, self.player.snapshots[channel])


async def main(symbols: int, depth: int, count: int) -> None:
    player = Player(symbols, depth, count)

    def listener(_: WSUpgradeRequest) -> WSListener:
        return Subscriber(player)

    server = await ws_create_server(listener, "127.0.0.1", 0, enable_auto_pong=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    say("listening", server.sockets[0].getsockname()[1])
    while line := await lines.readline():
        _, rate, many = line.split()
        say("played", await player.play(int(rate), int(many)))


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    # That a socket takes no more for now is no news.
    logging.basicConfig(level=logging.ERROR)
    # asyncio's own loop: its transports write at once, not when the loop next turns.
    asyncio.run(main(*map(int, sys.argv[2:])))

"""What somebody could do to the venue: ``python -m tests.attackers NAME PORT …``.

A process of its own, from an address of its own, bounded in count and time. It prints
what came of it as JSON.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from feedhandler.protocol.channels import MARKET_DATA, TRADING
from feedhandler.protocol.signature import sign
from tests.rawpeer import CLOSE, CONTINUATION, PING, TEXT, frame

ADDRESS = ("127.0.0.2", 0)
BATCH = 100
END_S = 10.0

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Attacker:
    """A connection that sends what it likes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, receive_bytes: int = 0) -> "Attacker":
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        sock.bind(ADDRESS)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock))

    @classmethod
    async def upgraded(
        cls, port: int, path: str = MARKET_DATA, receive_bytes: int = 0
    ) -> "Attacker":
        self = await cls.connect(port, receive_bytes)
        self.writer.write(REQUEST.format(path=path).encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    def send(self, opcode: int, payload: Any = b"", fin: bool = True) -> None:
        self.writer.write(frame(opcode, payload, fin, masked=True))

    def ask(self, action: str, **data: Any) -> None:
        self.send(TEXT, {"action": action, "data": data})

    async def receive(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def answers(self, said: Counter[str]) -> int:
        """Count what is said until the end; return the close code, 1006 for none."""
        try:
            async with asyncio.timeout(END_S):
                while True:
                    opcode, payload = await self.receive()
                    if opcode == CLOSE:
                        return int.from_bytes(payload[:2], "big")
                    said[kind_of(opcode, payload)] += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            return 1006
        finally:
            self.writer.close()

    async def log_in(self, key: str, secret: str, at_ms: int) -> dict[str, Any]:
        signature = sign(key, secret.encode(), at_ms)
        self.ask("authenticate", api_key=key, signature=signature, timestamp=at_ms)
        opcode, payload = await self.receive()
        if opcode == CLOSE:
            return {"status": str(int.from_bytes(payload[:2], "big"))}
        answer: dict[str, Any] = json.loads(payload)
        return answer


def kind_of(opcode: int, payload: bytes) -> str:
    if opcode != TEXT:
        return f"opcode {opcode}"
    message = json.loads(payload)
    code = (message.get("data") or {}).get("code")
    return str(code or message["type"])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def many(count: int, one: Any) -> list[Any]:
    """Do it *count* times, a hundred at a time."""
    results = []
    for start in range(0, count, BATCH):
        batch = (one(n) for n in range(start, min(count, start + BATCH)))
        results += await asyncio.gather(*batch)
    return results


# ── handshakes ────────────────────────────────────────────────────────────────────────


async def handshakes(port: int, count: int) -> dict[str, Any]:
    """Connect again and again, and hold what one is given."""
    held = []

    async def one(_: int) -> str:
        attacker = await Attacker.upgraded(port)
        try:
            async with asyncio.timeout(0.2):
                opcode, payload = await attacker.receive()
        except TimeoutError:
            held.append(attacker)
            return "held"
        attacker.writer.close()
        return str(int.from_bytes(payload[:2], "big") if opcode == CLOSE else opcode)

    said = Counter(await many(count, one))
    for attacker in held:
        attacker.writer.close()
    return dict(said)


async def slow_handshakes(port: int, count: int) -> dict[str, Any]:
    """Say nothing, or a byte of the request now and then, until one is sent away."""
    request = REQUEST.format(path=MARKET_DATA).encode()

    async def one(number: int) -> float:
        attacker = await Attacker.connect(port)
        started = time.monotonic()
        gone = asyncio.create_task(attacker.reader.read())
        for byte in request if number % 2 else b"":
            if gone.done():
                break
            attacker.writer.write(bytes((byte,)))
            await asyncio.wait([gone], timeout=0.25)
        try:
            await asyncio.wait_for(gone, END_S)
        except ConnectionError:
            pass
        attacker.writer.close()
        return time.monotonic() - started

    lives = await asyncio.gather(*(one(number) for number in range(count)))
    return {"shortest_s": min(lives), "longest_s": max(lives)}


# ── messages ──────────────────────────────────────────────────────────────────────────


async def flood(
    port: int, path: str, frames: Iterable[tuple[int, Any, bool]]
) -> dict[str, Any]:
    """Send all of it without waiting, on a new connection whenever one is closed."""
    said: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    waiting = iter(frames)
    for first in waiting:
        attacker = await Attacker.upgraded(port, path)
        answers = asyncio.create_task(attacker.answers(said))
        for number, (opcode, payload, fin) in enumerate(chain([first], waiting)):
            attacker.send(opcode, payload, fin)
            if number % 50 == 49:
                await asyncio.sleep(0)
                if answers.done():
                    break
        attacker.send(CLOSE, (1000).to_bytes(2, "big"))
        codes[await answers] += 1
    return {**said, **codes}


async def pings(port: int, count: int) -> dict[str, Any]:
    return await flood(port, MARKET_DATA, [(PING, b"", True)] * count)


async def subscribes(port: int, count: int) -> dict[str, Any]:
    request = {"action": "subscribe", "data": {"channels": ["trades:AAPL"]}}
    return await flood(port, MARKET_DATA, [(TEXT, request, True)] * count)


async def fragments(port: int, count: int) -> dict[str, Any]:
    """Begin a message and never end it."""
    frames = [(TEXT, b"{", False)] + [(CONTINUATION, b" ", False)] * count
    return await flood(port, MARKET_DATA, frames)


async def empty_fragments(port: int, count: int) -> dict[str, Any]:
    """Never end it, and never add to it."""
    frames = [(TEXT, b"", False)] + [(CONTINUATION, b"", False)] * count
    return await flood(port, MARKET_DATA, frames)


async def orders(port: int, count: int) -> dict[str, Any]:
    """Send a thousand orders a second, on a new connection whenever one is closed."""
    order = {
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "price": 1,
        "quantity": 1,
    }
    said: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    started, sent, login_ms = time.monotonic(), 0, 0
    while sent < count:
        attacker = await Attacker.upgraded(port, TRADING)
        # A time is good for one login, and there may be two in a millisecond.
        login_ms = max(now_ms(), login_ms + 1)
        answer = await attacker.log_in("key-ann", "secret of ann", login_ms)
        if answer["status"] != "success":
            # So many new connections a minute are too many, too.
            said[answer["status"]] += 1
            break
        answers = asyncio.create_task(attacker.answers(said))
        while sent < count and not answers.done():
            attacker.ask("submit_order", **order)
            sent += 1
            await asyncio.sleep(max(0.0, started + sent / 1000 - time.monotonic()))
        if not answers.done():
            attacker.send(CLOSE, (1000).to_bytes(2, "big"))
        codes[await answers] += 1
    return {"sent": sent, "seconds": time.monotonic() - started, **said, **codes}


async def guesses(port: int, count: int) -> dict[str, Any]:
    """Guess the secret of a key that exists, and of one that does not."""
    said: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    for number in range(count):
        attacker = await Attacker.upgraded(port, TRADING)
        key = ("key-ann", "key-nobody")[number % 2]
        answer = await attacker.log_in(key, f"guess {number}", now_ms())
        said[answer["data"]["code"]] += 1
        codes[await attacker.answers(Counter())] += 1
    return {**said, **codes}


async def slow_consumers(port: int, count: int) -> dict[str, Any]:
    """Ask for everything and read nothing, until everybody was given up."""
    channels = [f"orderbook:AAPL:{depth}" for depth in (1, *range(12, 50))]

    async def one(_: int) -> Attacker:
        attacker = await Attacker.upgraded(port, receive_bytes=16_384)
        attacker.ask("subscribe", channels=channels)
        attacker.writer.transport.pause_reading()  # type: ignore[attr-defined]
        return attacker

    attackers = await many(count, one)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    codes: Counter[int] = Counter()
    for attacker in attackers:
        attacker.writer.transport.resume_reading()  # type: ignore[attr-defined]
        codes[await attacker.answers(Counter())] += 1
    return dict(codes)


ATTACKS = {
    attack.__name__: attack
    for attack in (
        handshakes, slow_handshakes, pings, subscribes, fragments, empty_fragments,
        orders, guesses, slow_consumers,
    )
}  # fmt: skip


if __name__ == "__main__":
    name, port, count = sys.argv[1:]
    os.nice(5)
    print("begin", flush=True)
    print(json.dumps(asyncio.run(ATTACKS[name](int(port), int(count)))))

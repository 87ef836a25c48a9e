"""A WebSocket server that does exactly what a test says, byte by byte."""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(
    opcode: int,
    payload: Any = b"",
    fin: bool = True,
    rsv: int = 0,
    masked: bool = False,
) -> bytes:
    """One frame as a server sends it; an object becomes JSON."""
    if isinstance(payload, str):
        payload = payload.encode()
    elif not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    first = fin << 7 | rsv << 4 | opcode
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, mask | len(payload)])
    elif len(payload) < 1 << 16:
        head = bytes([first, mask | 126]) + len(payload).to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + len(payload).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class Peer:
    """One client's connection, upgraded; frames come unmasked."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""

    async def upgrade(self) -> None:
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        for line in self.request.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        await self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    async def send(self, *pieces: bytes) -> None:
        """Send in one write, which the client gets in one read if it is not long."""
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Return the next frame as opcode and payload."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client masks what it sends"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return first & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    async def message(self) -> dict[str, Any]:
        """Return the next message; anything else but a message is a failure."""
        opcode, payload = await self.receive()
        assert opcode == TEXT, (opcode, payload)
        message = json.loads(payload)
        assert isinstance(message, dict)
        return message

    async def subscribed(self) -> dict[str, Any]:
        """Take a subscribe and say yes to it."""
        request = await self.message()
        data = {"status": "success", "channels": request["data"]["channels"]}
        answer = {"type": "subscription_response", "data": data, "id": request["id"]}
        await self.send(frame(TEXT, answer))
        return request

    async def close_code(self) -> int:
        """Read until the client's close frame and return its code; 1005 for none."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005

    async def goodbye(self) -> None:
        """Read until the client's close frame, answer it, and see it go."""
        await self.send(close_frame(await self.close_code()))
        await self.gone()

    async def gone(self) -> bytes:
        """Read what is left until the client lets go of the socket."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def reset(self) -> None:
        """Cut the connection: RST when unread data is waiting, FIN otherwise."""
        self.writer.transport.abort()


class Server:
    """Run *script* for every client; *url* is where, and *base_url* without a path."""

    def __init__(
        self,
        script: Callable[[Peer], Awaitable[None]],
        upgrade: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._script = script
        self._upgrade = upgrade
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.errors: list[BaseException] = []
        self.url = self.base_url = ""

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        peer = Peer(reader, writer)
        try:
            if self._upgrade:
                await peer.upgrade()
            await self._script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass
        except AssertionError as error:
            self.errors.append(error)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls
        )
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"ws{'s' if self._tls else ''}://127.0.0.1:{port}"
        self.url = f"{self.base_url}/ws/market-data"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.errors:
            raise self.errors[0]

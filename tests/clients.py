"""Clients of the venue over real sockets on the loopback, and a venue to serve them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from feedhandler.protocol.channels import MARKET_DATA
from feedhandler.protocol.signature import sign
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.server import Venue

DEADLINE_S = 10.0
CLIENTS: list["Client"] = []
# When somebody last authenticated, by the clock of the venue that is served.
LAST_MS = [0]

Message = dict[str, Any]


class Client(WSListener):
    """Collects what the venue says: as bytes in *messages*, as objects in *told*."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[bytes] = []
        self._told: list[Message] = []
        self.kinds: list[WSMsgType] = []
        self.close: tuple[int, str | None] | None = None
        self.pongs: list[bytes] = []
        self.changed = asyncio.Event()
        self.disconnected = False
        self.transport: WSTransport
        self._ids = count(1)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.close = (int(frame.get_close_code().value), frame.get_close_reason())
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PONG:
            self.pongs.append(frame.get_payload_as_bytes())
        else:
            self.kinds.append(frame.msg_type)
            self.messages.append(frame.get_payload_as_bytes())
        self.changed.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.disconnected = True
        self.changed.set()

    @property
    def told(self) -> list[Message]:
        """What was said so far, read when it is asked for."""
        self._told += map(json.loads, self.messages[len(self._told) :])
        return self._told

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what some message or the end brings."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def gone(self) -> tuple[int, str | None] | None:
        """Wait for the end; return how it was closed."""
        await self.until(lambda: self.disconnected)
        return self.close

    def send(self, action: str, **fields: Any) -> None:
        text = json.dumps({"action": action, **fields}).encode()
        self.transport.send(WSMsgType.TEXT, text)

    def subscribe(self, *channels: str) -> None:
        self.send("subscribe", data={"channels": list(channels)}, id="s")

    async def ask(self, action: str, /, **data: Any) -> Message:
        """Send a request and return its answer, which may be an error."""
        request_id = f"r-{next(self._ids)}"
        self.send(action, data=data, id=request_id)
        await self.until(lambda: self.answer(request_id))
        return self.answer(request_id)[0]

    def answer(self, request_id: str) -> list[Message]:
        return [m for m in self.told if m.get("id") == request_id]

    def on(self, channel: str) -> list[Message]:
        return [m for m in self.told if m.get("channel") == channel]


async def connected(venue: Venue, path: str = MARKET_DATA, **options: Any) -> Client:
    _, client = await ws_connect(Client, venue.url + path, **options)
    assert isinstance(client, Client)
    CLIENTS.append(client)
    return client


async def log_in(
    client: Client, venue: Venue, account: int = 0, at_ms: int | None = None
) -> Message:
    """Authenticate for an account by its place in the configuration."""
    # No two of one endpoint may have the same timestamp.
    await eventually(lambda: venue.now_ns() // 1_000_000 > LAST_MS[0])
    LAST_MS[0] = now_ms = venue.now_ns() // 1_000_000 if at_ms is None else at_ms
    key, secret = venue.credentials
    if account:
        described = venue.config.accounts[account]
        key, secret = described.api_key, described.secret
    return await client.ask(
        "authenticate",
        api_key=key,
        signature=sign(key, secret.encode(), now_ms),
        timestamp=now_ms,
    )


async def authenticated(
    venue: Venue, path: str, account: int = 0, **options: Any
) -> Client:
    """Connect and authenticate."""
    client = await connected(venue, path, **options)
    assert (await log_in(client, venue, account))["status"] == "success"
    return client


def serve(
    scenario: Callable[[Venue], Awaitable[None]], config: VenueConfig, **options: Any
) -> None:
    """Run *scenario* against a venue of its own; everybody is sent away at the end."""

    async def run() -> None:
        CLIENTS.clear()
        LAST_MS[0] = 0
        async with Venue(config, **options) as venue:
            await scenario(venue)
        for client in CLIENTS:
            client.transport.underlying_transport.resume_reading()
            await client.gone()

    asyncio.run(run())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells: look again and again, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)

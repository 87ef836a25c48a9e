"""One WebSocket connection of the venue: frames in, a Gateway's effects out.

Fragments are put together here, what the protocol forbids is closed with its code, and
the bytes that a slow client leaves lying are bounded.
"""

import asyncio
import codecs
import logging
import struct
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from feedhandler.protocol.codes import is_wire_code
from feedhandler.venue.access import Member
from feedhandler.venue.config import VenueConfig
from feedhandler.venue.gateway import (
    Close,
    Cut,
    Drop,
    Effect,
    Evict,
    Gateway,
    Later,
    Open,
    Pong,
    Send,
)
from feedhandler.venue.journal import Journal
from feedhandler.venue.limits import NS_PER_S

__all__ = [
    "CLOSE_DEADLINE_S",
    "HIGH_WATER_BYTES",
    "LOW_WATER_BYTES",
    "Connection",
    "Frame",
    "Hub",
    "Opcode",
    "Wire",
    "text_frame",
]

log = logging.getLogger("feedhandler.venue")

CLOSE_DEADLINE_S = 2.0
# A wire calls pause() when it holds more than the first, resume() below the other.
HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024

# Every frame costs us about the same, also an empty one: a message may have as many as
# if each but the last had this size.
LEAST_FRAGMENT_BYTES = 64

# Channels that begin with more than a line: they wait for a client that is slow.
BULKY = ("orderbook:", "user_orders/", "user_trades/")

TEXT, BINARY = 0x81, 0x82
Utf8 = codecs.getincrementaldecoder("utf-8")
HEADER_16 = struct.Struct("!BBH")
HEADER_64 = struct.Struct("!BBQ")


def text_frame(payload: bytes) -> bytes:
    """Wrap a message in a text frame; a server's frames are not masked."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 1 << 16:
        return HEADER_16.pack(TEXT, 126, size) + payload
    return HEADER_64.pack(TEXT, 127, size) + payload


class Opcode(IntEnum):
    """What a frame is (RFC 6455, 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Frame(NamedTuple):
    """A frame as it came, its payload unmasked."""

    opcode: int
    payload: bytes
    fin: bool
    reserved: bool


class Wire(Protocol):
    """What a connection needs of its socket."""

    @property
    def address(self) -> str:
        """The address of the client."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def write(self, frames: bytes) -> None:
        """Send whole frames, or keep them until they can be sent."""

    def buffered(self) -> int:
        """Return how many bytes are kept."""

    def send_pong(self, payload: bytes) -> None:
        """Send a pong control frame."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a close control frame, the last of all."""

    def disconnect(self) -> None:
        """End the connection when what is kept has been sent."""

    def abort(self) -> None:
        """End it at once."""


class Hub(Protocol):
    """What a connection needs of the venue around it."""

    @property
    def patient(self) -> bool:
        """Whether the market waits for slow clients instead of losing them."""

    def now_ns(self) -> int:
        """Return the venue's time."""

    def joined(self, connection: "Connection") -> bool:
        """Count a new connection; False if its address has too many."""

    def left(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""

    def attach(self, connection: "Connection", channel: str) -> list[bytes]:
        """Subscribe a connection; return what the channel begins with."""

    def detach(self, connection: "Connection", channel: str) -> None:
        """Send a connection nothing more on a channel."""

    def drained(self) -> None:
        """Hear that a connection can take more."""

    def acted(self) -> None:
        """Hear that a connection asked for something: others may have to be told."""

    def evict(self, members: list[Member]) -> None:
        """Close the connections of some gateways, which were silent for too long."""

    @property
    def journal(self) -> Journal | None:
        """Where every message is noted, if anywhere."""


class Backlog:
    """How much of what was queued is still unread, leaving initial snapshots aside."""

    def __init__(self) -> None:
        self.queued = 0
        self._snapshots: deque[tuple[int, int]] = deque()
        self._snapshot_bytes = 0

    def end_snapshot(self, size: int) -> None:
        """Note that the last *size* bytes queued were a snapshot."""
        self._snapshots.append((self.queued, size))
        self._snapshot_bytes += size

    def forget(self) -> None:
        """Hear that nothing is kept, or next to nothing."""
        self._snapshots.clear()
        self._snapshot_bytes = 0

    def beyond_snapshots(self, unread: int) -> int:
        """Return how many of the *unread* bytes at the end are not of snapshots."""
        read = self.queued - unread
        while self._snapshots and self._snapshots[0][0] <= read:
            self._snapshot_bytes -= self._snapshots.popleft()[1]
        return unread - self._snapshot_bytes


class Connection:
    """One client: a Gateway behind a wire. It serves from the start."""

    def __init__(
        self, hub: Hub, config: VenueConfig, gateway: Gateway, wire: Wire
    ) -> None:
        self.address = wire.address
        self.gateway = gateway
        self.number = 0
        self.binary = False
        self.paused = False
        self._hub = hub
        self._wire = wire
        self._message_bytes = config.limits.message_bytes
        self._message_frames = 1 + self._message_bytes // LEAST_FRAGMENT_BYTES
        self._outbound_bytes = config.limits.outbound_bytes
        self._closing = False
        self._pending: dict[str, None] = {}
        self._out: list[bytes] = []
        self._backlog = Backlog()
        self._fragments: bytearray | None = None
        self._fragment_count = 0
        self._text: codecs.IncrementalDecoder | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._late: set[asyncio.TimerHandle] = set()
        if hub.joined(self):
            self._arm()
        else:
            self.close(1013, "too many connections from this address")

    @property
    def closing(self) -> bool:
        """Whether nothing but the answer to a close is of interest any more."""
        return self._closing

    # ── the wire ──────────────────────────────────────────────────────────────────

    def take(self, frame: Frame) -> None:
        """Take one frame; a fault of ours closes this connection and no other."""
        if self._closing and frame.opcode != Opcode.CLOSE:
            return
        self._guard(lambda: self._take(frame))

    def _guard(self, act: Callable[[], None]) -> None:
        """Let a fault of ours close this connection, and no other."""
        try:
            act()
        except Exception:
            log.exception("connection failed address=%s", self.address)
            self.close(1011, "internal error")

    def gone(self) -> None:
        """Hear that the wire is no more, and let go of everything."""
        self._closing = True
        self._out.clear()
        self._leave()
        for timer in (self._heartbeat, self._deadline, *self._late):
            if timer is not None:
                timer.cancel()
        self.gateway.left()
        self._hub.left(self)

    def pause(self) -> None:
        """Hear that the client does not keep up."""
        self.paused = True

    def resume(self) -> None:
        """Hear that it does again: go on with what waited."""
        self.paused = False
        self._guard(self._open_pending)
        self._hub.drained()

    # ── outbound ──────────────────────────────────────────────────────────────────

    def send(self, payload: bytes, snapshot: bool = False) -> None:
        """Put a message of this client's own among those that flush() writes."""
        if self._hub.journal is not None:
            self._hub.journal.outbound(self.number, payload, self._hub.now_ns())
        self.queue(text_frame(payload), snapshot)

    def queue(self, frame: bytes, snapshot: bool = False) -> None:
        """Put a text frame among those that flush() writes."""
        if self.binary:
            frame = bytes((BINARY,)) + frame[1:]
        self._out.append(frame)
        self._backlog.queued += len(frame)
        if snapshot:
            self._backlog.end_snapshot(len(frame))

    def flush(self) -> None:
        """Write what is queued; close a client that leaves too much unread."""
        if not self._out:
            return
        frames, self._out = self._out, []
        if self._closing or self._wire.closed:
            return
        self._wire.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if not self.paused:
            self._backlog.forget()
        if not self.paused or self._hub.patient:
            return
        buffered = self._wire.buffered()
        if self._backlog.beyond_snapshots(buffered) > self._outbound_bytes:
            log.warning("slow consumer address=%s buffered=%d", self.address, buffered)
            self.close(4001, "slow consumer")

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after what is queued; the client has 2 s to answer."""
        if self._closing:
            return
        self.flush()
        if self._closing:
            return
        self._closing = True
        self._leave()
        self._wire.send_close(code, reason)
        self._give_up_later()

    def abort(self) -> None:
        """Drop the connection with no close frame."""
        self._closing = True
        self._leave()
        self._wire.abort()

    # ── inbound ───────────────────────────────────────────────────────────────────

    def _take(self, frame: Frame) -> None:
        if frame.reserved:
            self.close(1002, "reserved bits are set")
        elif frame.opcode == Opcode.CLOSE:
            self._take_close(frame)
        elif frame.opcode == Opcode.PING:
            self._apply(self.gateway.ping(frame.payload, self._hub.now_ns()))
        elif frame.opcode == Opcode.PONG:
            self._apply(self.gateway.pong(self._hub.now_ns()))
        else:
            self._take_data(frame)

    def _take_data(self, frame: Frame) -> None:
        """Put fragments together: the bounds are on the message, not on the frame."""
        if frame.opcode == Opcode.CONTINUATION:
            if self._fragments is None:
                self.close(1002, "continuation of nothing")
                return
        elif self._fragments is not None:
            self.close(1002, "message inside a message")
            return
        else:
            self._text = Utf8() if frame.opcode == Opcode.TEXT else None
            self._fragments = bytearray()
            self._fragment_count = 0
        self._fragment_count += 1
        if self._fragment_count > self._message_frames:
            self.close(1008, f"message has more than {self._message_frames} fragments")
            return
        if len(self._fragments) + len(frame.payload) > self._message_bytes:
            self.close(1009, f"message exceeds {self._message_bytes} bytes")
            return
        if self._text and not goes_on(self._text, frame.payload, frame.fin):
            self.close(1007, "text is not UTF-8")
            return
        self._fragments += frame.payload
        if frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        if self._hub.journal is not None:
            self._hub.journal.inbound(self.number, message, self._hub.now_ns())
        self._apply(self.gateway.receive(message, self._hub.now_ns()))

    def _take_close(self, frame: Frame) -> None:
        """Answer a close, or take the answer to ours; then the connection ends."""
        code = int.from_bytes(frame.payload[:2], "big") if frame.payload else 1000
        self.close(code if is_wire_code(code) else 1002, "")
        self._give_up_later()
        self._wire.disconnect()

    # ── effects ───────────────────────────────────────────────────────────────────

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(payload):
                    self.send(payload)
                case Open(channel) if channel.startswith(BULKY):
                    self._pending[channel] = None
                case Open(channel):
                    self._open(channel)
                case Drop(channel):
                    self._pending.pop(channel, None)
                    self._hub.detach(self, channel)
                case Pong(payload):
                    self._wire.send_pong(payload)
                case Close(code, reason):
                    self.close(code, reason)
                case Evict(members):
                    self._hub.evict(members)
                case Later(delay_ns, payload):
                    self._send_later(delay_ns / NS_PER_S, payload)
                case Cut():
                    self.abort()
        self.flush()
        self._open_pending()
        self._hub.acted()

    def _send_later(self, delay_s: float, payload: bytes) -> None:
        def send() -> None:
            self._late.discard(timer)
            if not self._closing:
                self.send(payload)
                self.flush()

        timer = asyncio.get_running_loop().call_later(delay_s, send)
        self._late.add(timer)

    def _open_pending(self) -> None:
        """Start channels one by one, as fast as the client drains their snapshots."""
        while self._pending and not self.paused and not self._closing:
            channel = next(iter(self._pending))
            del self._pending[channel]
            self._open(channel)
            self.flush()

    def _open(self, channel: str) -> None:
        for payload in self._hub.attach(self, channel):
            self.send(payload, snapshot=True)

    # ── time ──────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        if self._closing:
            return
        delay_ns = max(0, self.gateway.due_ns() - self._hub.now_ns())
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(delay_ns / NS_PER_S, self._tick)

    def _tick(self) -> None:
        if self._closing:
            return
        self._guard(lambda: self._apply(self.gateway.tick(self._hub.now_ns())))
        self._arm()

    def _give_up_later(self) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(
                CLOSE_DEADLINE_S, self._wire.abort
            )

    def _leave(self) -> None:
        """Take part in no channel any more."""
        self._pending.clear()
        for channel in self.gateway.subscriptions:
            self._hub.detach(self, channel)


def goes_on(text: codecs.IncrementalDecoder, data: bytes, final: bool) -> bool:
    """Tell whether *data* continues a UTF-8 *text*, and ends it if it is *final*."""
    try:
        text.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True

"""RFC 6455 frames cut out of a stream, and put together again with another payload.

Sans-I/O. It judges nothing: what is no legal frame is passed on like any other bytes.
"""

import json
from functools import cached_property
from typing import Any, NamedTuple

__all__ = ["Frame", "FrameReader", "Message", "Unseen", "encode", "xor"]

CONTROL, TEXT, BINARY = 0x8, 0x1, 0x2
SHORTEST = 2


class Frame(NamedTuple):
    """One frame as it came: *raw* is all of it, of which *head_bytes* are header."""

    raw: bytes
    head_bytes: int

    @property
    def fin(self) -> bool:
        """Whether it ends its message."""
        return self.raw[0] >= 0x80

    @property
    def opcode(self) -> int:
        """What it is; 0 continues a message."""
        return self.raw[0] & 0x0F

    @property
    def is_control(self) -> bool:
        """Whether it is a close, ping or pong."""
        return self.opcode >= CONTROL

    @property
    def mask(self) -> bytes:
        """The masking key; empty in what a server sends."""
        masked = self.raw[1] & 0x80
        return self.raw[self.head_bytes - 4 : self.head_bytes] if masked else b""

    @property
    def payload(self) -> bytes:
        """The payload, unmasked."""
        return xor(self.raw[self.head_bytes :], self.mask)


class Unseen(NamedTuple):
    """A piece of a frame that is too large to be kept; *first* is its first byte."""

    raw: bytes
    first: int
    is_last: bool


class FrameReader:
    """Cuts a stream into frames, whatever the pieces that it comes in.

    A frame of more than *max_bytes* is not kept: it comes out unseen, piece by piece.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._unseen = 0
        self._first = 0

    @property
    def in_unseen(self) -> bool:
        """Whether the bytes to come belong to a frame that is passed on unseen."""
        return self._unseen > 0

    def feed(self, data: bytes) -> list[Frame | Unseen]:
        """Take the next bytes; return the frames that are whole now, in order."""
        found: list[Frame | Unseen] = []
        buffer, start = self._buffer, 0
        buffer += data
        while start < len(buffer):
            if not self._unseen:
                sizes = measure(buffer, start)
                if sizes is None:
                    break
                head_bytes, size = sizes
                if size <= self._max_bytes:
                    if len(buffer) - start < size:
                        break
                    found.append(Frame(bytes(buffer[start : start + size]), head_bytes))
                    start += size
                    continue
                self._unseen, self._first = size, buffer[start]
            piece = bytes(buffer[start : start + self._unseen])
            start += len(piece)
            self._unseen -= len(piece)
            found.append(Unseen(piece, self._first, not self._unseen))
        del buffer[:start]
        return found

    def rest(self) -> bytes:
        """Give up the beginning of a frame that is not whole."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


class Message:
    """What a fault acts on: a data message with all its fragments, or a control frame.

    *number* counts those of one direction of a connection, from 1.
    """

    def __init__(self, frames: list[Frame], number: int) -> None:
        self.number = number
        self._frames = frames

    @property
    def raw(self) -> bytes:
        """All of its bytes as they came."""
        return b"".join(frame.raw for frame in self._frames)

    @property
    def opcode(self) -> int:
        """What its first frame is."""
        return self._frames[0].opcode

    @cached_property
    def payload(self) -> bytes:
        """The payload, unmasked and without the joints of fragments."""
        return b"".join(frame.payload for frame in self._frames)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The JSON object that it is; empty where it is none, or compressed."""
        if self.opcode not in (TEXT, BINARY) or self._frames[0].raw[0] & 0x70:
            return {}
        try:
            found = json.loads(self.payload)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def sequence(self) -> int | None:
        """The sequence of its data, if it has one."""
        data = self.fields.get("data")
        found = data.get("sequence") if isinstance(data, dict) else None
        return found if type(found) is int else None

    def with_payload(self, payload: bytes) -> bytes:
        """Return the bytes of the same message, in one frame, with another payload."""
        first = self._frames[0]
        return encode(0x80 | first.raw[0], payload, first.mask)

    def describe(self) -> dict[str, Any]:
        """Return what tells it from others, for the log."""
        told: dict[str, Any] = {"number": self.number}
        if self.opcode >= CONTROL:
            told["opcode"] = self.opcode
        for key in ("type", "action", "channel", "id"):
            if key in self.fields:
                told[key] = self.fields[key]
        if self.sequence is not None:
            told["sequence"] = self.sequence
        return told


def measure(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Return the bytes of a header and of its frame; None if more must come first."""
    if len(buffer) - start < SHORTEST:
        return None
    second = buffer[start + 1]
    size, head_bytes = second & 0x7F, 2
    if size >= 126:
        head_bytes = 4 if size == 126 else 10
        if len(buffer) - start < head_bytes:
            return None
        size = int.from_bytes(buffer[start + 2 : start + head_bytes])
    if second & 0x80:
        head_bytes += 4
    return head_bytes, head_bytes + size


def encode(first: int, payload: bytes, mask: bytes = b"") -> bytes:
    """Return a frame that begins with the byte *first*, its length the shortest."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8)
    return head + mask + xor(payload, mask)


def xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload; an empty *mask* changes nothing."""
    if not mask:
        return payload
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pattern)).to_bytes(size)

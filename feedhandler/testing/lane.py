"""One direction of a proxied connection: finds the messages, and hands out the faults.

What is no frame, or one too large to be kept, passes unseen.
"""

import asyncio
from typing import Any, Literal, Protocol

from feedhandler.testing.faults import KEPT, End, Faults, FrameFault
from feedhandler.testing.frames import Frame, FrameReader, Message, Unseen
from feedhandler.testing.pipe import Pipe

__all__ = ["DirectedLane", "Direction"]

Direction = Literal["up", "down"]

HEAD_BYTES = 64 * 1024
MESSAGE_BYTES = 4 << 20
# What may be late or kept back in one direction of one connection.
LATE_BYTES = 16 << 20


class Host(Protocol):
    """What a lane needs of its connection."""

    number: int

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to."""

    @property
    def is_scripted(self) -> bool:
        """Whether lines of the script wait for messages."""

    def note(self, kind: str, detail: dict[str, Any], direction: str = "") -> None:
        """Write a line of the log."""

    def trigger(self, direction: Direction, message: Message) -> None:
        """Run the lines of the script that wait for a message, before it is passed."""

    def pass_unseen(self) -> None:
        """Hear that what follows are no frames."""


class DirectedLane:
    """One direction of one connection: bytes in, frames between, a Pipe out."""

    def __init__(
        self,
        connection: Host,
        name: Direction,
        scopes: tuple[Faults, ...],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sealed: bool,
    ) -> None:
        self.name = name
        self.reader = reader
        self.writer = writer
        self.ended = False
        self._connection = connection
        self._scopes = scopes
        self.pipe = Pipe(writer, scopes, self._note, f"{connection.number}/{name}")
        self._head: bytearray | None = bytearray()
        self._opaque = sealed
        self._frames = FrameReader(MESSAGE_BYTES)
        self._parts: list[Frame] = []
        self._parts_bytes = 0
        self._inside = False
        self._count = 0
        self._kept: dict[FrameFault, Message] = {}
        self._late: dict[asyncio.TimerHandle, bytes] = {}
        self._waiting: list[bytes] = []
        self._late_bytes = 0

    # ── in ────────────────────────────────────────────────────────────────────────

    def take(self, data: bytes) -> None:
        """Take the next bytes of the source."""
        if self._opaque:
            self.pipe.put(data)
            return
        if self._head is not None:
            data = self._take_head(self._head, data)
        if self._opaque:
            self.pipe.put(data)
            return
        for piece in self._frames.feed(data) if data else ():
            if isinstance(piece, Frame):
                self._take_frame(piece)
            else:
                self._take_unseen(piece)

    def end(self, end: End) -> None:
        """Hear that the source has ended: pass on what is left, and that."""
        self.release()
        self._pass_parts()
        self.pipe.put(self._frames.rest(), end)

    def pass_unseen(self) -> None:
        """Look at nothing any more: these are no frames."""
        self._opaque = True
        rest = self._frames.rest()
        if rest:
            self.pipe.put(rest)

    def _take_head(self, head: bytearray, data: bytes) -> bytes:
        """Pass on the HTTP head; return what is behind it, the first frames."""
        known = len(head)
        head += data
        size = head.find(b"\r\n\r\n") + 4
        if size < 4:
            self.pipe.put(data)
            if len(head) > HEAD_BYTES:
                self._connection.pass_unseen()
            return b""
        self.pipe.put(data[: size - known])
        self._head = None
        if self.name == "down" and head.split(b" ", 2)[1:2] != [b"101"]:
            self._connection.pass_unseen()
        return data[size - known :]

    def _take_unseen(self, piece: Unseen) -> None:
        """Pass on a piece of a frame that is too large to look at."""
        self._pass_parts()
        self.pipe.put(piece.raw)
        if not piece.is_last:
            return
        self._note("oversize", {"more_than_bytes": MESSAGE_BYTES})
        self._inside = piece.first < 0x80
        self._count += not self._inside
        self._send_waiting()

    def _take_frame(self, frame: Frame) -> None:
        if frame.is_control:
            self._take_message([frame])
        elif self._inside:
            self.pipe.put(frame.raw)
            self._inside = not frame.fin
            self._count += frame.fin
            self._send_waiting()
        elif frame.fin and not self._parts:
            self._take_message([frame])
        elif not self._parts and not self._is_watched:
            self._inside = True
            self.pipe.put(frame.raw)
        else:
            self._take_part(frame)

    def _take_part(self, frame: Frame) -> None:
        """Keep a fragment until its message is whole, or too large to look at."""
        self._parts.append(frame)
        self._parts_bytes += len(frame.raw)
        if frame.fin:
            parts, self._parts = self._parts, []
            self._parts_bytes = 0
            self._take_message(parts)
        elif self._parts_bytes > MESSAGE_BYTES:
            self._pass_parts()
            self._note("oversize", {"more_than_bytes": MESSAGE_BYTES})
            self._inside = True

    def _take_message(self, frames: list[Frame]) -> None:
        self._count += 1
        message = Message(frames, self._count)
        self._connection.trigger(self.name, message)
        if self._connection.is_over:
            return
        for scope in self._scopes:
            for fault in tuple(scope.of_frames):
                detail = fault.meet(self, message)
                if detail is None:
                    continue
                if detail is not KEPT:
                    self._note(fault.kind, message.describe() | detail)
                if fault.is_spent:
                    scope.end(fault)
                return
        self.pipe.put(message.raw)

    @property
    def _is_watched(self) -> bool:
        """Whether somebody wants to see whole messages."""
        return self._connection.is_scripted or any(
            scope.of_frames for scope in self._scopes
        )

    # ── what a fault can do ───────────────────────────────────────────────────────

    def send(self, data: bytes) -> None:
        """Pass whole frames on."""
        self.pipe.put(data)

    def send_later(self, data: bytes, delay_s: float) -> bool:
        """Pass them on later, others overtake them; False if too much waits already."""
        if self._late_bytes + len(data) > LATE_BYTES:
            self._note("overflow", {"late_bytes": self._late_bytes})
            return False

        def send() -> None:
            del self._late[timer]
            self._send_between(data)

        timer = asyncio.get_running_loop().call_later(delay_s, send)
        self._late[timer] = data
        self._late_bytes += len(data)
        return True

    def keep(self, fault: FrameFault, message: Message) -> bool:
        """Keep a message until the fault takes it again; False if too much is kept."""
        size = len(message.raw)
        if self._late_bytes + size > LATE_BYTES:
            self._note("overflow", {"late_bytes": self._late_bytes})
            return False
        self._late_bytes += size
        self._kept[fault] = message
        return True

    def kept(self, fault: FrameFault) -> Message | None:
        """Take the message that was kept for a fault."""
        message = self._kept.pop(fault, None)
        if message is not None:
            self._late_bytes -= len(message.raw)
        return message

    def finish(self, data: bytes, end: End) -> None:
        """Pass bytes on, the last of the connection."""
        self.pipe.put(data, end)

    def half_close(self) -> None:
        """End this direction, and swallow what still comes."""
        self._note("half_close", {})
        self.pipe.put(b"", End.FIN)

    def wake(self) -> None:
        """Hear that faults have changed."""
        self.pipe.wake()

    def release(self, fault: FrameFault | None = None) -> None:
        """Pass on what was kept for a fault; for None all of it, and what is late."""
        for holder in [fault] if fault is not None else list(self._kept):
            message = self.kept(holder)
            if message is not None:
                self._late_bytes += len(message.raw)
                self._send_between(message.raw)
        if fault is None:
            late, self._late = self._late, {}
            for timer, data in late.items():
                timer.cancel()
                self._send_between(data)

    def forget(self) -> None:
        """Let go of everything: the connection is over."""
        for timer in self._late:
            timer.cancel()
        self._late.clear()
        self._kept.clear()

    def _send_between(self, data: bytes) -> None:
        """Send a late message, not into the middle of another."""
        self._waiting.append(data)
        self._send_waiting()

    def _send_waiting(self) -> None:
        if self._inside or self._frames.in_unseen:
            return
        for data in self._waiting:
            self._late_bytes -= len(data)
            self.pipe.put(data)
        self._waiting.clear()

    def _pass_parts(self) -> None:
        for part in self._parts:
            self.pipe.put(part.raw)
        self._parts.clear()
        self._parts_bytes = 0

    def _note(self, kind: str, detail: dict[str, Any]) -> None:
        self._connection.note(kind, detail, self.name)

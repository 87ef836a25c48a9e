"""The faults that can be asked of a proxy: of the bytes of a direction, of its frames.

Knows nothing of sockets and clocks: a Lane does what is asked for here.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from feedhandler.testing.frames import Message
from feedhandler.testing.gaps import Gaps

__all__ = [
    "KEPT",
    "Bandwidth",
    "Blackhole",
    "ByteFault",
    "End",
    "Faults",
    "FrameFault",
    "Lane",
    "Latency",
    "Limit",
    "Match",
    "Slicer",
    "SlowClose",
    "Stall",
    "Wanted",
]

UPDATE = "orderbook_update"

Detail = dict[str, Any]


class End(Enum):
    """How a direction, or with it the connection, ends."""

    EOF = "eof"  # the source has ended
    FIN = "half_close"  # this direction only, the source goes on
    CLOSE = "close"  # FIN to both sides
    RESET = "reset"  # RST to both sides


# ── bytes ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class ByteFault:
    """Something that is done to all bytes of a direction as long as it is on."""

    @property
    def kind(self) -> str:
        """Its name in the log."""
        return type(self).__name__.lower()


@dataclass(frozen=True, eq=False)
class Latency(ByteFault):
    """Every byte comes later, none before another."""

    delay_s: float
    jitter_s: float
    seed: int


@dataclass(frozen=True, eq=False)
class Bandwidth(ByteFault):
    """No more than so many bytes a second."""

    bytes_per_s: int


@dataclass(frozen=True, eq=False)
class Slicer(ByteFault):
    """Pieces of so many bytes, each written on its own."""

    size_bytes: int
    pause_s: float


@dataclass(frozen=True, eq=False)
class Limit(ByteFault):
    """So many bytes more, then the end of the connection."""

    size_bytes: int
    end: End


@dataclass(frozen=True, eq=False)
class Blackhole(ByteFault):
    """Nothing arrives, and nothing else tells."""


@dataclass(frozen=True, eq=False)
class Stall(ByteFault):
    """Nothing moves, and all of it arrives afterwards."""


@dataclass(frozen=True, eq=False)
class SlowClose(ByteFault):
    """The end of the source is told so much later."""

    delay_s: float

    @property
    def kind(self) -> str:
        """Its name in the log."""
        return "slow_close"


F = TypeVar("F", bound=ByteFault)

# ── frames ────────────────────────────────────────────────────────────────────────────


class Wanted(TypedDict, total=False):
    """What a message must be for a fault to meet it; nothing given is any message.

    *number* is its place in its direction of the connection, from 1; control frames
    count. *where* is asked last, about the JSON object.
    """

    type: str | Collection[str]
    action: str | Collection[str]
    channel: str | Collection[str]
    id: str | Collection[str]
    sequence: int | range
    number: int | range
    where: Callable[[dict[str, Any]], bool]


class Match:
    """A predicate on messages."""

    def __init__(self, wanted: Wanted) -> None:
        unknown = set(wanted) - Wanted.__annotations__.keys()
        if unknown:
            raise TypeError(f"messages have no {', '.join(sorted(unknown))} to match")
        self._texts = {
            key: (value,) if isinstance(value, str) else tuple(value)
            for key in ("type", "action", "channel", "id")
            if (value := wanted.get(key)) is not None
            and isinstance(value, str | Collection)
        }
        self._sequence = as_range(wanted.get("sequence"))
        self._number = as_range(wanted.get("number"))
        self._where = wanted.get("where")

    def wants(self, message: Message) -> bool:
        """Tell whether a message is one of those; reads its JSON only if it must."""
        if self._number is not None and message.number not in self._number:
            return False
        for key, values in self._texts.items():
            if message.fields.get(key) not in values:
                return False
        if self._sequence is not None and message.sequence not in self._sequence:
            return False
        return self._where is None or bool(
            message.fields and self._where(message.fields)
        )


def as_range(value: int | range | None) -> range | None:
    """Return the numbers that are meant."""
    return range(value, value + 1) if isinstance(value, int) else value


class Lane(Protocol):
    """What a fault can do with one direction of one connection."""

    def send(self, data: bytes) -> None:
        """Pass whole frames on."""

    def send_later(self, data: bytes, delay_s: float) -> bool:
        """Pass them on later, others overtake them; False if too much waits already."""

    def keep(self, fault: "FrameFault", message: Message) -> bool:
        """Keep a message until the fault takes it again; False if too much is kept."""

    def kept(self, fault: "FrameFault") -> Message | None:
        """Take the message that was kept for a fault."""

    def finish(self, data: bytes, end: End) -> None:
        """Pass bytes on, the last of the connection."""

    def half_close(self) -> None:
        """End this direction, and swallow what still comes."""

    def wake(self) -> None:
        """Hear that faults have changed."""

    def release(self, fault: "FrameFault | None" = None) -> None:
        """Pass on what was kept for a fault; for None all of it, and what is late."""


Act = Callable[[Lane, Message], Detail | None]


class FrameFault:
    """A fault of single messages: it happens *count* times, or always.

    It lets the first *after* messages pass that match; *happened* counts.
    """

    def __init__(
        self, kind: str, match: Match, act: Act, count: int | None, after: int
    ) -> None:
        if (count is not None and count < 1) or after < 0:
            raise ValueError(f"{kind} cannot happen {count} times after {after}")
        self.kind = kind
        self.happened = 0
        self._match = match
        self._act = act
        self._count = count
        self._after = after

    @property
    def is_spent(self) -> bool:
        """Whether it will not happen again."""
        return self._count is not None and self.happened >= self._count

    def meet(self, lane: Lane, message: Message) -> Detail | None:
        """Do it if it is to be done; return what the log says, None if it was not."""
        if self.is_spent or not self._match.wants(message):
            return None
        if self._after:
            self._after -= 1
            return None
        detail = self._act(lane, message)
        if detail is not None and detail is not KEPT:
            self.happened += 1
        return detail


# A message that was kept back: nothing has happened to it yet.
KEPT: Detail = {"kept": True}


# ── what a user asks for ──────────────────────────────────────────────────────────────


class Faults:
    """The faults of one direction: of every connection, or of one.

    Each method turns one on, and returns it for end(). A byte fault replaces another of
    its kind, and is on until end() or heal(); a message meets the first frame fault
    that wants it, those of its own connection first. The loop's thread only.
    """

    def __init__(self, lanes: Callable[[], Iterable[Lane]], sealed: str = "") -> None:
        self.active: dict[type[ByteFault], ByteFault] = {}
        self.of_frames: list[FrameFault] = []
        self._lanes = lanes
        self._sealed = sealed

    # ── bytes ─────────────────────────────────────────────────────────────────────

    def latency(
        self, delay_s: float, jitter_s: float = 0.0, *, seed: int = 0
    ) -> ByteFault:
        """Make every byte late by *delay_s*, give or take *jitter_s*; in order."""
        return self._turn_on(Latency(delay_s, jitter_s, seed))

    def bandwidth(self, bytes_per_s: int) -> ByteFault:
        """Pass on so many bytes a second; the rest waits at the source."""
        return self._turn_on(Bandwidth(positive(bytes_per_s)))

    def slicer(self, size_bytes: int, pause_s: float = 0.0) -> ByteFault:
        """Write pieces of so many bytes, with a pause after each."""
        return self._turn_on(Slicer(positive(size_bytes), pause_s))

    def limit_data(self, size_bytes: int, *, reset: bool = False) -> ByteFault:
        """End a connection after so many bytes more, with FIN or RST."""
        end = End.RESET if reset else End.CLOSE
        return self._turn_on(Limit(size_bytes, end))

    def blackhole(self) -> ByteFault:
        """Swallow everything, also the end of the source; connections stay.

        Whole frames are swallowed: after end() or heal() the stream is still one, but
        not that of a wss target. An end of the source is told then.
        """
        return self._turn_on(Blackhole())

    def stall(self) -> ByteFault:
        """Pass nothing on, and lose nothing: the source is not read any more."""
        return self._turn_on(Stall())

    def slow_close(self, delay_s: float) -> ByteFault:
        """Tell the end of the source so much later."""
        return self._turn_on(SlowClose(delay_s))

    def half_close(self) -> None:
        """End this direction of every open connection with FIN; the other goes on."""
        for lane in self._lanes():
            lane.half_close()

    # ── frames ────────────────────────────────────────────────────────────────────

    def drop(
        self, *, count: int | None = 1, after: int = 0, **wanted: Unpack[Wanted]
    ) -> FrameFault:
        """Lose messages."""
        return self._add("drop", wanted, lambda *_: {}, count, after)

    def duplicate(
        self,
        *,
        copies: int = 1,
        count: int | None = 1,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """Send messages again, *copies* times at once."""

        def act(lane: Lane, message: Message) -> Detail:
            lane.send(message.raw * (1 + copies))
            return {"copies": copies}

        return self._add("duplicate", wanted, act, count, after)

    def swap(
        self, *, count: int | None = 1, after: int = 0, **wanted: Unpack[Wanted]
    ) -> FrameFault:
        """Exchange messages with the next one that matches; others pass in between."""
        holder: list[FrameFault] = []

        def act(lane: Lane, message: Message) -> Detail | None:
            first = lane.kept(holder[0])
            if first is None:
                return KEPT if lane.keep(holder[0], message) else None
            lane.send(message.raw)
            lane.send(first.raw)
            return {"with": first.describe()}

        holder.append(self._add("swap", wanted, act, count, after))
        return holder[0]

    def delay(
        self,
        delay_s: float,
        *,
        count: int | None = 1,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """Make messages late; those behind overtake them."""

        def act(lane: Lane, message: Message) -> Detail | None:
            return {"s": delay_s} if lane.send_later(message.raw, delay_s) else None

        return self._add("delay", wanted, act, count, after)

    def corrupt(
        self,
        offset: int = 0,
        *,
        behind: bytes = b"",
        flip: int = 0x01,
        count: int | None = 1,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """Flip bits of one byte of the payload; the frame stays valid.

        The byte is at *offset*, counted from the end of the first *behind*: a payload
        that is too short or has no such text passes. One digit becomes another.
        """

        def act(lane: Lane, message: Message) -> Detail | None:
            found = message.payload.find(behind)
            place = found + len(behind) + offset
            if found < 0 or not 0 <= place < len(message.payload):
                return None
            changed = bytearray(message.payload)
            changed[place] ^= flip
            lane.send(message.with_payload(bytes(changed)))
            return {"offset": place}

        if not 0 < flip < 256:
            raise ValueError(f"flip {flip} is not 1 to 255")
        return self._add("corrupt", wanted, act, count, after)

    def truncate(
        self,
        keep_bytes: int,
        *,
        count: int | None = 1,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """Send the first bytes of the payload only, as a valid frame of that length."""

        def act(lane: Lane, message: Message) -> Detail | None:
            if len(message.payload) <= keep_bytes:
                return None
            lane.send(message.with_payload(message.payload[:keep_bytes]))
            return {"kept_bytes": keep_bytes}

        return self._add("truncate", wanted, act, count, after)

    def rewrite(
        self,
        change: Callable[[bytes], bytes],
        *,
        count: int | None = 1,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """Send what *change* makes of the payload."""

        def act(lane: Lane, message: Message) -> Detail:
            lane.send(message.with_payload(change(message.payload)))
            return {}

        return self._add("rewrite", wanted, act, count, after)

    def cut(
        self,
        after_bytes: int,
        *,
        reset: bool = False,
        after: int = 0,
        **wanted: Unpack[Wanted],
    ) -> FrameFault:
        """End the connection inside a message: behind so many bytes of its frame."""
        end = End.RESET if reset else End.CLOSE

        def act(lane: Lane, message: Message) -> Detail:
            lane.finish(message.raw[:after_bytes], end)
            return {"after_bytes": after_bytes}

        return self._add("cut", wanted, act, 1, after)

    def gap(self, gaps: Gaps, **wanted: Unpack[Wanted]) -> FrameFault:
        """Lose the updates of order books that *gaps* says."""

        def act(lane: Lane, message: Message) -> Detail | None:
            channel, sequence = message.fields.get("channel"), message.sequence
            if not isinstance(channel, str) or sequence is None:
                return None
            return {} if gaps.take(lane, channel, sequence) else None

        return self._add("gap", {"type": UPDATE, **wanted}, act, None, 0)

    # ── the end ───────────────────────────────────────────────────────────────────

    def end(self, fault: ByteFault | FrameFault) -> None:
        """Turn one off; one that is off already stays so."""
        if isinstance(fault, FrameFault):
            self.of_frames = [each for each in self.of_frames if each is not fault]
            for lane in self._lanes():
                lane.release(fault)
        elif self.active.get(type(fault)) is fault:
            del self.active[type(fault)]
        self._changed()

    def heal(self) -> None:
        """Turn everything off, and send what is late or was kept back."""
        self.active.clear()
        self.of_frames.clear()
        for lane in self._lanes():
            lane.release()
        self._changed()

    def _turn_on(self, fault: ByteFault) -> ByteFault:
        self.active[type(fault)] = fault
        self._changed()
        return fault

    def _add(
        self, kind: str, wanted: Wanted, act: Act, count: int | None, after: int
    ) -> FrameFault:
        if self._sealed:
            raise ValueError(self._sealed)
        fault = FrameFault(kind, Match(wanted), act, count, after)
        self.of_frames.append(fault)
        return fault

    def _changed(self) -> None:
        for lane in self._lanes():
            lane.wake()


def positive(number: int) -> int:
    """Refuse what would stop everything for ever."""
    if number < 1:
        raise ValueError(f"{number} bytes is not 1 or more")
    return number
